"""Target `onnxruntime`: float and integer networks as ONNX graphs, run by ONNX Runtime."""

from targets.onnxruntime.target import OnnxRuntimeTarget

__all__ = ["OnnxRuntimeTarget"]
