r"""Ranges of signals, weights and accumulators of an integer network, compared with float.

Signals of both networks are measured in the same units and coordinates, with the two extremes of
the simulator (attribution/simulator.py). A sum a needs :math:`1 + \log_2(|a| + 1)` bits; this
number is computed for the largest measured sum, and as an upper bound from weights and message
widths. Histograms are accumulated step by step in fine bins over the range of the format and are
merged at the end, so that memory does not grow with samples or steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from converters.quantize.connections import bits_of
from lmu_deploy.core.integer.gated import GRUUnits, LSTMUnits
from lmu_deploy.core.integer.graph import edges, sources
from lmu_deploy.core.integer.memories import Integrators, Series
from lmu_deploy.core.integer.network import HostNodes, IntegerNetwork
from lmu_deploy.core.integer.parts import Edge, Format
from lmu_deploy.core.integer.populations import Input, Output, Population
from lmu_deploy.core.integer.reductions import Reduction
from lmu_deploy.fidelity.attribution.counterpart import FloatCounterpart, float_counterpart
from lmu_deploy.fidelity.attribution.simulator import HybridSimulator, Recording
from lmu_deploy.fidelity.attribution.switches import Switches, Tally
from lmu_deploy.fidelity.attribution.switches import sources as switches_of
from targets.base import flat_frames

BINS = 24
_FINE = 4096


@dataclass(frozen=True)
class Histogram:
    """Counts of float and integer values in equal bins.

    Attributes
    ----------
    low, high : float
        Lower edge of the first bin and upper edge of the last bin, in real units.
    before, after : ndarray, shape (bins,), int64
        Counts of the float network and of the integer network.
    """

    low: float
    high: float
    before: np.ndarray
    after: np.ndarray


@dataclass(frozen=True)
class SignalRange:
    """Range of the values of one population over all neurons, samples and steps.

    Attributes
    ----------
    place : str
        Such as ``layer0/memory/state``.
    bits : int
    limit : float
        Largest real value of the format.
    before, after : (float, float)
        Smallest and largest value in the float network and in the integer network.
    used : float
        Largest magnitude in the integer network before saturation, as a share of `limit`.
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
    """Return the formats of all signals, in the order of computation within a step."""
    found: dict[str, Format] = {}
    senders = sources(network)
    for p in network.populations:
        if isinstance(p, HostNodes | Input):
            if p.message is not None and p.place in senders:
                found[str(p.place)] = p.message
        elif isinstance(p, Output):
            found[f"{p.place}/output"] = p.message
        else:
            if isinstance(p, STATEFUL):
                found[f"{p.place}/state"] = p.state
            found[f"{p.place}/message"] = p.message
    return found


def signals(network: IntegerNetwork, record: Recording) -> dict[str, list[np.ndarray]]:
    """Return the frames of all signals by place, in units of their formats."""
    found: dict[str, list[np.ndarray]] = {}
    for place, frames in record.messages.items():
        for name in (str(place), f"{place}/message", f"{place}/output"):
            found[name] = frames
    found |= {f"{place}/state": frames for place, frames in record.states.items()}
    return {name: found[name] for name in formats(network)}


STATEFUL = Integrators | Series | LSTMUnits | GRUUnits | Reduction


