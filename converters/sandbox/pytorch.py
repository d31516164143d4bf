"""Reader of PyTorch weight files, with ``torch.load(weights_only=True)`` and sizes checked first.

The data in the archive must be uncompressed, as PyTorch writes it, so that nothing in it is larger
than the file. A tensor that repeats its storage (a stride of zero) is counted before it is copied.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from converters.sandbox import process
from lmu_deploy.core.errors import InputError

COMPLEX = "complex"
"""Entry of the header: types of complex weights, by name; their values are not read."""

NESTS = ("state_dict", "model_state_dict", "model")
"""Keys under which checkpoints store the state dictionary."""


def read_state_dict(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the arrays of a state dictionary, or of a checkpoint that contains one.

    Raises
    ------
    InputError
        When the file is not a PyTorch archive, needs code to be run, or has no state dictionary.
    """
    _check_archive(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            "it contains more than weights, or is damaged; save model.state_dict() with torch.save."
        ) from error
    for nest in NESTS:
        if isinstance(found, Mapping) and isinstance(found.get(nest), Mapping):
            found = found[nest]
            break
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        raise InputError("it has no state dictionary; save model.state_dict() with torch.save.")
    if len(found) > process.OBJECTS:
        raise InputError(f"it has more than {process.OBJECTS} weights; it cannot be imported.")
    tensors = {key: value for key, value in found.items() if isinstance(value, torch.Tensor)}
    for key, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise InputError(f"weight {key!r} is not a dense tensor; save it as one.")
    if (size := sum(t.numel() * t.element_size() for t in tensors.values())) > process.ARRAY_BYTES:
        raise InputError(f"it has {size} bytes of weights, more than {process.ARRAY_BYTES}.")
    unreal = {key: str(tensor.dtype) for key, tensor in tensors.items() if tensor.is_complex()}
    arrays = {key: _array(key, t) for key, t in tensors.items() if key not in unreal}
    return arrays, {COMPLEX: unreal}


def _array(key: str, tensor: torch.Tensor) -> np.ndarray:
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    array = tensor.detach().numpy()
    if array.dtype.kind not in "fiub":
        raise InputError(f"weight {key!r} has type {array.dtype}; save real numbers.")
    return np.asarray(array, order="C")  # ascontiguousarray would turn a scalar into a vector


def _check_archive(path: Path) -> None:
    """Check that a file is an uncompressed archive; files before PyTorch 1.6 are pickles."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise InputError(
            "it is not a file of PyTorch 1.6 or later; save model.state_dict() with torch.save."
        ) from error
    if len(entries) > process.OBJECTS:
        raise InputError(f"it has more than {process.OBJECTS} entries; it cannot be imported.")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise InputError("it is compressed, which PyTorch never does; save it with torch.save.")
