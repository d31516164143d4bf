"""Read the options of a Keras layer, and which weights they imply.

There is one class for each kind of layer (LMU, LSTM, Dense, softmax). :func:`read_block` returns
the block of a layer, or None for a layer that does nothing after training. Everything that cannot
be represented is added to a list of problems, so that a user sees all of it at once; a wrong value
is replaced by the default until the list is raised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from converters.importers import MOST_ORDER
from converters.keras_lmu.architecture import KerasLayer
from converters.weight_files import PAPER_NAMES
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.validation import check_choice, check_flag, check_integer, check_number


@dataclass(frozen=True)
class Expected:
    """Roles of the weights of a layer, in the order in which Keras creates them.

    Attributes
    ----------
    own, hidden : tuple of str
        Weights of the layer itself and of the hidden cell inside it.
    optional : tuple of str
        Weights that some versions store, by name, with the layer's own.
    """

    own: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


@dataclass(frozen=True)
class HiddenOptions:
    """The hidden cell of an LMU: Dense, or SimpleRNNCell when `recurrent`."""

    units: int
    activation: str
    use_bias: bool
    recurrent: bool


STORED_MATRICES = ("A", "B")
"""Memory matrices, which keras-lmu stored as weights before version 0.3."""


@dataclass(frozen=True)
class PaperBlock:
    """The cell of the paper's package in a model of Keras; its configuration has no sizes."""

    return_sequences: bool
    expected = Expected(PAPER_NAMES, optional=("bias",))


@dataclass(frozen=True)
class LMUBlock:
    """Options of an LMU, LMUFeedforward or LMUCell; names as in LMULayer where it has one."""

    channels: int
    order: int
    theta: float
    discretizer: str
    trainable_theta: bool
    hidden_to_memory: bool
    memory_to_memory: bool
    input_to_hidden: bool
    has_kernel: bool
    use_bias: bool
    hidden: HiddenOptions | None
    return_sequences: bool

    @property
    def expected(self) -> Expected:
        """Roles of the weights."""
        own = (
            ("kernel", self.has_kernel),
            ("bias", self.use_bias),
            ("theta_inv", self.trainable_theta),
            ("recurrent_kernel", self.memory_to_memory),
        )
        hidden: tuple[tuple[str, bool], ...] = ()
        if (cell := self.hidden) is not None:
            hidden = (
                ("kernel", True),
                ("recurrent_kernel", cell.recurrent),
                ("bias", cell.use_bias),
            )
        return Expected(
            tuple(role for role, there in own if there),
            tuple(role for role, there in hidden if there),
            STORED_MATRICES,
        )


@dataclass(frozen=True)
class LSTMBlock:
    """Options of an LSTM with Keras's default activations."""

    units: int
    use_bias: bool
    return_sequences: bool

    @property
    def expected(self) -> Expected:
        """Roles of the weights."""
        return Expected(("kernel", "recurrent_kernel", *(("bias",) if self.use_bias else ())))


@dataclass(frozen=True)
class DenseBlock:
    """Options of a Dense layer; its activation is linear or softmax."""

    use_bias: bool
    softmax: bool

    @property
    def expected(self) -> Expected:
        """Roles of the weights."""
        return Expected(("kernel", *(("bias",) if self.use_bias else ())))


@dataclass(frozen=True)
class SoftmaxBlock:
    """A separate softmax layer; it has no weights."""

    expected = Expected()


Block = LMUBlock | PaperBlock | LSTMBlock | DenseBlock | SoftmaxBlock
RECURRENT = (LMUBlock, PaperBlock, LSTMBlock)


_LARGEST = 65_536


class Configuration:
    """Options of one layer by name, each checked when it is read.

    Parameters
    ----------
    layer : KerasLayer
        The layer, for messages.
    config : dict of str to Any
        Configuration of the layer, or of a layer inside it.
    problems : list of str
        A clause is added for each wrong value.
    """

    def __init__(self, layer: KerasLayer, config: dict[str, Any], problems: list[str]) -> None:
        self.layer = layer
        self.config = config
        self._problems = problems

    def flag(self, name: str, default: bool = False) -> bool:
        """Return a flag."""
        return bool(self._checked(check_flag, name, default))

    def integer(self, name: str, most: int = _LARGEST) -> int:
        """Return a positive integer."""
        return int(self._checked(lambda n, v: check_integer(n, v, 1, most), name, 1))

    def number(self, name: str, low: float, high: float) -> float:
        """Return a number between bounds."""
        return float(self._checked(lambda n, v: check_number(n, v, low, high), name, 1.0))

    def choice(self, name: str, choices: tuple[str, ...], default: str) -> str:
        """Return one of several texts."""
        value = self.config.get(name, default)
        if isinstance(value, dict):  # an activation written as an object
            value = value.get("config", {}) if value.get("class_name") == "function" else value
            value = value.get("class_name", value) if isinstance(value, dict) else value
        return str(self._checked(lambda n, v: check_choice(n, v, choices), name, default, value))

    def inner(self, name: str) -> tuple[str, Configuration] | None:
        """Return class name and options of a layer inside this one."""
        node = self.config.get(name)
        if not isinstance(node, dict) or not isinstance(node.get("config"), dict):
            self.problem(f"{name} has no configuration")
            return None
        kind = str(node.get("class_name")).rsplit(">", 1)[-1]
        return kind, Configuration(self.layer, node["config"], self._problems)

    def problem(self, clause: str) -> None:
        """Add something that cannot be represented to the problems."""
        self._problems.append(f"{self.layer}: {clause}")

    def _checked(
        self, check: Callable[[str, Any], Any], name: str, default: Any, value: Any = None
    ) -> Any:
        value = self.config.get(name, default) if value is None else value
        try:
            return check(name, value)
        except InputError as error:
            self.problem(str(error).rstrip("."))
            return default


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


def read_block(layer: KerasLayer, problems: list[str]) -> Block | None:
    """Read one layer; return None if it has no effect or cannot be represented.

    Parameters
    ----------
    layer : KerasLayer
    problems : list of str
        A clause is added for everything that cannot be represented.
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
        discretizer=options.choice("discretizer", ("zoh", "euler"), "zoh"),
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
        options.problem(f"hidden cell {kind[:80]} (only Dense and SimpleRNNCell are supported)")
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
        options.problem(f"cell {kind[:80]} (only LMUCell is supported)")
        return None
    if "order" not in cell.config:
        return PaperBlock(options.flag("return_sequences"))
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
        options.problem(f"{inner[0][:80]} at every step (only Dense is supported)")
        return None
    return _read_dense(inner[1])


def _read_activation(options: Configuration) -> Block | None:
    activation = options.choice("activation", ("linear", SOFTMAX), "linear")
    return SoftmaxBlock() if activation == SOFTMAX else None
