"""Engines that others built, published layer by layer, and the networks they were built from."""
