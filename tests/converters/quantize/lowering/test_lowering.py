"""Lowering: integers of wide messages compute what the float network does."""

from dataclasses import replace

import graphs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.quantize import SOFTMAX, quantize
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.graph.frames import LayerNorm
from lmu_deploy.core.graph.linear import Conv1d, Dense, Embedding
from lmu_deploy.core.graph.lmu import LMU
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.pointwise import NAMES, Activation, Add, Concat, Multiply
from lmu_deploy.core.graph.recurrent import GRU, LSTM, SimpleRNN
from lmu_deploy.core.graph.time import Delay, Reduce, Reverse
from lmu_deploy.core.graph.transforms import with_logits
from lmu_deploy.core.integer.gated import LSTMUnits
from lmu_deploy.core.integer.graph import latency
from lmu_deploy.core.integer.parts import Place
from lmu_deploy.core.network import Memory
from lmu_deploy.fidelity.measures.damage import damage
from targets.integer.run import IntegerTarget

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
    """Return the quantized network's error relative to its largest output, or to 1 if that is 0."""
    integer = quantize(network, x, **{**WIDE, **options})
    found = IntegerTarget("numpy").run(integer, x).outputs
    truth = run(with_logits(network, SOFTMAX), x).reshape(found.shape)
    return np.abs(found - truth).max() / (np.abs(truth).max() or 1.0)


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


@pytest.mark.parametrize("name", [name for name in NAMES if name != "softmax"])
def test_activations_are_right_as_far_as_they_change(rng, name):
    """Drives have to be wider than messages where a function is nearly flat."""
    network = chain((1,), Activation(name, 0.02))
    x = np.linspace(-12.0, 1.0, 400).reshape(2, 200, 1)
    for inputs in (x, -x):
        assert error(network, inputs, hidden_bits=16) < 2e-3


def test_relu6_that_stays_below_six_has_the_integers_of_relu(rng):
    kernel = rng.normal(size=(3, 8)).astype(np.float32)
    readout = Dense(rng.normal(size=(8, 2)).astype(np.float32))
    x = 0.1 * rng.normal(size=(4, 6, 3))
    relu, relu6 = (
        quantize(chain((3,), Dense(kernel), Activation(name), readout), x, hidden_bits=8)
        for name in ("relu", "relu6")
    )
    one, other = (IntegerTarget("numpy").run(each, x, record=True) for each in (relu, relu6))
    np.testing.assert_array_equal(one.states.h, other.states.h)
    np.testing.assert_array_equal(one.outputs, other.outputs)


def test_relu6_that_reaches_six_sends_six_as_its_largest_message(rng):
    kernel = 4.0 * rng.normal(size=(3, 8)).astype(np.float32)
    x = rng.normal(size=(4, 6, 3))
    integer = quantize(chain((3,), Dense(kernel), Activation("relu6")), x, hidden_bits=8)
    found = IntegerTarget("numpy").run(integer, x).outputs
    assert found.max() == pytest.approx(6.0, rel=1e-3)  # the output rounds its weight


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


def units(rng, kind, activation, scale, initial):
    """Return recurrent units with an initial state, whose other signals are of size `scale`."""
    n = {SimpleRNN: 4, LSTM: 16, GRU: 12}[kind]
    kernels = rng.normal(size=(3, n)) * scale, rng.normal(size=(4, n)) * 0.1
    own = rng.choice([-1.0, 1.0], size=4) * initial
    names = ("initial_h", "initial_c") if kind is LSTM else ("initial",)
    return kind(*kernels, activation=Activation(activation), **dict.fromkeys(names, own))


@pytest.mark.parametrize("kind", [SimpleRNN, LSTM, GRU])
@pytest.mark.parametrize("activation", ["tanh", "hard-tanh", "relu", "elu"])
@pytest.mark.parametrize("method", ["max", "percentile", "mse"])
def test_formats_cover_initial_states(rng, kind, activation, method):
    """The states that follow the initial one are far smaller."""
    cell = units(rng, kind, activation, 0.01, 3.0)
    network = chain((3,), cell, Dense(rng.normal(size=(4, 2))))
    x = rng.normal(size=(4, 6, 3))
    assert error(network, x, calibration_method=method) < 0.01


@pytest.mark.parametrize("kind", [LSTM, GRU])
def test_messages_of_gated_units_are_no_finer_than_their_states(rng, kind):
    cell = units(rng, kind, "relu", 2e-5, 0.0)
    network, x = chain((3,), cell), rng.normal(size=(4, 6, 3))
    integer = quantize(network, x, hidden_bits=18)
    found = IntegerTarget("numpy").run(integer, x).outputs
    unit = integer[Place("node_0", "hidden")].drive.scale
    assert np.abs(found - run(network, x)).max() < unit


