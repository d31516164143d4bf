"""What a connection brings its target: worked out when it is sent, or when it is used."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

_NONE: Mapping[str, int] = MappingProxyType({})


class Drive(Protocol):
    """What a connection brings; its accumulators' saturations count in the step that uses it."""

    def add_to(self, total: Any) -> Mapping[str, int]:
        """Add it to what reaches the target, (batch, n_out), in place; give the saturations."""

    def kept(self) -> Drive:
        """Give one that stays as it is when its fan delivers again."""


class ReadyDrive:
    """Sums that have been limited and shifted already.

    Parameters
    ----------
    values : array, shape (batch, n_out)
        Nothing but the fan that made them may write to them.
    saturations : mapping of accumulator to int
    lasting : bool
        Whether the fan leaves them alone, and makes new ones when it delivers again.
    """

    __slots__ = ("_lasting", "_saturations", "_values")

    def __init__(
        self, values: Any, saturations: Mapping[str, int] = _NONE, lasting: bool = True
    ) -> None:
        self._values, self._saturations, self._lasting = values, saturations, lasting

    def add_to(self, total: Any) -> Mapping[str, int]:
        """Add the values."""
        total += self._values
        return self._saturations

    def kept(self) -> ReadyDrive:
        """Copy the values, or give itself where that is not needed."""
        return self if self._lasting else ReadyDrive(self._values + 0, self._saturations)


def ready_drives(
    sums: Any,
    places: Mapping[str, list[slice]],
    saturations: Mapping[str, int],
    lasting: bool,
) -> dict[str, ReadyDrive]:
    """Add up the slices of each connection, in place in the columns of its first.

    Parameters
    ----------
    sums : array, shape (batch, rows of all connections)
        Limited and shifted.
    places : mapping of place to list of slice
        Each connection's columns.
    saturations : mapping of accumulator to int
        Of all connections; only those that saturated.
    lasting : bool
        Whether `sums` stay as they are when the fan delivers again.
    """
    drives = {}
    for place, (first, *others) in places.items():
        values = sums[:, first]
        for other in others:
            values += sums[:, other]
        own = saturations and {k: n for k, n in saturations.items() if k.startswith(f"{place}/")}
        drives[place] = ReadyDrive(values, own, lasting)
    return drives
