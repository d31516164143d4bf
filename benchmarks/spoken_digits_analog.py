"""Spoken digits on analog neurons: one simulated chip, of several sizes, calibrated and not.

    python benchmarks/spoken_digits_analog.py FOLDER --save spoken-digits/analog

FOLDER keeps the trained networks and the answers of each chip; what is there is not made again.
Needs the data (LMU_DEPLOY_DATA). The time constant of the readout was tried by validation.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import results
from spoken_digits import TASK, Rows, trained

import lmu_deploy as ld
from lmu_deploy.core.files import write_text
from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.graph.transforms import as_layers
from lmu_deploy.tasks.base import Split, get_task
from targets.base import get_target

COLUMNS = [
    ("part", "{}"),
    ("mismatch", ">{:.0%}"),
    ("neurons a state", ">{:d}"),
    ("neurons a unit", ">{:d}"),
    ("calibration", "{}"),
    ("readout synapse, ms", ">{:.0f}"),
    ("chips", ">{:d}"),
    ("recordings", ">{:d}"),
    ("float, %", ">{:.2f}"),
    ("on neurons, %", ">{:.2f}"),
    ("same answer as float, %", ">{:.2f}"),
    ("units on the host, %", ">{:.2f}"),
]
_CHIPS = (1,)
_CALIBRATED_ON = 80
_WEIGHT_BITS = 6


@dataclass(frozen=True)
class Case:
    """A simulated chip and the recordings that it runs.

    Attributes
    ----------
    mismatch : float
    per_state, per_unit : int
        Neurons of a state and of a unit.
    calibration : {"dynamic", "none"}
    readout_ms : float
        Time constant of the synapses of the readout; a frame is presented for 50 ms.
    part : {"test", "validation"}
        Part that the recordings are of: the first of the test part, which are one of each digit and
        speaker, and some of the validation part, drawn by a seed.
    """

    mismatch: float
    per_state: int
    per_unit: int
    calibration: str = "dynamic"
    readout_ms: float = 15.0
    part: str = "test"

    def key(self, chip_seed: int, limit: int) -> str:
        """Return the name under which answers are kept."""
        chip = (self.mismatch, self.per_state, self.per_unit, self.calibration, chip_seed, limit)
        readout = "" if self.readout_ms == Case.readout_ms else f"/readout {self.readout_ms}"
        part = "" if self.part == "test" else f"/{self.part}"
        return "/".join(map(str, chip)) + readout + part

    def recordings(self, limit: int) -> Split:
        """Return the recordings that the chip runs."""
        found = getattr(get_task(TASK).load(), self.part)
        rows = np.arange(len(found))
        if self.part != "test":
            rows = np.random.default_rng(0).permutation(rows)
        return found.taken(rows[:limit])


CASES = [
    Case(0.2, 50, 20),
    Case(0.2, 50, 40),
    Case(0.2, 50, 40, "none"),
    Case(0.2, 50, 80),
    Case(0.2, 50, 80, part="validation"),
    Case(0.2, 50, 80, readout_ms=60.0, part="validation"),
]


def on_chip(folder: Path, case: Case, chip_seed: int, limit: int) -> dict[str, list[int]]:
    """Return the answers of a chip to the recordings; the folder keeps them.

    Beside them are those of the host, in float, from the memory's states on the chip.
    """
    kept = folder / "analog.json"
    answers = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    key = case.key(chip_seed, limit)
    if key not in answers:
        network = trained(folder, model="parallel")
        neurons = ld.spike(
            network,
            TASK,
            mismatch=case.mismatch,
            neurons_per_state=case.per_state,
            neurons_per_unit=case.per_unit,
            calibration=case.calibration,
            readout_tau_ms=case.readout_ms,
            chip_seed=chip_seed,
            weight_bits=_WEIGHT_BITS,
            calibration_samples=_CALIBRATED_ON,
        )
        inputs = case.recordings(limit).inputs
        found = get_target("brian2").run(neurons, inputs, record=True)
        assert found.states is not None
        layers = as_layers(network, "the benchmark")
        (layer,), m = layers.layers, found.states.m[:, -1]
        h = np.maximum(m @ layer.hidden.memory_kernel + layer.hidden.bias, 0.0)
        of_host = h @ layers.readout.kernel + layers.readout.bias
        outputs = {"chip": found.outputs, "host": of_host}
        answers[key] = {name: each.argmax(axis=1).tolist() for name, each in outputs.items()}
        write_text(kept, json.dumps(answers) + "\n")
    return dict(answers[key])


def rows_of(folder: Path, limit: int) -> Rows:
    """Run the parallel network on simulated analog chips of 6-bit weights, calibrated and not."""
    rows: Rows = []
    for case in CASES:
        shown = case.recordings(limit)
        wanted = run(trained(folder, model="parallel"), shown.inputs).argmax(axis=1)
        found = [on_chip(folder, case, seed, limit) for seed in _CHIPS]
        answers = np.array([each["chip"] for each in found])
        shares = [np.mean(wanted == shown.targets), np.mean(answers == shown.targets)]
        shares.append(np.mean(answers == wanted))
        of_host = [each["host"] for each in found if "host" in each]  # not in earlier records
        host = 100 * float(np.mean(np.array(of_host) == shown.targets)) if of_host else None
        sizes: list[results.Cell] = [case.mismatch, case.per_state, case.per_unit, case.calibration]
        sizes.append(case.readout_ms)
        row: list[results.Cell] = [case.part, *sizes, len(_CHIPS), limit]
        rows.append([*row, *(100 * float(share) for share in shares), host])
    return rows


def main() -> None:
    """Measure the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, default=60, help="recordings")
    results.add_options(parser)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    results.publish(COLUMNS, rows_of(options.folder, options.limit), options, 0)


if __name__ == "__main__":
    main()
