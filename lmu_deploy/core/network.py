r"""LMUNetwork: a trained float network as plain arrays, from which all others are converted.

A network is a sequence of LMU and LSTM layers followed by the readout ``y_t = h_t W_y + b_y``. An
LMU layer computes at every step t (vectors are rows, weights multiply from the right, as stored):

.. math::
   u_t &= x_t E_x + h_{t-1} E_h + m_{t-1} E_m + b_u                 && \text{(channels)} \\
   m_t[c] &= \bar A\, m_{t-1}[c] + \bar B\, u_t[c]                  && \text{(channels x order)} \\
   h_t &= f(x_t W_x + h_{t-1} W_h + m_t W_m + b)                    && \text{(units)}

with m flattened channel by channel (index c * order + i) wherever it meets a matrix (Voelker,
Kajic, Eliasmith 2019, equations 5 to 7). Absent terms are None. Without W_h the hidden layer is
feed-forward; without a hidden layer the output is m itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import LATER
from lmu_deploy.core.legendre import DISCRETIZERS, discretize
from lmu_deploy.core.representation import Part, Representation, Summary, counted
from lmu_deploy.core.validation import (
    check_array,
    check_choice,
    check_flag,
    check_integer,
    check_node_name,
    check_number,
    check_provenance,
    check_text,
    set_fields,
)

ACTIVATIONS = ("linear", "relu", "tanh", "hard-tanh")
STORED_DISCRETIZERS = (*DISCRETIZERS, "trained")


@dataclass(frozen=True, eq=False, repr=False)
class Memory(Part):
    """Linear memory of one layer: `channels` copies of a Legendre memory of `order` states.

    Attributes
    ----------
    order, channels : int
    theta : float
        Window length in steps.
    discretizer : str
        Origin of a_bar and b_bar: zoh, bilinear, euler, or trained.
    a_bar : ndarray, shape (order, order)
    b_bar : ndarray, shape (order,)
    """

    order: int
    channels: int
    theta: float
    discretizer: str
    a_bar: np.ndarray
    b_bar: np.ndarray

    def __post_init__(self) -> None:
        order = check_integer("memory order", self.order, 1, 4096)
        set_fields(
            self,
            order=order,
            channels=check_integer("memory channels", self.channels, 1, 65_536),
            theta=check_number("memory theta", self.theta, 1e-6, 1e12),
            discretizer=check_choice("discretizer", self.discretizer, STORED_DISCRETIZERS),
            a_bar=check_array("memory a_bar", self.a_bar, (order, order)),
            b_bar=check_array("memory b_bar", self.b_bar, (order,)),
        )

    @classmethod
    def legendre(
        cls, order: int, theta: float, channels: int = 1, discretizer: str = "zoh"
    ) -> Memory:
        """Return the memory for a window length; see `lmu_deploy.core.legendre.discretize`."""
        a_bar, b_bar = discretize(order, theta, discretizer)
        return cls(order, channels, float(theta), discretizer, a_bar, b_bar)

    @property
    def size(self) -> int:
        """Number of states, channels times order."""
        return self.channels * self.order


@dataclass(frozen=True, eq=False, repr=False)
class Hidden(Part):
    """Hidden units of a layer: ``h = f(x W_x + h W_h + m W_m + b)``.

    Attributes
    ----------
    memory_kernel : ndarray, shape (channels * order, units)
    input_kernel : ndarray, shape (n_in, units), or None
        None when the input is not connected to the hidden units directly.
    recurrent_kernel : ndarray, shape (units, units), or None
        None for a feed-forward hidden layer.
    bias : ndarray, shape (units,), or None
    activation : {"linear", "relu", "tanh", "hard-tanh"}
        hard-tanh clips to [-1, 1].
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


@dataclass(frozen=True, eq=False, repr=False)
class LMULayer(Part):
    """An LMU layer: encoders, a memory and, optionally, hidden units.

    Attributes
    ----------
    input_encoders : ndarray, shape (n_in, channels)
    hidden_encoders : ndarray, shape (units, channels), or None
        Feedback from the hidden units of the previous step into the memory.
    memory_encoders : ndarray, shape (channels * order, channels), or None
        Feedback from the memory of the previous step into the memory.
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
            raise InputError("an LMU layer needs a Memory, and a Hidden or None.")
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
        """Number of output features: hidden units, or memory states if there are none."""
        return self.memory.size if self.hidden is None else self.hidden.units

    @property
    def feeds_back(self) -> bool:
        """Whether hidden units or the memory feed back into the memory.

        If not, all steps of a sequence can be computed in parallel.
        """
        return self.hidden_encoders is not None or self.memory_encoders is not None

    @property
    def n_parameters(self) -> int:
        """Number of trained values; the memory's a_bar and b_bar count if they were trained."""
        memory, hidden = self.memory, self.hidden
        found = _size(
            self.input_encoders, self.hidden_encoders, self.memory_encoders, self.memory_bias
        )
        if memory.discretizer == "trained":
            found += _size(memory.a_bar, memory.b_bar)
        if hidden is not None:
            found += _size(hidden.memory_kernel, hidden.input_kernel)
            found += _size(hidden.recurrent_kernel, hidden.bias)
        return found

    def __str__(self) -> str:
        """Return what the layer is, in a few words."""
        memory, hidden = self.memory, self.hidden
        units = "" if hidden is None else f", {hidden.units} {hidden.activation} units"
        channels = "" if memory.channels == 1 else f", {memory.channels} channels"
        return f"LMU, order {memory.order}, theta {memory.theta:g}{channels}{units}"


