"""Targets c and cortex-m4: the compiled code equals the simulator in every state of every frame."""

import dataclasses
import shutil

import graphs
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from integer_graphs import graph_runs

import lmu_deploy as ld
from converters.c.generator import generate
from converters.quantize import quantize
from lmu_deploy.core.errors import InputError, MissingDependencyError
from lmu_deploy.core.graph.frames import LayerNorm
from lmu_deploy.core.graph.linear import Conv1d, Dense
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.pointwise import Activation, Add
from lmu_deploy.core.graph.recurrent import GRU, LSTM
from lmu_deploy.core.graph.time import Pool, Reduce
from lmu_deploy.core.integer.graph import with_thresholds
from lmu_deploy.core.network import Memory
from targets.c import CortexM4Target, CTarget
from targets.c.target import messages_of, records_of
from targets.c.toolchain import CortexM4, Host
from targets.integer.run import IntegerTarget

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler"
)


def assert_equal(network, x, target=None):
    """Compare every frame, event and synaptic operation of both targets."""
    found = (target or CTarget()).run(network, x, record=True)
    expected = IntegerTarget("numpy").run(network, x, record=True)
    for place, values in found.states.parts.items():
        assert np.array_equal(values, expected.states.parts[place]), place
    assert np.array_equal(found.outputs, expected.outputs)
    assert found.events.keys() == expected.events.keys()
    assert found.neurons == expected.neurons
    for place, events in found.events.items():
        assert np.array_equal(events, expected.events[place]), place
    assert found.synops == expected.synops


def varied():
    """Return a network of every population but the series."""
    rng = np.random.default_rng(5)

    def weights(*shape):
        return rng.normal(size=shape) * 0.5

    nodes = (
        Node("conv", Conv1d(weights(3, 2, 6), weights(6), left=1, right=1), (INPUT,)),
        Node("gelu", Activation("gelu"), ("conv",)),
        Node(
            "lmu",
            LinearMemory(Memory.legendre(4, 8.0, 3), weights(6, 3), weights(3), Activation("relu")),
            ("gelu",),
        ),
        Node("mix", Dense(weights(12, 6)), ("lmu",)),
        Node("sum", Add(), ("gelu", "mix")),
        Node("lstm", LSTM(weights(6, 20), weights(5, 20), weights(20)), ("sum",)),
        Node("gru", GRU(weights(5, 12), weights(4, 12), weights(12), None, False), ("lstm",)),
        Node("pool", Pool("max", 2, 2), ("gru",)),
        Node("mean", Reduce("mean"), ("pool",)),
        Node("head", Dense(weights(4, 3), weights(3)), ("mean",)),
    )
    return Network(nodes, (2,), "head")


def test_messages_that_nothing_receives_are_no_warning():
    """gcc warns of an array of one message that is written and not read."""
    rng = np.random.default_rng(1)
    nodes = (
        Node("memory", LinearMemory(Memory.legendre(1, 8.0), np.ones((1, 1))), (INPUT,)),
        Node("read", Dense(rng.normal(size=(1, 2))), ("memory",)),
        Node("skip", Dense(rng.normal(size=(1, 2))), (INPUT,)),
        Node("sum", Add(), ("read", "skip")),
        Node("tanh", Activation("tanh"), ("sum",)),
        Node("head", Dense(rng.normal(size=(2, 2))), ("tanh",)),
    )
    x = rng.normal(size=(2, 9, 1))
    integer = quantize(Network(nodes, (1,), "head"), x, realization="sign-taylor")
    kept = [e for e in integer.edges if (e.source.node, e.target.node) != ("memory", "tanh")]
    assert len(kept) == len(integer.edges) - 1
    assert_equal(dataclasses.replace(integer, edges=tuple(kept)), x)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(graph_runs(units=True))
def test_graphs_of_any_populations_and_edges(made):
    network, x = made
    assume(not CTarget().unsupported(network))
    assert_equal(network, x)


def test_a_network_of_all_populations():
    network = varied()
    x = np.random.default_rng(1).normal(size=(3, 17, 2))
    integer = quantize(network, x)
    kinds = {type(p).__name__ for p in integer.populations}
    assert kinds >= {"LSTMUnits", "GRUUnits", "Product", "Maximum", "Reduction", "Integrators"}
    assert_equal(integer, x)


