"""An ONNX becomes an engine: options, tactics, timing cache, the build itself."""
