r"""Recurrent operators whose state is that of their units: simple recurrent units, LSTM and GRU."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.operator import Recurrent, State, count, plus, through
from lmu_deploy.core.graph.pointwise import Activation
from lmu_deploy.core.validation import check_array, check_flag, set_fields

_TANH, _SIGMOID = Activation("tanh"), Activation("sigmoid")


_Same = TypeVar("_Same", bound="_Units")


class _Units(Recurrent):
    """Units whose input kernel has a column for each gate of each unit."""

    gates: ClassVar[int] = 1
    kernel: np.ndarray
    bias: np.ndarray | None
    initial: np.ndarray | None

    @property
    def n_in(self) -> int:
        """Number of input features."""
        return int(self.kernel.shape[0])

    @property
    def n_out(self) -> int:
        """Number of units."""
        return int(self.kernel.shape[1]) // self.gates

    def start(self, samples: int) -> State:
        """Return the initial state of every sample."""
        return _repeated(self.initial, samples, self.n_out)

    def absorb(self: _Same, kernel: np.ndarray, bias: np.ndarray) -> _Same:
        """Return the units for an input that a dense operator no longer transforms."""
        own = plus(self.bias, bias @ self.kernel)
        # Every subclass is a dataclass.
        return replace(self, kernel=through(kernel, self.kernel), bias=own)  # type: ignore[type-var]


@dataclass(frozen=True, eq=False, repr=False)
class SimpleRNN(_Units):
    """Recurrent units, ``h_t = f(x_t W + h_{t-1} U + b)``; without U they are a dense layer.

    Attributes
    ----------
    kernel : ndarray, shape (n_in, units)
    recurrent_kernel : ndarray, shape (units, units), or None
    bias : ndarray, shape (units,), or None
    activation : Activation
    initial : ndarray, shape (units,), or None
        The state before the first step; zero if None.
    """

    kernel: np.ndarray
    recurrent_kernel: np.ndarray | None = None
    bias: np.ndarray | None = None
    activation: Activation = _TANH
    initial: np.ndarray | None = None

    def __post_init__(self) -> None:
        kernel = check_array("recurrent kernel", self.kernel, (None, None))
        set_fields(self, kernel=kernel)
        units = kernel.shape[1]
        check_weights(
            self, {"recurrent_kernel": (units, units), "bias": (units,), "initial": (units,)}
        )
        _check_activations(self, "activation")

    def advance(self, state: State, x: np.ndarray) -> tuple[State, np.ndarray]:
        """Advance by one step."""
        z = x @ self.kernel.astype(np.float64)
        if self.recurrent_kernel is not None:
            z = z + state @ self.recurrent_kernel
        if self.bias is not None:
            z = z + self.bias
        h = self.activation.apply(z)
        return h, h

    @property
    def n_parameters(self) -> int:
        """Number of trained values."""
        return count(self.kernel, self.recurrent_kernel, self.bias, self.initial)

    def describe(self) -> str:
        """Return the operator in a few words."""
        kind = "recurrent" if self.recurrent_kernel is not None else "dense"
        return f"{self.n_out:,} {kind} {self.activation.describe()} units"


@dataclass(frozen=True, eq=False, repr=False)
class LSTM(_Units):
    r"""Long short-term memory (Hochreiter, Schmidhuber 1997), gates in the order i, f, g, o.

    .. math::
       (i, f, g, o) &= x_t W + h_{t-1} U + b \\
       c_t &= \sigma(f)\, c_{t-1} + \sigma(i)\, a(g) \\
       h_t &= \sigma(o)\, a(c_t)

    Attributes
    ----------
    kernel : ndarray, shape (n_in, 4 * units)
    recurrent_kernel : ndarray, shape (units, 4 * units)
    bias : ndarray, shape (4 * units,), or None
    activation, gate_activation : Activation
        a and sigma.
    initial_h, initial_c : ndarray, shape (units,), or None
    """

    gates = 4
    kernel: np.ndarray
    recurrent_kernel: np.ndarray
    bias: np.ndarray | None = None
    activation: Activation = _TANH
    gate_activation: Activation = _SIGMOID
    initial_h: np.ndarray | None = None
    initial_c: np.ndarray | None = None

    def __post_init__(self) -> None:
        recurrent = check_array("LSTM recurrent_kernel", self.recurrent_kernel, (None, None))
        units = recurrent.shape[0]
        shapes = {"kernel": (None, 4 * units), "recurrent_kernel": (units, 4 * units)}
        rest = {"bias": (4 * units,), "initial_h": (units,), "initial_c": (units,)}
        check_weights(self, {**shapes, **rest})
        _check_activations(self, "activation", "gate_activation")

    @property
    def n_states(self) -> int:
        """Number of hidden and cell states."""
        return 2 * self.n_out

    def start(self, samples: int) -> State:
        """Return the initial h and c of every sample."""
        return tuple(_repeated(v, samples, self.n_out) for v in (self.initial_h, self.initial_c))

    def advance(self, state: State, x: np.ndarray) -> tuple[State, np.ndarray]:
        """Advance by one step."""
        state, h, _ = self.update(state, x)
        return state, h

    def update(self, state: State, x: np.ndarray) -> tuple[State, np.ndarray, np.ndarray]:
        """Advance by one step; return the candidate a(g) as well."""
        h, c = state
        z = x @ self.kernel.astype(np.float64) + h @ self.recurrent_kernel
        if self.bias is not None:
            z = z + self.bias
        i, f, g, o = np.split(z, 4, axis=1)
        gate, candidate = self.gate_activation.apply, self.activation.apply(g)
        c = gate(f) * c + gate(i) * candidate
        h = gate(o) * self.activation.apply(c)
        return (h, c), h, candidate

    @property
    def n_parameters(self) -> int:
        """Number of trained values."""
        initial = count(self.initial_h, self.initial_c)
        return count(self.kernel, self.recurrent_kernel, self.bias) + initial

    def describe(self) -> str:
        """Return the operator in a few words."""
        return f"LSTM, {self.n_out:,} units"


@dataclass(frozen=True, eq=False, repr=False)
class GRU(_Units):
    r"""Gated recurrent units (Cho et al. 2014), gates in the order r, z, n.

    With :math:`(r, z) = \sigma(x_t W_{rz} + b_{rz} + h_{t-1} U_{rz} + d_{rz})`,

    .. math::
       n &= a(x_t W_n + b_n + r \odot (h_{t-1} U_n + d_n)) \quad \text{(reset after)} \\
       n &= a(x_t W_n + b_n + (r \odot h_{t-1}) U_n + d_n) \quad \text{(reset before)} \\
       h_t &= z \odot h_{t-1} + (1 - z) \odot n

    The first form is that of PyTorch and Keras 3, the second that of the paper.

    Attributes
    ----------
    kernel : ndarray, shape (n_in, 3 * units)
    recurrent_kernel : ndarray, shape (units, 3 * units)
    bias, recurrent_bias : ndarray, shape (3 * units,), or None
        b and d.
    reset_after : bool
    activation, gate_activation : Activation
    initial : ndarray, shape (units,), or None
    """

    gates = 3
    kernel: np.ndarray
    recurrent_kernel: np.ndarray
    bias: np.ndarray | None = None
    recurrent_bias: np.ndarray | None = None
    reset_after: bool = True
    activation: Activation = _TANH
    gate_activation: Activation = _SIGMOID
    initial: np.ndarray | None = None

    def __post_init__(self) -> None:
        recurrent = check_array("GRU recurrent_kernel", self.recurrent_kernel, (None, None))
        units = recurrent.shape[0]
        shapes = {"kernel": (None, 3 * units), "recurrent_kernel": (units, 3 * units)}
        rest = {"bias": (3 * units,), "recurrent_bias": (3 * units,), "initial": (units,)}
        check_weights(self, {**shapes, **rest})
        check_flag("GRU reset_after", self.reset_after)
        _check_activations(self, "activation", "gate_activation")

    def advance(self, state: State, x: np.ndarray) -> tuple[State, np.ndarray]:
        """Advance by one step."""
        state, h, _ = self.update(state, x)
        return state, h

    def update(self, state: State, x: np.ndarray) -> tuple[State, np.ndarray, np.ndarray]:
        """Advance by one step; return the candidate n as well."""
        units, h = self.n_out, state
        given = x @ self.kernel.astype(np.float64)
        if self.bias is not None:
            given = given + self.bias
        own_bias = np.zeros(3 * units) if self.recurrent_bias is None else self.recurrent_bias
        two, last = slice(0, 2 * units), slice(2 * units, None)
        own = h @ self.recurrent_kernel[:, two] + own_bias[two]
        r, z = np.split(self.gate_activation.apply(given[:, two] + own), 2, axis=1)
        if self.reset_after:
            from_state = r * (h @ self.recurrent_kernel[:, last] + own_bias[last])
        else:
            from_state = (r * h) @ self.recurrent_kernel[:, last] + own_bias[last]
        n = self.activation.apply(given[:, last] + from_state)
        h = z * h + (1.0 - z) * n
        return h, h, n

    @property
    def n_parameters(self) -> int:
        """Number of trained values."""
        biases = count(self.bias, self.recurrent_bias, self.initial)
        return count(self.kernel, self.recurrent_kernel) + biases

    def describe(self) -> str:
        """Return the operator in a few words."""
        return f"GRU, {self.n_out:,} units"


def check_weights(operator: Recurrent, shapes: dict[str, tuple[int | None, ...]]) -> None:
    """Check the arrays of an operator, those that are there."""
    for name, shape in shapes.items():
        value = getattr(operator, name)
        if value is not None or name in ("kernel", "recurrent_kernel", "input_encoders"):
            if value is None and name == "recurrent_kernel" and isinstance(operator, SimpleRNN):
                continue
            label = f"{type(operator).__name__} {name}"
            set_fields(operator, **{name: check_array(label, value, shape)})


def _check_activations(operator: Recurrent, *names: str) -> None:
    for name in names:
        if not isinstance(getattr(operator, name), Activation):
            raise InputError(f"{type(operator).__name__} {name} must be an Activation.")


def _repeated(initial: np.ndarray | None, samples: int, units: int) -> np.ndarray:
    """Return an initial state for every sample; zero if None."""
    if initial is None:
        return np.zeros((samples, units))
    return np.repeat(initial.astype(np.float64)[None], samples, axis=0)
