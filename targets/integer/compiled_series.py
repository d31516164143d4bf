"""The series of the compiled engine: what its kernel takes, made ready once."""

from __future__ import annotations

import numpy as np

from lmu_deploy.integer_network import SeriesMemory, largest
from targets.integer import series_kernels
from targets.integer.series import Advance, SeriesSender

_PLACES = {
    series_kernels.DRIVE: "series/drive",
    series_kernels.ACCUMULATOR: "series/recurrent/slice0",
    series_kernels.TERM: "series/term",
    series_kernels.TERM_MESSAGE: "series/message",
    series_kernels.STATE: "memory/state",
    series_kernels.MESSAGE: "memory/message",
}


class CompiledSeries(SeriesSender):
    """A SeriesMemory made ready; see :class:`targets.integer.series.Series`."""

    def __init__(self, memory: SeriesMemory) -> None:
        super().__init__(memory)
        half = (np.int64(1) << memory.shift.astype(np.int64)) >> 1
        multiplier, half, shift = (
            np.tile(gain.astype(np.int32), memory.channels)
            for gain in (memory.multiplier, half, memory.shift)
        )
        self._gains = multiplier, half, shift
        self._shifts = np.append(memory.term_shift, memory.message_shift).astype(np.int64)
        self._steps = memory.substeps, memory.channels
        accumulators = largest(memory.accumulator_bits)
        self._limits = accumulators, memory.state.limit, memory.message.limit

    def advance(self, m: np.ndarray, message: np.ndarray, drive: np.ndarray) -> Advance:
        """Advance by one sample step; arrays of int32, (batch, states), which stay as they are."""
        m, message, sent = m.copy(), message.copy(), np.empty_like(m)
        found = np.zeros(len(_PLACES), np.int64)
        series_kernels.advance(
            m, message, drive, sent, self._gains, self._shifts, self._steps, self._limits, found
        )
        saturations = {place: int(found[index]) for index, place in _PLACES.items()}
        return Advance(m, message, sent, saturations)
