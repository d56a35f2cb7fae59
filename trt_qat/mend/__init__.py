"""Mends of an ONNX that are proven by running it: preflight's fixes and the FP16 cast."""
