"""The codes of TensorRT's INT8, and ours within it."""

CODE_MAX = 127
ACTIVATION_MIN = -128  # QuantizeLinear saturates here
WEIGHT_MIN = -127  # symmetric, so that folding a negative BatchNorm factor only flips signs
