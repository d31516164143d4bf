"""Torch modules that are made of our layers, whoever wrote them, as an LMUNetwork.

`trace.py` follows a module's forward, `path.py` says what each operation does to a signal,
`assemble.py` makes the network, and `verify.py` runs both on the same inputs; `state_dict.py`
reads files of bare weights and needs no torch of its own.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "from_torch": "converters.pytorch.convert",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
