r"""The engine in PyTorch: products of int8, everything else in sums of int32.

A message of more than 8 bits is split into digits of base 128,
:math:`X = \sum_p 128^p X_p` with :math:`-64 \le X_p \le 63` below the highest, and
:math:`W X = \sum_p 128^p (W X_p)` is exact in int32; engine.py proves that nothing exceeds 2^31.
Such products are several times faster than those of float32 on a processor with int8 instructions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch

from lmu_deploy.core.integer.parts import Connection, Format
from lmu_deploy.core.integer.populations import Pointwise
from targets.integer.numpy_engine import SeriesSender, series_step
from targets.integer.operands import ReadyDrive, Stack, by_lines, make_table, ready_drives

BASE_BITS = 7
HALF_BASE = 64


@cache
def products_are_exact() -> bool:
    """Return whether int8 products are exact; some processors saturate pairs at 16 bits."""
    signs = np.array([-128, 127, -127, 126], dtype=np.int8)
    left, right = signs[np.arange(8 * 512) % 4], signs[np.arange(512 * 8) % 3]
    a, b = left.reshape(8, 512), right.reshape(512, 8)
    product = torch._int_mm(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    return bool(np.array_equal(product, a.astype(np.int64) @ b.astype(np.int64)))


def digits_of(limit: int) -> int:
    """Return the number of digits of a message of at most `limit` in magnitude."""
    digits = 1
    while limit > 127:
        digits, limit = digits + 1, (limit + HALF_BASE) >> BASE_BITS
    return digits


class Int8Products:
    """Weights, with buffers for the digits of a batch's messages and for their products.

    Parameters
    ----------
    weights : ndarray, shape (rows, n_in), int8
    limit : int
        Largest magnitude of a message.

    Attributes
    ----------
    batch : int
        Number of samples that the buffers hold.
    digits : tensor, shape (digits, batch, n_in), int8
        Input of `multiply`, lowest digit first.
    products : tensor, shape (digits, batch, rows), int32
        Output of `multiply`, the products of each digit.
    """

    def __init__(self, weights: np.ndarray, limit: int) -> None:
        # torch._int_mm needs the strides of a row-major matrix, even for one row.
        self._matrix = torch.from_numpy(weights.T.copy(order="C"))
        self._n_digits = digits_of(limit)
        self.resize(0)

    def resize(self, batch: int) -> None:
        """Allocate buffers for a batch of another size."""
        self.batch = batch
        n_in, rows = self._matrix.shape
        self.digits = torch.empty((self._n_digits, batch, n_in), dtype=torch.int8)
        self.products = torch.empty((self._n_digits, batch, rows), dtype=torch.int32)
        self._flat = self.digits.flatten(0, 1), self.products.flatten(0, 1)

    def multiply(self) -> None:
        """Multiply the digits by the weights."""
        digits, products = self._flat
        torch._int_mm(digits, self._matrix, out=products)


class TorchFan:
    """Synapses of an outlet as products of int8.

    Parameters
    ----------
    connections : mapping of place to Connection
        All with as many inputs as the population has neurons.
    limit : int
        Largest magnitude of a message.
    """

    def __init__(self, connections: Mapping[str, Connection], limit: int) -> None:
        self._stack = stack = Stack.of(connections)
        self._may_saturate = bool(stack.may_saturate(limit).any())
        self._narrowest = int(stack.accumulator.min())
        self._products = Int8Products(stack.weights, limit)
        self._limit, self._multiplier, self._half, self._shift = (
            torch.from_numpy(rows.astype(np.int32))
            for rows in (stack.accumulator, stack.multiplier, stack.half, stack.shift)
        )
        self._multiplies = bool((stack.multiplier != 1).any())

    def deliver(self, messages: torch.Tensor) -> dict[str, ReadyDrive]:
        """Return each connection's drive, by place, valid until the next call."""
        sums = self._sums(messages)
        saturations = self._saturate(sums) if self._may_saturate else {}
        if self._multiplies:
            sums *= self._multiplier
        sums += self._half
        sums >>= self._shift
        return ready_drives(sums, self._stack.places, saturations, lasting=False)

    def _sums(self, messages: torch.Tensor) -> torch.Tensor:
        """Multiply the weights by the messages, digit by digit, lowest first."""
        buffers = self._products
        if buffers.batch != len(messages):
            buffers.resize(len(messages))
        rest = messages
        for digit in buffers.digits[:-1]:
            upper = (rest + HALF_BASE).bitwise_right_shift_(BASE_BITS)
            digit.copy_(torch.sub(rest, upper, alpha=1 << BASE_BITS))
            rest = upper
        buffers.digits[-1].copy_(rest)
        buffers.multiply()
        *lower, sums = buffers.products
        for product in lower[::-1]:
            sums = product.add_(sums, alpha=1 << BASE_BITS)
        return sums

    def _saturate(self, sums: torch.Tensor) -> dict[str, int]:
        """Limit the sums in place; return the saturations by accumulator."""
        if not _beyond(sums, self._narrowest):
            return {}
        beyond = sums.abs() > self._limit
        torch.clamp(sums, -self._limit, self._limit, out=sums)
        return self._stack.count(beyond)


