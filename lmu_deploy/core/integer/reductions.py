"""Populations that reduce: the largest of some choices; a sequence to its sum, mean or maximum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lmu_deploy.core.integer.functions import Counts, saturated
from lmu_deploy.core.integer.parts import Format, Place, check_type
from lmu_deploy.core.integer.populations import LARGEST_SIZE, Population
from lmu_deploy.core.validation import check_choice, check_integer, set_fields

REDUCTIONS = ("sum", "mean", "max", "last")


@dataclass(frozen=True, eq=False, repr=False)
class Maximum(Population):
    """The greatest of several drives of each neuron: pooling over steps or features.

    Attributes
    ----------
    place, size, message
    choices : int
        Number of drives of each neuron; drive ``k * size + i`` is choice k of neuron i.
    """

    place: Place
    size: int
    message: Format
    choices: int

    @property
    def bias(self) -> None:  # type: ignore[override]
        """None: the drives are compared as they are."""

    def __post_init__(self) -> None:
        set_fields(self, choices=check_integer("maximum choices", self.choices, 1, 65_536))
        check_type("population", self.place, Place)
        check_type(f"{self.place}", self.message, Format)
        set_fields(self, size=check_integer(f"{self.place} size", self.size, 1, LARGEST_SIZE))

    @property
    def drive_size(self) -> int:
        """Number of sums that enter the population."""
        return self.choices * self.size

    def update(self, state: Any, drive: np.ndarray) -> tuple[Any, np.ndarray, Counts]:
        """Take the greatest."""
        counts: Counts = {}
        greatest = drive.reshape(len(drive), self.choices, self.size).max(axis=1)
        return state, saturated(greatest, self.message.limit, "message", counts), counts


@dataclass(frozen=True, eq=False, repr=False)
class Reduction(Population):
    """The sum, mean, maximum or last of the frames of a sequence, sent once, at its end.

    ``s = sat(s + D)`` at every frame, or ``s = max(s, sat(D))``. At the end the message is
    ``sat(floor((2 s + n) / (2 n)))`` for a mean of n frames, which is one division on the host, and
    ``sat(s)`` otherwise.

    Attributes
    ----------
    place, size, message
    kind : {"sum", "mean", "max", "last"}
    state : Format
        Of s, up to 32 bits.
    """

    place: Place
    size: int
    state: Format
    message: Format
    kind: str
    bias: np.ndarray | None = None
    stateless: ClassVar[bool] = False
    counted: ClassVar[tuple[str, ...]] = ("state", "message")

    def __post_init__(self) -> None:
        self.check()
        check_type(f"{self.place}", self.state, Format)
        set_fields(self, kind=check_choice("reduction", self.kind, REDUCTIONS))

    @property
    def stored(self) -> Format:
        """Format of s."""
        return self.state

    def start(self, batch: int) -> Any:
        """Return a sum of zero of no frames."""
        return 0, np.zeros((batch, self.size), np.int64)

    def update(self, state: Any, drive: np.ndarray) -> tuple[Any, np.ndarray, Counts]:
        """Take a frame; the messages are what would be sent if it were the last."""
        counts: Counts = {}
        frames, s = state
        new = self.driven(drive)
        if self.kind in ("sum", "mean"):
            new = s + new
        new = saturated(new, self.state.limit, "state", counts)
        s = np.maximum(s, new) if self.kind == "max" and frames else new
        return (frames + 1, s), s, counts

    def finish(self, state: Any) -> tuple[np.ndarray, Counts]:
        """Return the messages at the end of the sequence."""
        counts: Counts = {}
        frames, s = state
        if self.kind == "mean":
            s = (2 * s + frames) // (2 * max(frames, 1))
        return saturated(s, self.message.limit, "message", counts), counts
