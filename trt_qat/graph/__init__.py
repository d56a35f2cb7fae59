"""ONNX graphs, read and checked on the CPU: nothing here imports torch or TensorRT."""
