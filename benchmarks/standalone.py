"""Target brian2-cpp beside target brian2: the same spikes, and from which size on compiling pays.

`--equality` compares small networks neuron by neuron with ``==``, noisy ones too: both draw the
same numbers, as long as Brian2 compiles for target brian2 as well. `--speed` runs memories of 0.5 s
(white noise up to 1 Hz, each value presented for 10 ms) of growing size on both targets, one after
the other in one run. Seconds are those of the processor, of all processes together, because a
shared machine's clock counts what others do; those of the clock stand beside them. What building
costs stands apart.

    python benchmarks/standalone.py --equality                 # two minutes of one processor
    python benchmarks/standalone.py --speed                    # the same
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator

import numpy as np
import results
from spiking import PRESENTATION_MS, TAU_MS, delay, noise, seconds_of

from converters.spiking import spike
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.core.spiking.network import SpikingNetwork
from targets.base import Run
from targets.brian2 import Brian2Target
from targets.brian2.standalone import Brian2CppTarget
from targets.brian2.standalone.target import run_layers

SIZES = ((6, 100), (12, 200), (24, 500), (24, 1000))
SAMPLES = (1, 4)
SHORT_MS = 1000.0
NOISE = 0.2
EQUALITY = [
    ("network", "{}"),
    ("spikes", ">{:,d}"),
    ("on brian2-cpp", ">{:,d}"),
    ("equal", "{}"),
    ("largest difference of states", ">{:.1e}"),
    ("repeated", "{}"),
]
SPEED = [
    ("neurons", ">{:,d}"),
    ("samples", ">{:d}"),
    ("simulated (s)", ">{:g}"),
    ("brian2 (s)", ">{}"),
    ("brian2-cpp (s)", ">{}"),
    ("of this building", ">{}"),
    ("of this running", ">{}"),
    ("steps against brian2's", ">{:.1f} times"),
    ("pays from (s simulated)", ">{:.0f}"),
]


def lowered(
    order: int, neurons: int, kind: str = "lif", membrane_noise: float = 0.0
) -> SpikingNetwork:
    """Return a memory of 0.5 s on neurons of a kind, calibrated from their rate curves."""
    signals = noise(20, 150, PRESENTATION_MS, 1)
    made = spike(
        delay(order, PRESENTATION_MS),
        signals,
        neurons_per_state=neurons,
        neuron=kind,
        presentation_ms=PRESENTATION_MS,
        tau_ms=TAU_MS,
        mismatch=0.0,
        calibration="static",
    )
    device = dataclasses.replace(made.device, membrane_noise=membrane_noise)
    return dataclasses.replace(made, device=device)


def stacked() -> SpikingNetwork:
    """Return two memories, one after the other, with hidden units on the host between them."""
    rng = np.random.default_rng(2)
    hidden = Hidden(rng.normal(size=(4, 3)), None, 0.2 * rng.normal(size=(3, 3)), None, "tanh")
    first = LMULayer(np.ones((1, 1)), None, None, None, Memory.legendre(4, 50.0), hidden)
    encoders = rng.normal(size=(3, 2))
    second = LMULayer(encoders, None, None, None, Memory.legendre(3, 50.0, 2), None)
    network = LMUNetwork((first, second), Readout(np.eye(6), None), return_sequences=True)
    signals = noise(20, 150, PRESENTATION_MS, 1)
    return spike(
        network,
        signals,
        neurons_per_state=50,
        presentation_ms=PRESENTATION_MS,
        calibration="static",
    )


def compare_targets(options: argparse.Namespace) -> None:
    """Print a row for each network: what is equal, and what the same seed gives again."""
    rows = []
    inputs = noise(2, 200, PRESENTATION_MS, 0)
    for name, network in _networks():
        runtime = Brian2Target().run(network, inputs, record=True, seed=3)
        compiled = Brian2CppTarget().run(network, inputs, record=True, seed=3)
        equal = all(
            np.array_equal(runtime.rasters[place], compiled.rasters[place])
            and np.array_equal(runtime.events[place], compiled.events[place])
            for place in runtime.events
        )
        assert runtime.states is not None and compiled.states is not None
        apart = np.abs(runtime.states.m - compiled.states.m).max()
        repeated = None
        if network.device.membrane_noise or network.neuron.kind == "poisson":
            again = Brian2CppTarget().run(network, inputs, seed=3)
            repeated = str(np.array_equal(again.outputs, compiled.outputs))
        spikes = _spikes(runtime), _spikes(compiled)
        rows.append([name, *spikes, str(equal), float(apart), repeated])
        print(rows[-1], file=sys.stderr, flush=True)
    results.publish(EQUALITY, rows, options, seed=3)


def _networks() -> Iterator[tuple[str, SpikingNetwork]]:
    yield "LIF", lowered(4, 50)
    yield "integrate-and-fire", lowered(4, 50, "if")
    yield "DPI", lowered(4, 50, "dpi")
    yield "two layers of LIF, three channels", stacked()
    yield f"LIF with noise of {NOISE}", lowered(4, 50, membrane_noise=NOISE)
    yield "Poisson", lowered(4, 50, "poisson")


def _spikes(run: Run) -> int:
    return int(sum(counts.sum() for counts in run.events.values()))


def compare_speeds(options: argparse.Namespace) -> None:
    """Print a row for each size: seconds of both targets, and from which length on one pays."""
    milliseconds, least, rows = options.milliseconds, options.least, []
    for order, neurons in SIZES:
        if order * neurons < least:
            continue
        network = lowered(order, neurons)
        for samples in SAMPLES:
            inputs = noise(samples, round(milliseconds / PRESENTATION_MS), PRESENTATION_MS, 0)
            rows.append(_compare_speed(network, inputs, milliseconds))
            print(rows[-1], file=sys.stderr, flush=True)
    results.publish(SPEED, rows, options, seed=0)


def _compare_speed(
    network: SpikingNetwork, inputs: np.ndarray, milliseconds: float
) -> list[results.Cell]:
    brief = inputs[:, : round(SHORT_MS / PRESENTATION_MS)]
    Brian2Target().run(network, brief[:, :5])  # what Brian2 compiles for itself, it keeps
    short = seconds_of(lambda: Brian2Target().run(network, brief))
    long = seconds_of(lambda: Brian2Target().run(network, inputs))
    found = []
    whole = seconds_of(lambda: found.append(run_layers(network, inputs, 0, None)))
    told = next(iter(found[0].outcomes.values())).seconds
    # The clock comes first there, the processor here.
    build, run = (np.array(told[phase])[::-1] for phase in ("build", "run"))
    simulated = milliseconds * 1e-3
    each = (long - short)[0] / (simulated - SHORT_MS * 1e-3)
    gained = each - run[0] / simulated
    pays = ((whole - run - long)[0] + each * simulated) / gained
    return [
        sum(m.neurons for m in network.memories if m is not None),
        len(inputs),
        simulated,
        *(_both(value) for value in (long, whole, build, run)),
        float(each * simulated / run[0]),
        float(pays) if gained > 0.0 else "never",
    ]


def _both(seconds: np.ndarray) -> str:
    return "{:.2f} ({:.2f})".format(*seconds)


def main() -> None:
    """Do what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--equality", action="store_true", help="the same spikes")
    parser.add_argument("--speed", action="store_true", help="seconds of both targets")
    parser.add_argument("--milliseconds", type=float, default=5000.0, help="simulated; over 1000")
    parser.add_argument("--least", type=int, default=0, help="leave out smaller networks")
    results.add_options(parser)
    options = parser.parse_args()
    if options.equality:
        compare_targets(options)
    if options.speed:
        compare_speeds(options)


if __name__ == "__main__":
    main()
