"""Lowering: integers of wide messages compute what the float network does."""

import graphs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.quantize import quantize
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.graph.frames import LayerNorm
from lmu_deploy.core.graph.linear import Conv1d, Dense, Embedding
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.pointwise import Activation, Add
from lmu_deploy.core.graph.recurrent import GRU, LSTM
from lmu_deploy.core.graph.time import Reduce, Reverse
from lmu_deploy.core.integer.gated import LSTMUnits
from lmu_deploy.core.integer.graph import latency
from lmu_deploy.core.integer.parts import Place
from lmu_deploy.core.network import Memory
from targets.integer.target import IntegerTarget

WIDE = {"message_bits": 16, "hidden_bits": 16, "kernel_slices": 2}
_JUMPS = ("step",)
"""A unit that lies at the jump falls to either side; nothing bounds the error behind it."""


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def chain(frame, *operators):
    """Return operators one behind the other."""
    nodes, before = [], INPUT
    for number, operator in enumerate(operators):
        nodes.append(Node(f"node_{number}", operator, (before,)))
        before = nodes[-1].name
    return Network(tuple(nodes), frame, before)


def error(network, x, **options):
    """Return the error of the quantized network relative to its largest output."""
    integer = quantize(network, x, **{**WIDE, **options})
    found = IntegerTarget("numpy").run(integer, x).outputs
    truth = run(network, x).reshape(found.shape)
    return np.abs(found - truth).max() / np.abs(truth).max()


def has_jumps(network):
    """Return whether an activation jumps or a norm amplifies what is nearly zero."""
    fragile = {"LayerNorm", "RMSNorm"}
    for node in network.nodes:
        operator = node.operator
        inner = getattr(operator, "hidden", None), getattr(operator, "activation", None)
        named = (operator, *inner, getattr(inner[0], "activation", None))
        if any(getattr(each, "name", None) in _JUMPS for each in named):
            return True
        if type(operator).__name__ in fragile:
            return True
    return False


@settings(max_examples=25, deadline=None)
@given(graphs.networks(), st.integers(0, 99))
def test_drawn_networks_compute_the_same_in_integers(network, seed):
    x = graphs.inputs_for(network, 3, graphs.fewest_steps(network) + 6, seed)
    try:
        found = error(network, x)
    except InputError as refused:
        assert "accumulator" in str(refused)
        return
    assert found < 0.02 or has_jumps(network)


@pytest.mark.parametrize("reset_after", [True, False])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_a_gru_with_an_initial_state(rng, reset_after, activation):
    cell = GRU(
        rng.normal(size=(3, 15)) * 0.5,
        rng.normal(size=(5, 15)) * 0.5,
        rng.normal(size=15),
        rng.normal(size=15),
        reset_after,
        Activation(activation),
        initial=rng.normal(size=5) * 0.5,
    )
    network = chain((3,), cell, Dense(rng.normal(size=(5, 2))))
    assert error(network, rng.normal(size=(4, 20, 3))) < 1e-3


@pytest.mark.parametrize("activation", ["tanh", "elu"])
def test_an_lstm_is_on_the_chip(rng, activation):
    cell = LSTM(
        rng.normal(size=(3, 20)) * 0.5,
        rng.normal(size=(5, 20)) * 0.5,
        rng.normal(size=20),
        Activation(activation),
        initial_h=rng.normal(size=5) * 0.3,
        initial_c=rng.normal(size=5) * 0.3,
    )
    network = chain((3,), cell, Dense(rng.normal(size=(5, 2))))
    x = rng.normal(size=(4, 20, 3))
    integer = quantize(network, x, **WIDE)
    assert isinstance(integer[Place("node_0", "hidden")], LSTMUnits)
    assert not integer.on_host
    assert error(network, x) < 1e-3


def test_a_residual_network_folds_what_is_linear(rng):
    """LMUFormer's kind of block: convolution, memory with relu encoder, dense, residual, mean."""
    width = 6
    nodes = (
        Node("conv", Conv1d(rng.normal(size=(3, 2, width)), left=2), (INPUT,)),
        Node("relu", Activation("relu"), ("conv",)),
        Node(
            "lmu",
            LinearMemory(
                Memory.legendre(4, 8.0, width),
                rng.normal(size=(width, width)),
                rng.normal(size=width),
                Activation("relu"),
            ),
            ("relu",),
        ),
        Node("out", Dense(rng.normal(size=(4 * width, width)) * 0.2), ("lmu",)),
        Node("sum", Add(), ("relu", "out")),
        Node("mean", Reduce("mean"), ("sum",)),
        Node("head", Dense(rng.normal(size=(width, 3)), rng.normal(size=3)), ("mean",)),
    )
    network = Network(nodes, (2,), "head")
    x = rng.normal(size=(5, 20, 2))
    integer = quantize(network, x, **WIDE)
    assert [str(p.place) for p in integer.populations] == [
        "input",
        "relu",
        "lmu/encoder",
        "lmu/memory",
        "mean",
        "head",
    ]
    assert error(network, x) < 1e-3


def test_tokens_send_one_event_each(rng):
    network = chain((1,), Embedding(rng.normal(size=(7, 3))), Dense(rng.normal(size=(3, 2))))
    x = rng.integers(0, 7, size=(3, 9, 1)).astype(float)
    found = IntegerTarget("numpy").run(quantize(network, x, **WIDE), x)
    assert (found.events["input"] == 1).all()
    assert error(network, x) < 1e-3


def test_a_centered_convolution_answers_later(rng):
    network = chain((2,), Conv1d(rng.normal(size=(5, 2, 3)), left=2, right=2))
    x = rng.normal(size=(3, 9, 2))
    integer = quantize(network, x, **WIDE)
    assert latency(integer) == 2
    assert IntegerTarget("numpy").run(integer, x).chip_steps == 11
    assert error(network, x) < 1e-3


def test_normalization_and_reversed_time_stay_on_the_host(rng):
    cell = LSTM(rng.normal(size=(3, 8)), rng.normal(size=(2, 8)), rng.normal(size=8))
    nodes = (
        Node("norm", LayerNorm(np.ones(3), np.zeros(3)), (INPUT,)),
        Node("turn", Reverse(), ("norm",)),
        Node("backward", cell, ("turn",)),
        Node("back", Reverse(), ("backward",)),
        Node("out", Dense(rng.normal(size=(2, 2))), ("back",)),
    )
    integer = quantize(Network(nodes, (3,), "out"), rng.normal(size=(3, 9, 3)), **WIDE)
    (host,) = integer.on_host
    assert [node.name for node in host.network.nodes] == ["norm", "turn", "backward", "back"]
    assert error(Network(nodes, (3,), "out"), rng.normal(size=(3, 9, 3))) < 1e-3
