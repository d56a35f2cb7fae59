"""TensorRT for RTX as a compiler: NVIDIA's own parser and builder, on a machine without a GPU."""
