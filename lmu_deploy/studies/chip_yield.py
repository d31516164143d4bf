"""`yield`: one network on many virtual chips, before and after each is calibrated.

A chip that works by luck proves nothing; what counts is how many of a batch would.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import fingerprint
from lmu_deploy.core.loading import load_float
from lmu_deploy.core.network import LMULayer, LMUNetwork
from lmu_deploy.core.progress import progress_bar
from lmu_deploy.core.reference import run_reference
from lmu_deploy.core.validation import check_integer
from lmu_deploy.studies.yield_figures import METHODS, ChipYield, check_study, load_yield, save_yield
from lmu_deploy.tasks.base import Split, Task
from lmu_deploy.tasks.selection import CALIBRATION_SAMPLES, limited, task_for

PERFECT = {
    "mismatch": 0.0,
    "tau_mismatch": 0.0,
    "membrane_noise": 0.0,
    "threshold_noise": 0.0,
    "weight_bits": 0,
}
_DECIDED = ("calibration", "chip_seed", "saved", "progress")
_NEURONS_AT_ONCE = 500_000
_CHIPS_AT_ONCE = 25
"""Judged together and then written down."""


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
    add: Sequence[Path | str] = (),
    **options: Any,
) -> ChipYield:
    """Judge a network on many virtual chips of a profile, before and after calibration.

    A chip c has the mismatch of chip seed c; tuning curves, calibration data and test data are the
    same for all. Before calibration a chip uses the decoders of an ideal one. Each is judged alike
    whichever others there are (with noise or Poisson neurons but for the noise itself).

    Parameters
    ----------
    network : LMUNetwork or path
    profile : str
        An analog chip.
    task : str, optional
        By default the one that the network was trained for.
    chips, first_chip : int
        How many, and the seed of the first.
    limit, steps : int, optional
        Only so many test samples, and of each so many steps (where every step is answered).
    seed : int
    out : path, optional
        Where to write the record as JSON, after every 25 chips or fewer. Chips that it holds
        already are not judged again, so that an interrupted study goes on.
    add : sequence of path
        Records of other parts of the same study; their chips are not judged again either, and all
        of them stand in the result.
    **options
        Passed to :func:`converters.spiking.spike`: neurons_per_state, mismatch, weight_bits, ...

    Raises
    ------
    InputError
        When a file, name or value is wrong, a record is of another study, or a chip cannot hold
        the network.
    """
    chips = check_integer("chips", chips, 1, 100_000)
    first_chip = check_integer("first_chip", first_chip, 0, 2**31)
    if decided := sorted(set(options) & set(_DECIDED)):
        raise InputError(f"a yield study decides {decided[0]} itself; leave it out.")
    if out is not None and not Path(out).absolute().parent.is_dir():
        raise InputError(f"cannot write {out}: no such folder; give a folder that exists.")
    if not isinstance(network, LMUNetwork):
        network = load_float(network, "yield")
    chosen = task_for(network, task)
    study = _Study(network, chosen, profile, limit, steps, seed, options)
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
        seed: int,
        options: dict[str, Any],
    ) -> None:
        data = task.load() if steps is None else task.load().shortened(steps)
        self.network, self.task, self.profile = network, task, profile
        self.split: Split = limited(data.test, limit)
        self.known = limited(data.train, CALIBRATION_SAMPLES).inputs
        self.seed = seed
        given = {name: value for name, value in options.items() if value is not None}
        self.options: dict[str, Any] = json.loads(json.dumps(given))  # as a record holds them

    def begun(self, records: Sequence[Path | str]) -> ChipYield:
        """Put records together; without any, judge the float network and the ideal device."""
        study: dict[str, Any] = {
            "network": fingerprint(self.network),
            "task": self.task.name,
            "metric": self.task.metric,
            "profile": self.profile,
            "samples": len(self.split),
            "steps": int(self.split.inputs.shape[1]),
            "settings": {**self.options, "seed": self.seed},
        }
        found: ChipYield | None = None
        for path in records:
            record = load_yield(path)
            check_study(record, study, path)
            found = record if found is None else found.with_chips(record)
        if found is not None:
            return found
        ((ideal, _),) = self._figures([self.seed], "dynamic", **PERFECT)
        outputs = run_reference(self.network, self.split.inputs).outputs
        reference = self.task.score(outputs, self.split.targets)
        return ChipYield(**study, reference=reference, ideal=ideal)

    def groups(self, chips: Sequence[int]) -> list[Sequence[int]]:
        """Say which chips run together: as many as a simulation holds, and are worth losing."""
        layers = (la for la in self.network.layers if isinstance(la, LMULayer))
        states = max((layer.memory.size for layer in layers), default=1)
        from converters.spiking.recipe import NEURONS_PER_STATE

        per_state = int(self.options.get("neurons_per_state", NEURONS_PER_STATE))
        fitting = _NEURONS_AT_ONCE // max(states * per_state * len(self.split), 1)
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
        from converters.spiking import spike_chips
        from targets.brian2 import Brian2Target

        given = {**self.options, "seed": self.seed, "calibration": method, **changes}
        made = spike_chips(self.network, self.known, self.profile, chips, **given)
        runs = Brian2Target().run_chips(made, self.split.inputs, seed=self.seed)
        return [
            (
                self.task.score(run.outputs, self.split.targets),
                sum(int(events.sum()) for events in run.events.values()) / len(self.split),
            )
            for run in runs
        ]
