"""Time a training step in each form of the layer, and in a plain loop over steps.

All forms run in turn, several times, in one process; each line gives the best of them in seconds of
processor time and of wall-clock time, and how many times the plain loop's processor time that
saves. Processor time is what to compare on a machine that does other work too.

    python benchmarks/training_forms.py [--threads 2] [--repeats 5] [--batch 100] [--steps 784]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

import lmu_deploy.nn  # noqa: F401  (asks for huge pages, which must come before torch's first use)
from lmu_deploy.nn.lmu import LMU
from lmu_deploy.nn.parallel import run_parallel
from lmu_deploy.nn.recurrent import run_recurrent, run_stepwise
from lmu_deploy.nn.scans import run_coupled, run_driven

Form = Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


def pass_once(form: Form, layer: LMU, x: torch.Tensor, last_only: bool, train: bool) -> None:
    """Go forward, and backward when training."""
    m, h = layer.initial_state(len(x))
    with torch.set_grad_enabled(train):
        y, _, _ = form(layer.weights(), x, m, h, None, last_only)
        if train:
            layer.zero_grad()
            (y**2).mean().backward()


def best_times(work: dict[str, Callable[[], None]], repeats: int) -> dict[str, tuple[float, float]]:
    """Run each piece of work in turn; give its least processor and wall-clock time."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
    for _ in range(repeats + 1):
        for name, do in work.items():
            wall, cpu = time.perf_counter(), time.process_time()
            do()
            times[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    # the first round warms up
    return {n: tuple(min(part) for part in zip(*t[1:], strict=True)) for n, t in times.items()}  # type: ignore[misc]


def compare(
    title: str, layer: LMU, forms: dict[str, Form], options: argparse.Namespace, **how: bool
) -> None:
    """Time the forms side by side and print them, the plain loop first."""
    x = torch.rand(options.batch, options.steps, 1)
    work = {
        name: (lambda form=form: pass_once(form, layer, x, **how)) for name, form in forms.items()
    }
    times = best_times(work, options.repeats)
    plain = times["plain loop"]
    print(f"\n{title}")
    for name, (cpu, wall) in times.items():
        print(
            f"  {name:22s} {cpu:8.3f} s processor  {wall:8.3f} s wall   "
            f"{plain[0] / cpu:6.1f} x processor {plain[1] / wall:6.1f} x wall"
        )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("threads", 2), ("repeats", 5), ("batch", 100), ("steps", 784)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--order", type=int, default=256)
    parser.add_argument("--units", type=int, default=212)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    size = 1, options.units, options.order, float(options.steps)
    print(
        f"batch {options.batch}, {options.steps} steps, order {options.order}, "
        f"{options.units} units, {options.threads} threads"
    )
    feedback = LMU(*size, hidden_to_memory=True, memory_to_memory=True, hidden_bias=False)
    recurrent = LMU(*size)
    parallel = LMU(*size, hidden="feedforward")
    plain = {"plain loop": run_stepwise}
    forms = plain | {"folded recurrence": run_recurrent, "blocks": run_coupled}
    compare("feedback, training step", feedback, forms, options, last_only=True, train=True)
    compare("feedback, inference", feedback, forms, options, last_only=True, train=False)
    forms = plain | {
        "folded recurrence": run_recurrent,
        "blocks": run_coupled,
        "drive within the step": run_driven,
        "parallel memory": run_parallel,
    }
    title = "no feedback, hidden recurrence, training step"
    compare(title, recurrent, forms, options, last_only=True, train=True)
    forms = plain | {"parallel": run_parallel}
    title = "parallel LMU (feed-forward), last step only, training step"
    compare(title, parallel, forms, options, last_only=True, train=True)
    title = "parallel LMU (feed-forward), every step, training step"
    compare(title, parallel, forms, options, last_only=False, train=True)


if __name__ == "__main__":
    main()
