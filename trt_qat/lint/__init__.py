"""Preflight: what TensorRT will do with a QDQ ONNX, as rules with an id."""
