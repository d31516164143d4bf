"""A stream of a million steps through a whole network: its memory, and where its state has gone.

Run: python benchmarks/endless_stream.py examples/models/psmnist-parallel.safetensors --window 2000

Inputs are uniform in [0, 1], drawn by seed, and the ranges are calibrated on more of them. After
the stream, its state is laid beside that of a fresh run that has had the last inputs alone; and so
is the float network's, of which twice as many inputs are its stream: what that does not forget, no
integers can.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections import deque
from pathlib import Path

import numpy as np

from converters.quantize import quantize
from converters.quantize.memory_analysis import memory_matrix, spectral_radius
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.layered import IntegerMemory, SeriesMemory, memory_views
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.loading import load_float
from lmu_deploy.core.progress import progress_bar
from lmu_deploy.core.reference import run_reference
from targets.integer import IntegerTarget, Stream, step
from targets.integer.limit_cycles import deviation_bound

_BLOCK = 1000


def main() -> None:
    """Parse the command line, run the stream, print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", type=Path, help="a float network")
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--window", type=int, default=10_000, help="last steps of the fresh run")
    parser.add_argument("--engine", default="numpy", help="of the stream; see targets/integer")
    parser.add_argument("--slices", type=int, default=2)
    parser.add_argument("--realization", default="dense-incremental")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    source = load_float(options.network, "endless_stream")
    calibration = np.random.default_rng([options.seed, 1]).uniform(size=(8, 2000, source.n_in))
    network = quantize(source, calibration, slices=options.slices, realization=options.realization)
    for place, memory in memory_views(network).items():
        radius = spectral_radius(memory_matrix(memory))
        print(f"{place}: {memory.size} states, spectral radius {radius:.5f}")
    window = min(options.window, options.steps // 2)
    run(network, options.steps, window, options.seed, options.engine)


def run(network: IntegerNetwork, steps: int, window: int, seed: int, engine: str) -> None:
    """Feed a stream, then compare."""
    rng = np.random.default_rng([seed, 2])
    last: deque[np.ndarray] = deque(maxlen=2 * window)
    stream: Stream | None = None
    before: list[np.ndarray] = []
    warm, start = 0, time.perf_counter()
    with progress_bar("stream", "steps") as progress:
        for t in range(steps):
            if t % _BLOCK == 0:
                inputs = rng.uniform(size=(_BLOCK, network.n_in))
                progress(t, steps)
            if t == steps // 10:
                warm = _peak_kib()
            if stream is not None and t == steps - window:
                before = [np.abs(m[0].astype(np.float64)) for m in _memories(stream)]
            last.append(inputs[t % _BLOCK])
            _, stream = step(network, inputs[None, t % _BLOCK], stream, engine)
        progress(steps, steps)
    assert stream is not None
    seconds = time.perf_counter() - start
    print(f"{steps:,} steps, {seconds:.0f} s; peak memory grew {_peak_kib() - warm} KiB after the")
    print(f"first {steps // 10:,}; saturations: {_saturations(stream) or 'none'}")
    both = np.stack(last)[None]
    fresh = IntegerTarget("numpy").run(network, both[:, -window:], record=True).states
    assert fresh is not None
    print(f"float network: {_float_apart(network, both, window):.2e} of its rms apart")
    for memory, m, past in zip(network.memories, _memories(stream), before, strict=True):
        own = fresh.parts[str(memory.place)][0, -1].astype(np.float64)
        apart, size = np.abs(m[0] - own), np.sqrt(np.mean(own**2))
        print(
            f"{memory.place}: from a fresh run of the last {window:,} inputs its state is "
            f"{apart.max():.0f} units apart at most, {np.sqrt(np.mean(apart**2)) / size:.2e} of "
            f"its rms; {_bound(memory_views(network)[memory.place], window, past, apart)}"
        )


def _float_apart(network: IntegerNetwork, inputs: np.ndarray, window: int) -> float:
    """Return the distance of the float memories from those of a fresh run, over their rms."""
    assert network.source is not None
    whole = run_reference(network.source, inputs, record=True).m
    fresh = run_reference(network.source, inputs[:, -window:], record=True).m
    assert whole is not None
    assert fresh is not None
    wrong = whole[0, -1] - fresh[0, -1]
    return float(np.sqrt(np.mean(wrong**2) / np.mean(fresh[0, -1] ** 2)))


MemoryView = IntegerMemory | SeriesMemory


def _bound(memory: MemoryView, window: int, before: np.ndarray, apart: np.ndarray) -> str:
    """Say what the specification allows."""
    try:
        bound = deviation_bound(memory, window, before)
    except InputError:
        return "hidden units feed back, so the specification has no bound"
    result = "within" if np.all(apart <= bound) else "BEYOND"
    return f"{result} the specification's bound, {bound.max():.0f} units at most"


def _memories(stream: Stream) -> list[np.ndarray]:
    """Return the states of each memory."""
    return stream.memories


def _saturations(stream: Stream) -> dict[str, int]:
    return {place: n for place, n in stream.state.saturations.items() if n}


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
