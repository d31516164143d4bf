"""A PyTorch file of weights as plain arrays: `torch.load(weights_only=True)`, sizes checked first.

The archive must hold its data uncompressed, as PyTorch writes it, so that nothing in it is larger
than the file; a tensor that repeats its storage (a stride of zero) is counted before it is copied.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converters.sandbox import limits
from lmu_deploy.core.errors import InputError, MissingDependencyError

try:
    import torch
except ImportError as error:
    raise MissingDependencyError(
        "the library torch is absent; install it with: pip install 'lmu-deploy[train]'."
    ) from error

NESTS = ("state_dict", "model_state_dict", "model")
"""Where checkpoints keep the state dictionary, if the file is not one itself."""


def read_state_dict(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the arrays of a state dictionary, or of a checkpoint that holds one.

    Raises
    ------
    InputError
        When the file is no PyTorch archive, needs code to be run, or holds no state dictionary.
    """
    _check_archive(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            "it holds more than weights, or is damaged; save model.state_dict() with torch.save."
        ) from error
    for nest in NESTS:
        if isinstance(found, Mapping) and isinstance(found.get(nest), Mapping):
            found = found[nest]
            break
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        raise InputError("it holds no state dictionary; save model.state_dict() with torch.save.")
    if len(found) > limits.OBJECTS:
        raise InputError(f"it holds more than {limits.OBJECTS} weights; it cannot be imported.")
    tensors = {key: value for key, value in found.items() if isinstance(value, torch.Tensor)}
    for key, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise InputError(f"weight {key!r} is no plain dense tensor; save it as one.")
    if (size := sum(t.numel() * t.element_size() for t in tensors.values())) > limits.ARRAY_BYTES:
        raise InputError(f"it holds {size} bytes of weights, more than {limits.ARRAY_BYTES}.")
    return {key: _array(key, tensor) for key, tensor in tensors.items()}, {}


def _array(key: str, tensor: torch.Tensor) -> np.ndarray:
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    array = tensor.detach().numpy()
    if array.dtype.kind not in "fiub":
        raise InputError(f"weight {key!r} has type {array.dtype}; save real numbers.")
    return np.asarray(array, order="C")  # ascontiguousarray would make a list of a number


def _check_archive(path: Path) -> None:
    """Refuse what is no uncompressed archive; files from before PyTorch 1.6 are plain pickles."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise InputError(
            "it is no file of PyTorch 1.6 or later; save model.state_dict() with torch.save."
        ) from error
    if len(entries) > limits.OBJECTS:
        raise InputError(f"it holds more than {limits.OBJECTS} entries; it cannot be imported.")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise InputError("it is compressed, which PyTorch never does; save it with torch.save.")
