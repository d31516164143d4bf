r"""The layers of an LMUNetwork as plain arrays: an LMU with its memory and hidden units, an LSTM.

One LMU layer computes, for every step t (row vectors, weights on the right, as they are stored):

.. math::
   u_t &= x_t E_x + h_{t-1} E_h + m_{t-1} E_m + b_u                 && \text{(channels)} \\
   m_t[c] &= \bar A\, m_{t-1}[c] + \bar B\, u_t[c]                  && \text{(channels x order)} \\
   h_t &= f(x_t W_x + h_{t-1} W_h + m_t W_m + b)                    && \text{(units)}

with m flattened channel by channel (index c * order + i) wherever it meets a matrix (Voelker,
Kajic, Eliasmith 2019, equations 5 to 7). What is absent is None; without W_h the hidden layer is
feed-forward, and without any hidden layer the output is m itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmu_deploy.checks import check_array, check_choice, check_integer, check_number, set_fields
from lmu_deploy.errors import InputError
from lmu_deploy.legendre import DISCRETISERS, discretise

ACTIVATIONS = ("linear", "relu", "tanh", "hard-tanh")
STORED_DISCRETISERS = (*DISCRETISERS, "trained")


@dataclass(frozen=True)
class Memory:
    """The linear memory of one layer: `channels` copies of one Legendre delay of `order` states.

    Attributes
    ----------
    order, channels : int
    theta : float
        Window length in steps.
    discretiser : str
        How a_bar and b_bar were made: zoh, bilinear, euler, or trained (they were learnt).
    a_bar : ndarray, shape (order, order)
    b_bar : ndarray, shape (order,)
    """

    order: int
    channels: int
    theta: float
    discretiser: str
    a_bar: np.ndarray
    b_bar: np.ndarray

    def __post_init__(self) -> None:
        order = check_integer("memory order", self.order, 1, 4096)
        set_fields(
            self,
            order=order,
            channels=check_integer("memory channels", self.channels, 1, 65_536),
            theta=check_number("memory theta", self.theta, 1e-6, 1e12),
            discretiser=check_choice("discretiser", self.discretiser, STORED_DISCRETISERS),
            a_bar=check_array("memory a_bar", self.a_bar, (order, order)),
            b_bar=check_array("memory b_bar", self.b_bar, (order,)),
        )

    @classmethod
    def legendre(
        cls, order: int, theta: float, channels: int = 1, discretiser: str = "zoh"
    ) -> Memory:
        """Make the memory from its window length; see :func:`lmu_deploy.legendre.discretise`."""
        a_bar, b_bar = discretise(order, theta, discretiser)
        return cls(order, channels, float(theta), discretiser, a_bar, b_bar)

    @property
    def size(self) -> int:
        """Number of states, channels times order."""
        return self.channels * self.order


@dataclass(frozen=True)
class Hidden:
    """The nonlinear units of a layer: ``h = f(x W_x + h W_h + m W_m + b)``.

    Attributes
    ----------
    memory_kernel : ndarray, shape (channels * order, units)
    input_kernel : ndarray, shape (n_in, units), or None
        None when the input does not reach the hidden units directly.
    recurrent_kernel : ndarray, shape (units, units), or None
        None for a feed-forward hidden layer.
    bias : ndarray, shape (units,), or None
    activation : {"linear", "relu", "tanh", "hard-tanh"}
        hard-tanh limits to -1 and 1.
    """

    memory_kernel: np.ndarray
    input_kernel: np.ndarray | None
    recurrent_kernel: np.ndarray | None
    bias: np.ndarray | None
    activation: str

    def __post_init__(self) -> None:
        memory_kernel = check_array("hidden memory_kernel", self.memory_kernel, (None, None))
        units = memory_kernel.shape[1]
        set_fields(self, memory_kernel=memory_kernel)
        set_fields(self, activation=check_choice("activation", self.activation, ACTIVATIONS))
        for name, shape in (
            ("input_kernel", (None, units)),
            ("recurrent_kernel", (units, units)),
            ("bias", (units,)),
        ):
            value = getattr(self, name)
            if value is not None:
                set_fields(self, **{name: check_array(f"hidden {name}", value, shape)})

    @property
    def units(self) -> int:
        """Number of hidden units."""
        return int(self.memory_kernel.shape[1])


@dataclass(frozen=True)
class LMULayer:
    """Encoders, a memory and, if there are any, hidden units.

    Attributes
    ----------
    input_encoders : ndarray, shape (n_in, channels)
    hidden_encoders : ndarray, shape (units, channels), or None
        Feedback from the hidden units of the step before into the memory.
    memory_encoders : ndarray, shape (channels * order, channels), or None
        Feedback from the memory of the step before into the memory.
    memory_bias : ndarray, shape (channels,), or None
    memory : Memory
    hidden : Hidden or None
    """

    input_encoders: np.ndarray
    hidden_encoders: np.ndarray | None
    memory_encoders: np.ndarray | None
    memory_bias: np.ndarray | None
    memory: Memory
    hidden: Hidden | None

    def __post_init__(self) -> None:
        memory, hidden = self.memory, self.hidden
        if not isinstance(memory, Memory) or not isinstance(hidden, Hidden | None):
            raise InputError("an LMU layer needs a Memory and a Hidden or None; mend the file.")
        encoders = check_array("input_encoders", self.input_encoders, (None, memory.channels))
        set_fields(self, input_encoders=encoders)
        if self.hidden_encoders is not None and hidden is None:
            raise InputError("hidden_encoders need hidden units, and this layer has none.")
        for name, shape in (
            ("hidden_encoders", (0 if hidden is None else hidden.units, memory.channels)),
            ("memory_encoders", (memory.size, memory.channels)),
            ("memory_bias", (memory.channels,)),
        ):
            value = getattr(self, name)
            if value is not None:
                set_fields(self, **{name: check_array(name, value, shape)})
        if hidden is not None:
            check_array("hidden memory_kernel", hidden.memory_kernel, (memory.size, hidden.units))
            if hidden.input_kernel is not None:
                shape = (self.n_in, hidden.units)
                check_array("hidden input_kernel", hidden.input_kernel, shape)

    @property
    def n_in(self) -> int:
        """Number of input features."""
        return int(self.input_encoders.shape[0])

    @property
    def n_out(self) -> int:
        """Number of output features: the hidden units, or the memory's states without them."""
        return self.memory.size if self.hidden is None else self.hidden.units

    @property
    def feeds_back(self) -> bool:
        """Whether anything but the input reaches the memory, so that time cannot be parallel."""
        return self.hidden_encoders is not None or self.memory_encoders is not None


