"""Convert IntegerNetwork to ONNX: in integers only, or in real numbers with Q/DQ pairs."""

from converters.onnx.quantized.export import to_onnx_integer, to_onnx_integer_step, to_onnx_qdq

__all__ = ["to_onnx_integer", "to_onnx_integer_step", "to_onnx_qdq"]
