r"""The engine in PyTorch: exact products of digits of messages, everything else in sums of int32.

A message X that is too large for one product is split into D digits of base :math:`2^b`,
:math:`X = \sum_p 2^{bp} X_p` with :math:`-2^{b-1} \le X_p < 2^{b-1}` below the highest, and
:math:`W X = \sum_p 2^{bp} (W X_p)` is exact in int32; engine.py proves that nothing exceeds 2^31.
Digits are int8 and b is 7 where the processor has instructions for such products, which are then
several times faster than those of float32. Elsewhere they are emulated and tens of times slower,
and digits are float32: a product is exact where no sum can exceed 2^24, in whatever order it is
computed, so that b follows from the largest row of W.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.parts import Connection, Format
from lmu_deploy.core.integer.populations import Pointwise
from targets.integer.numpy_engine import SeriesSender, series_step
from targets.integer.operands import ReadyDrive, Stack, by_lines, make_table, ready_drives

FLOAT32_LIMIT = 2**24
"""Up to here float32 represents all integers."""
MOST_BASE_BITS = 12
"""Most bits of a digit below the highest; half of that base is added to a message."""


class Products(ABC):
    """Weights, with buffers for the digits of a batch's messages and for their products.

    Parameters
    ----------
    matrix : tensor, shape (n_in, rows)
        The transposed weights, in the type of the digits. It may end in rows and columns of zeros.
    limit : int
        Largest magnitude of a message.

    Attributes
    ----------
    base_bits : int
        b; at least 2.
    batch : int
        Number of samples that the buffers hold.
    digits : tensor, shape (digits, batch, n_in or more)
        Input of `multiply`, lowest digit first.
    products : tensor, shape (digits, batch, rows or more), int32
        Output of `multiply`, the products of each digit.
    """

    def __init__(self, matrix: torch.Tensor, limit: int, base_bits: int, highest: int) -> None:
        self._matrix, self.base_bits = matrix, base_bits
        self._n_digits = digits_of(limit, base_bits, highest)
        self.resize(0)

    def resize(self, batch: int) -> None:
        """Allocate buffers for a batch of another size."""
        self.batch = batch
        n_in, rows = self._matrix.shape
        # The digits of inputs that only fill the matrix stay zero.
        self.digits = torch.zeros((self._n_digits, batch, n_in), dtype=self._matrix.dtype)
        self.products = torch.empty((self._n_digits, batch, rows), dtype=torch.int32)
        self._operands = self.digits.flatten(0, 1), self.products.flatten(0, 1)

    @abstractmethod
    def multiply(self) -> None:
        """Multiply the digits by the weights."""


_TILE, _LEAST_FILLED = 32, 64


def _filled(size: int) -> int:
    """Return the next multiple of 32, up to which zeros fill a matrix of int8 that is not small.

    The product of (512, 256) and (256, 724) took 232 us on a processor with tiles of int8 (AMX),
    and 176 us with 736 columns; that of (256, 212) and (212, 724) took 86 us, and 64 us filled.
    """
    return size if size < _LEAST_FILLED else -(-size // _TILE) * _TILE


class Int8Products(Products):
    """Products of int8 with sums of int32, for weights of shape (rows, n_in)."""

    def __init__(self, weights: np.ndarray, limit: int) -> None:
        rows, n_in = weights.shape
        # torch._int_mm needs the strides of a row-major matrix, even for one row.
        matrix = np.zeros((_filled(n_in), _filled(rows)), np.int8)
        matrix[:n_in, :rows] = weights.T
        super().__init__(torch.from_numpy(matrix), limit, 7, 127)

    def multiply(self) -> None:
        """Multiply the digits by the weights."""
        digits, products = self._operands
        torch._int_mm(digits, self._matrix, out=products)


class Float32Products(Products):
    """Products of float32 whose sums are integers of at most 2^24, for weights (rows, n_in)."""

    def __init__(self, weights: np.ndarray, limit: int) -> None:
        largest_row = int(np.abs(weights.astype(np.int64)).sum(axis=1).max(initial=1))
        highest = FLOAT32_LIMIT // max(largest_row, 1)
        if highest < 2:
            raise InputError(
                f"engines torch and numba: the weights of a neuron sum to {largest_row}, and exact "
                f"products of float32 allow {FLOAT32_LIMIT // 2}; use engine numpy."
            )
        matrix = torch.from_numpy(weights.T.astype(np.float32, order="C"))
        super().__init__(matrix, limit, min(highest.bit_length(), MOST_BASE_BITS), highest)

    def resize(self, batch: int) -> None:
        """Allocate buffers for a batch of another size."""
        super().resize(batch)
        self._sums = torch.empty(self.products.shape, dtype=torch.float32)

    def multiply(self) -> None:
        """Multiply the digits by the weights."""
        torch.mm(self._operands[0], self._matrix, out=self._sums.flatten(0, 1))
        self.products.copy_(self._sums)


def digits_of(limit: int, base_bits: int, highest: int) -> int:
    """Return the number of digits of a message of at most `limit`, the highest within `highest`."""
    digits = 1
    while limit > highest:
        digits, limit = digits + 1, (limit + (1 << base_bits >> 1)) >> base_bits
    return digits


def exact_products(weights: np.ndarray, limit: int) -> Products:
    """Return the fastest exact products for weights of shape (rows, n_in), int8.

    Raises
    ------
    InputError
        If the products have to be of float32, and PyTorch rounds their operands.
    """
    if int8_is_faster():
        return Int8Products(weights, limit)
    if not float32_is_exact(torch.get_float32_matmul_precision()):
        raise InputError(
            "engines torch and numba need exact products of float32, and PyTorch rounds them here; "
            "call torch.set_float32_matmul_precision('highest'), or use engine numpy."
        )
    return Float32Products(weights, limit)


@cache
def int8_is_faster() -> bool:
    """Return whether int8 products are exact and faster than those of float32, by a short trial.

    Some processors saturate pairs of products at 16 bits, and those without instructions for int8
    emulate them.
    """
    signs = np.array([-128, 127, -127, 126], dtype=np.int8)
    left, right = signs[np.arange(64 * 256) % 4], signs[np.arange(256 * 64) % 3]
    a, b = left.reshape(64, 256), right.reshape(256, 64)
    product = torch._int_mm(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    if not np.array_equal(product, a.astype(np.int64) @ b.astype(np.int64)):
        return False
    of_int8 = torch.from_numpy(a), torch.from_numpy(b)
    of_float32 = tuple(part.float() for part in of_int8)
    return _least_time(torch._int_mm, *of_int8) < _least_time(torch.mm, *of_float32)


@cache
def float32_is_exact(precision: str) -> bool:
    """Return whether products of float32 are, with this global setting of PyTorch."""
    del precision  # it is what the answer is kept for
    a, b = (torch.full(shape, value) for shape, value in (((8, 256), 4091.0), ((256, 8), 15.0)))
    return bool((torch.mm(a, b) == 256 * 4091 * 15).all())


def _least_time(product: Callable[..., torch.Tensor], *operands: torch.Tensor) -> float:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        product(*operands)
        times.append(time.perf_counter() - start)
    return min(times)


class TorchFan:
    """Synapses of an outlet as exact products.

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
        self._products = exact_products(stack.weights, limit)
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
        rest, bits = messages, buffers.base_bits
        digits = buffers.digits[..., : messages.shape[1]]
        for digit in digits[:-1]:
            upper = (rest + (1 << bits >> 1)).bitwise_right_shift_(bits)
            digit.copy_(torch.sub(rest, upper, alpha=1 << bits))
            rest = upper
        digits[-1].copy_(rest)
        buffers.multiply()
        *lower, sums = buffers.products[..., : len(self._shift)]
        for product in lower[::-1]:
            sums = product.add_(sums, alpha=1 << bits)
        return sums

    def _saturate(self, sums: torch.Tensor) -> dict[str, dict[str, int]]:
        """Limit the sums in place; return the saturations by place and accumulator."""
        if not _beyond(sums, self._narrowest):
            return {}
        beyond = sums.abs() > self._limit
        torch.clamp(sums, -self._limit, self._limit, out=sums)
        return self._stack.count(beyond)


class TorchSender:
    """Count events by one product, with fan-outs split into digits of base 128.

    Threads share it, so it has no buffers.
    """

    def __init__(self, fan_out: np.ndarray) -> None:
        digits = [np.ones_like(fan_out), *(fan_out >> b & 127 for b in range(0, 32, 7))]
        tally = torch.from_numpy(np.column_stack(digits).astype(np.int8))
        self._tally = tally if int8_is_faster() else tally.to(torch.float64)

    def tally(self, sent: torch.Tensor) -> tuple[np.ndarray, int]:
        """Return the number of events of each sample, and the synaptic operations of all."""
        if self._tally.dtype == torch.int8:
            counts = torch._int_mm(sent.ne(0).view(torch.int8), self._tally).numpy()
        else:
            counts = (sent.ne(0).to(self._tally.dtype) @ self._tally).numpy().astype(np.int64)
        synapses = counts[:, 1:].sum(axis=0, dtype=np.int64)
        return counts[:, 0], int((synapses << np.arange(0, 32, 7)).sum())


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
    """Base of engines with exact products and sums of int32: threads and inputs."""

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
