r"""Layer by layer: what integers hold beside what float has, and what accumulators need.

Signals are measured in the integer network and in the float one side by side, in the same units and
coordinates (both ends of attribution/simulator.py). Bits of a sum are :math:`1 + \log_2(|a| + 1)`,
proved from weights and message widths, and measured; a need that is not whole shows how near to the
next bit it is.

What the populations of an integer network send, beside the same in float: ranges and histograms.

Values are taken step by step, so that what is kept does not grow with samples or steps: counts in
fine bins over the format's range, which are merged into a few in the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from converters.quantize.connections import bits_of
from lmu_deploy.core.integer.graph import HOST, Edge, edges, populations
from lmu_deploy.core.integer.network import HostLayer, IntegerNetwork, IntegerReadout
from lmu_deploy.core.integer.parts import Format
from lmu_deploy.fidelity.attribution.counterpart import Exact, exact_weights
from lmu_deploy.fidelity.attribution.simulator import Hybrid
from lmu_deploy.fidelity.attribution.switches import Switches, sources
from lmu_deploy.fidelity.attribution.synapses import Moment, Tally

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


PLOT_SAMPLES = 16


@dataclass(frozen=True)
class Accumulator:
    """Sums of one slice of a connection, its widest row.

    Attributes
    ----------
    available : int
        Bits, sign included.
    proved : float
        Bits that no input can exceed.
    measured : float
        Bits of the largest sum met.
    saturations : int
    """

    available: int
    proved: float
    measured: float
    saturations: int


@dataclass(frozen=True)
class ConnectionRange:
    """One connection's weights, and its accumulators.

    Attributes
    ----------
    place : str
    shape : (int, int)
        Rows and columns.
    weight_bits : int
    largest : float
        Greatest magnitude of a float weight; real units.
    error : float
        Root mean square of what rounding changed, relative to that of the float weights.
    worst_row : int
    worst_error : float
        The same of the row that was changed most for its size.
    histogram : Histogram or None
        None for the matrix of signs of a series, which is exact.
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
    """All signals and connections, in the order in which a step computes them.

    Attributes
    ----------
    samples : int
        On which signals were measured.
    accumulator_samples : int
        On which sums and saturations were.
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
        With the float network that it was made from.
    inputs : ndarray, shape (at least 1, steps, n_in)
        Of which the first `samples` are run.
    tally : Tally, optional
        Sums and saturations of the integer network on more samples, if they are known.
    tally_samples : int
        How many those are.
    samples : int

    Raises
    ------
    InputError
        When the network does not carry its float network.
    """
    inputs = inputs[:samples]
    exact, own = exact_weights(network), Tally()
    everything = Switches.of(*sources(network).values())
    before = Hybrid(network, Switches.of(), exact).steps(inputs)
    after = Hybrid(network, everything, exact, own).steps(inputs)
    meters = {place: Meter(form) for place, form in formats(network).items()}
    for truth, found in zip(before, after, strict=True):
        for place, mine in signals(network, found).items():
            meters[place].take(signals(network, truth)[place], mine)
    if tally is None:
        tally, tally_samples = own, len(inputs)
    return LayerRanges(
        len(inputs),
        tally_samples,
        [meter.range(place, tally) for place, meter in meters.items()],
        [_connection(network, edge, exact, tally) for edge in edges(network)],
    )


def _connection(network: IntegerNetwork, edge: Edge, exact: Exact, tally: Tally) -> ConnectionRange:
    connection, sent = edge.connection, populations(network)[edge.source].message
    bound = np.abs(connection.slices.astype(np.int64)).sum(axis=2) * sent.limit
    accumulators = [
        Accumulator(
            connection.accumulator_bits,
            float(bits_of(bound[k].max(initial=0))),
            float(bits_of(tally.widest[place].max(initial=0.0))),
            int(tally.saturations[place].sum()),
        )
        for k, place in enumerate(f"{edge.place}/slice{k}" for k in range(len(bound)))
    ]
    shape = (connection.n_out, connection.n_in)
    if edge.place not in exact.matrices:
        return ConnectionRange(
            edge.place, shape, connection.weight_bits, 1.0, 0.0, 0, 0.0, None, accumulators
        )
    unit = _target_scale(network, edge.target) / sent.scale
    truth, found = exact.matrices[edge.place] * unit, connection.dequantized * unit
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


def _target_scale(network: IntegerNetwork, target: str) -> float:
    """Real value of one unit of what a population adds up."""
    if target == "readout":
        return network.y_scale
    layer = dict(network.on_chip)[int(target.split("/")[0].removeprefix("layer"))]
    if target.endswith("/hidden"):
        assert layer.hidden is not None
        return layer.hidden.drive.scale
    return layer.memory.state.scale
