"""What `quantise` does for less memory: widths of weights chosen for a budget."""

from __future__ import annotations

import sys
from typing import Any

from lmu_deploy.checks import check_number
from lmu_deploy.commands.sparsity import TRIED, judged_on, loss_of, run_twin
from lmu_deploy.commands.task_data import limited
from lmu_deploy.errors import InputError
from lmu_deploy.integer_network import IntegerNetwork
from lmu_deploy.network import LMUNetwork
from lmu_deploy.progress import progress_bar
from lmu_deploy.reference import run_reference
from lmu_deploy.tasks.base import Task

_CHOSEN = ("slices", "kernel_slices", "kernel_bits")


def check_budget(kib: float, options: dict[str, Any]) -> None:
    """Raise InputError when what is asked for makes no sense, before any work."""
    check_number("budget in KiB", kib, 0.001, 1e9)
    if given := [name for name in _CHOSEN if options.get(name) is not None]:
        raise InputError(f"a budget chooses {', '.join(_CHOSEN)}; leave out {', '.join(given)}.")


def within_budget(
    network: LMUNetwork,
    task: Task,
    profile: str,
    kib: float,
    options: dict[str, Any],
    calibration_samples: int,
) -> IntegerNetwork:
    """Quantise a network whose synapses take at most so much memory.

    Parameters
    ----------
    network : LMUNetwork
    task : Task
        Whose training data calibrate, and whose validation data choose.
    profile : str
    kib : float
        1,024 bytes each.
    options : dict
        Other choices of :func:`converters.quantise.quantise`.
    calibration_samples : int
    """
    from converters.quantise.calibrate import calibrate
    from converters.quantise.settings import settings_for
    from converters.quantise.width_search import search_widths

    left = {name: value for name, value in options.items() if name not in _CHOSEN}
    settings = settings_for(network, profile, **left)
    with progress_bar("calibrate") as progress:
        inputs = limited(task.load().train, calibration_samples).inputs
        signals = calibrate(network, inputs, progress)
    data = judged_on(task)
    few, budget = data.inputs[:TRIED], int(kib * 1024)
    with progress_bar("widths", "runs") as progress:
        found = search_widths(network, signals, settings, budget, few, run_twin, progress)
    for place, (slices, bits) in found.widths.items():
        memory = found.memory[place] / 1024
        print(f"width {place}: {slices} x {bits} bits, {memory:.1f} KiB", file=sys.stderr)
    loss = loss_of(task, data, run_reference(network, data.inputs).outputs)
    print(
        f"budget: {found.total / 1024:.1f} of {kib:g} KiB; "
        f"{loss(run_twin(found.network, data.inputs).outputs):.2%} lost on "
        f"{len(data)} validation samples",
        file=sys.stderr,
    )
    return found.network
