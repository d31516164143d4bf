"""One way in which a network does not fit a chip, and what would mend it."""

from __future__ import annotations

from dataclasses import dataclass

from lmu_deploy.hardware.profile import Figure


@dataclass(frozen=True)
class Violation:
    """One way in which a network does not fit.

    Attributes
    ----------
    object : str
        What does not fit, such as "weights of layer0/memory/recurrent, bits".
    value, limit : int
        What it takes and what there is.
    remedy : str
        The least change that mends it.
    """

    object: str
    value: int
    limit: int
    remedy: str

    def __str__(self) -> str:
        return f"{self.object}: {self.value}, and at most {self.limit} are possible; {self.remedy}."


def too_wide(what: str, bits: int, limit: Figure, remedy: str) -> Violation:
    """Say that a number has more bits than there are for it."""
    return Violation(f"{what}, bits", bits, int(limit), remedy)
