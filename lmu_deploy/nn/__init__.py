"""LMU layers and networks in PyTorch; what is here is imported when it is first used.

`lmu_deploy.nn.config` needs no torch, so that a command can check a configuration cheaply.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

# Training touches large new tensors at every step, and most of their cost is the kernel handing
# out their pages. With this, torch asks for huge ones, which are ten times cheaper (measured: a
# fifth of a training step); it has no effect where the kernel has none, or once torch has begun.
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
