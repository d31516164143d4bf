"""LMUNetwork to ONNX, in four forms."""
