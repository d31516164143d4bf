r"""A connection between float and integer: each of its roundings and limits can be left out.

With W_k, g_k the slices and gains that a chip holds and W the matrix they stand for,

.. math:: D_i = \sum_k \mathrm{round}\Big(g_{ki}\,\mathrm{sat}\big(\sum_j W_{kij} X_j\big)\Big),
   \qquad \text{the last slice's sum with } \sum_j \big(W - \textstyle\sum_k g_k W_k\big)_{ij} X_j
   \text{ where weights are left exact.}

So accumulators saturate as on the chip even where the weights themselves are switched to exact
ones, and what reaches a state is whole units wherever its width is switched on.

What is under way in a hybrid: messages from step to step, and what one step has made.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from lmu_deploy.core.integer.parts import Connection, largest
from lmu_deploy.fidelity.attribution.switches import Switches


@dataclass
class Tally:
    """What a run met at each place, beyond its results.

    Attributes
    ----------
    saturations : dict of place to ndarray, shape (n,), int64
        Values limited, by row.
    widest : dict of place to ndarray, shape (n,), float64
        Largest magnitude of a sum or value before it was limited, by row.
    """

    saturations: dict[str, np.ndarray] = field(default_factory=dict)
    widest: dict[str, np.ndarray] = field(default_factory=dict)

    def note(self, place: str, values: np.ndarray, limit: float) -> None:
        """Count what `limit` is going to change; values have shape (..., n)."""
        magnitudes = np.abs(values).reshape(-1, values.shape[-1])
        top = magnitudes.max(axis=0, initial=0.0)
        self.widest[place] = np.maximum(self.widest.get(place, 0.0), top)
        counts = self.saturations.setdefault(place, np.zeros(len(top), np.int64))
        if (top > limit).any():
            counts += (magnitudes > limit).sum(axis=0)


def half_up(values: np.ndarray) -> np.ndarray:
    """Round to whole units as an arithmetic shift does: floor(v + 1/2)."""
    return np.asarray(np.floor(values + 0.5))


def limited(
    values: np.ndarray, limit: int, place: str, switches: Switches, tally: Tally | None
) -> np.ndarray:
    """Limit values to +-limit if that is switched on; a new array, or the one given."""
    if tally is not None:
        tally.note(place, values, limit)
    return np.clip(values, -limit, limit) if switches.has("saturation", place) else values


class Synapses:
    """One connection made ready.

    Parameters
    ----------
    place : str
        Such as ``layer0/memory/recurrent``.
    connection : Connection
    exact : ndarray, shape (n_out, n_in)
        What it stands for, unrounded.
    rounded : bool
        Whether the target holds whole units.
    switches : Switches
    tally : Tally or None
        Where to note sums and saturations; sums are then made slice by slice.
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
        """Give what reaches the target.

        Parameters
        ----------
        messages : ndarray, shape (batch, n_in)
            In units of their format, whole or not.
        remembered : ndarray, shape (batch, n_out), optional
            More for the target, to be rounded with the last slice.
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


@dataclass
class Traffic:
    """What is under way within and between steps.

    Attributes
    ----------
    sent : dict of population to its last messages
    tails : dict of population to ndarray, shape (batch, Legendre states)
        What delay lines have forgotten and are given back.
    held : dict of connection to the messages that its target holds
        Of those whose messages are sent when they have changed enough.
    """

    sent: dict[str, np.ndarray]
    tails: dict[str, np.ndarray] = field(default_factory=dict)
    held: dict[str, np.ndarray] = field(default_factory=dict)

    def delivered(self, place: str, source: str, threshold: int) -> np.ndarray:
        """Give what a connection's target holds; asked for once a step."""
        messages = self.sent[source]
        if not threshold:
            return messages
        held = self.held.get(place, np.zeros_like(messages))
        self.held[place] = np.where(np.abs(messages - held) >= threshold, messages, held)
        return self.held[place]


@dataclass(frozen=True)
class Moment:
    """One step of a batch, in units of the formats.

    Attributes
    ----------
    x : ndarray, shape (batch, n_in)
    m, message : dict of layer number to ndarray
        States and memory messages of each layer on the chip.
    h : dict of layer number to ndarray
        Hidden messages, empty without hidden units; of a layer on the host what it sends.
    y : ndarray, shape (batch, n_out)
    real_m : dict of layer number to ndarray, shape (batch, Legendre states)
        Each memory in the float network's coordinates.
    """

    x: np.ndarray
    m: dict[int, np.ndarray]
    message: dict[int, np.ndarray]
    h: dict[int, np.ndarray]
    y: np.ndarray
    real_m: dict[int, np.ndarray]

    def sent(self, population: str) -> np.ndarray:
        """Messages of a population that is no series; see `Population`."""
        if population == "input":
            return self.x
        layer, _, part = population.partition("/")
        number = int(layer.removeprefix("layer"))
        return self.message[number] if part == "memory" else self.h[number]
