"""Quantizers: the INT8 grid, fake quantization of a tensor, scales that are learned."""
