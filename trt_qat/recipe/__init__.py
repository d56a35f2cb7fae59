"""What the user wants: the keys of a recipe, read and checked."""
