"""Voelker et al. (2019), section 2.3: the window length can be learned, through the solver itself.

A Legendre memory is read at the far end of its window, with weights that stay as they are, and has
to answer with its input of a known number of steps ago. Its window length theta is all that is
trained, so that it can only succeed by finding the task's time-scale. An input held over a step is
seen half a step late at either end, so that a delay of k steps needs theta = k + 1/2.

    python examples/paper/timescale.py [--delay 60] [--start 20 40 80 120]
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from lmu_deploy.core.legendre import window_decoders
from lmu_deploy.nn import LMU
from lmu_deploy.tasks.memory import delayed, white_noise

ORDER, SIGNALS, WINDOWS_PER_SIGNAL, CYCLES = 12, 32, 8, 4


def make_data(delay: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return noise slow enough that the gradient of a wrong window points towards the right one.

    Returns
    -------
    inputs, targets : Tensor, shape (32, 8 * delay, 1), float64
    """
    steps = WINDOWS_PER_SIGNAL * delay
    signals = white_noise(SIGNALS, steps, CYCLES, seed)
    targets = delayed(signals, torch.tensor([delay]).numpy())
    return torch.from_numpy(signals)[:, :, None], torch.from_numpy(targets)


def learn(delay: int, start: float, steps: int = 150, rate: float = 0.05) -> list[float]:
    """Train theta from `start` on; give its value before each step of Adam, and after the last."""
    inputs, targets = make_data(delay)
    layer = LMU(1, 0, ORDER, start, hidden="none", train_theta=True, init="memory").double()
    layer.input_encoders.requires_grad_(False)
    oldest = torch.from_numpy(window_decoders(ORDER, torch.ones(1).numpy()))[0]
    optimizer = torch.optim.Adam([layer.memory.log_theta], rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    course = [layer.memory.theta]
    for _ in range(steps):
        states, _ = layer(inputs)
        loss = ((states @ oldest)[:, :, None] - targets).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        course.append(layer.memory.theta)
    return course


def main(arguments: list[str] | None = None) -> None:
    """Learn the window from several starts and print where each ends."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--delay", type=int, default=60)
    parser.add_argument("--start", type=float, nargs="+", default=[20.0, 40.0, 80.0, 120.0])
    options = parser.parse_args(arguments)
    for start in options.start:
        course = learn(options.delay, start)
        print(f"delay {options.delay}: theta {start:g} -> {course[-1]:.3f}", flush=True)


if __name__ == "__main__":
    main()
