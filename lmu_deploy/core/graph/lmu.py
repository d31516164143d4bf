r"""The LMU: encoders with feedback, a linear memory, and a hidden cell that reads it."""

from __future__ import annotations

import ctypes
import importlib
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import pairwise

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

    def memory_alone(self) -> LMU | LinearMemory:
        """Return the operator whose output is the memory of this layer.

        Its input is that of the layer; where hidden units feed back to the memory, it is that and
        the hidden units of the step before, one behind the other.
        """
        encoders = self.input_encoders
        if self.hidden_encoders is not None:
            encoders = np.concatenate([encoders, self.hidden_encoders])
        if self.memory_encoders is None:
            return LinearMemory(self.memory, encoders, self.memory_bias)
        own, bias = self.memory_encoders, self.memory_bias
        return LMU(self.memory, encoders, memory_encoders=own, memory_bias=bias)

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
        self._blocked.run(signals[0], outputs)
        return outputs

    def trace(
        self, *signals: np.ndarray, lengths: np.ndarray | None = None
    ) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        """Compute all outputs and all states of the memory."""
        (x,) = signals
        memory = np.empty((*x.shape[:2], self.memory.size))
        outputs = np.empty((*x.shape[:2], self.n_out))
        if isinstance(self.hidden, SimpleRNN):
            self._blocked.run(x, outputs, memory)
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
        return self._blocked.run(signals[0])

    @cached_property
    def _blocked(self) -> _Blocked:
        assert isinstance(self.hidden, SimpleRNN)
        return _Blocked(self, self.hidden)

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

    so that the memory is multiplied once for a block. What remains of a step is one product, of
    the hidden units, the input, a one and the channels of the block so far, which is added to
    what comes of :math:`m_0`. Its columns are the hidden units and the channels; the channels of
    the same step, which the hidden units read too, are substituted in the weights. Samples are
    columns, so that every step is contiguous; the states of
    the memory are its rows, all channels of a degree side by side.
    """

    def __init__(self, layer: LMU, hidden: SimpleRNN) -> None:
        self.layer, self.hidden = layer, hidden
        memory = layer.memory
        self.recurrent = layer.hidden_encoders is not None or hidden.recurrent_kernel is not None
        self.columns = hidden.n_out + memory.channels
        rows = layer.n_in + 1 + (hidden.n_out if self.recurrent else 0)
        self.blocks = Blocks(memory, self.columns, rows)
        kernel = hidden.kernel.astype(np.float64)
        read, own_input = kernel[: memory.size], kernel[memory.size :]
        feedback = layer.memory_encoders
        if feedback is None:
            feedback = np.zeros((memory.size, memory.channels))
        self.now = self._responses(read)[0]
        self.after = np.asfortranarray(self.blocks.response[::-1])
        self.from_state = self._from_state(read, feedback.astype(np.float64))
        self.steps = self._steps(read, feedback.astype(np.float64), own_input)

    def _substituted(self, hidden: np.ndarray, channels: np.ndarray) -> np.ndarray:
        """Return columns of the hidden units, which read the step's channels, and of channels."""
        return np.concatenate([hidden + channels @ self.now, channels], axis=-1)

    def _responses(self, weights: np.ndarray) -> np.ndarray:
        """Return what weights read after an impulse, shape (length, channels, columns)."""
        each = weights.reshape(self.layer.memory.channels, self.layer.memory.order, -1)
        return np.einsum("ki,cin->kcn", self.blocks.response, each)

    def _from_state(self, read: np.ndarray, feedback: np.ndarray) -> np.ndarray:
        """Return what a step reads of m_0, shape (length * columns, order * channels)."""
        memory, powers = self.layer.memory, self.blocks.powers
        both = [weights.reshape(memory.channels, memory.order, -1) for weights in (read, feedback)]
        found = [
            self._substituted(after.T @ both[0], before.T @ both[1]).transpose(2, 1, 0)
            for before, after in pairwise(powers)
        ]
        return np.concatenate(found).reshape(-1, memory.size)

    def _steps(
        self, read: np.ndarray, feedback: np.ndarray, own_input: np.ndarray
    ) -> list[np.ndarray]:
        """Return the weights of every step of a block, shape (rows, columns).

        Their rows belong to the hidden units, if any are read, the input, the one and the
        channels of the block so far.
        """
        layer, hidden = self.layer, self.hidden
        units, channels = hidden.n_out, layer.memory.channels

        def weights(array: np.ndarray | None, rows: int, columns: int) -> np.ndarray:
            return np.zeros((rows, columns)) if array is None else array.reshape(rows, columns)

        top = [
            self._substituted(
                own_input if layer.hidden_takes_input else np.zeros((layer.n_in, units)),
                layer.input_encoders.astype(np.float64),
            ),
            self._substituted(
                weights(hidden.bias, 1, units), weights(layer.memory_bias, 1, channels)
            ),
        ]
        if self.recurrent:
            own = weights(hidden.recurrent_kernel, units, units)
            top.insert(0, self._substituted(own, weights(layer.hidden_encoders, units, channels)))
        lags = self._substituted(self._responses(read)[1:], self._responses(feedback)[:-1])
        each = [np.concatenate([*top, *lags[:k][::-1]]) for k in range(self.blocks.length)]
        return [np.asfortranarray(step) for step in each]

    def run(
        self,
        x: np.ndarray,
        outputs: np.ndarray | None = None,
        memory: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return the hidden units of the last step, shape (samples, units).

        Many samples are divided among as many threads as BLAS has, each with its own products.

        Parameters
        ----------
        x : ndarray, shape (samples, steps, n_in)
        outputs : ndarray, shape (samples, steps, units), optional
            Filled with the hidden units.
        memory : ndarray, shape (samples, steps, channels * order), optional
            Filled with the states of the memory.
        """
        with _own_blas_threads(len(x) // _SAMPLES_OF_A_THREAD) as threads:
            if threads == 1:
                return self._run(x, outputs, memory)
            bounds = [len(x) * i // threads for i in range(threads + 1)]

            def part(ends: tuple[int, int]) -> np.ndarray:
                some = slice(*ends)
                filled = (None if given is None else given[some] for given in (outputs, memory))
                return self._run(x[some], *filled)

            with ThreadPoolExecutor(threads) as pool:
                return np.concatenate(list(pool.map(part, pairwise(bounds))))

    def _run(
        self, x: np.ndarray, outputs: np.ndarray | None, memory: np.ndarray | None
    ) -> np.ndarray:
        layer, hidden, length = self.layer, self.hidden, self.blocks.length
        channels, units = layer.memory.channels, hidden.n_out
        samples, steps, n_in = x.shape
        m = np.zeros((layer.memory.size, samples))
        before = units if self.recurrent else 0
        rows = before + n_in + 1
        given = np.ones((rows + length * channels, samples))
        given[:before] = hidden.start(samples).T[:before]
        block = np.empty((length, self.columns, samples))
        product = np.empty((self.columns, samples))
        h = given[:units] if before else np.empty((units, samples))
        for first in range(0, steps, length):
            now = min(length, steps - first)
            from_state = self.from_state[: now * self.columns]
            np.matmul(from_state, m, out=block[:now].reshape(-1, samples))
            for k, z in enumerate(block[:now]):
                given[before : rows - 1] = x[:, first + k].T
                here = rows + k * channels
                z += np.matmul(self.steps[k].T, given[:here], out=product)
                given[here : here + channels] = z[units:]
                hidden.activation.fill(z[:units], h)
                if outputs is not None:
                    outputs[:, first + k] = h.T
            u = given[rows : rows + now * channels].reshape(now, channels, samples)
            if memory is not None:
                memory[:, first : first + now] = self._states(m, u)
            after = self.blocks.powers[now] @ m.reshape(-1, channels * samples)
            after += self.after[-now:].T @ u.reshape(now, -1)
            m = after.reshape(m.shape)
        return h.T.copy()

    def _states(self, m: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Return the states at every step of a block, shape (samples, steps, channels * order)."""
        now, channels, samples = u.shape
        rows = m.reshape(-1, channels * samples).T
        found = self.blocks.advance(rows, u.reshape(now, -1).T)
        return (
            found.reshape(channels, samples, now, -1)
            .transpose(1, 2, 0, 3)
            .reshape(samples, now, -1)
        )


_SAMPLES_OF_A_THREAD = 64
_BLAS_THREADS = threading.Lock()


@contextmanager
def _own_blas_threads(most: int) -> Iterator[int]:
    """Yield how many threads may each call NumPy's BLAS, which uses one thread meanwhile.

    Products of this size wait for each other when BLAS divides them among threads, and what is
    between them uses one. The number is 1, and BLAS left as it is, where it has a single thread,
    is not OpenBLAS, or has been taken by another thread of the program.
    """
    blas = _openblas()
    if most < 2 or blas is None or not _BLAS_THREADS.acquire(blocking=False):
        yield 1
        return
    before = blas.scipy_openblas_get_num_threads64_()
    try:
        blas.scipy_openblas_set_num_threads64_(1)
        yield max(1, min(most, before))
    finally:
        blas.scipy_openblas_set_num_threads64_(before)
        _BLAS_THREADS.release()


@cache
def _openblas() -> ctypes.CDLL | None:
    """Return the OpenBLAS that NumPy is distributed with, or None."""
    try:
        # The module of NumPy's products: the symbols are those of what it depends on.
        own = importlib.import_module("numpy._core._multiarray_umath")
        blas = ctypes.CDLL(own.__file__)
        blas.scipy_openblas_get_num_threads64_, blas.scipy_openblas_set_num_threads64_  # noqa: B018
    except (ImportError, OSError, AttributeError):
        return None
    return blas