@dataclass(frozen=True, eq=False, repr=False)
class LSTMLayer(Part):
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

    @property
    def n_parameters(self) -> int:
        """Number of trained values."""
        return _size(self.kernel, self.recurrent_kernel, self.bias)

    def __str__(self) -> str:
        """Return what the layer is, in a few words."""
        return f"LSTM, {counted(self.n_out, 'unit')}"


Layer = LMULayer | LSTMLayer


@dataclass(frozen=True, eq=False, repr=False)
class Readout(Part):
    """Linear readout ``y = h W_y + b_y``.

    Attributes
    ----------
    kernel : ndarray, shape (n_hidden, n_out)
    bias : ndarray, shape (n_out,), or None
    """

    kernel: np.ndarray
    bias: np.ndarray | None

    def __post_init__(self) -> None:
        kernel = check_array("readout kernel", self.kernel, (None, None))
        set_fields(self, kernel=kernel)
        if self.bias is not None:
            set_fields(self, bias=check_array("readout bias", self.bias, (kernel.shape[1],)))

    @property
    def n_parameters(self) -> int:
        """Number of trained values."""
        return _size(self.kernel, self.bias)


@dataclass(frozen=True, eq=False, repr=False)
class LMUNetwork(Representation):
    """A trained network of LMU and LSTM layers, independent of any framework.

    Attributes
    ----------
    layers : tuple of LMULayer or LSTMLayer
    readout : Readout
    return_sequences : bool
        Whether the output is y at every step, or y at the last step only.
    task : str or None
        Name of the task on which it was trained.
    provenance : mapping of str to str
        Origin of the network: command, seed, versions, figures.
    names : tuple of str
        Names of the layers, and of the readout last; empty where they have none of their own.

    Raises
    ------
    InputError
        At construction, when a shape, type or value is invalid.
    """

    layers: tuple[Layer, ...]
    readout: Readout
    return_sequences: bool = False
    task: str | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    names: tuple[str, ...] = field(default=(), metadata=LATER)

    def __post_init__(self) -> None:
        layers = tuple(self.layers)
        if not layers or not all(isinstance(layer, LMULayer | LSTMLayer) for layer in layers):
            raise InputError("the layers of a network must be LMU or LSTM layers, at least one.")
        for number, (before, after) in enumerate(pairwise(layers)):
            if before.n_out != after.n_in:
                raise InputError(
                    f"layer {number} has {before.n_out} outputs and layer {number + 1} "
                    f"has {after.n_in} inputs; the two must be equal."
                )
        if not isinstance(self.readout, Readout):
            raise InputError(
                f"the readout of a network must be a Readout, not {type(self.readout).__name__}."
            )
        if self.readout.kernel.shape[0] != layers[-1].n_out:
            raise InputError(
                f"the readout kernel has {self.readout.kernel.shape[0]} inputs and the last layer "
                f"has {layers[-1].n_out} outputs; the two must be equal."
            )
        if self.task is not None:
            check_text("task", self.task, 200)
        check_flag("return_sequences", self.return_sequences)
        names = tuple(check_node_name(name) for name in self.names)
        if names and len(names) != len(layers) + 1:
            raise InputError(
                f"a network of {counted(len(layers), 'layer')} has {counted(len(names), 'name')}; "
                "give one for each layer and one for the readout, or none."
            )
        if twice := [name for number, name in enumerate(names) if name in names[:number]]:
            raise InputError(f"two nodes have the name {twice[0]}; each needs its own.")
        set_fields(self, layers=layers, provenance=check_provenance(self.provenance), names=names)

    @property
    def node_names(self) -> tuple[str, ...]:
        """Names of the layers, and of the readout last: layer0, layer1, ... without own names."""
        return self.names or tuple(default_names(len(self.layers)))

    @property
    def n_in(self) -> int:
        """Number of input features."""
        return self.layers[0].n_in

    @property
    def n_out(self) -> int:
        """Number of outputs."""
        return int(self.readout.kernel.shape[1])

    @property
    def n_parameters(self) -> int:
        """Weights, encoders, kernels and biases; the memory's a_bar and b_bar count if trained."""
        return self.readout.n_parameters + sum(layer.n_parameters for layer in self.layers)

    def summary(self) -> Summary:
        """Return the nodes of the network with their shapes and parameters, as a table."""
        facts = [
            counted(self.n_in, "input"),
            counted(self.n_out, "output"),
            counted(self.n_parameters, "parameter"),
            *([] if self.task is None else [f"task {self.task}"]),
        ]
        rows = [("input", "", _shape(self.n_in), "0")]
        *names, last = self.node_names
        for name, layer in zip(names, self.layers, strict=True):
            rows.append((name, str(layer), _shape(layer.n_out), f"{layer.n_parameters:,}"))
        answer = _shape(self.n_out) if self.return_sequences else f"({self.n_out})"
        rows.append((last, "dense", answer, f"{self.readout.n_parameters:,}"))
        return Summary(facts, ("node", "operator", "output shape", "parameters"), rows)


def default_names(layers: int) -> list[str]:
    """Return the names that layers without names get, and last that of the readout."""
    return [*(f"layer{number}" for number in range(layers)), "readout"]


def _shape(features: int) -> str:
    return f"(steps, {features})"


def _size(*arrays: np.ndarray | None) -> int:
    """Return the number of values of all arrays that are there."""
    return sum(array.size for array in arrays if array is not None)


FLOAT_CLASSES: tuple[type, ...] = (LMUNetwork, LMULayer, LSTMLayer, Memory, Hidden, Readout)
"""Classes that may occur in a file of this representation, for `core.files.load`."""
