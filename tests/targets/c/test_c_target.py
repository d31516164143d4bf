"""Targets c and cortex-m4: the compiled code equals the simulator in every state of every frame."""

import dataclasses
import shutil
import subprocess

import graphs
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from integer_graphs import graph_runs
from onnx_runs import run_steps

import lmu_deploy as ld
from converters.c.generator import generate
from converters.onnx.quantized import to_onnx_integer_step
from converters.quantize import quantize
from lmu_deploy.core.errors import InputError, MissingDependencyError
from lmu_deploy.core.graph.frames import LayerNorm
from lmu_deploy.core.graph.linear import Conv1d, Dense
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.pointwise import Activation, Add
from lmu_deploy.core.graph.recurrent import GRU, LSTM
from lmu_deploy.core.graph.time import Delay, Pool, Reduce
from lmu_deploy.core.integer.graph import with_thresholds
from lmu_deploy.core.network import Memory
from targets.c import CortexM4Target, CTarget
from targets.c.target import messages_of, records_of
from targets.c.toolchain import CortexM4, Host
from targets.integer.machine import Machine
from targets.integer.run import IntegerTarget, Stream, finish, step

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


def test_messages_that_nothing_receives_raise_no_warning():
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


_IN_CHUNKS = """
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include "net.c"
static net_t at[2];
static int32_t x[NET_INPUTS], y[NET_OUTPUTS];
int main(void)
{
    int32_t size[2], step;
    int now = 0;
    if (fread(size, 4, 2, stdin) != 2) {
        return 1;
    }
    net_init(&at[0]);
    for (step = 0; step < size[0]; step++) {
        if (step > 0 && step % size[1] == 0) { /* continue in a copy, and destroy the original */
            at[1 - now] = at[now];
            memset(&at[now], 0x5a, sizeof at[now]);
            now = 1 - now;
        }
        if (fread(x, 4, NET_INPUTS, stdin) != NET_INPUTS) {
            return 1;
        }
        if (net_step(&at[now], x, y)) {
            fwrite(y, 4, NET_OUTPUTS, stdout);
        }
    }
    while (net_finish(&at[now], y)) {
        fwrite(y, 4, NET_OUTPUTS, stdout);
    }
    return 0;
}
"""


def streamed(ahead):
    """Return convolutions, a residual with a delay, a memory, units with feedback and pooling."""
    rng = np.random.default_rng(9)

    def weights(*shape):
        return rng.normal(size=shape) * 0.5

    nodes = (
        Node("conv", Conv1d(weights(3, 2, 6), weights(6), left=2 - ahead, right=ahead), (INPUT,)),
        Node("gelu", Activation("gelu"), ("conv",)),
        Node("wide", Conv1d(weights(5, 6, 6), left=4 - ahead, right=ahead), ("gelu",)),
        Node("late", Delay(3), ("gelu",)),
        Node("sum", Add(), ("late", "wide")),
        Node(
            "lmu",
            LinearMemory(Memory.legendre(4, 8.0, 3), weights(6, 3), weights(3), Activation("relu")),
            ("sum",),
        ),
        Node("gru", GRU(weights(12, 12), weights(4, 12), weights(12)), ("lmu",)),
        Node("pool", Pool("max", 2, 2), ("gru",)),
        Node("mean", Pool("average", 3, 1), ("pool",)),
        Node("head", Dense(weights(4, 3), weights(3)), ("mean",)),
    )
    return Network(nodes, (2,), "head")


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("chunk", [4, 7])
def test_a_stream_in_chunks_is_the_whole_sequence_everywhere(ahead, chunk, tmp_path):
    x = np.random.default_rng(3).normal(size=(2, 23, 2))
    network = quantize(streamed(ahead), x)
    whole = IntegerTarget("numpy").run(network, x, record=True).states.y
    assert whole.shape == (2, 9, 3)

    stream, frames = None, []
    for t in range(x.shape[1]):
        if stream is not None and t % chunk == 0:
            machine = Machine(network, stream.machine.engine)
            stream = Stream(machine, stream.state.copy(stream.machine))
        y, stream = step(network, x[:, t], stream)
        frames += [y] if y.ndim == 2 else list(y)
    frames += list(finish(stream))
    assert np.array_equal(np.stack(frames, axis=1), whole)

    messages = messages_of(network, x)
    source = generate(network, "net")
    (tmp_path / "net.h").write_text(source.header)
    (tmp_path / "net.c").write_text(source.code)
    (tmp_path / "chunks.c").write_text(_IN_CHUNKS)
    build = [Host().compiler(), "-std=c99", "-O1", "chunks.c", "-o", "chunks"]
    subprocess.run(build, cwd=tmp_path, check=True)
    for sample, expected in zip(messages, whole, strict=True):
        given = np.array([len(sample), chunk], np.int32).tobytes() + sample.tobytes()
        done = subprocess.run([tmp_path / "chunks"], input=given, capture_output=True, check=True)
        assert np.array_equal(np.frombuffer(done.stdout, np.int32).reshape(-1, 3), expected)

    if ahead:
        with pytest.raises(InputError, match="export the whole sequence"):
            to_onnx_integer_step(network)
        return
    answers = run_steps(to_onnx_integer_step(network), messages, chunk)
    assert np.array_equal(np.stack([np.stack(each) for each in answers]), whole)


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
