"""The benchmark's network on Nengo, run by a Python that has it: FOLDER -> FOLDER.

In: ``task.npz`` with the memory's A' and B', the scales of its states, the signals (copies, steps),
neurons a state. Out: ``answer.npz`` with the scaled states and what the steps took in seconds of
processor and of the clock.
It runs copies of the memory side by side in one model, so that Nengo can merge their operators;
decoders are Nengo's own, on its default tuning curves and solver.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import nengo
import numpy as np


def main() -> None:
    """Build, run once for a few steps, then time the rest."""
    folder = Path(sys.argv[1])
    task = np.load(folder / "task.npz")
    signals, scales, tau = task["signals"], task["scales"], float(task["tau"])
    copies, steps = signals.shape
    order = len(scales)
    recurrent = task["recurrent"] * scales[None, :] / scales[:, None]
    inputs = (task["input"] / scales)[:, None]
    synapse = nengo.Lowpass(tau)
    probes = []
    with nengo.Network(seed=0) as model:
        for copy in range(copies):
            signal = signals[copy]
            node = nengo.Node(lambda t, signal=signal: signal[min(round(t * 1000) - 1, steps - 1)])
            memory = nengo.networks.EnsembleArray(
                int(task["neurons"]), order, intercepts=nengo.dists.Uniform(-1, 0.5)
            )
            nengo.Connection(node, memory.input, transform=inputs, synapse=synapse)
            nengo.Connection(memory.output, memory.input, transform=recurrent, synapse=synapse)
            probes.append(nengo.Probe(memory.input, synapse=None))
    with nengo.Simulator(model, dt=0.001, progress_bar=False) as simulator:
        simulator.run_steps(10)
        start, processor = time.perf_counter(), time.process_time()
        simulator.run_steps(steps - 10)
        seconds = [time.process_time() - processor, time.perf_counter() - start]
        states = np.stack([simulator.data[probe] for probe in probes])
    np.savez(
        folder / "answer.npz", states=states, seconds=seconds, version=np.array(nengo.__version__)
    )


if __name__ == "__main__":
    main()
