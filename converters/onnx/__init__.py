"""Convert Network to and from ONNX, and IntegerNetwork to ONNX."""

from __future__ import annotations

from lmu_deploy.core.errors import MissingDependencyError

try:
    from converters.onnx.graph import check_onnx, save_onnx
    from converters.onnx.models import from_onnx, read_onnx, to_onnx, to_onnx_step
    from converters.onnx.quantized import to_onnx_integer, to_onnx_integer_step, to_onnx_qdq
except ModuleNotFoundError as error:
    if (error.name or "").split(".")[0] not in ("onnx", "google"):
        raise
    raise MissingDependencyError(
        "the library onnx is absent; install it with: pip install 'lmu-deploy[onnx]'."
    ) from error

__all__ = [
    "check_onnx",
    "from_onnx",
    "read_onnx",
    "save_onnx",
    "to_onnx",
    "to_onnx_integer",
    "to_onnx_integer_step",
    "to_onnx_qdq",
    "to_onnx_step",
]
