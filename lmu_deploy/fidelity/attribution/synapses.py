r"""Connections in a hybrid simulation: rounding and saturation can be disabled separately.

With W_k and g_k the slices and gains on the chip, and W the matrix that they represent,

.. math:: D_i = \sum_k \mathrm{round}\Big(g_{ki}\,\mathrm{sat}\big(\sum_j W_{kij} X_j\big)\Big),
   \qquad \text{the last slice's sum with } \sum_j \big(W - \textstyle\sum_k g_k W_k\big)_{ij} X_j
   \text{ when rounding of weights is disabled.}

Accumulators therefore saturate as on the chip even with unrounded weights, and the input of a state
is an integer whenever its width is enabled.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from lmu_deploy.core.integer.parts import Connection, largest
from lmu_deploy.fidelity.attribution.switches import Switches


@dataclass
class Tally:
    """Recorder of saturations and largest values at each place of a run.

    Attributes
    ----------
    saturations : dict of place to ndarray, shape (n,), int64
        Number of saturated values by row.
    widest : dict of place to ndarray, shape (n,), float64
        Largest magnitude before saturation by row.
    """

    saturations: dict[str, np.ndarray] = field(default_factory=dict)
    widest: dict[str, np.ndarray] = field(default_factory=dict)

    def record(self, place: str, values: np.ndarray, limit: float) -> None:
        """Record values of shape (..., n) before they are limited to +-limit."""
        magnitudes = np.abs(values).reshape(-1, values.shape[-1])
        top = magnitudes.max(axis=0, initial=0.0)
        self.widest[place] = np.maximum(self.widest.get(place, 0.0), top)
        counts = self.saturations.setdefault(place, np.zeros(len(top), np.int64))
        if (top > limit).any():
            counts += (magnitudes > limit).sum(axis=0)


def half_up(values: np.ndarray) -> np.ndarray:
    """Round to integers as an arithmetic shift does: floor(v + 1/2)."""
    return np.asarray(np.floor(values + 0.5))


def limited(
    values: np.ndarray, limit: int, place: str, switches: Switches, tally: Tally | None
) -> np.ndarray:
    """Return values limited to +-limit if saturation is enabled at this place."""
    if tally is not None:
        tally.record(place, values, limit)
    return np.clip(values, -limit, limit) if switches.has("saturation", place) else values


class Synapses:
    """One connection, prepared for simulation.

    Parameters
    ----------
    place : str
        Such as ``layer0/memory/recurrent``.
    connection : Connection
    exact : ndarray, shape (n_out, n_in)
        The unrounded matrix.
    rounded : bool
        Whether the sums of the target are integers.
    switches : Switches
    tally : Tally or None
        Recorder of sums and saturations; sums are then computed slice by slice.
    """

    def __init__(
        self,
        place: str,
        connection: Connection,
        exact: np.ndarray,
        rounded: bool,
        switches: Switches,
        tally: Tally | None,
    ) -> None:
        self._switches, self._tally, self._rounded = switches, tally, rounded
        self._gains, self._limit = connection.gains, largest(connection.accumulator_bits)
        self._places = [f"{place}/slice{k}" for k in range(len(connection.slices))]
        residual = np.zeros_like(exact)
        if not switches.has("weights", place):
            residual = exact - connection.dequantized
            residual[switches.rows(place)] = 0.0
        self._residual = bool(residual.any())
        limits = any(switches.has("saturation", slice_place) for slice_place in self._places)
        self._sliced = rounded or limits or tally is not None
        n_slices, n_out, n_in = connection.slices.shape
        if not self._sliced:
            self._columns = (connection.dequantized + residual).T.copy()
            return
        stacked = [connection.slices.reshape(n_slices * n_out, n_in).astype(np.float64)]
        self._columns = np.concatenate(stacked + [residual] * self._residual).T.copy()

    def drive(self, messages: np.ndarray, remembered: np.ndarray | None = None) -> np.ndarray:
        """Return the input of the target.

        Parameters
        ----------
        messages : ndarray, shape (batch, n_in)
            In units of their format, integers or not.
        remembered : ndarray, shape (batch, n_out), optional
            Additional input, which is rounded together with the last slice.
        """
        sums = messages @ self._columns
        if not self._sliced:
            return sums if remembered is None else sums + remembered
        parts = np.split(sums, len(self._places) + self._residual, axis=1)
        total = np.zeros_like(parts[0])
        for k, place in enumerate(self._places):
            part = limited(parts[k], self._limit, place, self._switches, self._tally)
            part = part * self._gains[k]
            if k == len(self._places) - 1:
                if self._residual:
                    part += parts[-1]
                if remembered is not None:
                    part += remembered
            total += half_up(part) if self._rounded else part
        return total
