"""Accuracy on real weights and data: every method beside the others and beside other tools."""
