"""What a model is for: how good its answers are, sample by sample and as a whole, in numpy."""
