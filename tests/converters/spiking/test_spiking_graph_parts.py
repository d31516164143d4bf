"""Calibration of a graph behind recorded spikes, and ensembles that are kept for a later start."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.options import SpikeOptions
from converters.spiking import spike
from converters.spiking.device import Played
from converters.spiking.graph import build
from converters.spiking.graph.partial import MEASURING, Sent
from converters.spiking.graph.plan import recipe_of_graph, whole_plan
from converters.spiking.graph.simulator import Circuit, GraphSimulator, simulated
from converters.spiking.lower import spike_with
from converters.spiking.recipe import Calibrated
from lmu_deploy.core.graph.executor import record_states
from lmu_deploy.core.graph.linear import Dense
from lmu_deploy.core.graph.lmu import LMU
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.pointwise import Activation, Add
from lmu_deploy.core.graph.recurrent import SimpleRNN
from lmu_deploy.core.legendre import discretize
from lmu_deploy.core.network import Memory
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.spiking.graph import SpikingGraph
from lmu_deploy.fidelity.store import PARTS, Parts
from targets.spiking import SpikingTarget

STEPS, N_IN = 6, 3
RNG = np.random.default_rng(3)
QUICK: dict[str, Any] = {
    **{"neurons_per_state": 10, "neurons_per_unit": 8, "calibration_samples": 30, "units": "chip"},
    **{"presentation_ms": 20.0, "tau_ms": 30.0, "mismatch": 0.2},
}


def _weights(*shape: int) -> np.ndarray:
    return RNG.uniform(-1.5, 1.5, shape) / np.sqrt(shape[0])


def _memory(n_in: int) -> LinearMemory:
    memory = Memory(3, 2, 6.0, "zoh", *discretize(3, 6.0, "zoh"))
    return LinearMemory(memory, _weights(n_in, 2))


NETWORK = Network(
    (
        Node("m1", _memory(N_IN), (INPUT,)),
        Node("d1", Dense(_weights(6, 4), _weights(4)), ("m1",)),
        Node("u1", Activation("relu"), ("d1",)),
        Node("m2", _memory(4), ("u1",)),
        Node("d2", Dense(_weights(6, 4), _weights(4)), ("m2",)),
        Node("both", Add(), ("d2", "u1")),
        Node("u2", Activation("relu"), ("both",)),
        Node("out", Dense(_weights(4, 2), _weights(2)), ("u2",)),
    ),
    (N_IN,),
    "out",
)
INPUTS = np.random.default_rng(1).normal(size=(30, STEPS, N_IN)) * 0.7


class _AtOnce(build.GraphBuilder):
    """Simulate all ensembles before the next one again, and at the same time."""

    def sent(self, name: str, progress: Progress | None = None) -> Sent:
        recipe, needed = self.recipe, {name}
        for each in reversed(self.done):
            if each in needed:
                needed.update(self.done[each].sources)
        ensembles = [each for each in self.done.values() if each.name in needed]
        starts = {
            each: np.random.default_rng([recipe.seed, number, MEASURING])
            for number, each in enumerate(self.done)
        }
        circuit = Circuit(
            recipe.model, self.device, recipe.dt_ms, recipe.tau_ms, recipe.readout_tau_ms
        )
        neurons = simulated(circuit, ensembles, self.samples, starts, starts)
        simulator = GraphSimulator(circuit, ensembles, neurons, self.samples)
        values, spikes, drives = self.host.currents(ensembles, self.steps), [], []
        at = [each.name for each in ensembles].index(name)
        for step in range(self.steps):
            simulator.present({source: value[:, step] for source, value in values.items()})
            for _ in range(recipe.parts):
                fired = simulator.step()[name]
                spikes.append(np.packbits(fired.reshape(self.samples, -1), axis=1))
                drives.append(simulator.drives[at])
        return Sent(Played(np.stack(spikes), fired.shape[1:]), np.stack(drives))


def _built(kind: type[build.GraphBuilder], **options: Any) -> build.GraphBuilder:
    plan = whole_plan(NETWORK, SpikeOptions(**{**QUICK, **options}))
    assert plan is not None
    recipe = recipe_of_graph(plan, "generic-analog", SpikeOptions(**{**QUICK, **options}))
    builder = kind(plan, recipe, INPUTS)
    if kind is _AtOnce:
        builder.linear = False  # read spikes, where states would do
    for number, spot in enumerate(plan.spots):
        builder.take(spot, builder.made(number, spot, None))
        builder.forget(plan.spots[number + 1 :])
    return builder


def _error(graph: SpikingGraph) -> float:
    fresh = np.random.default_rng(9).normal(size=(20, STEPS, N_IN)) * 0.7
    states = SpikingTarget().run(graph, fresh, record=True).states
    expected = record_states(graph.host, fresh, nodes=["out"]).nodes["out"]
    assert states is not None
    return float(np.linalg.norm(states.y - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("fan_in", [0, 24])
def test_recorded_spikes_give_the_map_of_a_chip_that_runs_as_a_whole(fan_in: int) -> None:
    """Sums in float32 have the same order with 6-bit weights, so that every bit is equal."""
    options = {"weight_bits": 6, "fan_in": fan_in, "membrane_noise": 0.02}
    fast, slow = _built(build.GraphBuilder, **options), _built(_AtOnce, **options)
    assert fast.graph().fingerprint() == slow.graph().fingerprint()


def test_drives_that_follow_the_states_of_a_memory_are_those_of_its_spikes() -> None:
    """Unrounded weights: another order of float32 sums, and the same chip otherwise."""
    fast, slow = _built(build.GraphBuilder), _built(_AtOnce)
    assert fast.linear and fast.states["u1", False] and not slow.states.get(("u1", False))
    one, other = (each.done["u1"].connections[0].weights for each in (fast, slow))
    np.testing.assert_allclose(one, other, atol=1e-4 * np.abs(other).max())
    assert _error(fast.graph()) == pytest.approx(_error(slow.graph()), rel=0.05)


def test_spikes_are_kept_as_long_as_they_are_read() -> None:
    plan = whole_plan(NETWORK, SpikeOptions(**QUICK))
    assert plan is not None
    builder = build.GraphBuilder(
        plan, recipe_of_graph(plan, "generic-analog", SpikeOptions(**QUICK)), INPUTS
    )
    held = []
    for number, spot in enumerate(plan.spots):
        builder.take(spot, builder.made(number, spot, None))
        builder.forget(plan.spots[number + 1 :])
        held.append(sorted(builder._sent))
    assert held == [[], ["m1"], ["u1"], ["m2", "u1"], []]


class _KilledError(Exception):
    """The process ends."""


def _kept(folder: Path, most: int, makes: list[int]) -> Callable[..., Calibrated]:
    """Return a keeper that ends with the calibration after `most` ensembles."""
    parts = Parts(folder)

    def keep(make: Callable[[], Calibrated], *what: Any) -> Calibrated:
        def counted() -> Calibrated:
            if len(makes) == most:
                raise _KilledError
            makes.append(what[-1])
            return make()

        return parts.ensemble(counted, *what)

    return keep


def test_a_killed_calibration_resumes_with_the_next_ensemble(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = SpikeOptions(**QUICK)

    def calibrated(keep: Callable[..., Calibrated] | None, inputs: np.ndarray = INPUTS) -> str:
        made = spike_with(NETWORK, inputs, "generic-analog", options, keep=keep)
        return made.fingerprint()

    whole, first, second = calibrated(None), [], []
    with pytest.raises(_KilledError):
        calibrated(_kept(tmp_path, 3, first))
    assert first == [0, 1, 2] and len(list((tmp_path / PARTS).iterdir())) == 3
    with caplog.at_level(logging.INFO):
        assert calibrated(_kept(tmp_path, 9, second)) == whole
    assert second == [3, 4]
    assert sum("kept from an earlier start: ensemble-" in each for each in caplog.messages) == 3
    other: list[int] = []
    assert calibrated(_kept(tmp_path, 9, other), 1.1 * INPUTS) != whole
    assert other == [0, 1, 2, 3, 4]
    (tmp_path / PARTS / sorted(each.name for each in (tmp_path / PARTS).iterdir())[0]).write_bytes(
        b"x"
    )
    again: list[int] = []
    assert calibrated(_kept(tmp_path, 9, again)) == whole and len(again) <= 1


def test_recording_has_the_hidden_units_of_lmus_whatever_other_nodes_are_called() -> None:
    inputs = np.random.default_rng(4).normal(size=(30, STEPS, N_IN))
    memory = _memory(N_IN)
    cell = SimpleRNN(_weights(6, 4), None, _weights(4), Activation("tanh"))
    network = Network(
        (
            Node("lmu", LMU(memory.memory, memory.encoders, cell, False), (INPUT,)),
            Node("mix", Dense(_weights(4, 5), _weights(5)), ("lmu",)),
            Node("mlp/hidden", Activation("relu"), ("mix",)),
            Node("out", Dense(_weights(5, 2)), ("mlp/hidden",)),
        ),
        (N_IN,),
        "out",
    )
    graph = spike(network, inputs, **{**QUICK, "calibration": "static"})
    assert isinstance(graph, SpikingGraph)
    assert [e.name for e in graph.ensembles if e.hidden] == ["lmu/hidden"]
    states = SpikingTarget().run(graph, inputs[:3], record=True).states
    assert states is not None
    assert np.array_equal(states.h, states.parts["lmu/hidden"])
    assert states.h.shape == record_states(network, inputs[:3]).hidden["lmu"].shape
