"""What a worker computed for its last trials and the next ones may need again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")

_KEPT: dict[Hashable, OrderedDict[Hashable, Any]] = {}


def recent(key: tuple[Hashable, ...], make: Callable[[], T], most: int) -> T:
    """Give what was made for `key` before, or make it; the `most` last ones of a kind are kept.

    Parameters
    ----------
    key : tuple
        Its first entry is the kind; all of it decides the result.
    make : callable
    most : int
    """
    kind = _KEPT.setdefault(key[0], OrderedDict())
    if key not in kind:
        kind[key] = make()
        while len(kind) > most:
            kind.popitem(last=False)
    kind.move_to_end(key)
    made: T = kind[key]
    return made
