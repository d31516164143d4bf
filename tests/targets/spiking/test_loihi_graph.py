"""Graphs on Loihi's neurons: the specification by hand, the conversion, the command line."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

import lmu_deploy as ld
from converters.loihi import loihi_spike
from lmu_deploy.api.check import placement, remarks
from lmu_deploy.cli import main
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.executor import record_states, run
from lmu_deploy.core.graph.linear import Dense
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.time import Reduce
from lmu_deploy.core.loading import load
from lmu_deploy.core.network import Memory
from lmu_deploy.core.spiking.graph import LoihiGraph
from lmu_deploy.fidelity.measures.energy import costs_of
from lmu_deploy.fidelity.measures.sizes import network_sizes, neurobench_of
from targets.spiking import SpikingTarget
from targets.spiking import target as simulator
from tests.support.loihi_graphs import drawn_graph, scalar_run, two_blocks, weights

QUICK = {"neurons_per_state": 16, "neurons_per_unit": 12, "presentation_ms": 20.0, "tau_ms": 30.0}


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(1)
    return np.cumsum(rng.normal(size=(40, 8, 2)), axis=1) / 3.0


@pytest.fixture(scope="module")
def network():
    return two_blocks(np.random.default_rng(2))


@pytest.fixture(scope="module")
def graph(network, inputs) -> LoihiGraph:
    made = loihi_spike(network, inputs, **QUICK)
    assert isinstance(made, LoihiGraph)
    return made


@pytest.mark.parametrize("seed", range(6))
def test_the_specification_computed_number_by_number(seed):
    """Python integers, one neuron after the other, give what the simulator gives."""
    rng = np.random.default_rng(seed)
    graph = drawn_graph(rng)
    given = rng.normal(size=(2, 3, 2))
    found = SpikingTarget().run(graph, given, record=True)
    for sample in range(2):
        rasters, reads, saturations = scalar_run(graph, given[sample])
        assert np.array_equal(found.outputs[sample], reads["out"])
        for name, raster in rasters.items():
            steps = graph.steps_per_presentation
            counts = np.array(raster)[:-1].reshape(-1, steps, len(raster[0])).sum(axis=(1, 2))
            assert np.array_equal(found.events[name][sample], counts), name
            if sample == 0:
                assert np.array_equal(found.rasters[name], raster), name
                total = dict(saturations)
    for place, count in saturations.items():
        assert found.saturations[place] == count + total[place], place


def test_drawn_graphs_spike_and_saturate():
    """The comparison above would be blind otherwise."""
    places, spikes = set(), 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        done = SpikingTarget().run(drawn_graph(rng), rng.normal(size=(2, 3, 2)))
        places |= {place.rpartition("/")[2] for place, count in done.saturations.items() if count}
        spikes += sum(int(done.events[name].sum()) for name in ("m1", "u1", "m2"))
    assert {"state", "message"} <= places
    assert spikes > 500


@pytest.mark.parametrize("fault", ["rounding", "half", "decay", "fast decay", "weight"])
def test_a_planted_fault_is_caught(fault, monkeypatch):
    """Each changes a last bit, or a step, and the computation by hand disagrees."""
    caught = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        graph = drawn_graph(rng)
        given = rng.normal(size=(1, 3, 2))
        _, reads, _ = scalar_run(graph, given[0])
        faulty = graph
        with monkeypatch.context() as patch:
            if fault == "rounding":
                patch.setattr(simulator, "decayed", lambda x, decay: x * (4096 - decay) >> 12)
            elif fault == "half":
                patch.setattr(simulator, "scaled", lambda v, g, s: v * g >> s)
            elif fault == "fast decay":
                faulty = replace(graph, fast_decay=max(graph.fast_decay - 1, 1))
            elif fault == "decay":
                faulty = replace(graph, decay=graph.decay + 1)
            else:
                faulty = with_another_weight(graph)
            found = SpikingTarget().run(faulty, given)
        caught += not np.array_equal(found.outputs[0], reads["out"])
    assert caught >= 4


def with_another_weight(graph: LoihiGraph) -> LoihiGraph:
    """Return a graph with one weight of a probe that is larger by one."""
    (probe,) = graph.probes
    each = probe.connections[0]
    changed = each.weights.copy()
    changed[0, 0] += np.where(changed[0, 0] < 127, 1, -1).astype(np.int8)
    parts = (replace(each, weights=changed), *probe.connections[1:])
    return replace(graph, probes=(replace(probe, connections=parts),))


def test_two_blocks_follow_the_float_network(graph, network, inputs):
    names = [node.name for node in graph.host.nodes]
    truth = record_states(graph.host, inputs, nodes=names).nodes
    found = SpikingTarget().run(graph, inputs, record=True)
    assert [each.name for each in graph.ensembles] == [
        "block.0.memory",
        "u1",
        "block.1.memory",
        "u2",
    ]
    for name, values in found.states.parts.items():
        error = np.linalg.norm(values - truth[name]) / np.linalg.norm(truth[name])
        assert error < 0.35, name
    expected = run(network, inputs)
    off = np.linalg.norm(found.outputs - expected) / np.linalg.norm(expected)
    assert off < 0.25
    assert found.events["u1"].sum() > 0
    assert not any(found.saturations.values())


def test_more_neurons_follow_it_more_closely(network, inputs, graph):
    better = loihi_spike(network, inputs, **{**QUICK, "neurons_per_state": 48})
    truth = record_states(graph.host, inputs, nodes=["block.0.memory"]).nodes["block.0.memory"]

    def error(of):
        states = SpikingTarget().run(of, inputs, record=True).states.parts["block.0.memory"]
        return np.linalg.norm(states - truth)

    assert error(better) < 0.8 * error(graph)


def test_weights_are_what_calibration_fitted(graph):
    """Rows of 8 bits use their width, and each has a gain of 15 bits."""
    for part in (*graph.ensembles, *graph.probes):
        for each in part.connections:
            rows = np.abs(each.weights.astype(int)).max(axis=2).reshape(-1)
            assert np.all((rows == 127) | (rows == 0)), part.name
            assert np.all(each.multiplier[rows > 0] >= 2**13)


def test_a_chain_becomes_a_graph_on_request(inputs):
    rng = np.random.default_rng(3)
    memory = LinearMemory(Memory.legendre(2, 6.0), weights(rng, 2, 1))
    chain = Network(
        (Node("m", memory, (INPUT,)), Node("out", Dense(np.eye(2), np.zeros(2)), ("m",))),
        (2,),
        "out",
    )
    assert not isinstance(loihi_spike(chain, inputs, **_of_chains()), LoihiGraph)
    graph = loihi_spike(chain, inputs, units="chip", **_of_chains())
    assert isinstance(graph, LoihiGraph)
    found, expected = SpikingTarget().run(graph, inputs).outputs, run(chain, inputs)
    assert np.linalg.norm(found - expected) < 0.2 * np.linalg.norm(expected)


def _of_chains():
    return {name: value for name, value in QUICK.items() if name != "neurons_per_unit"}


def test_save_load_check_and_measures(graph, inputs, tmp_path):
    graph.save(tmp_path / "graph.safetensors")
    again = load(tmp_path / "graph.safetensors")
    assert isinstance(again, LoihiGraph)
    assert again.fingerprint() == graph.fingerprint()
    first, second = (SpikingTarget().run(each, inputs[:2]) for each in (graph, again))
    assert np.array_equal(first.outputs, second.outputs)
    assert ld.check(graph, profile="loihi1") == []
    assert "block.0.memory" in placement(graph, profile="loihi1")
    assert any("On the host" in remark for remark in remarks(graph))
    sizes = network_sizes(graph)
    assert sizes.synapses <= sizes.weights and sizes.weight_bits == 8
    assert neurobench_of(first, graph).activation_sparsity > 0.5
    assert costs_of(first, graph) is not None
    relays = sum(each.size for each in graph.ensembles)
    wider = ld.check(replace(graph, profile="loihi2"), profile="loihi2")
    assert all("relay" in v.object or "cores" in v.object for v in wider) and relays == 14


def test_synaptic_operations_are_counted_one_by_one(graph, inputs):
    done = SpikingTarget().run(graph, inputs[:1])
    total = 0
    for name, reached in graph.senders().items():
        total += int(done.rasters[name].sum(axis=0).astype(np.int64) @ reached)
    assert done.synops == total


def test_messages_name_what_is_wrong(network, inputs):
    with pytest.raises(InputError, match="mismatch has no meaning"):
        ld.spike(network, _dataset(inputs), profile="loihi1", mismatch=0.1)
    with pytest.raises(InputError, match=r"need \d+ neurons and relays, and profile loihi1 has"):
        loihi_spike(network, inputs, neurons_per_state=20_000)
    with pytest.raises(InputError, match="not a whole multiple"):
        loihi_spike(network, inputs, readout_tau_ms=2.5)
    chain = Network(
        (
            Node("m", LinearMemory(Memory.legendre(2, 6.0), np.ones((2, 1))), (INPUT,)),
            Node("last", Reduce("last"), ("m",)),
            Node("out", Dense(np.eye(2), np.zeros(2)), ("last",)),
        ),
        (2,),
        "out",
    )
    with pytest.raises(InputError, match="for a chain of layers neurons_per_unit has no meaning"):
        ld.spike(chain, _dataset(inputs), profile="loihi1", neurons_per_unit=30)


def _dataset(inputs):
    labels = (inputs[:, -1, 0] > 0).astype(int)
    return ld.Dataset(inputs[:30], labels[:30], inputs[30:], labels[30:])


def test_command_line(network, inputs, tmp_path, monkeypatch):
    labels = (inputs[:, -1, 0] > 0).astype(int)
    data = tmp_path / "data.npz"
    np.savez(data, x_train=inputs[:30], y_train=labels[:30], x_test=inputs[30:], y_test=labels[30:])
    file, made = tmp_path / "net.safetensors", tmp_path / "loihi.safetensors"
    network.save(file)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["lmu-deploy", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code

    options = ["--neurons-per-state", "16", "--neurons-per-unit", "12"]
    times = ["--presentation-ms", "20", "--tau-ms", "30", "--profile", "loihi1"]
    call("spike", file, "--task", data, *options, *times, "--out", made)
    call("check", made, "--profile", "loihi1")
    task = ld.Dataset(inputs[:30], labels[:30], inputs[30:], labels[30:])
    report = ld.validate(network, task, targets=["spiking"], use=[made], attribution=0)
    result = report["spiking"]
    assert result.settings["neurons_per_unit"] == 12
    assert result.sizes.representation == "LoihiGraph"
