"""Compute error and largest term of a trained memory as a series of some terms and substeps.

`quantize` takes the plan of fewest applications that errs by at most 2^-6 and has no term more than
twice as large as the states. Where it refuses a memory, this shows what each plan misses. Ranges
are those of 64 calibration samples. Needs MNIST (LMU_DEPLOY_DATA).

    python benchmarks/series_plans.py examples/models/psmnist-parallel.safetensors 4x16 8x8 4x20
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from converters.quantize import calibrate
from converters.quantize.sign_taylor import _simulate, series_error
from lmu_deploy.core.files import load
from lmu_deploy.core.legendre import impulse_response
from lmu_deploy.core.network import FLOAT_CLASSES
from lmu_deploy.tasks.base import get_task

CALIBRATION = 64
WINDOWS = 4


def main() -> None:
    """Try each plan; print a row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", type=Path)
    parser.add_argument("plans", nargs="+", help="terms x substeps, such as 4x16")
    arguments = parser.parse_args()
    network = load(arguments.network, FLOAT_CLASSES)
    layer = network.layers[0]
    memory = layer.memory
    signals = calibrate(network, get_task(network.task).load().train.inputs[:CALIBRATION])
    states = signals.m[0]
    assert states is not None
    steps = math.ceil(WINDOWS * memory.theta)
    truth = impulse_response(memory.a_bar.astype(float), memory.b_bar.astype(float), steps)
    print(
        "| terms | substeps | applications | error | largest term, in states |\n" + "|---" * 5 + "|"
    )
    for plan in arguments.plans:
        terms, substeps = map(int, plan.split("x"))
        error = series_error(memory, terms, substeps, truth)
        largest = max(_simulate(layer, states, terms, substeps).terms) / states.largest
        row = (terms, substeps, terms * substeps, f"{error:.1e}", f"{largest:.3g}")
        print(f"| {' | '.join(map(str, row))} |", flush=True)


if __name__ == "__main__":
    main()
