"""What a connection brings its target: worked out when it is sent, or when it is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


class Drive(Protocol):
    """What a connection brings; its accumulators' saturations count in the step that uses it."""

    def add_to(self, total: Any) -> Mapping[str, int]:
        """Add it to what reaches the target, (batch, n_out), in place; give the saturations."""

    def kept(self) -> Drive:
        """Give one that stays as it is when its fan delivers again."""


@dataclass(frozen=True)
class ReadyDrive:
    """Sums that have been limited and shifted already.

    Attributes
    ----------
    values : array, shape (batch, n_out)
    saturations : mapping of accumulator to int
    """

    values: Any
    saturations: Mapping[str, int] = field(default_factory=dict)

    def add_to(self, total: Any) -> Mapping[str, int]:
        """Add the values."""
        total += self.values
        return self.saturations

    def kept(self) -> ReadyDrive:
        """Copy the values."""
        return ReadyDrive(self.values + 0, self.saturations)


def ready_drives(
    sums: Any, places: Mapping[str, list[slice]], saturations: Mapping[str, int]
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
    """
    drives = {}
    for place, (first, *others) in places.items():
        values = sums[:, first]
        for other in others:
            values += sums[:, other]
        own = saturations and {k: n for k, n in saturations.items() if k.startswith(f"{place}/")}
        drives[place] = ReadyDrive(values, own)
    return drives
