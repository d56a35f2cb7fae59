"""How far arrays are apart, in numbers."""
