"""Time the states of a linear memory at every step, forward and backward, in several forms.

    python benchmarks/memory_forms.py --save performance/memory-forms

Blocks are those of `lmu_deploy.nn.parallel`; one block is a product with the Toeplitz matrix of the
impulse response; the Fourier transform multiplies spectra of twice the length, with that of the
response computed once (Chilkuri, Eliasmith 2021, equation 26). Each figure is the processor time of
one pass forward and backward, the least of several, so that other work counts little.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import results
import torch
from torch import Tensor

from lmu_deploy.core.network import Memory
from lmu_deploy.nn import parallel
from lmu_deploy.nn.weights import Dynamics, orbit, squares

SHAPES = [
    (14, 32, 14), (28, 16, 28), (112, 8, 16), (112, 8, 32), (112, 8, 112),
    (784, 1, 256), (784, 8, 32), (784, 8, 64),
]  # fmt: skip
COLUMNS = [
    ("steps", ">{:,d}"),
    ("channels", ">{:,d}"),
    ("order", ">{:,d}"),
    ("blocks, ms", ">{:,.1f}"),
    ("one block, ms", ">{:,.1f}"),
    ("Fourier transform, ms", ">{:,.1f}"),
]


def by_transform(response: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the convolution of channels (batch, steps, channels) with (steps, order)."""
    steps = len(response)
    spectrum = torch.fft.rfft(response.t(), 2 * steps)

    def states(u: Tensor) -> Tensor:
        spectra = torch.fft.rfft(u.transpose(1, 2), 2 * steps)[:, :, None] * spectrum
        found = torch.fft.irfft(spectra, 2 * steps)[..., :steps]
        return found.permute(0, 3, 1, 2).flatten(2)

    return states


def forms(memory: Memory, steps: int) -> list[Callable[[Tensor], Tensor]]:
    """Return functions from channels (batch, steps, channels) to states, fixed matrices cached."""
    a_bar = torch.tensor(memory.a_bar, dtype=torch.float32)
    b_bar = torch.tensor(memory.b_bar, dtype=torch.float32)
    dynamics = Dynamics(memory.channels, a_bar.t(), b_bar[None], {})
    response = orbit(b_bar[None], squares(a_bar.t(), steps), steps)[:, 0]

    def with_limit(limit: float) -> Callable[[Tensor], Tensor]:
        def states(u: Tensor) -> Tensor:
            parallel.SINGLE_BLOCK = limit
            return parallel.memory_states(dynamics, u)

        return states

    return [with_limit(0.0), with_limit(1e9), by_transform(response)]


def least_time(work: Callable[[Tensor], Tensor], u: Tensor, repeats: int) -> float:
    """Return the least processor time of one pass in milliseconds."""
    times = []
    for _ in range(repeats + 1):
        start = time.process_time()
        states = work(u)
        states.backward(torch.ones_like(states))
        times.append(time.process_time() - start)
    return 1000 * min(times[1:])


def main() -> None:
    """Measure every shape."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    results.add_options(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows: list[list[results.Cell]] = []
    for steps, channels, order in SHAPES:
        memory = Memory.legendre(order, float(steps), channels)
        u = torch.randn(options.batch, steps, channels, requires_grad=True)
        works = forms(memory, steps)
        expected = works[0](u)
        for work in works[1:]:
            torch.testing.assert_close(work(u), expected, rtol=1e-3, atol=1e-3)
        times: list[results.Cell] = [least_time(work, u, options.repeats) for work in works]
        rows.append([steps, channels, order, *times])
    results.publish(COLUMNS, rows, options, seed=0)


if __name__ == "__main__":
    main()
