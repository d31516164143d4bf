"""What calls without weights do to a signal: take the last step, swap axes, normalise, or nothing.

In: the name of a function or method, what it is given besides the signal. Out: events, latest
first; none for a call that changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from converters.torch_modules.path import Event, Last, Narrow, Softmax, Swap, Widen

PASSED = ("contiguous", "float", "double", "to", "type", "detach", "clone", "cpu", "cuda")
"""Methods that leave the values of a signal as they are."""


def read_call(name: str, args: tuple[Any, ...], more: dict[str, Any]) -> list[Event] | None:
    """Give what a call does; None when that cannot be represented.

    Parameters
    ----------
    name : str
        Such as ``getitem`` or ``transpose``.
    args, more : tuple, dict
        Its arguments after the signal, by place and by name.
    """
    if name in PASSED:
        return []
    return _READERS[name](args, more) if name in _READERS else None


def _axis(args: tuple[Any, ...], more: dict[str, Any]) -> Any:
    return args[0] if args else more.get("dim")


def _read_dropout(args: tuple[Any, ...], more: dict[str, Any]) -> list[Event] | None:
    """Nothing, unless it stays active in evaluation."""
    training = more.get("training", args[1] if len(args) > 1 else True)
    return None if training else []


def _read_index(args: tuple[Any, ...], more: dict[str, Any]) -> list[Event] | None:
    """Read ``x[-1]``, ``x[:, -1]``, ``x[:, -1, :]``; None for others."""
    index = args[0] if isinstance(args[0], tuple) else (args[0],)
    rest = [part for part in index if part not in (slice(None), Ellipsis)]
    if rest != [-1] or Ellipsis in index[: index.index(-1)] or index.index(-1) > 1:
        return None
    return [Last(index.index(-1))]


def _read_select(args: tuple[Any, ...], more: dict[str, Any]) -> list[Event] | None:
    axis, index = (
        (*args, more.get("dim"), more.get("index"))[:2]
        if args
        else (
            more.get("dim"),
            more.get("index"),
        )
    )
    return [Last(axis)] if index == -1 and axis in (0, 1) else None


def _read_transpose(args: tuple[Any, ...], more: dict[str, Any]) -> list[Event] | None:
    return [Swap()] if sorted([*args, *more.values()]) == [0, 1] else None


def _read_permute(args: tuple[Any, ...], more: dict[str, Any]) -> list[Event] | None:
    order = args[0] if args and isinstance(args[0], tuple | list) else (*args, *more.values())
    return [Swap()] if tuple(order) == (1, 0, 2) else None


def _read_widening(args: tuple[Any, ...], more: dict[str, Any]) -> list[Event] | None:
    return [Widen()] if _axis(args, more) in (-1, 2) else None


def _read_narrowing(args: tuple[Any, ...], more: dict[str, Any]) -> list[Event] | None:
    return [Narrow()] if _axis(args, more) in (-1, 2) else None


_READERS: dict[str, Callable[[tuple[Any, ...], dict[str, Any]], list[Event] | None]] = {
    "getitem": _read_index,
    "select": _read_select,
    "transpose": _read_transpose,
    "permute": _read_permute,
    "unsqueeze": _read_widening,
    "squeeze": _read_narrowing,
    "softmax": lambda args, more: [Softmax(False)],
    "log_softmax": lambda args, more: [Softmax(True)],
    "dropout": _read_dropout,
}
