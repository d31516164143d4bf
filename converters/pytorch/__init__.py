"""Convert torch modules to networks, and read files of bare weights.

`convert.py` has :func:`from_torch`. It runs a module with inputs from `inputs.py` while `trace.py`
reads every function that is called: `registry.py` finds the reader (`linear.py`, `pointwise.py`,
`shapes.py`, `temporal.py`, `recurrent.py`), and `signals.py` is the graph that grows. `leaves.py`
and `foreign.py` recognize modules that are one layer. `state_dict.py` reads files of bare weights
and does not need torch.
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
