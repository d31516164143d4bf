"""When each population works on each step of each sample.

A population with offset o works on sample step t at chip step ``o + period * t``. After each sample
one idle step lets what is still on its way arrive unused.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Timetable:
    """When each step of each sample is worked on.

    Attributes
    ----------
    samples, steps : int
    period : int
        Chip steps a sample step.
    depth : int
        Offset of the last population, the readout.
    """

    samples: int
    steps: int
    period: int
    depth: int

    @property
    def span(self) -> int:
        """Chip steps from the start of one sample to that of the next."""
        return self.steps * self.period + 1

    @property
    def chip_steps(self) -> int:
        """Chip steps that one sample takes from its first input to its last output."""
        return (self.steps - 1) * self.period + self.depth + 1

    @property
    def total(self) -> int:
        """Chip steps of the whole run."""
        return (self.samples - 1) * self.span + self.chip_steps

    def at(self, tick: int, offset: int) -> tuple[int, int] | None:
        """Sample and step that a population works on at chip step `tick` (from 0), or None."""
        sample, phase = divmod(tick - offset, self.span)
        step, rest = divmod(phase, self.period)
        if rest or step >= self.steps or not 0 <= sample < self.samples:
            return None
        return sample, step