@dataclass
class Meter:
    """Accumulator of the range and the fine histogram of one signal."""

    form: Format
    low: np.ndarray = field(default_factory=lambda: np.full(2, np.inf))
    high: np.ndarray = field(default_factory=lambda: np.full(2, -np.inf))
    counts: np.ndarray = field(default_factory=lambda: np.zeros((2, _FINE), np.int64))

    def add(self, before: np.ndarray, after: np.ndarray) -> None:
        """Add the values of one step of the float network and of the integer network."""
        for number, values in enumerate((before, after)):
            self.low[number] = min(self.low[number], values.min())
            self.high[number] = max(self.high[number], values.max())
            share = (values.ravel() / self.form.limit + 1.0) / 2.0
            cells = np.clip((share * _FINE).astype(np.int64), 0, _FINE - 1)
            self.counts[number] += np.bincount(cells, minlength=_FINE)

    def range(self, place: str, tally: Tally) -> SignalRange:
        """Return the range so far; `tally` has the saturations."""
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
        """Merge fine bins into 24 symmetric bins that cover all values."""
        occupied, middle = np.flatnonzero(self.counts.any(axis=0)), _FINE // 2
        reach = max(middle - occupied[0], occupied[-1] + 1 - middle)
        merged_bins = -(-reach // (BINS // 2))
        half = merged_bins * BINS // 2
        padded = np.pad(self.counts, ((0, 0), (half, half)))[:, middle : middle + 2 * half]
        merged = padded.reshape(2, BINS, merged_bins).sum(axis=2)
        edge = half / middle * self.form.limit * self.form.scale
        return Histogram(-edge, edge, merged[0], merged[1])


PLOT_SAMPLES = 16


@dataclass(frozen=True)
class Accumulator:
    """Bits of the sums of one slice of a connection, for its widest row.

    Attributes
    ----------
    available : int
        Bits of the accumulator, sign included.
    proved : float
        Bits that suffice for any input.
    measured : float
        Bits of the largest measured sum.
    saturations : int
    """

    available: int
    proved: float
    measured: float
    saturations: int


@dataclass(frozen=True)
class ConnectionRange:
    """Weights and accumulators of one connection.

    Attributes
    ----------
    place : str
    shape : (int, int)
        Rows and columns.
    weight_bits : int
    largest : float
        Largest magnitude of a float weight in real units.
    error : float
        Root mean square rounding error, relative to the rms of the float weights.
    worst_row : int
    worst_error : float
        Relative rounding error of the row where it is largest.
    histogram : Histogram or None
        None for the sign matrix of a series, which is exact.
    accumulators : list of Accumulator
        One for each slice.
    """

    place: str
    shape: tuple[int, int]
    weight_bits: int
    largest: float
    error: float
    worst_row: int
    worst_error: float
    histogram: Histogram | None
    accumulators: Sequence[Accumulator]


@dataclass(frozen=True)
class LayerRanges:
    """Ranges of all signals and connections, in the order of computation within a step.

    Attributes
    ----------
    samples : int
        Number of samples for the signals.
    accumulator_samples : int
        Number of samples for sums and saturations.
    signals : list of SignalRange
    connections : list of ConnectionRange
    """

    samples: int
    accumulator_samples: int
    signals: Sequence[SignalRange]
    connections: Sequence[ConnectionRange]


def layer_ranges(
    network: IntegerNetwork,
    inputs: np.ndarray,
    tally: Tally | None = None,
    tally_samples: int = 0,
    samples: int = PLOT_SAMPLES,
) -> LayerRanges:
    """Measure ranges of signals, weights and sums.

    Parameters
    ----------
    network : IntegerNetwork
        With its float network as `source`.
    inputs : ndarray, shape (at least 1, steps, n_in)
        The first `samples` are run.
    tally : Tally, optional
        Sums and saturations of the integer network on more samples, if known.
    tally_samples : int
        Number of these samples.
    samples : int

    Raises
    ------
    InputError
        When the network does not contain its float network.
    """
    inputs = flat_frames(inputs[:samples])
    counterpart, own = float_counterpart(network), Tally()
    everything = Switches.of(*switches_of(network).values())
    before = HybridSimulator(network, Switches.of(), counterpart).run(inputs)
    after = HybridSimulator(network, everything, counterpart, own).run(inputs)
    meters = {place: Meter(form) for place, form in formats(network).items()}
    truth = signals(network, before)
    for place, frames in signals(network, after).items():
        for theirs, mine in zip(truth[place], frames, strict=True):
            meters[place].add(theirs, mine)
    if tally is None:
        tally, tally_samples = own, len(inputs)
    return LayerRanges(
        len(inputs),
        tally_samples,
        [meter.range(place, tally) for place, meter in meters.items()],
        [_connection(network, edge, counterpart, tally) for edge in edges(network)],
    )


def _connection(
    network: IntegerNetwork, edge: Edge, counterpart: FloatCounterpart, tally: Tally
) -> ConnectionRange:
    connection, sent = edge.connection, sources(network)[edge.source].message
    bound = np.abs(connection.slices.astype(np.int64)).sum(axis=2) * sent.limit
    accumulators = [
        Accumulator(
            connection.accumulator_bits,
            float(bits_of(bound[k].max(initial=0))),
            float(bits_of(tally.widest[place].max(initial=0.0))),
            int(tally.saturations[place].sum()),
        )
        for k, place in enumerate(edge.accumulators)
    ]
    shape = (connection.n_out, connection.n_in)
    if edge.place not in counterpart.matrices:
        return ConnectionRange(
            edge.place, shape, connection.weight_bits, 1.0, 0.0, 0, 0.0, None, accumulators
        )
    target = network[edge.target]
    assert isinstance(target, Population)
    unit = target.drive_scales[edge.row : edge.row + connection.n_out, None] / sent.scale
    truth, found = counterpart.matrices[edge.place] * unit, connection.dequantized * unit
    wrong, size = _row_rms(found - truth), _row_rms(truth)
    rows = np.divide(wrong, size, out=np.zeros_like(wrong), where=size > 0)
    power = float(np.sqrt(np.mean(size**2)))
    limit = float(max(np.abs(truth).max(initial=0.0), np.abs(found).max(initial=0.0))) or 1.0
    counts = [np.histogram(w, BINS, (-limit, limit))[0].astype(np.int64) for w in (truth, found)]
    return ConnectionRange(
        edge.place,
        shape,
        connection.weight_bits,
        float(np.abs(truth).max(initial=0.0)),
        float(np.sqrt(np.mean(wrong**2))) / power if power else 0.0,
        int(rows.argmax()),
        float(rows.max(initial=0.0)),
        Histogram(-limit, limit, counts[0], counts[1]),
        accumulators,
    )


def _row_rms(matrix: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt(np.mean(matrix**2, axis=1)))
