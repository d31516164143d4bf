r"""LinearMemory: the same linear system for every channel of an encoded input.

The forms over whole sequences compute blocks of L steps. With the impulse response
:math:`g_k = \bar A^k \bar B`, the states in a block that starts after :math:`m_0` are

.. math:: m_k = \bar A^k m_0 + \sum_{j=1}^{k} g_{k-j}\, u_j, \qquad k = 1 \ldots L,

two matrix products for a whole block instead of L products that wait for each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.operator import Recurrent, State, count, plus, through
from lmu_deploy.core.graph.pointwise import Activation
from lmu_deploy.core.legendre import impulse_response
from lmu_deploy.core.network import Memory
from lmu_deploy.core.validation import check_array, set_fields

_BLOCK_BYTES = 2**25
"""Bytes of the largest matrix that a block of steps is computed with."""
_LONGEST_BLOCK = 32
_STEPS_AT_ONCE = 4096
"""Steps of a sequence that one product with the impulse response covers."""


@dataclass(frozen=True, eq=False, repr=False)
class LinearMemory(Recurrent):
    r"""A linear memory that only the input feeds; :math:`f` is the identity or an activation.

    .. math::
       u_t &= f(x_t E + b) \\
       m_t[c] &= \bar A\, m_{t-1}[c] + \bar B\, u_t[c]

    With a Legendre memory this is the memory of the parallel LMU (Chilkuri, Eliasmith 2021,
    equations 18 and 19). Its output is m, channel by channel (index c * order + i).

    Attributes
    ----------
    memory : Memory
    encoders : ndarray, shape (n_in, channels)
    bias : ndarray, shape (channels,), or None
    activation : Activation or None
        Of the encoder.
    """

    memory: Memory
    encoders: np.ndarray
    bias: np.ndarray | None = None
    activation: Activation | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.memory, Memory) or not isinstance(
            self.activation, Activation | None
        ):
            raise InputError("LinearMemory needs a Memory, and an Activation or None.")
        channels = self.memory.channels
        set_fields(self, encoders=check_array("encoders", self.encoders, (None, channels)))
        if self.bias is not None:
            set_fields(self, bias=check_array("encoder bias", self.bias, (channels,)))

    @property
    def n_in(self) -> int:
        """Number of input features."""
        return int(self.encoders.shape[0])

    @property
    def n_out(self) -> int:
        """Number of states, channels times order."""
        return self.memory.size

    @property
    def states(self) -> Mapping[str, int]:
        """Number of states of the memory."""
        return {"memory": self.memory.size}

    def encode(self, x: np.ndarray) -> np.ndarray:
        """Return the channels u of frames of shape (..., n_in)."""
        u = x.reshape(-1, self.n_in) @ self.encoders.astype(np.float64)
        if self.bias is not None:
            u += self.bias
        if self.activation is not None:
            u = self.activation.apply(u)
        return u.reshape(*x.shape[:-1], self.memory.channels)

    def channel_inputs(self, x: np.ndarray, m: np.ndarray, h: np.ndarray | None) -> np.ndarray:
        """Return what the memory integrates at every step of one sequence, (steps, channels)."""
        return self.encode(x)

    def absorb(self, kernel: np.ndarray, bias: np.ndarray) -> LinearMemory:
        """Return the memory with other encoders."""
        encoders = through(kernel, self.encoders)
        return replace(self, encoders=encoders, bias=plus(self.bias, bias @ self.encoders))

    def start(self, samples: int) -> State:
        """Return states of zero."""
        return np.zeros((samples, self.memory.size))

    def advance(self, state: State, x: np.ndarray) -> tuple[State, np.ndarray]:
        """Advance by one step, as the equations are written."""
        state = step_memory(self.memory, state, self.encode(x))
        return state, state

    def forward(self, *signals: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        """Compute all states, block by block."""
        u = self.encode(signals[0])
        samples, steps, channels = u.shape
        states = np.empty((samples, steps, self.memory.size))
        blocks = self._blocks
        m = np.zeros((samples * channels, self.memory.order))
        for first in range(0, steps, blocks.length):
            now = min(blocks.length, steps - first)
            block = u[:, first : first + now].swapaxes(1, 2).reshape(samples * channels, now)
            found = blocks.advance(m, block)
            m = found[:, -1]
            each = found.reshape(samples, channels, now, self.memory.order).swapaxes(1, 2)
            states[:, first : first + now] = each.reshape(samples, now, -1)
        return states

    def last(self, *signals: np.ndarray) -> np.ndarray:
        """Compute the last state as products with the impulse response."""
        u = self.encode(signals[0])
        samples, steps, channels = u.shape
        rows = u.swapaxes(1, 2).reshape(samples * channels, steps)
        memory = self.memory
        response = impulse_response(
            memory.a_bar.astype(np.float64), memory.b_bar, min(steps, _STEPS_AT_ONCE)
        )
        m = np.zeros((samples * channels, memory.order))
        for first in range(0, steps, _STEPS_AT_ONCE):
            part = rows[:, first : first + _STEPS_AT_ONCE]
            if first:
                power = np.linalg.matrix_power(memory.a_bar.astype(np.float64), part.shape[1])
                m = m @ power.T
            m = m + part @ response[part.shape[1] - 1 :: -1]
        return m.reshape(samples, memory.size)

    @cached_property
    def _blocks(self) -> Blocks:
        return Blocks(self.memory)

    @property
    def n_parameters(self) -> int:
        """Number of trained values; those of the memory count if they were trained."""
        own = count(self.memory.a_bar, self.memory.b_bar)
        trained = own if self.memory.discretizer == "trained" else 0
        return count(self.encoders, self.bias) + trained

    def describe(self) -> str:
        """Return the operator in a few words."""
        memory = self.memory
        channels = "" if memory.channels == 1 else f", {memory.channels} channels"
        return f"memory, order {memory.order}, theta {memory.theta:g}{channels}"


def step_memory(memory: Memory, m: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Return the states one step later.

    Parameters
    ----------
    memory : Memory
    m : ndarray, shape (samples, channels * order)
    u : ndarray, shape (samples, channels)
    """
    rows = m.reshape(-1, memory.order) @ memory.a_bar.T.astype(np.float64)
    rows += u.reshape(-1, 1) * memory.b_bar
    return rows.reshape(m.shape)