@dataclass(frozen=True)
class LSTMLayer:
    """A long short-term memory layer (Hochreiter, Schmidhuber 1997), gates ordered i, f, g, o.

    With ``i, f, g, o = split(x W + h U + b)``: ``c = sig(f) c + sig(i) tanh(g)`` and then
    ``h = sig(o) tanh(c)``.

    Attributes
    ----------
    kernel : ndarray, shape (n_in, 4 * units)
    recurrent_kernel : ndarray, shape (units, 4 * units)
    bias : ndarray, shape (4 * units,)
    """

    kernel: np.ndarray
    recurrent_kernel: np.ndarray
    bias: np.ndarray

    def __post_init__(self) -> None:
        recurrent = check_array("lstm recurrent_kernel", self.recurrent_kernel, (None, None))
        units = recurrent.shape[0]
        set_fields(
            self,
            recurrent_kernel=check_array("lstm recurrent_kernel", recurrent, (units, 4 * units)),
            kernel=check_array("lstm kernel", self.kernel, (None, 4 * units)),
            bias=check_array("lstm bias", self.bias, (4 * units,)),
        )

    @property
    def n_in(self) -> int:
        """Number of input features."""
        return int(self.kernel.shape[0])

    @property
    def n_out(self) -> int:
        """Number of units."""
        return int(self.recurrent_kernel.shape[0])


Layer = LMULayer | LSTMLayer
