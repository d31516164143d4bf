"""From a layer's configuration to its block.

In: a layer of the architecture. Out: a block, or None for a layer that leaves its input as it is
once training is over. What cannot be represented is added to a list of problems.
"""

from __future__ import annotations

from collections.abc import Callable

from converters.keras_lmu.architecture import KerasLayer
from converters.keras_lmu.blocks import (
    Block,
    DenseBlock,
    HiddenOptions,
    LMUBlock,
    LSTMBlock,
    SoftmaxBlock,
)
from converters.keras_lmu.configuration import Configuration

IDENTITIES = (
    "ActivityRegularization",
    "AlphaDropout",
    "Dropout",
    "GaussianDropout",
    "GaussianNoise",
    "InputLayer",
    "SpatialDropout1D",
)
ACTIVATIONS = {"linear": "linear", "relu": "relu", "tanh": "tanh", "hard_tanh": "hard-tanh"}
SOFTMAX = "softmax"
MOST_ORDER = 1024
"""Largest order that is imported: making the matrices anew takes order cubed operations."""


def read_block(layer: KerasLayer, problems: list[str]) -> Block | None:
    """Read one layer; None stands for a layer without effect, or one that is a problem.

    Parameters
    ----------
    layer : KerasLayer
    problems : list of str
        Grows by a clause for everything that cannot be represented.
    """
    before = len(problems)
    readers: dict[str, Callable[[Configuration], Block | None]] = {
        "Activation": _read_activation,
        "Dense": _read_dense,
        "LMU": _read_lmu,
        "LMUFeedforward": _read_lmu,
        "LSTM": _read_lstm,
        "RNN": _read_rnn,
        "Softmax": lambda _: SoftmaxBlock(),
        "TimeDistributed": _read_time_distributed,
    }
    if layer.kind in IDENTITIES:
        return None
    if layer.kind not in readers:
        problems.append(f"{layer} cannot be represented")
        return None
    block = readers[layer.kind](Configuration(layer, layer.config, problems))
    return block if len(problems) == before else None


def _read_lmu(options: Configuration) -> LMUBlock | None:
    hidden = _read_hidden(options)
    feeds_back = options.flag("hidden_to_memory")
    if feeds_back and options.config.get("hidden_cell") is None:
        options.problem("hidden_to_memory needs a hidden cell")
    return LMUBlock(
        channels=options.integer("memory_d"),
        order=options.integer("order", MOST_ORDER),
        theta=options.number("theta", 1.0, 1e12),
        discretiser=options.choice("discretizer", ("zoh", "euler"), "zoh"),
        trainable_theta=options.flag("trainable_theta"),
        hidden_to_memory=feeds_back,
        memory_to_memory=options.flag("memory_to_memory"),
        input_to_hidden=options.flag("input_to_hidden"),
        has_kernel=options.config.get("kernel_initializer", "") is not None,
        use_bias=options.flag("use_bias"),
        hidden=hidden,
        return_sequences=options.flag("return_sequences"),
    )


def _read_hidden(options: Configuration) -> HiddenOptions | None:
    if options.config.get("hidden_cell") is None:
        return None
    if (inner := options.inner("hidden_cell")) is None:
        return None
    kind, cell = inner
    if kind not in ("Dense", "SimpleRNNCell"):
        options.problem(
            f"hidden cell {kind[:80]} (only Dense and SimpleRNNCell can be represented)"
        )
        return None
    recurrent = kind == "SimpleRNNCell"
    return HiddenOptions(
        units=cell.integer("units"),
        activation=ACTIVATIONS.get(
            cell.choice("activation", tuple(ACTIVATIONS), "tanh" if recurrent else "linear"), "tanh"
        ),
        use_bias=cell.flag("use_bias", True),
        recurrent=recurrent,
    )


def _read_rnn(options: Configuration) -> Block | None:
    _refuse_flags(options)
    if (inner := options.inner("cell")) is None:
        return None
    kind, cell = inner
    if kind != "LMUCell":
        options.problem(f"cell {kind[:80]} (only LMUCell is known)")
        return None
    cell.config = {**cell.config, "return_sequences": options.config.get("return_sequences", False)}
    return _read_lmu(cell)


def _read_lstm(options: Configuration) -> LSTMBlock:
    _refuse_flags(options)
    options.choice("activation", ("tanh",), "tanh")
    options.choice("recurrent_activation", ("sigmoid",), "sigmoid")
    return LSTMBlock(
        options.integer("units"), options.flag("use_bias", True), options.flag("return_sequences")
    )


def _refuse_flags(options: Configuration) -> None:
    for name in ("go_backwards", "stateful", "time_major", "return_state"):
        if options.flag(name):
            options.problem(f"{name} is set")


def _read_dense(options: Configuration) -> DenseBlock:
    activation = options.choice("activation", ("linear", SOFTMAX), "linear")
    return DenseBlock(options.flag("use_bias", True), activation == SOFTMAX)


def _read_time_distributed(options: Configuration) -> DenseBlock | None:
    if (inner := options.inner("layer")) is None:
        return None
    if inner[0] != "Dense":
        options.problem(f"{inner[0][:80]} at every step (only Dense is known)")
        return None
    return _read_dense(inner[1])


def _read_activation(options: Configuration) -> Block | None:
    activation = options.choice("activation", ("linear", SOFTMAX), "linear")
    return SoftmaxBlock() if activation == SOFTMAX else None
