"""Where two runners differ: outputs, layers, and the fused layer that is to blame."""
