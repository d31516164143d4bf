r"""Memory of one layer in a hybrid simulation: integrators, delay line or exponential series.

When the discretization is disabled, the difference from the float memory is added. For a series
with exact step P and q it is :math:`(\bar A - P) m + (\bar B - q) u`. For the readers of a delay
line it is the response to inputs that have left the last tap.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lmu_deploy.core.integer.layered import IntegerMemory, SeriesMemory
from lmu_deploy.core.integer.memories import sign_matrix
from lmu_deploy.core.integer.parts import Format, real_gains
from lmu_deploy.core.network import LMULayer
from lmu_deploy.fidelity.attribution.counterpart import SeriesCounterpart
from lmu_deploy.fidelity.attribution.switches import Switches
from lmu_deploy.fidelity.attribution.synapses import Tally, half_up, limited


class MemoryState:
    """State and messages of a memory, with rounding and saturation.

    Attributes
    ----------
    m, message : ndarray, shape (batch, states)
        In units of their formats.
    """

    def __init__(
        self,
        place: str,
        memory: IntegerMemory | SeriesMemory,
        batch: int,
        switches: Switches,
        tally: Tally | None,
    ) -> None:
        self.memory, self.place = memory, place
        self.m = np.zeros((batch, memory.size))
        self.message = np.zeros((batch, memory.size))
        self.whole_states = switches.has("width", f"{place}/memory/state")
        self._switches, self._tally = switches, tally

    def limited(self, values: np.ndarray, form: Format, part: str) -> np.ndarray:
        """Saturate values at a place of this layer."""
        name = f"{self.place}/{part}"
        return limited(values, form.limit, name, self._switches, self._tally)

    def shifted(self, values: np.ndarray, shift: int, part: str) -> np.ndarray:
        """Convert values to messages in units larger by 2^shift, with rounding and saturation."""
        values = values * 2.0**-shift
        if self._switches.has("width", f"{self.place}/{part}"):
            values = half_up(values)
        return self.limited(values, self.memory.message, part)

    def send(self) -> None:
        """Update the messages from the states."""
        self.message = self.shifted(self.m, self.memory.message_shift, "memory/message")

    def whole(self, values: np.ndarray) -> np.ndarray:
        """Round to units of the state, if its width is enabled."""
        return half_up(values) if self.whole_states else values


class Integrators(MemoryState):
    """Integrators without leak, and delay lines with an optional float remainder."""

    def __init__(
        self,
        place: str,
        memory: IntegerMemory,
        truth: LMULayer,
        batch: int,
        switches: Switches,
        tally: Tally | None,
    ) -> None:
        super().__init__(place, memory, batch, switches, tally)
        self._basis, self._truth = memory.basis, truth.memory
        self.forgets = memory.realization == "fir" and not switches.has(
            "realization", f"{place}/memory"
        )
        self._whole_past = np.zeros((batch, self._truth.channels, self._truth.order))

    def advance(self, drive: np.ndarray) -> None:
        """Add the input of one step, and send."""
        self.m = self.limited(self.m + drive, self.memory.state, "memory/state")
        self.send()

    def forgotten(self) -> np.ndarray:
        """Return the real response to inputs beyond the last tap; called once per step."""
        assert self._basis is not None
        lines = self._lines(self._basis)
        now = self.message[:, :lines] * self.memory.message.scale
        past = self._whole_past @ self._truth.a_bar.astype(np.float64).T
        self._whole_past = past + (now @ self._basis[:, :lines].T).reshape(past.shape)
        kept = (self.message * self.memory.message.scale) @ self._basis.T
        return self._whole_past.reshape(kept.shape) - kept

    def _lines(self, basis: np.ndarray) -> int:
        """Return the number of delayed lines, which is that of the inputs of the first taps."""
        assert isinstance(self.memory, IntegerMemory)
        entered = self.memory.input.slices.any(axis=(0, 2))
        return int(np.flatnonzero(entered)[-1]) + 1 if entered.any() else basis.shape[1]


class Series(MemoryState):
    """Exponential series in substeps."""

    def __init__(
        self,
        place: str,
        memory: SeriesMemory,
        truth: SeriesCounterpart,
        batch: int,
        switches: Switches,
        tally: Tally | None,
    ) -> None:
        super().__init__(place, memory, batch, switches, tally)
        self._memory, self._truth = memory, truth
        self._signs = sign_matrix(memory.order).astype(np.float64).T
        self._sums = f"{place}/series/recurrent"
        self._accumulator = Format(memory.accumulator_bits, 1.0)
        self._gains = truth.gains.copy()
        made = real_gains(memory.multiplier, memory.shift)
        if switches.has("weights", self._sums):
            self._gains = made
        for row in switches.rows(self._sums):
            self._gains[:, row] = made[:, row]
        self.lacks = not switches.has("realization", f"{place}/memory")

    def advance(self, drive: np.ndarray, inputs: Callable[[], np.ndarray]) -> None:
        """Advance by one step of the task, and send.

        Parameters
        ----------
        drive : ndarray, shape (batch, states)
            Input of the series from other populations, and the bias.
        inputs : callable
            Returns the real input of the channels, shape (batch, channels). Called only when the
            discretization is disabled.
        """
        memory, state = self._memory, self._memory.state
        correction = self._correction(inputs()) if self.lacks else None
        c = self.limited(drive, state, "series/drive")
        vector = self.message
        for substep in range(memory.substeps):
            term = self.limited(c + self._apply(0, vector), state, "series/term")
            self.m = self.limited(self.m + term, state, "memory/state")
            for k in range(1, len(memory.multiplier)):
                shift = int(memory.term_shift[k - 1])
                vector = self.shifted(term, shift, "series/message")
                term = self.limited(self._apply(k, vector), state, "series/term")
                self.m = self.limited(self.m + term, state, "memory/state")
            if correction is not None and substep == memory.substeps - 1:
                self.m = self.limited(self.m + correction, state, "memory/state")
            self.send()
            vector = self.message

    def _apply(self, k: int, vector: np.ndarray) -> np.ndarray:
        """Apply G_k to every channel."""
        memory = self._memory
        sums = vector.reshape(-1, memory.channels, memory.order) @ self._signs
        sums = self.limited(sums, self._accumulator, "series/recurrent/slice0")
        return self.whole(sums * self._gains[k]).reshape(vector.shape)

    def _correction(self, u: np.ndarray) -> np.ndarray:
        memory = self._memory
        m = self.m.reshape(-1, memory.channels, memory.order)
        lacking = m @ self._truth.state.T
        lacking += u[:, :, None] * (self._truth.drive / memory.state.scale)
        return self.whole(lacking).reshape(self.m.shape)
