"""Several virtual chips measured side by side, each exactly as it would be alone.

A calibration of one small chip spends its time between array operations, not in them; a batch of
chips takes hardly longer. All chips of a batch see the same states, and their membranes start and
are shaken alike, as those of a chip measured alone are: chips differ by their devices, not by luck.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from converters.spiking.bench import Chip, Driven
from lmu_deploy.spiking_chip import Populations


@dataclass(frozen=True)
class Batch:
    """Chips that differ in the devices of their populations alone.

    Attributes
    ----------
    chips : sequence of Chip
    """

    chips: Sequence[Chip]

    def neurons(self, copies: int, rng: np.random.Generator) -> Driven:
        """Make simulated copies of every chip.

        Their `step` takes scaled states (copies, states) that all chips see, and gives spikes
        (copies, chips * states, neurons), chip by chip.
        """
        driven = self.apart(copies, rng)
        return driven if len(self.chips) == 1 else _Shared(driven, len(self.chips))

    def apart(self, copies: int, rng: np.random.Generator) -> Driven:
        """Make the same, but for states of their own: `step` takes (copies, chips * states)."""
        if len(self.chips) == 1:
            return self.chips[0].neurons(copies, rng)
        alike: Any = _Alike(rng, len(self.chips))
        whole = replace(self.chips[0], populations=_side_by_side(self.chips))
        return whole.neurons(copies, alike)


def _side_by_side(chips: Sequence[Chip]) -> Populations:
    names = ["encoders", "gains", "biases", "gain_factors", "bias_factors"]
    if chips[0].populations.tau_factors is not None:
        names.append("tau_factors")
    return Populations(
        *(np.concatenate([getattr(chip.populations, name) for chip in chips]) for name in names)
    )


class _Shared:
    """Neurons of several chips that are shown the same states."""

    def __init__(self, neurons: Driven, chips: int) -> None:
        self._neurons, self._chips = neurons, chips

    def step(self, x: np.ndarray) -> np.ndarray:
        return self._neurons.step(np.tile(x, (1, self._chips)))


class _Alike:
    """What neurons ask of a Generator: arrays (copies, states, neurons), repeated for each chip."""

    def __init__(self, rng: np.random.Generator, chips: int) -> None:
        self._rng, self._chips = rng, chips

    def random(self, shape: tuple[int, ...], dtype: Any = np.float64) -> np.ndarray:
        return self._repeated(self._rng.random(self._of_one(shape), dtype=dtype))

    def standard_normal(self, shape: tuple[int, ...]) -> np.ndarray:
        return self._repeated(self._rng.standard_normal(self._of_one(shape)))

    def _of_one(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        copies, states, *rest = shape
        return (copies, states // self._chips, *rest)

    def _repeated(self, drawn: np.ndarray) -> np.ndarray:
        return np.tile(drawn, (1, self._chips, 1))
