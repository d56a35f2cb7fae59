"""The flow of a recipe: its plan, its stages, the folder that they fill."""
