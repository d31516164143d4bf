"""A short name for what a representation holds: equal networks have equal fingerprints."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from lmu_deploy.files import to_tree

_NOT_COUNTED = ("provenance", "task")


def fingerprint(instance: Any) -> str:
    """Hash every number of a representation, with its place, shape and type.

    Parameters
    ----------
    instance : frozen dataclass
        What :func:`lmu_deploy.files.save` can write.

    Returns
    -------
    str
        64 hexadecimal digits (SHA-256). Provenance and the name of the task do not count: they say
        where a network comes from, not what it computes.
    """
    tree, tensors = to_tree(instance)
    digest = hashlib.sha256(json.dumps(_without(tree), sort_keys=True).encode())
    for key in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[key])
        digest.update(f"{key} {tensor.dtype.str} {tensor.shape}".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def _without(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without(value) for key, value in node.items() if key not in _NOT_COUNTED}
    return [_without(item) for item in node] if isinstance(node, list) else node
