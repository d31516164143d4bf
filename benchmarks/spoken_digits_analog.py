"""Spoken digits on analog neurons: one simulated chip, of several sizes, calibrated and not.

    python benchmarks/spoken_digits_analog.py FOLDER --save spoken-digits/analog

FOLDER keeps the trained networks and the answers of each chip; what is there is not made again.
Needs the data (LMU_DEPLOY_DATA). All figures are of the test part.
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
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.graph.transforms import as_layers
from lmu_deploy.core.loading import load_float
from lmu_deploy.tasks.base import get_task
from targets.base import get_target

COLUMNS = [
    ("trained with noise", "{}"),
    ("mismatch", ">{:.0%}"),
    ("neurons a state", ">{:d}"),
    ("neurons a unit", ">{:d}"),
    ("calibration", "{}"),
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
    """A network and the simulated chip that it runs on.

    Attributes
    ----------
    noise : bool
        Whether the network was trained with the noise that such chips show.
    mismatch : float
    per_state, per_unit : int
        Neurons of a state and of a unit.
    calibration : {"dynamic", "none"}
    """

    noise: bool
    mismatch: float
    per_state: int
    per_unit: int
    calibration: str = "dynamic"

    def network(self, folder: Path) -> Network:
        """Return the network from the folder, trained if it is not there."""
        if not self.noise:
            return trained(folder, model="parallel")
        path = folder / f"{TASK}-parallel-noise-{self.per_state}-{self.per_unit}.safetensors"
        if not path.is_file():
            chip = {
                "profile": "generic-analog",
                "mismatch": self.mismatch,
                "neurons_per_state": self.per_state,
                "neurons_per_unit": self.per_unit,
                "weight_bits": _WEIGHT_BITS,
                "calibration_samples": _CALIBRATED_ON,
                "chips": 1,  # it calibrates for minutes; its seed is none of those below
            }
            state = path.with_suffix(".ckpt")
            ld.train(TASK, "parallel", out=path, checkpoint=state, chip=chip)
        return load_float(path, "the benchmark")

    def key(self, chip_seed: int, limit: int) -> str:
        """Return the name under which answers are kept."""
        chip = (self.mismatch, self.per_state, self.per_unit, self.calibration, chip_seed, limit)
        return ("noise/" if self.noise else "") + "/".join(map(str, chip))


CASES = [
    Case(False, 0.2, 50, 20),
    Case(False, 0.2, 50, 40),
    Case(False, 0.2, 50, 40, "none"),
    Case(False, 0.2, 50, 80),
    Case(True, 0.2, 50, 40),
]


def on_chip(folder: Path, case: Case, chip_seed: int, limit: int) -> dict[str, list[int]]:
    """Return the answers of a chip to the first test recordings; the folder keeps them.

    Beside them are those of the host, in float, from the memory's states on the chip.
    """
    kept = folder / "analog.json"
    answers = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    key = case.key(chip_seed, limit)
    if key not in answers:
        network = case.network(folder)
        neurons = ld.spike(
            network,
            TASK,
            mismatch=case.mismatch,
            neurons_per_state=case.per_state,
            neurons_per_unit=case.per_unit,
            calibration=case.calibration,
            chip_seed=chip_seed,
            weight_bits=_WEIGHT_BITS,
            calibration_samples=_CALIBRATED_ON,
        )
        test = get_task(TASK).load().test.taken(slice(limit))
        found = get_target("brian2").run(neurons, test.inputs, record=True)
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
    test = get_task(TASK).load().test.taken(slice(limit))
    rows: Rows = []
    for case in CASES:
        wanted = run(case.network(folder), test.inputs).argmax(axis=1)
        found = [on_chip(folder, case, seed, limit) for seed in _CHIPS]
        answers = np.array([each["chip"] for each in found])
        shares = [np.mean(wanted == test.targets), np.mean(answers == test.targets)]
        shares.append(np.mean(answers == wanted))
        of_host = [each["host"] for each in found if "host" in each]  # not in earlier records
        host = 100 * float(np.mean(np.array(of_host) == test.targets)) if of_host else None
        sizes: list[results.Cell] = [case.mismatch, case.per_state, case.per_unit, case.calibration]
        row: list[results.Cell] = ["yes" if case.noise else "no", *sizes, len(_CHIPS), limit]
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