@pytest.mark.parametrize("realization", ["schur", "sign-taylor"])
def test_realizations_and_thresholds(realization):
    rng = np.random.default_rng(2)
    memory = LinearMemory(Memory.legendre(6, 9.0, 2), rng.normal(size=(3, 2)))
    nodes = (
        Node("lmu", memory, (INPUT,)),
        Node("dense", Dense(rng.normal(size=(12, 5))), ("lmu",)),
        Node("tanh", Activation("tanh"), ("dense",)),
        Node("out", Dense(rng.normal(size=(5, 2))), ("tanh",)),
    )
    x = rng.normal(size=(3, 19, 3))
    integer = quantize(Network(nodes, (3,), "out"), x, realization=realization)
    assert_equal(integer, x)
    thresholds = {edge.place: 2 + n for n, edge in enumerate(integer.edges)}
    assert_equal(with_thresholds(integer, thresholds), x)


class Sanitized(Host):
    """This machine, where a program that overflows or leaves an array ends with an error."""

    def compile(self, source, folder, record=True, *options):
        checks = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
        return super().compile(source, folder, record, *checks, *options)


def test_extreme_inputs_saturate_and_never_overflow(tmp_path):
    """10,000 steps of random and extreme 32-bit integers, most of them beyond the input's range."""
    rng = np.random.default_rng(6)
    integer = quantize(varied(), 0.01 * rng.normal(size=(3, 17, 2)))
    steps = rng.integers(-(2**31), 2**31, size=(10, 1000, 2))
    steps[rng.random(steps.shape) < 0.3] = 2**31 - 1
    steps[rng.random(steps.shape) < 0.3] = -(2**31)
    steps[1, :500], steps[1, 500:] = 2**31 - 1, -(2**31)
    source, host = generate(integer, "network"), Sanitized()
    program = host.compile(source, tmp_path)
    found = records_of(integer, steps.shape, host.execute(program, steps.astype(np.int32)))
    expected = IntegerTarget("numpy").run(integer, steps * integer.input.scale, record=True)
    assert sum(expected.saturations.values()) > 10_000
    for place, values in found.items():
        assert np.array_equal(values, expected.states.parts[str(place)]), place


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(graphs.networks(most_nodes=5), st.integers(0, 99))
def test_drawn_networks(network, seed):
    x = graphs.inputs_for(network, 2, graphs.fewest_steps(network) + 5, seed)
    try:
        integer = quantize(network, x)
    except InputError:
        return
    if not integer.on_host:
        assert_equal(integer, x)


def test_nodes_on_the_host_are_named():
    nodes = (
        Node("norm", LayerNorm(np.ones(2), np.zeros(2)), (INPUT,)),
        Node("out", Dense(np.ones((2, 2))), ("norm",)),
    )
    x = np.random.default_rng(0).normal(size=(2, 5, 2))
    integer = quantize(Network(nodes, (2,), "out"), x)
    with pytest.raises(InputError, match="node norm"):
        CTarget().run(integer, x)


emulated = pytest.mark.skipif(
    not CortexM4().available(), reason="arm-none-eabi-gcc or qemu-system-arm is not installed"
)


@emulated
@pytest.mark.parametrize("name", ["digits", "mackey-glass-hybrid", "varied"])
def test_every_state_is_equal(name):
    if name == "varied":
        network, x = varied(), np.random.default_rng(1).normal(size=(2, 17, 2))
    else:
        network = ld.load(f"examples/models/{name}.safetensors")
        x = np.random.default_rng(0).uniform(-1, 1, (2, 20, network.frame[0]))
    assert_equal(quantize(network, x), x, CortexM4Target())


@emulated
def test_instructions_of_a_step_are_counted_alike_in_every_run(tmp_path):
    network = ld.load("examples/models/digits.safetensors")
    x = np.random.default_rng(0).uniform(0, 16, (1, 8, 8))
    integer = quantize(network, x)
    source, messages = generate(integer, "network"), messages_of(integer, x)
    counts = CortexM4().time(source, tmp_path, messages)
    again = CortexM4().time(source, tmp_path, messages)
    # The clock has a resolution of 40 instructions.
    assert np.abs(counts - again).max() <= 40
    weights = sum(edge.connection.slices.size for edge in integer.edges)
    assert weights < counts.min() <= counts.max() < 20 * weights


def test_missing_tools_are_named(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"arm-none-eabi-gcc.*install gcc-arm-none"):
        CortexM4().compiler()
