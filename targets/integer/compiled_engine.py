"""The engine whose products are PyTorch's and all else compiled: NumPy arrays of int32."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from contextlib import AbstractContextManager

import numpy as np

from lmu_deploy.integer_network import Connection, Format, IntegerHidden, SeriesMemory
from targets.integer import kernels
from targets.integer.compiled_fans import NarrowFan, WideFan, compiled_fan
from targets.integer.compiled_series import CompiledSeries
from targets.integer.lines import by_lines, find_flat
from targets.integer.torch_threads import pool, thread_count


class CompiledEngine:
    """Arrays of int32; see :class:`targets.integer.engine.Engine`."""

    name = "numba"

    @property
    def threads(self) -> int:
        """As many as PyTorch may use."""
        return thread_count()

    def pool(self, threads: int) -> AbstractContextManager[Executor]:
        """Give threads in which PyTorch uses no others."""
        return pool(threads)

    def zeros(self, batch: int, width: int) -> np.ndarray:
        """Make an array of zeros."""
        return np.zeros((batch, width), dtype=np.int32)

    def array(self, values: np.ndarray) -> np.ndarray:
        """Take integers over."""
        return np.array(values, dtype=np.int32, order="C")

    def numpy(self, values: np.ndarray) -> np.ndarray:
        """Give the array itself."""
        return values

    def copy(self, values: np.ndarray) -> np.ndarray:
        """Copy an array."""
        return values.copy()

    def encode(self, x: np.ndarray, message: Format) -> tuple[np.ndarray, int]:
        """Give input messages for real inputs, and how many were limited."""
        messages = np.rint(x / message.scale)
        limited = int(np.count_nonzero(np.abs(messages) > message.limit))
        return self.array(messages.clip(-message.limit, message.limit)), limited

    def saturate(self, values: np.ndarray, limit: int) -> int:
        """Limit values in place; give how many that changed."""
        return kernels.saturate(values, limit)

    def emit(
        self, m: np.ndarray, limit: int, shift: int, message_limit: int
    ) -> tuple[np.ndarray, int, int]:
        """Limit states in place, give their messages, and how many of each that changed."""
        messages = np.empty_like(m)
        return messages, *kernels.emit(m, limit, shift, message_limit, messages)

    def silence(self, values: np.ndarray, threshold: int) -> None:
        """Set values of magnitude below a threshold to zero, in place."""
        values[np.abs(values) < threshold] = 0

    def fan(self, connections: Mapping[str, Connection], limit: int) -> WideFan | NarrowFan:
        """Make the synapses of an outlet ready."""
        return compiled_fan(connections, limit)

    def sender(self, fan_out: np.ndarray) -> CompiledSender:
        """Make ready to count the events of an outlet."""
        return CompiledSender(fan_out)

    def activation(self, hidden: IntegerHidden) -> CompiledActivation:
        """Make an activation ready."""
        return CompiledActivation(hidden)

    def series(self, memory: SeriesMemory) -> CompiledSeries:
        """Make a series memory ready."""
        return CompiledSeries(memory)


class CompiledSender:
    """Counts events in one pass."""

    def __init__(self, fan_out: np.ndarray) -> None:
        self._fan_out = fan_out.astype(np.int64)

    def tally(self, sent: np.ndarray) -> tuple[np.ndarray, int]:
        """Count nonzero entries of each sample, and the synapses that all of them meet."""
        events = np.empty(len(sent), np.int64)
        return events, kernels.tally(sent, self._fan_out, events)


class CompiledActivation:
    """H = f(z) for whole batches, by the least of its lines."""

    def __init__(self, hidden: IntegerHidden) -> None:
        self._hidden, lines = hidden, hidden.activation
        self._linear = lines.kind == "linear"
        if self._linear:
            return
        flat = find_flat(hidden)
        offset = (lines.intercept.astype(np.int64) << lines.shift) + (1 << lines.shift >> 1)
        most = flat.least * int(lines.slope.max()) + int(offset.max())
        held = np.int32 if most < 2**31 else np.int64
        filled = (0, -len(offset) % 4)
        self._slope, self._offset = (
            np.pad(part, filled, "edge").astype(held) for part in (lines.slope, offset)
        )
        limits = flat.least, flat.last_unlimited, hidden.message.limit
        self._rest = lines.shift, lines.kind == "odd", *limits

    def __call__(self, z: np.ndarray) -> tuple[np.ndarray, int]:
        """Give H and how many of its entries the message's width limited."""
        if self._linear:
            h, limited = by_lines(self._hidden, z)
            return h.astype(np.int32), limited
        h = np.empty_like(z)
        return h, kernels.activate(z, self._slope, self._offset, *self._rest, h)
