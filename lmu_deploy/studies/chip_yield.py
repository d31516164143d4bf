"""`yield`: one network on many virtual chips, before and after each is calibrated.

A chip that works by luck proves nothing; what counts is how many of a batch would.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from converters.options import SpikeOptions
from converters.spiking import spike_chips
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import fingerprint
from lmu_deploy.core.loading import load_float
from lmu_deploy.core.network import LMULayer, LMUNetwork
from lmu_deploy.core.progress import progress_bar
from lmu_deploy.core.reference import run_reference
from lmu_deploy.core.validation import check_integer
from lmu_deploy.studies.yield_figures import METHODS, ChipYield, check_study, load_yield, save_yield
from lmu_deploy.tasks.base import Split, Task
from lmu_deploy.tasks.dataset import TaskLike
from lmu_deploy.tasks.selection import CALIBRATION_SAMPLES, limited, task_for

PERFECT = {
    "mismatch": 0.0,
    "tau_mismatch": 0.0,
    "membrane_noise": 0.0,
    "threshold_noise": 0.0,
    "weight_bits": 0,
}
_FIXED = ("calibration", "chip_seed")
"""Options that a study sets itself."""
_NEURONS_AT_ONCE = 500_000
_CHIPS_AT_ONCE = 25
"""Judged together and then written down."""


def yield_of_chips(
    network: LMUNetwork | Path | str,
    options: SpikeOptions,
    *,
    profile: str = "generic-analog",
    task: TaskLike | None = None,
    chips: int = 100,
    first_chip: int = 0,
    limit: int | None = None,
    steps: int | None = None,
    out: Path | str | None = None,
    add: Sequence[Path | str] = (),
) -> ChipYield:
    """Judge a network on many virtual chips, with options in one object.

    :func:`lmu_deploy.chip_yield` describes the parameters and the errors.
    """
    chips = check_integer("chips", chips, 1, 100_000)
    first_chip = check_integer("first_chip", first_chip, 0, 2**31)
    if fixed := [name for name in _FIXED if name in options.changed()]:
        raise InputError(f"a yield study decides {fixed[0]} itself; leave it out.")
    if out is not None and not Path(out).absolute().parent.is_dir():
        raise InputError(f"cannot write {out}: no such folder; give a folder that exists.")
    if not isinstance(network, LMUNetwork):
        network = load_float(network, "yield")
    chosen = task_for(network, task)
    study = _Study(network, chosen, profile, limit, steps, options)
    records = [*add, out] if out is not None and Path(out).exists() else list(add)
    found = study.begun(records)
    wanted = [c for c in range(first_chip, first_chip + chips) if c not in found.chips]
    with progress_bar("yield", "chips") as progress:
        done = 0
        for group in study.groups(wanted):
            found = found.with_chips(study.judged(found, group))
            done += len(group)
            progress(done, len(wanted))
            if out is not None:
                save_yield(found, out)
    if out is not None:
        save_yield(found, out)
    return found


class _Study:
    """The data and options that all chips share."""

    def __init__(
        self,
        network: LMUNetwork,
        task: Task,
        profile: str,
        limit: int | None,
        steps: int | None,
        options: SpikeOptions,
    ) -> None:
        data = task.load() if steps is None else task.load().shortened(steps)
        self.network, self.task, self.profile = network, task, profile
        self.split: Split = limited(data.test, limit)
        self.known = limited(data.train, CALIBRATION_SAMPLES).inputs
        self.options = options

    def begun(self, records: Sequence[Path | str]) -> ChipYield:
        """Put records together; without any, judge the float network and the ideal device."""
        settings = {**self.options.changed(), "seed": self.options.seed}
        study: dict[str, Any] = {
            "network": fingerprint(self.network),
            "task": self.task.name,
            "metric": self.task.metric,
            "profile": self.profile,
            "samples": len(self.split),
            "steps": int(self.split.inputs.shape[1]),
            # As JSON holds them, so that they compare equal with those of a record.
            "settings": json.loads(json.dumps(settings)),
        }
        found: ChipYield | None = None
        for path in records:
            record = load_yield(path)
            check_study(record, study, path)
            found = record if found is None else found.with_chips(record)
        if found is not None:
            return found
        ((ideal, _),) = self._figures([self.options.seed], "dynamic", **PERFECT)
        outputs = run_reference(self.network, self.split.inputs).outputs
        reference = self.task.score(outputs, self.split.targets)
        return ChipYield(**study, reference=reference, ideal=ideal)

    def groups(self, chips: Sequence[int]) -> list[Sequence[int]]:
        """Say which chips run together: as many as a simulation holds, and are worth losing."""
        layers = (la for la in self.network.layers if isinstance(la, LMULayer))
        states = max((layer.memory.size for layer in layers), default=1)
        neurons = states * self.options.neurons_per_state
        fitting = _NEURONS_AT_ONCE // max(neurons * len(self.split), 1)
        together = max(1, min(_CHIPS_AT_ONCE, fitting))
        return [chips[first : first + together] for first in range(0, len(chips), together)]

    def judged(self, found: ChipYield, chips: Sequence[int]) -> ChipYield:
        """Give a record of these chips alone."""
        figures = {method: self._figures(chips, method) for method in METHODS}
        return replace(
            found,
            chips=list(chips),
            values={method: [value for value, _ in of] for method, of in figures.items()},
            spikes={method: [fired for _, fired in of] for method, of in figures.items()},
        )

    def _figures(
        self, chips: Sequence[int], method: str, **changes: Any
    ) -> list[tuple[float, float]]:
        """Calibrate chips and run them; give metric and spikes of a sample for each."""
        from targets.brian2 import Brian2Target

        options = self.options.replace(calibration=method, **changes)
        made = spike_chips(self.network, self.known, self.profile, chips, options)
        runs = Brian2Target().run_chips(made, self.split.inputs, seed=self.options.seed)
        return [
            (
                self.task.score(run.outputs, self.split.targets),
                sum(int(events.sum()) for events in run.events.values()) / len(self.split),
            )
            for run in runs
        ]
