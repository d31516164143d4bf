r"""The engine in PyTorch: products of int8, everything else int32.

A message of more than 8 bits is cut into digits of base 128 as weights are,
:math:`X = \sum_p 128^p X_p` with :math:`-64 \le X_p \le 63` below the highest, and
:math:`W X = \sum_p 128^p (W X_p)` in exact int32; bounds.py proves that nothing passes 2^31. Such
products run several times faster than those of float32 on a processor with int8 instructions.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
import torch

from lmu_deploy.integer_network import Connection, Format, IntegerHidden, largest
from targets.integer.lines import by_lines, make_table
from targets.integer.numpy_engine import columns_of

_BASE_BITS = 7


@cache
def products_are_exact() -> bool:
    """Whether int8 products are exact here; some processors saturate pairs of them at 16 bits."""
    signs = np.array([-128, 127, -127, 126], dtype=np.int8)
    left, right = signs[np.arange(8 * 512) % 4], signs[np.arange(512 * 8) % 3]
    a, b = left.reshape(8, 512), right.reshape(512, 8)
    product = torch._int_mm(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    return bool(np.array_equal(product, a.astype(np.int64) @ b.astype(np.int64)))


class TorchEngine:
    """Tensors of int32; see :class:`targets.integer.engine.Engine`."""

    name = "torch"

    def zeros(self, batch: int, width: int) -> torch.Tensor:
        """Make a tensor of zeros."""
        return torch.zeros((batch, width), dtype=torch.int32)

    def array(self, values: np.ndarray) -> torch.Tensor:
        """Take integers over from NumPy."""
        return torch.from_numpy(np.array(values, dtype=np.int32))

    def numpy(self, values: torch.Tensor) -> np.ndarray:
        """Give integers as NumPy, without a copy."""
        return values.numpy()

    def copy(self, values: torch.Tensor) -> torch.Tensor:
        """Copy a tensor."""
        return values.clone()

    def encode(self, x: np.ndarray, message: Format) -> tuple[torch.Tensor, int]:
        """Give input messages for real inputs, and how many were limited."""
        messages = np.rint(x / message.scale)
        limited = int(np.count_nonzero(np.abs(messages) > message.limit))
        return self.array(messages.clip(-message.limit, message.limit)), limited

    def rounded_shift(self, values: torch.Tensor, shift: int) -> torch.Tensor:
        """Give ms(values, 1, shift)."""
        return (values + ((1 << shift) >> 1)).bitwise_right_shift_(shift)

    def saturate(self, values: torch.Tensor, limit: int) -> int:
        """Limit values in place; give how many that changed."""
        if not _beyond(values, limit):
            return 0
        limited = int(torch.count_nonzero(values.abs() > limit))
        values.clamp_(-limit, limit)
        return limited

    def silence(self, values: torch.Tensor, threshold: int) -> None:
        """Set values of magnitude below a threshold to zero, in place."""
        values.masked_fill_(values.abs() < threshold, 0)

    def fan(self, connections: Mapping[str, Connection], limit: int) -> TorchFan:
        """Make the synapses of an outlet ready."""
        return TorchFan(connections, limit)

    def sender(self, fan_out: np.ndarray) -> TorchSender:
        """Make ready to count the events of an outlet."""
        return TorchSender(fan_out)

    def activation(self, hidden: IntegerHidden) -> TorchActivation:
        """Make an activation ready."""
        return TorchActivation(hidden)


class TorchFan:
    """The synapses of an outlet, as products of int8.

    Parameters
    ----------
    connections : mapping of place to Connection
        All with as many inputs as the population has neurons.
    limit : int
        Largest magnitude of a message.
    """

    def __init__(self, connections: Mapping[str, Connection], limit: int) -> None:
        links = list(connections.values())
        weights = np.concatenate([c.slices.reshape(-1, c.n_in) for c in links])
        shift = np.concatenate([c.shift.ravel() for c in links])
        multiplier = np.concatenate([c.multiplier.ravel() for c in links])
        accumulator = np.concatenate(
            [np.full(c.multiplier.size, largest(c.accumulator_bits)) for c in links]
        )
        worst = np.abs(weights.astype(np.int64)).sum(axis=1) * limit
        self._cannot_saturate = bool((worst <= accumulator).all())
        self._narrowest = int(accumulator.min())
        self._limit = torch.from_numpy(accumulator.astype(np.int32))
        self._matrix = torch.from_numpy(weights.T.copy(order="C"))  # strides of one row count too
        self._multiplier = None
        if (multiplier != 1).any():
            self._multiplier = torch.from_numpy(multiplier.astype(np.int32))
        self._half = torch.from_numpy(((1 << shift.astype(np.int64)) >> 1).astype(np.int32))
        self._shift = torch.from_numpy(shift.astype(np.int32))
        self._columns = columns_of(connections)
        self._digits = max(1, -(-limit.bit_length() // _BASE_BITS))
        self._buffers = _Buffers(0, self._digits, *self._matrix.shape)

    def deliver(self, messages: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
        """Give each connection's drive, good until the next call, and the saturations."""
        sums = self._sums(messages)
        saturations = {} if self._cannot_saturate else self._saturate(sums)
        if self._multiplier is not None:
            sums *= self._multiplier
        sums += self._half
        sums >>= self._shift
        drives = {}
        for place, (first, *others) in self._columns.items():
            drive = sums[:, first]
            for other in others:
                drive += sums[:, other]
            drives[place] = drive
        return drives, saturations

    def _sums(self, messages: torch.Tensor) -> torch.Tensor:
        """Multiply by the weights, digit by digit of the messages, lowest first."""
        if self._buffers.batch != len(messages):
            self._buffers = _Buffers(len(messages), self._digits, *self._matrix.shape)
        digits, products = self._buffers.digits, self._buffers.products
        rest = messages
        for digit in digits[:-1]:
            upper = (rest + 64).bitwise_right_shift_(_BASE_BITS)
            digit.copy_(torch.sub(rest, upper, alpha=1 << _BASE_BITS))
            rest = upper
        digits[-1].copy_(rest)
        torch._int_mm(digits.flatten(0, 1), self._matrix, out=products.flatten(0, 1))
        *lower, sums = products
        for product in lower[::-1]:
            sums = product.add_(sums, alpha=1 << _BASE_BITS)
        return sums

    def _saturate(self, sums: torch.Tensor) -> dict[str, int]:
        """Limit the sums in place; give how many were, by place."""
        if not _beyond(sums, self._narrowest):
            return {}
        beyond = sums.abs() > self._limit
        torch.clamp(sums, -self._limit, self._limit, out=sums)
        return {
            f"{place}/slice{number}": int(torch.count_nonzero(beyond[:, column]))
            for place, columns in self._columns.items()
            for number, column in enumerate(columns)
        }


