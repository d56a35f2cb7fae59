"""trt-qat: PyTorch models to 2:4-sparse INT8 TensorRT engines."""

__version__ = "0.1.0"
