"""Judge an ONNX model, and write it whole or not at all."""

from __future__ import annotations

from pathlib import Path

import onnx

from lmu_deploy.atomic import written_whole
from lmu_deploy.errors import InputError


def check_onnx(model: onnx.ModelProto) -> None:
    """Run ONNX's own checker with type and shape inference.

    Raises
    ------
    InputError
        When the model is not valid.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InputError(f"the ONNX model is not valid: {error}") from error


def save_onnx(model: onnx.ModelProto, path: Path | str) -> None:
    """Check `model` and write it; the same model gives the same bytes.

    Raises
    ------
    InputError
        When the model is not valid or `path` cannot be written. Nothing is left half-written.
    """
    check_onnx(model)
    with written_whole(path) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
