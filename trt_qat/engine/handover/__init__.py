"""An engine leaves: bundles for Triton, DeepStream and trtexec."""
