"""Convert torch modules that consist of LMU, LSTM and linear layers to an LMUNetwork.

`trace.py` traces a module's forward, `assemble.py` builds the network, and `convert.py` has
:func:`from_torch`, which compares both on the same inputs. `state_dict.py` reads files of bare
weights and does not need torch.
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
