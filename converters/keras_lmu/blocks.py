"""What a Keras layer asks for: the options that matter, and the weights they imply.

One class a kind of layer (LMU, LSTM, Dense, softmax), read by
:func:`converters.keras_lmu.read_block.read_block`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Expected:
    """Roles of the weights of a layer, in the order in which Keras makes them."""

    own: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()


@dataclass(frozen=True)
class HiddenOptions:
    """The hidden cell of an LMU: Dense, or SimpleRNNCell when `recurrent`."""

    units: int
    activation: str
    use_bias: bool
    recurrent: bool


@dataclass(frozen=True)
class LMUBlock:
    """Options of an LMU, LMUFeedforward or LMUCell, under our names where they have one."""

    channels: int
    order: int
    theta: float
    discretiser: str
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
    """A softmax that stands by itself; it has no weights."""

    expected = Expected()


Block = LMUBlock | LSTMBlock | DenseBlock | SoftmaxBlock
