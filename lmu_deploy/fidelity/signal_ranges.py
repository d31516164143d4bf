"""What the populations of an integer network send, beside the same in float: ranges and histograms.

Values are taken step by step, so that what is kept does not grow with samples or steps: counts in
fine bins over the format's range, which are merged into a few in the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from lmu_deploy.fidelity.attribution.synapses import Tally
from lmu_deploy.fidelity.attribution.traffic import Moment
from lmu_deploy.integer_network import Format, HostLayer, IntegerNetwork, IntegerReadout
from lmu_deploy.wiring import HOST, populations

BINS = 24
_FINE = 4096


@dataclass(frozen=True)
class Histogram:
    """Counts of float and integer values in equal bins.

    Attributes
    ----------
    low, high : float
        Where the first bin begins and the last one ends; real numbers.
    before, after : ndarray, shape (bins,), int64
        Of the float network and of the integer one.
    """

    low: float
    high: float
    before: np.ndarray
    after: np.ndarray


@dataclass(frozen=True)
class SignalRange:
    """One population's values, all neurons, samples and steps together.

    Attributes
    ----------
    place : str
        Such as ``layer0/memory/state``; the saturations counted there are its own.
    bits : int
    limit : float
        Largest real value that the format holds.
    before, after : (float, float)
        Least and greatest value in the float network and in the integer one.
    used : float
        Largest magnitude in the integer network before it was limited, as a share of `limit`.
    saturations : int
    histogram : Histogram
    """

    place: str
    bits: int
    limit: float
    before: tuple[float, float]
    after: tuple[float, float]
    used: float
    saturations: int
    histogram: Histogram


def formats(network: IntegerNetwork) -> dict[str, Format]:
    """Give the formats of all signals, in the order in which a step computes them."""
    found: dict[str, Format] = {}
    if "input" in populations(network):
        found["input"] = network.input
    for number, layer in enumerate(network.layers):
        place = f"layer{number}"
        if isinstance(layer, HostLayer):
            if layer.message is not None:
                found[f"{place}/{HOST}"] = layer.message
            continue
        found[f"{place}/memory/state"] = layer.memory.state
        found[f"{place}/memory/message"] = layer.memory.message
        if layer.hidden is not None:
            found[f"{place}/hidden/message"] = layer.hidden.message
    if isinstance(network.readout, IntegerReadout):
        found["readout/output"] = network.readout.output
    return found


def signals(network: IntegerNetwork, moment: Moment) -> dict[str, np.ndarray]:
    """Give the values of one step by place, in units of their formats."""
    found = {"input": moment.x, "readout/output": moment.y}
    for number, layer in enumerate(network.layers):
        place = f"layer{number}"
        if isinstance(layer, HostLayer):
            if layer.message is not None:
                found[f"{place}/{HOST}"] = moment.h[number]
            continue
        found[f"{place}/memory/state"] = moment.m[number]
        found[f"{place}/memory/message"] = moment.message[number]
        if layer.hidden is not None:
            found[f"{place}/hidden/message"] = moment.h[number]
    return {place: found[place] for place in formats(network)}


@dataclass
class Meter:
    """Ranges and fine histograms of one signal, step by step."""

    form: Format
    low: np.ndarray = field(default_factory=lambda: np.full(2, np.inf))
    high: np.ndarray = field(default_factory=lambda: np.full(2, -np.inf))
    counts: np.ndarray = field(default_factory=lambda: np.zeros((2, _FINE), np.int64))

    def take(self, before: np.ndarray, after: np.ndarray) -> None:
        """Take one step's values of the float network and of the integer one."""
        for number, values in enumerate((before, after)):
            self.low[number] = min(self.low[number], values.min())
            self.high[number] = max(self.high[number], values.max())
            share = (values.ravel() / self.form.limit + 1.0) / 2.0
            cells = np.clip((share * _FINE).astype(np.int64), 0, _FINE - 1)
            self.counts[number] += np.bincount(cells, minlength=_FINE)

    def range(self, place: str, tally: Tally) -> SignalRange:
        """Say what has been seen; `tally` knows what was limited there."""
        form, scale = self.form, self.form.scale
        widest = float(tally.widest[place].max(initial=0.0))
        (low, lower), (high, higher) = self.low * scale, self.high * scale
        return SignalRange(
            place,
            form.bits,
            form.limit * scale,
            (float(low), float(high)),
            (float(lower), float(higher)),
            widest / form.limit,
            int(tally.saturations[place].sum()),
            self._histogram(),
        )

    def _histogram(self) -> Histogram:
        """Merge fine bins into 24 that span all that is not empty, symmetrically."""
        occupied, middle = np.flatnonzero(self.counts.any(axis=0)), _FINE // 2
        reach = max(middle - occupied[0], occupied[-1] + 1 - middle)
        merged_bins = -(-reach // (BINS // 2))
        half = merged_bins * BINS // 2
        padded = np.pad(self.counts, ((0, 0), (half, half)))[:, middle : middle + 2 * half]
        merged = padded.reshape(2, BINS, merged_bins).sum(axis=2)
        edge = half / middle * self.form.limit * self.form.scale
        return Histogram(-edge, edge, merged[0], merged[1])
