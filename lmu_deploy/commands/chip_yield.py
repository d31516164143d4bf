"""`yield`: one network on many virtual chips, before and after each is calibrated.

A chip that works by luck proves nothing; what counts is how many of a batch would.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from json import dumps
from pathlib import Path
from typing import Any

import numpy as np

from lmu_deploy.atomic import write_text
from lmu_deploy.checks import check_integer
from lmu_deploy.commands.spike import CALIBRATION_SAMPLES
from lmu_deploy.commands.task_data import limited, task_for
from lmu_deploy.network import LMULayer, LMUNetwork
from lmu_deploy.progress import progress_bar
from lmu_deploy.reference import run_reference
from lmu_deploy.representations import load_float
from lmu_deploy.spiking_network import SpikingNetwork
from lmu_deploy.tasks.base import Split, Task

METHODS = ("none", "dynamic")
PERFECT = {"mismatch": 0.0, "membrane_noise": 0.0, "weight_bits": 0}
_NEURONS_AT_ONCE = 500_000


@dataclass(frozen=True)
class ChipYield:
    """The task's metric on every chip.

    Attributes
    ----------
    task, metric : str
        The metric is accuracy (more is better) or nrmse (less is better).
    profile : str
    samples, steps : int
        Of the test data that each chip was judged on.
    reference, ideal : float
        The metric of the float network, and of a calibrated chip without mismatch, noise and
        rounded weights.
    values : mapping of calibration to list of float
        One for each chip, in the order of their seeds.
    spikes_per_sample : mapping of calibration to float
        Mean of all chips.
    settings : mapping
        Options that every chip was made with.
    """

    task: str
    metric: str
    profile: str
    samples: int
    steps: int
    reference: float
    ideal: float
    values: dict[str, list[float]]
    spikes_per_sample: dict[str, float]
    settings: dict[str, Any]

    def reached_by(self, method: str, share: float) -> float:
        """Give the metric that this share (0 to 1) of the chips reaches or betters."""
        worst_first = 1.0 - share if self.metric == "accuracy" else share
        return float(np.quantile(self.values[method], worst_first))


def chip_yield(
    network: LMUNetwork | Path | str,
    *,
    profile: str = "generic-analog",
    task: str | None = None,
    chips: int = 100,
    first_chip: int = 0,
    limit: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    out: Path | str | None = None,
    **options: Any,
) -> ChipYield:
    """Judge a network on many virtual chips of a profile, before and after calibration.

    A chip c has the mismatch of chip seed c; tuning curves, calibration data and test data are the
    same for all. Before calibration a chip uses the decoders of an ideal one.

    Parameters
    ----------
    network : LMUNetwork or path
    profile : str
        An analog chip.
    task : str, optional
        By default the one that the network was trained for.
    chips, first_chip : int
        How many, and the seed of the first; each is judged alike whichever others there are.
    limit, steps : int, optional
        Only so many test samples, and of each so many steps (where every step is answered).
    seed : int
    out : path, optional
        Where to write the result as JSON.
    **options
        Passed to :func:`converters.spiking.spike`: neurons_per_state, mismatch, weight_bits, ...

    Raises
    ------
    InputError
        When a file, name or value is wrong, or a chip cannot hold the network.
    """
    chips = check_integer("chips", chips, 1, 100_000)
    first_chip = check_integer("first_chip", first_chip, 0, 2**31)
    if not isinstance(network, LMUNetwork):
        network = load_float(network, "yield")
    chosen = task_for(network, task)
    study = _Study(network, chosen, profile, limit, steps, seed, options)
    values: dict[str, list[float]] = {method: [] for method in METHODS}
    spikes: dict[str, list[float]] = {method: [] for method in METHODS}
    ideal = study.judge([study.make(seed, "dynamic", **PERFECT)])[0][0]
    with progress_bar("yield", "chips") as progress:
        for number, (method, seeds) in enumerate(work := list(study.plan(first_chip, chips))):
            for value, fired in study.judge([study.make(c, method) for c in seeds]):
                values[method].append(value)
                spikes[method].append(fired)
            progress((number + 1) * chips // len(work), chips)
    outputs = run_reference(network, study.split.inputs).outputs
    result = ChipYield(
        task=chosen.name,
        metric=chosen.metric,
        profile=profile,
        samples=len(study.split),
        steps=study.split.inputs.shape[1],
        reference=chosen.score(outputs, study.split.targets),
        ideal=ideal,
        values=values,
        spikes_per_sample={method: float(np.mean(fired)) for method, fired in spikes.items()},
        settings={**options, "seed": seed, "first_chip": first_chip},
    )
    if out is not None:
        write_text(out, dumps(asdict(result), indent=1) + "\n")
    return result


class _Study:
    """The data and options that all chips share."""

    def __init__(
        self,
        network: LMUNetwork,
        task: Task,
        profile: str,
        limit: int | None,
        steps: int | None,
        seed: int,
        options: dict[str, Any],
    ) -> None:
        data = task.load() if steps is None else task.load().shortened(steps)
        self.network, self.task, self.profile = network, task, profile
        self.split: Split = limited(data.test, limit)
        self.known = limited(data.train, CALIBRATION_SAMPLES).inputs
        self.seed, self.options = seed, options

    def plan(self, first_chip: int, chips: int) -> Iterator[tuple[str, range]]:
        """Say which chips run together: as many as a simulation holds."""
        layers = (la for la in self.network.layers if isinstance(la, LMULayer))
        states = max((layer.memory.size for layer in layers), default=1)
        neurons = states * int(self.options.get("neurons_per_state", 100)) * len(self.split)
        together = max(1, min(chips, _NEURONS_AT_ONCE // neurons))
        for first in range(first_chip, first_chip + chips, together):
            for method in METHODS:
                yield method, range(first, min(first + together, first_chip + chips))

    def make(self, chip: int, method: str, **changes: Any) -> SpikingNetwork:
        """Calibrate one chip."""
        from converters.spiking import spike

        given = {**self.options, "seed": self.seed, "calibration": method, **changes}
        return spike(self.network, self.known, self.profile, chip_seed=chip, **given)

    def judge(self, made: list[SpikingNetwork]) -> list[tuple[float, float]]:
        """Give metric and spikes of a sample for each chip."""
        from targets.brian2 import Brian2Target

        runs = Brian2Target().run_chips(made, self.split.inputs, seed=self.seed)
        return [
            (
                self.task.score(run.outputs, self.split.targets),
                sum(int(events.sum()) for events in run.events.values()) / len(self.split),
            )
            for run in runs
        ]
