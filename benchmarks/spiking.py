"""Spiking targets side by side: our simulator against Lava, our targets against Nengo.

First, five networks of 1,000 steps on `lava-lif` and on its simulator `spiking`: states and spikes
are compared with ``==``. Then neuron updates a second, on one memory of 0.5 s (order 6, 100 neurons
a state, white noise to 1 Hz), all systems in one run, one after the other and again: the best of
each counts. An update is one neuron's one step. Seconds are those of the processor, of all
processes of a system together, because a shared machine's clock counts what others do; those of the
clock stand beside them. Lava's start is taken out by running four times as long.

    python benchmarks/spiking.py --equality                    # the five networks
    python benchmarks/spiking.py --speed --peers PYTHON        # PYTHON has Nengo
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import results

from converters.loihi import loihi_spike
from converters.spiking import spike
from converters.spiking.closed_loop import behind_synapse, divide_step
from lmu_deploy.core.metrics import nrmse
from lmu_deploy.core.network import LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.core.reference import run_reference
from lmu_deploy.core.spiking.loihi import LoihiNetwork
from lmu_deploy.tasks.memory import RMS, white_noise
from targets.base import Run, Target
from targets.brian2 import Brian2Target
from targets.lava_lif import LavaLifTarget
from targets.spiking import SpikingTarget

NETWORKS = ((3, 100), (3, 200), (6, 100), (12, 40), (12, 100))
ORDER, NEURONS, THETA_MS, TAU_MS = 6, 100, 500, 100.0
PRESENTATION_MS = 10.0
SETTLED = THETA_MS
EQUALITY = [
    ("order", ">{:d}"),
    ("neurons a state", ">{:d}"),
    ("chip steps", ">{:,d}"),
    ("spikes", ">{:,d}"),
    ("states equal", "{}"),
    ("spikes equal", "{}"),
]
SPEED = [
    ("system", "{}"),
    ("million updates a second of the processor", ">{:.2f}"),
    ("of the clock", ">{:.2f}"),
    ("error of the states", ">{:.3f}"),
]
PEER = Path(__file__).with_name("nengo_peer.py")


def delay(order: int, presentation_ms: float) -> LMUNetwork:
    """Return a memory of 0.5 s with that presentation time."""
    memory = Memory.legendre(order, THETA_MS / presentation_ms)
    layer = LMULayer(np.ones((1, 1)), None, None, None, memory, None)
    return LMUNetwork((layer,), Readout(np.eye(order), None), return_sequences=True)


def noise(signals: int, steps: int, presentation_ms: float, seed: int) -> np.ndarray:
    """Draw white noise to 1 Hz of rms 0.3, shape (signals, steps, 1)."""
    cycles = max(steps * presentation_ms * 1e-3, 1.0)
    return (white_noise(signals, steps, cycles, seed) * (0.3 / RMS))[:, :, None]


def error(run: Run, network: LMUNetwork, inputs: np.ndarray, presentation_ms: float) -> float:
    """Return the error of the states after the first window."""
    true = run_reference(network, inputs, record=True).m
    assert run.states is not None and true is not None
    return nrmse(run.states.real_m(), true, washout=round(SETTLED / presentation_ms))


def compare_targets(options: argparse.Namespace) -> None:
    """Run the five networks on both targets."""
    rows = []
    for order, neurons in NETWORKS:
        network = delay(order, 1.0)
        lowered = loihi_spike(
            network, noise(20, 1500, 1.0, 1), neurons_per_state=neurons, presentation_ms=1.0
        )
        inputs = noise(1, 1000, 1.0, 0)
        simulator, lava = (
            target.run(lowered, inputs, record=True)
            for target in (SpikingTarget(), LavaLifTarget())
        )
        assert simulator.states is not None and lava.states is not None
        spikes = [run.rasters["layer0/memory"] for run in (simulator, lava)]
        states_equal = str(np.array_equal(simulator.states.m, lava.states.m))
        spikes_equal = str(np.array_equal(*spikes))
        sent = int(spikes[0].sum())
        rows.append([order, neurons, simulator.chip_steps, sent, states_equal, spikes_equal])
    results.publish(EQUALITY, rows, options)


def seconds_of(work: Callable[[], object]) -> np.ndarray:
    """Time a piece of work: seconds of the processor, and of the clock."""
    before = now()
    work()
    return now() - before


def now() -> np.ndarray:
    """Return what this process and those that it waited for have used, and the clock."""
    used = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return np.array([sum(u.ru_utime + u.ru_stime for u in used), time.perf_counter()])


def updates(samples: int, milliseconds: float) -> float:
    """Return the neuron updates that so many samples of so long take."""
    return samples * milliseconds * ORDER * NEURONS


def lava_rate(lowered: LoihiNetwork, samples: int, steps: int) -> np.ndarray:
    """Measure Lava's updates a second, its start taken out."""
    target, longer = LavaLifTarget(), noise(samples, 4 * steps, PRESENTATION_MS, 0)
    short = seconds_of(lambda: target.run(lowered, longer[:, :steps]))
    long = seconds_of(lambda: target.run(lowered, longer))
    return updates(samples, 3 * steps * PRESENTATION_MS) / (long - short)


