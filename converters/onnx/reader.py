"""Convert float ONNX models of lmu_deploy back to LMUNetwork.

In: a model of :mod:`converters.onnx.models`. Out: the network, with arrays in float32. The arrays
are read from the initializers as the metadata describes; the nodes are not read, and models of
other programs are refused.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, numpy_helper

from converters.onnx.graph import FORMAT, PREFIX
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import from_tree
from lmu_deploy.core.network import FLOAT_CLASSES, LMUNetwork


def read_onnx(path: Path | str) -> LMUNetwork:
    """Read a network from an ONNX file that lmu_deploy wrote.

    Raises
    ------
    InputError
        When there is no such file, or it is not an ONNX file, was written by another program, or is
        damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the name.")
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except (DecodeError, ValueError, OSError) as error:
        raise InputError(
            f"{path} is not a readable ONNX file ({type(error).__name__}); export it again."
        ) from error
    try:
        return from_onnx(model)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def from_onnx(model: onnx.ModelProto) -> LMUNetwork:
    """Convert a float model of lmu_deploy back to the network, in float32.

    Parameters
    ----------
    model : onnx.ModelProto
        Sequence or step model.

    Raises
    ------
    InputError
        When the model was made by another program, or is damaged.
    """
    metadata = {item.key: item.value for item in model.metadata_props}
    form = metadata.get(f"{PREFIX}form", "")
    if form.startswith(("integer-", "qdq-")):
        raise InputError(
            f"this ONNX model has the form {form}, and only float models, which export writes with "
            "--to onnx or onnx-step, can be read; give one of those, or the .safetensors file."
        )
    if f"{PREFIX}structure" not in metadata:
        raise InputError("this ONNX model was not made by lmu_deploy; no other models can be read.")
    if metadata.get(f"{PREFIX}format") != str(FORMAT):
        raise InputError("this ONNX model has a format that this version cannot read; update it.")
    try:
        tree = json.loads(metadata[f"{PREFIX}structure"])
        floats = (t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT)
        tensors = {tensor.name: _array(tensor) for tensor in floats}
        network = from_tree(tree, tensors, FLOAT_CLASSES)
    except InputError:
        raise
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(
            f"the ONNX model is damaged ({type(error).__name__}); export it again."
        ) from error
    if not isinstance(network, LMUNetwork):
        raise InputError("the ONNX model has no complete network; export it again.")
    return network


def _array(tensor: onnx.TensorProto) -> np.ndarray:
    """Return the data of an initializer; external data files are never opened."""
    if tensor.data_location != TensorProto.DEFAULT:
        raise InputError(f"tensor {tensor.name!r} lies in another file; export the model again.")
    return np.asarray(numpy_helper.to_array(tensor))
