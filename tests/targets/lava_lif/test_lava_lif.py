"""Lava's LIF and Dense equal the bit-exact simulator, spike for spike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from needs import needs

from converters.loihi import loihi_spike, neurons
from lmu_deploy.core.errors import RunError
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.core.spiking.loihi import LoihiMemory, LoihiNeurons
from targets.lava_lif import LavaLifTarget
from targets.lava_lif.target import run_jobs, run_stages
from targets.spiking import SpikingTarget
from targets.spiking import target as spiking_target
from targets.spiking.graph import GraphRunner
from targets.spiking.layers import Job
from targets.spiking.target import run_job, simulate_fixed
from tests.support.loihi_graphs import drawn_graph, two_blocks

pytestmark = needs("lava")


NETWORKS, MEMORIES_EACH = 10, 5
"""Channels do not meet on the chip: each is a memory of its own, at less than a start of Lava."""


def int8(rng, most, *shape):
    return rng.integers(-most, most + 1, shape).astype(np.int8)


def drawn_neurons(rng, states, neurons):
    """Any neurons that are admitted: currents that wrap, membranes that reach their limits."""
    exponent = int(rng.integers(0, 8))
    return LoihiNeurons(
        encoders=int8(rng, min(127, 8 * 2**exponent - 1), states, neurons),
        encoder_exponent=exponent,
        bias_mantissas=rng.integers(-4096, 4096, (states, neurons)).astype(np.int16),
        bias_exponent=int(rng.integers(0, 8)),
        current_decay=int(rng.choice([4095, rng.integers(0, 4096)])),
        membrane_decay=int(rng.choice([400, rng.integers(1, 4096)])),
        threshold=int(rng.integers(1, 2**17)),
    )


def drawn_job(rng, name, channels=MEMORIES_EACH):
    """Memories of random integers, one a channel, with feedback through a random host."""
    order, neurons = int(rng.integers(1, 4)), int(rng.integers(1, 8))
    states = channels * order

    def gains(low, high):
        return rng.integers(low, high, states).astype(np.int32)

    memory = LoihiMemory(
        neurons=drawn_neurons(rng, states, neurons),
        decoders=int8(rng, 127, channels, order, order * neurons),
        decoder_multiplier=gains(0, 2**15),
        decoder_shift=gains(0, 6),
        input_weights=int8(rng, 127, states),
        input_multiplier=gains(0, 2**15),
        input_shift=gains(2, 12),
        decay=int(rng.integers(1, 400)),
        message_shift=int(rng.integers(4, 10)),
        scales=rng.uniform(0.1, 2.0, (channels, order)),
        input_scale=rng.uniform(1e-5, 1e-4, channels),
    )
    hidden = Hidden(rng.normal(size=(states, 3)), None, rng.normal(size=(3, 3)), None, "tanh")
    layer = LMULayer(
        input_encoders=rng.normal(size=(2, channels)),
        hidden_encoders=rng.normal(size=(3, channels)),
        memory_encoders=0.1 * rng.normal(size=(states, channels)),
        memory_bias=rng.normal(size=channels),
        memory=Memory.legendre(order, 10.0, channels),
        hidden=hidden,
    )
    return Job(name, memory, layer, rng.normal(size=(2, 5, 2)), int(rng.integers(1, 7)))


def assert_same(lava, simulator):
    assert np.array_equal(lava.states, simulator.states)
    for kind in ("memory", "relay", "input"):
        assert np.array_equal(lava.counts[kind], simulator.counts[kind]), kind
        assert np.array_equal(lava.by_neuron[kind], simulator.by_neuron[kind]), kind
        assert np.array_equal(lava.rasters[kind], simulator.rasters[kind]), kind
    assert lava.saturations == simulator.saturations


def test_fifty_drawn_memories_with_saturations_and_wraps(rng, monkeypatch):
    jobs = [drawn_job(rng, f"layer{number}") for number in range(NETWORKS)]
    assert sum(job.memory.channels for job in jobs) == 50
    lava = run_jobs(jobs, time_limit=280.0)
    simulated = [run_job(job) for job in jobs]
    for ours, simulator in zip(lava, simulated, strict=True):
        assert_same(ours, simulator)
    # The test would be blind if nothing spiked, saturated or wrapped.
    for place in ("input", "relay/state", "relay/message"):
        assert sum(simulator.saturations[place] > 0 for simulator in simulated) >= 5, place
    assert all(simulator.counts["memory"].sum() > 0 for simulator in simulated)
    monkeypatch.setattr(neurons, "_wrapped_once", lambda current: current)
    different = [
        not np.array_equal(run_job(job).rasters["memory"], simulator.rasters["memory"])
        for job, simulator in zip(jobs, simulated, strict=True)
    ]
    assert sum(different) >= 2, "wrapping changed nothing"


@pytest.mark.parametrize(("order", "neurons"), [(3, 40), (6, 30)])
def test_a_lowered_network(rng, order, neurons):
    layer = LMULayer(np.ones((1, 1)), None, None, None, Memory.legendre(order, 30.0), None)
    network = LMUNetwork((layer,), Readout(np.eye(order), None), return_sequences=True)
    inputs = np.sin(rng.uniform(0.1, 0.4, (6, 1, 1)) * np.arange(20)[None, :, None])
    lowered = loihi_spike(
        network, inputs, neurons_per_state=neurons, presentation_ms=10.0, tau_ms=50.0
    )
    calls = []
    lava = LavaLifTarget().run(
        lowered, inputs[:2], record=True, progress=lambda *done: calls.append(done)
    )
    simulator = SpikingTarget().run(lowered, inputs[:2], record=True)
    assert np.array_equal(lava.states.m, simulator.states.m)
    assert lava.states.m.dtype.kind == "i"
    assert np.array_equal(lava.outputs, simulator.outputs)
    for name, raster in simulator.rasters.items():
        assert np.array_equal(lava.rasters[name], raster)
        assert raster.sum() > 0
    assert lava.synops == simulator.synops
    assert calls[-1] == (2, 2)
    assert "versions" in lava.settings


def test_whole_graphs_equal_the_simulator_spike_for_spike(monkeypatch):
    """Drawn graphs, and two lowered blocks with a residual sum; all in one start of Lava."""
    rng = np.random.default_rng(11)
    inputs = np.cumsum(rng.normal(size=(20, 4, 2)), axis=1) / 3.0
    options = {"neurons_per_state": 10, "neurons_per_unit": 8, "presentation_ms": 10.0}
    graphs = [drawn_graph(np.random.default_rng(seed)) for seed in range(2)]
    graphs.append(loihi_spike(two_blocks(rng), inputs, tau_ms=30.0, **options))
    stages = []

    def simulated(stage):
        stages.append((stage, simulate_fixed(stage)))
        return stages[-1][1]

    for graph in graphs:
        GraphRunner("spiking", graph, inputs[:2, :3], 0, simulated, {}).run(record=False)
    lava = run_stages([stage for stage, _ in stages], lambda steps: 280.0)
    for ours, (stage, simulator) in zip(lava, stages, strict=True):
        for name in stage.senders:
            assert np.array_equal(ours.rasters[name], simulator.rasters[name]), name
            assert np.array_equal(ours.counts[name], simulator.counts[name]), name
            assert np.array_equal(ours.by_neuron[name], simulator.by_neuron[name]), name
        for name, values in {**simulator.drives, **simulator.read}.items():
            assert np.array_equal({**ours.drives, **ours.read}[name], values), name
        assert ours.saturations == simulator.saturations
        assert all(simulator.counts[each.name].sum() > 0 for each in stage.ensembles)
    assert any(sum(done.saturations.values()) for _, done in stages)
    # A register that rounds down and not toward zero differs in its last bit.
    monkeypatch.setattr(spiking_target, "decayed", lambda x, decay: x * (4096 - decay) >> 12)
    faulty = [simulate_fixed(stage) for stage, _ in stages]
    for ours, other in zip(lava, faulty, strict=True):
        assert not all(
            np.array_equal(ours.drives[name], other.drives[name]) for name in ours.drives
        )


def test_a_run_that_takes_too_long_is_given_up(rng):
    job = drawn_job(rng, "layer0")
    with pytest.raises(RunError, match="longer time limit"):
        run_jobs([replace(job, signal=np.tile(job.signal, (1, 2000, 1)))], time_limit=0.2)