class Blocks:
    """The matrices that take a memory through a block of steps at once.

    Attributes
    ----------
    length : int
        Steps of a block.
    powers : list of ndarray, shape (order, order)
        A_bar to the power of 0 to `length`.
    response : ndarray, shape (length, order)
        The impulse response.
    """

    def __init__(self, memory: Memory, columns: int | None = None, rows: int = 0) -> None:
        """Compute the powers.

        Parameters
        ----------
        memory : Memory
        columns : int, optional
            Width of what is read from every state; by default all states of a channel are.
        rows : int
            Other signals that every step of a block reads in the same columns.
        """
        order = memory.order
        size = order**2 if columns is None else (memory.size + rows) * columns
        self.length = int(np.clip(_BLOCK_BYTES // (8 * size), 1, _LONGEST_BLOCK))
        a_bar = memory.a_bar.astype(np.float64)
        self.powers = [np.eye(order)]
        for _ in range(self.length):
            self.powers.append(self.powers[-1] @ a_bar)
        self.response = np.stack([power @ memory.b_bar for power in self.powers[:-1]])

    @cached_property
    def _from_state(self) -> np.ndarray:
        return np.concatenate([power.T for power in self.powers[1:]], axis=1)

    @cached_property
    def _from_input(self) -> np.ndarray:
        found = np.zeros((self.length, self.length, self.response.shape[1]))
        for j in range(self.length):
            found[j, j:] = self.response[: self.length - j]
        return found

    def advance(self, m: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Return the states at every step of a block.

        Parameters
        ----------
        m : ndarray, shape (rows, order)
            The states before the block.
        u : ndarray, shape (rows, steps)
            At most `length` steps.

        Returns
        -------
        ndarray, shape (rows, steps, order)
        """
        order, steps = m.shape[1], u.shape[1]
        inputs = self._from_input[:steps, :steps].reshape(steps, steps * order)
        found = m @ self._from_state[:, : steps * order]
        found += u @ inputs
        return found.reshape(len(m), steps, order)
