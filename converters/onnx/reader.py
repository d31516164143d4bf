"""Convert float ONNX models of lmu_deploy back to Network.

In: a model of :mod:`converters.onnx.models`. Out: the network, equal in every weight. The arrays
are read from the initializers as the metadata describes; the nodes are not read, and models of
other programs are refused. Models of format 1, whose structure is layers one behind the other, are
read too, with arrays in float32.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, numpy_helper

from converters.onnx.graph import FORMAT, PREFIX
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import from_tree
from lmu_deploy.core.graph.network import GRAPH_CLASSES, Network
from lmu_deploy.core.network import FLOAT_CLASSES, LMUNetwork

_DTYPES = ("float16", "float32", "float64")


def read_onnx(path: Path | str) -> Network:
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


def from_onnx(model: onnx.ModelProto) -> Network:
    """Convert a float model of lmu_deploy back to the network.

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
    if metadata.get(f"{PREFIX}format") not in ("1", str(FORMAT)):
        raise InputError("this ONNX model has a format that this version cannot read; update it.")
    try:
        tree = json.loads(metadata[f"{PREFIX}structure"])
        initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        network = from_tree(tree, _Arrays(initializers), (*GRAPH_CLASSES, *FLOAT_CLASSES))
    except InputError:
        raise
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(
            f"the ONNX model is damaged ({type(error).__name__}); export it again."
        ) from error
    if isinstance(network, LMUNetwork):
        return Network.from_layers(network)
    if not isinstance(network, Network):
        raise InputError("the ONNX model has no complete network; export it again.")
    return network


class _Arrays(Mapping[str, np.ndarray]):
    """The arrays of initializers by their references, ``name`` or ``name:float64``.

    Each is made once, so that a file cannot cause the allocation of more than a few times its size.
    """

    def __init__(self, initializers: Mapping[str, onnx.TensorProto]) -> None:
        self._initializers = initializers
        self._made: dict[tuple[str, str], np.ndarray] = {}

    def __getitem__(self, reference: str) -> np.ndarray:
        if not isinstance(reference, str):
            raise KeyError(reference)
        name, dtype = reference, ""
        if reference not in self._initializers:
            name, _, dtype = reference.rpartition(":")
        if name not in self._initializers or dtype not in ("", *_DTYPES):
            raise KeyError(reference)
        if (name, dtype) not in self._made:
            array = _array(self._initializers[name])
            self._made[name, dtype] = array.astype(dtype) if dtype else array
        return self._made[name, dtype]

    def __iter__(self) -> Iterator[str]:
        return iter(self._initializers)

    def __len__(self) -> int:
        return len(self._initializers)


def _array(tensor: onnx.TensorProto) -> np.ndarray:
    """Return the data of an initializer; external data files are never opened."""
    if tensor.data_location != TensorProto.DEFAULT:
        raise InputError(f"tensor {tensor.name!r} lies in another file; export the model again.")
    return np.asarray(numpy_helper.to_array(tensor))
