r"""Memories in a hybrid simulation: integrators, delay line or exponential series.

When the discretization is disabled, the difference from the float memory is added. For a series
with exact step P and q it is :math:`(\bar A - P) m + (\bar B - q) u`. For the readers of a delay
line it is the response to inputs that have left the last tap.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lmu_deploy.core.integer.memories import Integrators, Series, sign_matrix
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.parts import Format, real_gains
from lmu_deploy.core.network import LMULayer
from lmu_deploy.fidelity.attribution.counterpart import SeriesCounterpart
from lmu_deploy.fidelity.attribution.switches import Switches, Tally, half_up, limited


class HybridMemory:
    """State and messages of a memory, with rounding and saturation.

    Attributes
    ----------
    m, message : ndarray, shape (batch, states)
        In units of their formats.
    """

    def __init__(
        self, memory: Integrators | Series, batch: int, switches: Switches, tally: Tally | None
    ) -> None:
        self.memory = memory
        self.m = np.zeros((batch, memory.size))
        self.message = np.zeros((batch, memory.size))
        self._own, self._terms = str(memory.place), str(memory.entrance)
        self.whole_states = switches.has("width", f"{self._own}/state")
        self._switches, self._tally = switches, tally

    def limited(self, values: np.ndarray, form: Format, place: str) -> np.ndarray:
        """Saturate values at a place."""
        return limited(values, form.limit, place, self._switches, self._tally)

    def shifted(self, values: np.ndarray, shift: int, place: str) -> np.ndarray:
        """Convert values to messages in units larger by 2^shift, with rounding and saturation."""
        values = values * 2.0**-shift
        if self._switches.has("width", place):
            values = half_up(values)
        return self.limited(values, self.memory.message, place)

    def add(self, values: np.ndarray) -> None:
        """Add values to the states."""
        self.m = self.limited(self.m + values, self.memory.state, f"{self._own}/state")

    def send(self) -> None:
        """Update the messages from the states."""
        self.message = self.shifted(self.m, self.memory.message_shift, f"{self._own}/message")

    def whole(self, values: np.ndarray) -> np.ndarray:
        """Round to units of the state, if its width is enabled."""
        return half_up(values) if self.whole_states else values


class HybridIntegrators(HybridMemory):
    """Integrators without leak, and delay lines with an optional float remainder.

    Parameters
    ----------
    memory : Integrators
    network : IntegerNetwork
        It says where a delay line is entered.
    truth : LMULayer or None
        The float memory, where it is known.
    batch : int
    switches : Switches
    tally : Tally or None

    Attributes
    ----------
    forgets : bool
        Whether the response to what has left a delay line is part of the simulation.
    """

    def __init__(
        self,
        memory: Integrators,
        network: IntegerNetwork,
        truth: LMULayer,
        batch: int,
        switches: Switches,
        tally: Tally | None,
    ) -> None:
        super().__init__(memory, batch, switches, tally)
        self._truth, self._basis = truth.memory, memory.basis
        self.forgets = memory.realization == "fir" and not switches.has("realization", self._own)
        self._whole_past = np.zeros((batch, self._truth.channels, self._truth.order))
        into = [e for e in network.entering(memory.place) if not network.leads_back(e)]
        entered = np.flatnonzero(into[0].connection.slices.any(axis=(0, 2)))
        self._lines = int(entered[-1]) + 1 if entered.size else memory.size

    def advance(self, drive: np.ndarray) -> None:
        """Add the input of one step, and send."""
        self.add(drive)
        self.send()

    def forgotten(self) -> np.ndarray:
        """Return the real response to inputs beyond the last tap; called once per step."""
        assert self._basis is not None
        now = self.message[:, : self._lines] * self.memory.message.scale
        past = self._whole_past @ self._truth.a_bar.astype(np.float64).T
        entering = (now @ self._basis[:, : self._lines].T).reshape(past.shape)
        self._whole_past = past + entering
        kept = (self.message * self.memory.message.scale) @ self._basis.T
        return self._whole_past.reshape(kept.shape) - kept


class HybridSeries(HybridMemory):
    """Exponential series in substeps."""

    def __init__(
        self,
        memory: Series,
        truth: SeriesCounterpart,
        batch: int,
        switches: Switches,
        tally: Tally | None,
    ) -> None:
        super().__init__(memory, batch, switches, tally)
        self._series, self._truth = memory, truth
        self._signs = sign_matrix(memory.order).astype(np.float64).T
        self._sums = f"{self._terms}/recurrent"
        self._accumulator = Format(memory.accumulator_bits, 1.0)
        self._gains = truth.gains.copy()
        made = real_gains(memory.multiplier, memory.shift)
        if switches.has("weights", self._sums):
            self._gains = made
        for row in switches.rows(self._sums):
            self._gains[:, row] = made[:, row]
        self.lacks = not switches.has("realization", self._own)

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
        memory, state, place = self._series, self._series.state, f"{self._terms}/term"
        correction = self._correction(inputs()) if self.lacks else None
        c = self.limited(drive, state, f"{self._terms}/drive")
        vector = self.message
        for substep in range(memory.substeps):
            term = self.limited(c + self._apply(0, vector), state, place)
            self.add(term)
            for k in range(1, memory.terms):
                shift = int(memory.term_shift[k - 1])
                vector = self.shifted(term, shift, f"{self._terms}/message")
                term = self.limited(self._apply(k, vector), state, place)
                self.add(term)
            if correction is not None and substep == memory.substeps - 1:
                self.add(correction)
            self.send()
            vector = self.message

    def _apply(self, k: int, vector: np.ndarray) -> np.ndarray:
        """Apply G_k to every channel."""
        memory = self._series
        sums = vector.reshape(-1, memory.channels, memory.order) @ self._signs
        sums = self.limited(sums, self._accumulator, f"{self._sums}/slice0")
        return self.whole(sums * self._gains[k]).reshape(vector.shape)

    def _correction(self, u: np.ndarray) -> np.ndarray:
        memory = self._series
        m = self.m.reshape(-1, memory.channels, memory.order)
        lacking = m @ self._truth.state.T
        lacking += u[:, :, None] * (self._truth.drive / memory.state.scale)
        return self.whole(lacking).reshape(self.m.shape)