@pytest.mark.parametrize("kind", [LSTM, GRU])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_candidates_may_far_exceed_the_gated_values(rng, kind, activation):
    """The input gate of an LSTM, or one minus the update gate of a GRU, is 1/50."""
    n = {LSTM: 16, GRU: 12}[kind]
    kernel, bias = rng.normal(size=(3, n)), np.zeros(n)
    bias[{LSTM: slice(0, 8), GRU: slice(4, 8)}[kind]] = {LSTM: -4.0, GRU: 4.0}[kind]
    kernel[:, :8] = 0.0
    cell = kind(kernel, np.zeros((4, n)), bias, activation=Activation(activation))
    memory = Memory.legendre(4, 8.0)
    wide = replace(cell, kernel=np.concatenate([np.zeros((4, n)), kernel]))
    inside = LMU(memory, rng.normal(size=(3, 1)), wide, True)
    x = rng.normal(size=(4, 9, 3))
    for operator in (cell, inside):
        assert error(chain((3,), operator), x) < 0.01


def test_a_softmax_inside_an_operator_stays_on_the_host(rng):
    soft = Activation("softmax")
    memory = LinearMemory(Memory.legendre(4, 8.0, 3), rng.normal(size=(2, 3)), None, soft)
    plain = SimpleRNN(rng.normal(size=(12, 4)), rng.normal(size=(4, 4)), None, soft)
    inner = SimpleRNN(rng.normal(size=(8, 3)), None, None, soft)
    lmu = LMU(Memory.legendre(4, 8.0, 2), rng.normal(size=(4, 2)), inner, False)
    network = chain((2,), memory, plain, lmu, Dense(rng.normal(size=(3, 2))))
    x = rng.normal(size=(4, 9, 2))
    (host,) = quantize(network, x, **WIDE).on_host
    assert [node.name for node in host.network.nodes] == ["node_0", "node_1", "node_2"]
    assert error(network, x) < 1e-3


def test_products_of_factors_that_are_zero_or_cancel(rng):
    """A factor that is always 0, one far below its bias, and a product far below its factors."""
    pick = np.eye(2)
    nodes = (
        Node("zero", Delay(30), (INPUT,)),
        Node("near", Dense(pick * 1e-3, np.full(2, 50.0)), (INPUT,)),
        Node("gone", Dense(pick, np.full(2, -50.0)), ("near",)),
        Node("first", Activation("relu"), (INPUT,)),
        Node("minus", Dense(-pick), (INPUT,)),
        Node("second", Activation("relu"), ("minus",)),
        Node("none", Multiply(), (INPUT, "zero")),
        Node("small", Multiply(), (INPUT, "gone")),
        Node("apart", Multiply(), ("first", "second")),
        Node("three", Multiply(), (INPUT, INPUT, INPUT)),
        Node("all", Concat(), ("none", "small", "apart", "three")),
        Node("out", Dense(np.eye(8)), ("all",)),
    )
    x = rng.normal(size=(4, 9, 2))
    assert error(Network(nodes, (2,), "out"), x) < 1e-3


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


def test_a_mean_over_time_sends_messages_of_the_chosen_width(rng):
    """With wider ones, 400 inputs of a readout would need accumulators of more than 24 bits."""
    readout = Dense(np.abs(rng.normal(size=(400, 2))))
    network = chain((400,), Activation("relu"), Reduce("mean"), readout)
    x = np.abs(rng.normal(size=(4, 6, 400)))
    integer = quantize(network, x, message_bits=10)
    assert integer[Place("node_1")].message.bits == 10
    with pytest.raises(InputError, match=r"accumulator .* use --message-bits 1[0-3]"):
        quantize(network, x, message_bits=16)


def test_a_softmax_at_the_end_is_left_out(rng):
    """The largest output is the answer; without it all of a classifier runs on the chip."""
    network = chain((3,), Dense(rng.normal(size=(3, 4))), Activation("softmax"))
    x = rng.normal(size=(5, 7, 3))
    integer = quantize(network, x, **WIDE)
    assert not integer.on_host and integer.source.output == "node_0"
    assert "logits" in integer.provenance["left out"]
    found = IntegerTarget("numpy").run(integer, x).outputs
    assert (found.argmax(-1) == run(network, x).reshape(found.shape).argmax(-1)).mean() > 0.95
    gated = chain((3,), Dense(rng.normal(size=(3, 4))), Activation("sigmoid"))
    assert quantize(gated, x).source.output == "node_1"  # a real answer, and one that has integers


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


def test_a_branch_that_needs_more_steps_than_the_output(rng):
    """Its first frame follows the sixteenth step; too few are refused, and enough are compared."""
    long = Conv1d(rng.normal(size=(4, 2, 1)), None, dilation=5)
    nodes = (
        Node("short", Dense(rng.normal(size=(2, 1))), (INPUT,)),
        Node("first", Reduce("last"), ("short",)),
        Node("long", long, (INPUT,)),
        Node("second", Reduce("mean"), ("long",)),
        Node("both", Concat(), ("first", "second")),
    )
    network = Network(nodes, (2,), "both")
    assert [network.frames(steps) for steps in (8, 15, 16, 40)] == [0, 0, 1, 1]
    with pytest.raises(
        InputError,
        match="no frame of long; give at least 16 steps",
    ):
        quantize(network, rng.normal(size=(8, 10, 2)))
    assert damage(quantize(network, rng.normal(size=(8, 16, 2)))) == []
