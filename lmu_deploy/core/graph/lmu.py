r"""The LMU: encoders with feedback, a linear memory, and a hidden cell that reads it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.memory import Blocks, LinearMemory, step_memory
from lmu_deploy.core.graph.operator import Recurrent, State, count, plus, through
from lmu_deploy.core.graph.recurrent import GRU, LSTM, SimpleRNN, check_weights
from lmu_deploy.core.network import Memory
from lmu_deploy.core.validation import check_flag

HIDDEN_CELLS = (SimpleRNN, LSTM, GRU)


@dataclass(frozen=True, eq=False, repr=False)
class LMU(Recurrent):
    r"""A Legendre Memory Unit: encoders with feedback, a linear memory, and a hidden cell.

    .. math::
       u_t &= x_t E_x + h_{t-1} E_h + m_{t-1} E_m + b_u                 && \text{(channels)} \\
       m_t[c] &= \bar A\, m_{t-1}[c] + \bar B\, u_t[c]               && \text{(channels x order)} \\
       h_t &= \mathrm{cell}\big((m_t, x_t),\, h_{t-1}\big)               && \text{(units)}

    (Voelker, Kajic, Eliasmith 2019, equations 5 to 7, whose cell is a SimpleRNN with tanh.)

    Attributes
    ----------
    memory : Memory
    input_encoders : ndarray, shape (n_in, channels)
    hidden : SimpleRNN, LSTM or GRU, or None
        Its input is m, or m and x one behind the other if `hidden_takes_input`. Without it the
        output is m.
    hidden_takes_input : bool
    hidden_encoders : ndarray, shape (units, channels), or None
    memory_encoders : ndarray, shape (channels * order, channels), or None
    memory_bias : ndarray, shape (channels,), or None
    """

    memory: Memory
    input_encoders: np.ndarray
    hidden: SimpleRNN | LSTM | GRU | None = None
    hidden_takes_input: bool = False
    hidden_encoders: np.ndarray | None = None
    memory_encoders: np.ndarray | None = None
    memory_bias: np.ndarray | None = None

    def __post_init__(self) -> None:
        memory, hidden = self.memory, self.hidden
        if not isinstance(memory, Memory):
            raise InputError("an LMU needs a Memory.")
        if hidden is not None and not isinstance(hidden, HIDDEN_CELLS):
            raise InputError("the hidden cell of an LMU is a SimpleRNN, an LSTM, a GRU or None.")
        check_flag("hidden_takes_input", self.hidden_takes_input)
        units = 0 if hidden is None else hidden.n_out
        if hidden is None and (self.hidden_encoders is not None or self.hidden_takes_input):
            raise InputError("hidden_encoders and hidden_takes_input need a hidden cell.")
        channels = memory.channels
        shapes: dict[str, tuple[int | None, ...]] = {
            "input_encoders": (None, channels),
            "hidden_encoders": (units, channels),
            "memory_encoders": (memory.size, channels),
            "memory_bias": (channels,),
        }
        check_weights(self, shapes)
        if hidden is not None:
            wanted = memory.size + (self.n_in if self.hidden_takes_input else 0)
            if hidden.n_in != wanted:
                raise InputError(
                    f"the hidden cell takes {hidden.n_in} features and is given {wanted}; the two "
                    "must be equal."
                )

    @property
    def n_in(self) -> int:
        """Number of input features."""
        return int(self.input_encoders.shape[0])

    @property
    def n_out(self) -> int:
        """Number of hidden units, or of states without them."""
        return self.memory.size if self.hidden is None else self.hidden.n_out

    @property
    def feeds_back(self) -> bool:
        """Whether anything but the input reaches the memory."""
        return self.hidden_encoders is not None or self.memory_encoders is not None

    @property
    def states(self) -> Mapping[str, int]:
        """Number of states of the memory, and of hidden units if there are any."""
        hidden = {} if self.hidden is None else {"hidden": self.hidden.n_out}
        return {"memory": self.memory.size, **hidden}

    @property
    def n_states(self) -> int:
        """Number of states of the memory and of the hidden cell."""
        return self.memory.size + (0 if self.hidden is None else self.hidden.n_states)

    def channel_inputs(self, x: np.ndarray, m: np.ndarray, h: np.ndarray | None) -> np.ndarray:
        """Return what the memory integrates at every step of one sequence, (steps, channels).

        Parameters
        ----------
        x, m, h : ndarray, shape (steps, size)
            Inputs, and recorded states of the memory and the hidden units.
        """
        u = x @ self.input_encoders.astype(np.float64)
        if self.memory_encoders is not None:
            u[1:] += m[:-1] @ self.memory_encoders
        if self.hidden_encoders is not None:
            assert h is not None
            u[1:] += h[:-1] @ self.hidden_encoders
        return u if self.memory_bias is None else u + self.memory_bias

    def start(self, samples: int) -> State:
        """Return m of zero, the state of the hidden cell and its output."""
        cell = None if self.hidden is None else self.hidden.start(samples)
        output = cell[0] if isinstance(cell, tuple) else cell
        return np.zeros((samples, self.memory.size)), cell, output

    def absorb(self, kernel: np.ndarray, bias: np.ndarray) -> LMU:
        """Return the layer with other encoders and another kernel of the hidden cell."""
        hidden = self.hidden
        if hidden is not None and self.hidden_takes_input:
            memory, own = np.split(hidden.kernel.astype(np.float64), [self.memory.size])
            whole = np.concatenate([memory, through(kernel, own)])
            hidden = replace(hidden, kernel=whole, bias=plus(hidden.bias, bias @ own))
        return replace(
            self,
            hidden=hidden,
            input_encoders=through(kernel, self.input_encoders),
            memory_bias=plus(self.memory_bias, bias @ self.input_encoders),
        )

    def advance(self, state: State, x: np.ndarray) -> tuple[State, np.ndarray]:
        """Advance by one step, as the equations are written."""
        m, cell, h = state
        u = x @ self.input_encoders.astype(np.float64)
        if self.hidden_encoders is not None:
            u = u + h @ self.hidden_encoders
        if self.memory_encoders is not None:
            u = u + m @ self.memory_encoders
        if self.memory_bias is not None:
            u = u + self.memory_bias
        m = step_memory(self.memory, m, u)
        if self.hidden is None:
            return (m, None, None), m
        given = np.concatenate([m, x], axis=1) if self.hidden_takes_input else m
        cell, h = self.hidden.advance(cell, given)
        return (m, cell, h), h

    def forward(self, *signals: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        """Compute all outputs; with a SimpleRNN inside, block by block."""
        if not isinstance(self.hidden, SimpleRNN):
            return super().forward(*signals)
        outputs = np.empty((*signals[0].shape[:2], self.n_out))
        for t, h in enumerate(_Blocked(self, self.hidden).outputs(signals[0])):
            outputs[:, t] = h
        return outputs

    def trace(
        self, *signals: np.ndarray, lengths: np.ndarray | None = None
    ) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        """Compute all outputs and all states of the memory."""
        (x,) = signals
        memory = np.empty((*x.shape[:2], self.memory.size))
        outputs = np.empty((*x.shape[:2], self.n_out))
        if isinstance(self.hidden, SimpleRNN):
            for t, h in enumerate(_Blocked(self, self.hidden).outputs(x, memory)):
                outputs[:, t] = h
        else:
            state = self.start(len(x))
            for t in range(x.shape[1]):
                state, outputs[:, t] = self.advance(state, x[:, t])
                memory[:, t] = state[0]
        hidden = {} if self.hidden is None else {"hidden": outputs}
        return outputs, {"memory": memory, **hidden}

    def last(self, *signals: np.ndarray) -> np.ndarray:
        """Compute the output of the last step in the form that needs least.

        Where nothing feeds back, the last state of the memory is a product with its impulse
        response, and dense hidden units are computed once. With a SimpleRNN inside, the layer goes
        block by block.
        """
        (x,) = signals
        cell = self.hidden
        dense = isinstance(cell, SimpleRNN) and cell.recurrent_kernel is None
        if not self.feeds_back and (cell is None or dense):
            m = LinearMemory(self.memory, self.input_encoders, self.memory_bias).last(x)
            if cell is None:
                return m
            given = np.concatenate([m, x[:, -1]], axis=1) if self.hidden_takes_input else m
            return cell.advance(cell.start(len(x)), given)[1]
        if not isinstance(self.hidden, SimpleRNN):
            return super().last(*signals)
        (output,) = deque(_Blocked(self, self.hidden).outputs(signals[0]), maxlen=1)
        return output

    @property
    def n_parameters(self) -> int:
        """Number of trained values; those of the memory count if they were trained."""
        found = count(self.input_encoders, self.hidden_encoders, self.memory_encoders)
        found += count(self.memory_bias)
        if self.memory.discretizer == "trained":
            found += count(self.memory.a_bar, self.memory.b_bar)
        return found + (0 if self.hidden is None else self.hidden.n_parameters)

    def describe(self) -> str:
        """Return the operator in a few words."""
        memory = self.memory
        channels = "" if memory.channels == 1 else f", {memory.channels} channels"
        hidden = "" if self.hidden is None else f", {self.hidden.describe()}"
        return f"LMU, order {memory.order}, theta {memory.theta:g}{channels}{hidden}"


class _Blocked:
    r"""An LMU with simple hidden units, whose memory is computed once in a block of steps.

    What the hidden units and the encoders read of the memory within a block that starts after
    :math:`m_0` follows from :math:`m_0` and the channels u alone, with
    :math:`g_k = \bar A^k \bar B`:

    .. math:: m_k W = m_0 (\bar A^k)^T W + \sum_{j=1}^{k} u_j\, g_{k-j}^T W,

    so that the product with :math:`\bar A` is needed once for a block, and each step multiplies
    only by the recurrent weights and by the few channels of the block so far.
    """

    def __init__(self, layer: LMU, hidden: SimpleRNN) -> None:
        self.layer, self.hidden = layer, hidden
        memory = layer.memory
        kernel = hidden.kernel.astype(np.float64)
        self.memory_kernel = kernel[: memory.size]
        self.input_kernel = kernel[memory.size :] if layer.hidden_takes_input else None
        feedback = layer.memory_encoders
        wide = self.memory_kernel.shape[1] + (0 if feedback is None else memory.channels)
        self.blocks = Blocks(memory, wide)
        self.read_hidden = self._read(self.memory_kernel, 1)
        self.read_channels = None if feedback is None else self._read(feedback, 0)

    def _read(self, weights: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
        """Return what weights read of the memory `first` steps after the start of a block, and on.

        Returns
        -------
        from_state : ndarray, shape (channels * order, length * columns)
        from_channels : ndarray, shape (length * channels, columns)
            The response of a channel to an impulse, the longest ago first.
        """
        memory, length = self.layer.memory, self.blocks.length
        each = weights.astype(np.float64).reshape(memory.channels, memory.order, -1)
        state = [power.T @ each for power in self.blocks.powers[first : first + length]]
        from_state = np.stack(state, axis=2).reshape(memory.size, -1)
        response = np.einsum("ki,cin->kcn", self.blocks.response, each)
        return from_state, response[::-1].reshape(length * memory.channels, -1)

    def outputs(self, x: np.ndarray, memory: np.ndarray | None = None) -> Iterator[np.ndarray]:
        """Yield the hidden units of every step, shape (samples, units).

        Parameters
        ----------
        x : ndarray, shape (samples, steps, n_in)
        memory : ndarray, shape (samples, steps, channels * order), optional
            Filled with the states of the memory, block by block.
        """
        layer, hidden, length = self.layer, self.hidden, self.blocks.length
        channels, units = layer.memory.channels, hidden.n_out
        samples, steps, _ = x.shape
        m, _, h = layer.start(samples)
        for first in range(0, steps, length):
            now = min(length, steps - first)
            block = x[:, first : first + now].reshape(samples * now, -1)
            given = (block @ layer.input_encoders.astype(np.float64)).reshape(samples, now, -1)
            if layer.memory_bias is not None:
                given = given + layer.memory_bias
            base = (m @ self.read_hidden[0][:, : now * units]).reshape(samples, now, units)
            if self.input_kernel is not None:
                base += (block @ self.input_kernel).reshape(samples, now, units)
            if hidden.bias is not None:
                base += hidden.bias
            if self.read_channels is not None:
                read = m @ self.read_channels[0][:, : now * channels]
                given = given + read.reshape(samples, now, channels)
            u = np.zeros((samples, now * channels))
            for k in range(now):
                here = slice(k * channels, (k + 1) * channels)
                u[:, here] = given[:, k]
                if layer.hidden_encoders is not None:
                    u[:, here] += h @ layer.hidden_encoders
                if self.read_channels is not None and k:
                    before = self.read_channels[1][(length - k) * channels :]
                    u[:, here] += u[:, : k * channels] @ before
                so_far = self.read_hidden[1][(length - 1 - k) * channels :]
                z = base[:, k] + u[:, : (k + 1) * channels] @ so_far
                if hidden.recurrent_kernel is not None:
                    z += h @ hidden.recurrent_kernel
                h = hidden.activation.apply(z)
                yield h
            if memory is not None:
                memory[:, first : first + now] = self._states(m, u.reshape(samples, now, channels))
            m = self._after(m, u.reshape(samples, now, channels))

    def _states(self, m: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Return the states at every step of a block whose channels were u."""
        samples, now, channels = u.shape
        rows = u.swapaxes(1, 2).reshape(samples * channels, now)
        found = self.blocks.advance(m.reshape(samples * channels, -1), rows)
        return found.reshape(samples, channels, now, -1).swapaxes(1, 2).reshape(samples, now, -1)

    def _after(self, m: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Return the states after a block whose channels were u."""
        memory, now = self.layer.memory, u.shape[1]
        rows = m.reshape(-1, memory.order) @ self.blocks.powers[now].T
        given = u.swapaxes(1, 2).reshape(-1, now) @ self.blocks.response[now - 1 :: -1]
        return (rows + given).reshape(m.shape)
