"""Where figures come from: versions of what computed them, hashes of what they were computed on."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

PACKAGES = (
    "lmu-deploy",
    "numpy",
    "scipy",
    "scikit-learn",
    "torch",
    "lightning",
    "onnx",
    "onnxruntime",
    "lava-nc",
    "brian2",
)


def versions() -> dict[str, str]:
    """Versions of Python and of each library that can change a figure, unless it is absent."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def hash_file(path: Path | str) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def hash_array(array: np.ndarray) -> str:
    """SHA-256 of an array's type, shape and values (little-endian, C order), in hexadecimal."""
    array = np.ascontiguousarray(array)
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode())
    digest.update(array.reshape(-1).view(np.uint8).data)  # its own memory, not a copy
    return digest.hexdigest()