def own_rate(target: Target, lowered: object, inputs: np.ndarray) -> np.ndarray:
    """Measure the updates a second of one of our targets, all that a run does included."""
    seconds = seconds_of(lambda: target.run(lowered, inputs))
    return updates(len(inputs), inputs.shape[1] * PRESENTATION_MS) / seconds


def nengo(python: str, copies: int, network: LMUNetwork) -> tuple[np.ndarray, float]:
    """Run Nengo; give updates a second and the error of its states."""
    milliseconds = 2000
    held = noise(copies, round(milliseconds / PRESENTATION_MS), PRESENTATION_MS, 0)
    memory, parts = network.layers[0].memory, round(PRESENTATION_MS)
    a_bar, b_bar = divide_step(memory, parts)
    recurrent, scaled_input = behind_synapse(a_bar, b_bar, float(np.exp(-1.0 / TAU_MS)))
    true = run_reference(network, held, record=True).m
    assert true is not None
    scales = np.percentile(np.abs(true), 99.9, axis=(0, 1))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(
            folder / "task.npz",
            recurrent=recurrent,
            input=scaled_input,
            scales=scales,
            signals=np.repeat(held[:, :, 0], parts, axis=1),
            neurons=NEURONS,
            tau=TAU_MS * 1e-3,
        )
        subprocess.run([python, str(PEER), name], check=True)
        answer = np.load(folder / "answer.npz")
        found = answer["states"][:, parts - 1 :: parts] * scales
        seconds = answer["seconds"]
    off = nrmse(found, true, washout=round(SETTLED / PRESENTATION_MS))
    return updates(copies, milliseconds - 10) / seconds, off


def compare_speeds(options: argparse.Namespace) -> None:
    """Time all systems in turn, as often as `rounds` says; print the best of each."""
    peers, rounds, lava_steps = options.peers, options.rounds, options.lava_steps
    network = delay(ORDER, PRESENTATION_MS)
    given = noise(40, 200, PRESENTATION_MS, 1)
    loihi = loihi_spike(network, given, neurons_per_state=NEURONS, presentation_ms=PRESENTATION_MS)
    analog = spike(
        network,
        given,
        neurons_per_state=NEURONS,
        presentation_ms=PRESENTATION_MS,
        tau_ms=TAU_MS,
        mismatch=0.0,
    )
    many = noise(100, 200, PRESENTATION_MS, 0)
    work: dict[str, Callable[[], np.ndarray]] = {
        "spiking, 100 samples": lambda: own_rate(SpikingTarget(), loihi, many),
        "spiking, 1 sample": lambda: own_rate(SpikingTarget(), loihi, many[:1]),
        "lava-lif, 1 sample": lambda: lava_rate(loihi, 1, lava_steps),
        "lava-lif, 8 samples side by side": lambda: lava_rate(loihi, 8, lava_steps),
        "brian2, 100 samples": lambda: own_rate(Brian2Target(), analog, many),
    }
    errors = {
        "spiking, 100 samples": _own_error(SpikingTarget(), loihi, network, many),
        "brian2, 100 samples": _own_error(Brian2Target(), analog, network, many[:20]),
    }
    if peers is not None:
        for copies in (1, 16):
            name = f"Nengo, {copies} side by side"
            errors[name] = nengo(peers, copies, network)[1]
            work[name] = lambda copies=copies: nengo(peers, copies, network)[0]  # type: ignore[misc]
    best = dict.fromkeys(work, np.zeros(2))
    for turn in range(rounds):
        for name, measure in work.items():
            rate = measure()
            best[name] = np.maximum(best[name], rate)
            text = "{:.2f} of the processor, {:.2f} of the clock".format(*rate / 1e6)
            print(f"round {turn + 1}: {name}: million updates a second: {text}", flush=True)
    rows = [[name, *(rate / 1e6).tolist(), errors.get(name)] for name, rate in best.items()]
    results.publish(SPEED, rows, options)


def _own_error(target: Target, lowered: object, network: LMUNetwork, inputs: np.ndarray) -> float:
    return error(target.run(lowered, inputs, record=True), network, inputs, PRESENTATION_MS)


def main() -> None:
    """Do what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--equality", action="store_true", help="the five networks")
    parser.add_argument("--speed", action="store_true", help="neuron updates a second")
    parser.add_argument("--peers", help="a Python that has Nengo")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--lava-steps", type=int, default=50, help="presentations of 10 ms")
    results.add_options(parser)
    options = parser.parse_args()
    if options.equality:
        compare_targets(options)
    if options.speed:
        compare_speeds(options)


if __name__ == "__main__":
    main()