class TorchSender:
    """Counts events by one product of int8, the fan-outs cut into digits of base 128."""

    def __init__(self, fan_out: np.ndarray) -> None:
        tally = [np.ones_like(fan_out), *(fan_out >> b & 127 for b in range(0, 32, _BASE_BITS))]
        self._tally = torch.from_numpy(np.column_stack(tally).astype(np.int8))

    def tally(self, sent: torch.Tensor) -> tuple[np.ndarray, int]:
        """Count nonzero entries of each sample, and the synapses that all of them meet."""
        counts = torch._int_mm(sent.ne(0).view(torch.int8), self._tally).numpy()
        synapses = counts[:, 1:].sum(axis=0, dtype=np.int64)
        return counts[:, 0], int((synapses << np.arange(0, 32, _BASE_BITS)).sum())


class _Buffers:
    """Tensors that every step of a batch writes anew, so that none has to be allocated."""

    def __init__(self, batch: int, digits: int, n_in: int, n_out: int) -> None:
        self.batch = batch
        self.digits = torch.empty((digits, batch, n_in), dtype=torch.int8)
        self.products = torch.empty((digits, batch, n_out), dtype=torch.int32)


class TorchActivation:
    """H = f(z) for whole batches, by table where there is one."""

    def __init__(self, hidden: IntegerHidden) -> None:
        self._hidden, self._table = hidden, make_table(hidden)
        if self._table is not None:
            self._values = torch.from_numpy(self._table.values.astype(np.int32))
            self._always_fits = self._table.last_unlimited >= hidden.drive.limit

    def __call__(self, z: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Give H and how many of its entries the message's width limited."""
        table = self._table
        if table is None:
            h, limited = by_lines(self._hidden, z.numpy())
            return torch.from_numpy(h.astype(np.int32)), limited
        limited = 0 if self._always_fits else int(torch.count_nonzero(z > table.last_unlimited))
        if table.odd and not self._always_fits:
            limited += int(torch.count_nonzero(z < -table.last_unlimited))
        index = z.clamp(table.least, table.greatest).sub_(table.least)
        return torch.index_select(self._values, 0, index.view(-1)).view(z.shape), limited


def _beyond(values: torch.Tensor, limit: int) -> bool:
    """Whether any entry is larger than `limit` in magnitude."""
    if values.numel() == 0:
        return False
    least, greatest = torch.aminmax(values)
    return int(greatest) > limit or int(least) < -limit
