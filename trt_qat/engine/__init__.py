"""TensorRT lives here only: build, inspect and run engines on 8.6, 10 and 11."""
