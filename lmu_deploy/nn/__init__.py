"""LMU layers and networks in PyTorch.

Names are imported on first use. :mod:`lmu_deploy.nn.config` does not import torch, so that commands
can validate a configuration quickly.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

# Training allocates large tensors at every step, and most of their cost is the allocation of pages
# by the kernel. With this variable torch requests huge pages, which are ten times cheaper
# (measured: a fifth of a training step). It has no effect on systems without huge pages or after
# torch is imported.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

_HOMES = {
    "LMU": "lmu_deploy.nn.lmu",
    "LMUState": "lmu_deploy.nn.lmu",
    "SequenceModel": "lmu_deploy.nn.model",
    "LMUConfig": "lmu_deploy.nn.config",
    "LSTMConfig": "lmu_deploy.nn.config",
    "ModelConfig": "lmu_deploy.nn.config",
    "read_model_config": "lmu_deploy.nn.config",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