class TorchSender:
    """Count events by one product of int8, with fan-outs split into digits of base 128."""

    def __init__(self, fan_out: np.ndarray) -> None:
        tally = [np.ones_like(fan_out), *(fan_out >> b & 127 for b in range(0, 32, BASE_BITS))]
        self._tally = torch.from_numpy(np.column_stack(tally).astype(np.int8))

    def tally(self, sent: torch.Tensor) -> tuple[np.ndarray, int]:
        """Return the number of events of each sample, and the synaptic operations of all."""
        counts = torch._int_mm(sent.ne(0).view(torch.int8), self._tally).numpy()
        synapses = counts[:, 1:].sum(axis=0, dtype=np.int64)
        return counts[:, 0], int((synapses << np.arange(0, 32, BASE_BITS)).sum())


class TorchActivation:
    """H = f(z) of a batch, by a table where there is one."""

    def __init__(self, hidden: Pointwise) -> None:
        self._hidden, self._table = hidden, make_table(hidden)
        if self._table is not None:
            self._values = torch.from_numpy(self._table.values.astype(np.int32))

    def __call__(self, z: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Return H and the number of saturated entries."""
        table = self._table
        if table is None:
            h, limited = by_lines(self._hidden, z.numpy())
            return torch.from_numpy(h.astype(np.int32)), limited
        limited = table.count_limited(z, torch.count_nonzero)
        index = z.clamp(table.least, table.greatest).sub_(table.least)
        return torch.index_select(self._values, 0, index.view(-1)).view(z.shape), limited


class Int32Engine(ABC):
    """Base of engines with products of int8 and sums of int32: threads and inputs."""

    @property
    def threads(self) -> int:
        """Number of threads that PyTorch may use; OMP_NUM_THREADS sets it."""
        return int(torch.get_num_threads())

    @contextmanager
    def pool(self, threads: int) -> Iterator[Executor]:
        """Return an executor whose threads each use PyTorch with one thread.

        Tasks that have not begun at the end of the block are canceled. PyTorch keeps a number of
        threads for each thread, and a default for new ones, which is restored afterwards.
        """
        before = torch.get_num_threads()
        executor = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
        try:
            yield executor
        finally:
            executor.shutdown(cancel_futures=True)
            torch.set_num_threads(before)

    @abstractmethod
    def array(self, values: np.ndarray) -> Any:
        """Convert integers of NumPy."""

    def encode(self, x: np.ndarray, message: Format) -> tuple[Any, int]:
        """Encode real inputs as messages; return them and the number of saturations."""
        messages = np.rint(x / message.scale)
        limited = int(np.count_nonzero(np.abs(messages) > message.limit))
        return self.array(messages.clip(-message.limit, message.limit)), limited


class TorchEngine(Int32Engine):
    """Tensors of int32; see :class:`targets.integer.engine.Engine`."""

    name = "torch"

    def zeros(self, batch: int, width: int) -> torch.Tensor:
        """Build a tensor of zeros."""
        return torch.zeros((batch, width), dtype=torch.int32)

    def array(self, values: np.ndarray) -> torch.Tensor:
        """Convert integers of NumPy."""
        return torch.from_numpy(np.array(values, dtype=np.int32))

    def numpy(self, values: torch.Tensor) -> np.ndarray:
        """Return the integers as a NumPy array, without a copy."""
        return values.numpy()

    def copy(self, values: torch.Tensor) -> torch.Tensor:
        """Copy a tensor."""
        return values.clone()

    def saturate(self, values: torch.Tensor, limit: int) -> int:
        """Limit values in place; return the number of saturations."""
        if not _beyond(values, limit):
            return 0
        limited = int(torch.count_nonzero(values.abs() > limit))
        values.clamp_(-limit, limit)
        return limited

    def emit(
        self, m: torch.Tensor, limit: int, shift: int, message_limit: int
    ) -> tuple[torch.Tensor, int, int]:
        """Limit states in place; return their messages and the saturations of both."""
        limited = self.saturate(m, limit)
        messages = (m + ((1 << shift) >> 1)).bitwise_right_shift_(shift)
        return messages, limited, self.saturate(messages, message_limit)

    def suppress(self, values: torch.Tensor, threshold: int) -> None:
        """Set values of magnitude below a threshold to zero, in place."""
        values.masked_fill_(values.abs() < threshold, 0)

    def room(self, *shape: int) -> torch.Tensor:
        """Return a tensor to be filled."""
        return torch.empty(shape, dtype=torch.int32)

    def side_by_side(self, signals: list[torch.Tensor]) -> torch.Tensor:
        """Concatenate along the last axis."""
        return torch.cat(signals, dim=-1)

    fan, sender, activation = TorchFan, TorchSender, TorchActivation
    series, series_sender = staticmethod(series_step), SeriesSender


def _beyond(values: torch.Tensor, limit: int) -> bool:
    """Return whether any entry exceeds `limit` in magnitude."""
    if values.numel() == 0:
        return False
    least, greatest = torch.aminmax(values)
    return int(greatest) > limit or int(least) < -limit
