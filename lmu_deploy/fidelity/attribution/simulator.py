"""The hybrid: a network between its float and its integer self, in float64, step by step.

All numbers are in the units of the integer network's formats. Where everything is switched on they
are whole and the same as the integer target's, with ``==``; where nothing is, they are the float
reference's to rounding errors of float64. The tests hold it to both ends.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lmu_deploy.core.integer.graph import HOST, biases, edges, populations
from lmu_deploy.core.integer.layers import IntegerHidden, PiecewiseLinear, SeriesMemory
from lmu_deploy.core.integer.network import HostLayer, IntegerLayer, IntegerNetwork
from lmu_deploy.core.integer.parts import Format
from lmu_deploy.core.integer.segments import HostSegment, segments
from lmu_deploy.core.network import LMULayer, Readout
from lmu_deploy.core.reference import activate
from lmu_deploy.fidelity.attribution.counterpart import Exact, exact_weights
from lmu_deploy.fidelity.attribution.memories import Integrators, Series
from lmu_deploy.fidelity.attribution.switches import Switches
from lmu_deploy.fidelity.attribution.synapses import (
    Moment,
    Synapses,
    Tally,
    Traffic,
    half_up,
    limited,
)
from targets.host import HostSteps

_OF_UNITS = ("/hidden", f"/{HOST}")


class Hybrid:
    """An integer network with some of its operations left as they are in float.

    Parameters
    ----------
    network : IntegerNetwork
    switches : Switches
        What is as in the integer network.
    exact : Exact, optional
        What `exact_weights` gave for `network`.
    tally : Tally, optional
        Where to note sums and saturations.

    Raises
    ------
    InputError
        When the network does not carry the float network that it was made from.
    """

    def __init__(
        self,
        network: IntegerNetwork,
        switches: Switches,
        exact: Exact | None = None,
        tally: Tally | None = None,
    ) -> None:
        self.network, self.switches, self.tally = network, switches, tally
        self.exact = exact_weights(network) if exact is None else exact
        rounded = {"readout": "readout/output"}
        for number, _ in network.on_chip:
            rounded[f"layer{number}/memory"] = f"layer{number}/memory/state"
            rounded[f"layer{number}/series"] = f"layer{number}/memory/state"
            rounded[f"layer{number}/hidden"] = f"layer{number}/hidden/drive"
        self._into: dict[str, list[tuple[str, str, Synapses]]] = {}
        self._thresholds: dict[str, int] = {}
        for edge in edges(network):
            if edge.source.endswith("/series"):
                continue  # applied by Series itself
            whole = switches.has("width", rounded[edge.target])
            synapses = Synapses(
                edge.place, edge.connection, self.exact.matrices[edge.place], whole, switches, tally
            )
            self._into.setdefault(edge.target, []).append((edge.place, edge.source, synapses))
            if switches.has("threshold", edge.place):
                self._thresholds[edge.place] = edge.connection.threshold
        self._biases = {
            target: self._bias(f"{target}/bias", bias) for target, bias in biases(network).items()
        }

    def steps(self, inputs: np.ndarray) -> Iterator[Moment]:
        """Run real inputs, (batch, steps, n_in), from silence; give each step as it is done."""
        network, batch = self.network, len(inputs)
        memories = {number: self._memory(number, batch) for number, _ in network.on_chip}
        hosts = {
            part.first: HostSteps(part, batch)
            for part in segments(network)
            if isinstance(part, HostSegment)
        }
        traffic = Traffic({})
        sent, tails = traffic.sent, traffic.tails
        for number, own in network.on_chip:
            units = 0 if own.hidden is None else own.hidden.units
            sent[f"layer{number}/hidden"] = np.zeros((batch, units))
            sent[f"layer{number}/memory"] = memories[number].message
        for t in range(inputs.shape[1]):
            real = inputs[:, t].astype(np.float64)
            sent["input"], sender = real, "input"
            if not isinstance(network.layers[0], HostLayer):
                sent["input"] = self._encode(real, network.input, "input")
            for number, layer in enumerate(network.layers):
                place = f"layer{number}"
                if isinstance(layer, HostLayer):
                    if number in hosts:
                        if number:
                            real = sent[sender] * self._before(number).output.scale
                        real = hosts[number].advance(real, tails.get(sender))
                    if layer.message is not None:
                        sender = f"{place}/{HOST}"
                        sent[sender] = self._encode(real, layer.message, sender)
                    continue
                memory = memories[number]
                self._advance(number, memory, sender, traffic)
                sent[f"{place}/memory"] = memory.message
                if isinstance(memory, Integrators) and memory.forgets:
                    tails[f"{place}/memory"] = memory.forgotten()
                sender = f"{place}/memory"
                if layer.hidden is not None:
                    z = self._total(f"{place}/hidden", traffic)
                    sent[f"{place}/hidden"] = self._activate(number, layer.hidden, z)
                    sender = f"{place}/hidden"
            yield Moment(
                sent["input"],
                {n: memory.m for n, memory in memories.items()},
                {n: memory.message for n, memory in memories.items()},
                {_number(name): sent[name] for name in sent if name.endswith(_OF_UNITS)},
                real if isinstance(network.readout, Readout) else self._read_out(traffic),
                {n: self._real(n, memory, tails) for n, memory in memories.items()},
            )

    def _read_out(self, traffic: Traffic) -> np.ndarray:
        limit = self.network.chip_readout.output.limit
        return self._limited(self._total("readout", traffic), limit, "readout/output")

    def _memory(self, number: int, batch: int) -> Integrators | Series:
        place, memory = f"layer{number}", self._own(number).memory
        if isinstance(memory, SeriesMemory):
            truth = self.exact.series[number]
            return Series(place, memory, truth, batch, self.switches, self.tally)
        layer = self._float_layer(number)
        return Integrators(place, memory, layer, batch, self.switches, self.tally)

    def _advance(
        self,
        number: int,
        memory: Integrators | Series,
        sender: str,
        traffic: Traffic,
    ) -> None:
        if isinstance(memory, Integrators):
            memory.advance(self._total(f"layer{number}/memory", traffic))
            return
        drive = self._total(f"layer{number}/series", traffic)
        memory.advance(drive, lambda: self._channel_inputs(number, sender, traffic))

    def _channel_inputs(self, number: int, sender: str, traffic: Traffic) -> np.ndarray:
        """Give what goes into the channels of a memory, by the float encoders; real."""
        sent, tails = traffic.sent, traffic.tails
        layer, own = self._float_layer(number), self._own(number)
        x = sent[sender] * populations(self.network)[sender].message.scale
        if sender.endswith("/memory"):
            basis = self._before(number).output_basis
            x = x if basis is None else x @ basis.T
            x = x + tails[sender] if sender in tails else x
        u = x @ layer.input_encoders.astype(np.float64)
        if layer.hidden_encoders is not None and own.hidden is not None:
            h = sent[f"layer{number}/hidden"] * own.hidden.message.scale
            u = u + h @ layer.hidden_encoders
        if layer.memory_encoders is not None:
            m = sent[f"layer{number}/memory"] * own.memory.message.scale
            u = u + m @ layer.memory_encoders
        return np.asarray(u if layer.memory_bias is None else u + layer.memory_bias)

    def _total(self, target: str, traffic: Traffic) -> np.ndarray:
        """Sum what reaches a population, and its bias."""
        parts = []
        for place, source, synapses in self._into[target]:
            remembered = None
            if source in traffic.tails and place in self.exact.tails:
                remembered = traffic.tails[source] @ self.exact.tails[place].T
            messages = traffic.delivered(place, source, self._thresholds.get(place, 0))
            parts.append(synapses.drive(messages, remembered))
        total = parts[0]
        for part in parts[1:]:
            total += part
        bias = self._biases.get(target)
        return total if bias is None else total + bias

    def _encode(self, x: np.ndarray, message: Format, place: str) -> np.ndarray:
        units = x / message.scale
        if self.switches.has("width", place):
            units = np.rint(units)
        return self._limited(units, message.limit, place)

    def _activate(self, number: int, hidden: IntegerHidden, z: np.ndarray) -> np.ndarray:
        place, lines = f"layer{number}/hidden", hidden.activation
        z = self._limited(z, hidden.drive.limit, f"{place}/drive")
        if self.switches.has("activation", place):
            value = least_line(lines, z)
        else:
            float_hidden = self._float_layer(number).hidden
            assert float_hidden is not None
            real = activate(float_hidden.activation, z * hidden.drive.scale)
            value = real / hidden.message.scale
        if self.switches.has("width", f"{place}/message"):
            odd = lines.kind == "odd"
            value = np.sign(value) * half_up(np.abs(value)) if odd else half_up(value)
        return self._limited(value, hidden.message.limit, f"{place}/message")

    def _limited(self, values: np.ndarray, limit: int, place: str) -> np.ndarray:
        return limited(values, limit, place, self.switches, self.tally)

    def _real(
        self, number: int, memory: Integrators | Series, tails: dict[str, np.ndarray]
    ) -> np.ndarray:
        own = self._own(number).memory
        values = memory.m * own.state.scale
        if own.basis is not None:
            values = values @ own.basis.T
        tail = tails.get(f"layer{number}/memory")
        return values if tail is None else values + tail

    def _own(self, number: int) -> IntegerLayer:
        layer = self.network.layers[number]
        assert isinstance(layer, IntegerLayer)
        return layer

    def _before(self, number: int) -> IntegerLayer:
        """Give the layer before one, which is on the chip."""
        return self._own(number - 1)

    def _float_layer(self, number: int) -> LMULayer:
        layer = self.exact.source.layers[number]
        assert isinstance(layer, LMULayer)
        return layer

    def _bias(self, place: str, bias: np.ndarray) -> np.ndarray:
        """Integers if they are switched on, else what they were rounded from, row by row."""
        whole = bias.astype(np.float64)
        if self.switches.has("weights", place):
            return whole
        mixed = self.exact.biases[place].copy()
        rows = self.switches.rows(place)
        mixed[rows] = whole[rows]
        return mixed


def _number(population: str) -> int:
    """Give the number of a population's layer."""
    return int(population.split("/")[0].removeprefix("layer"))


def least_line(lines: PiecewiseLinear, z: np.ndarray) -> np.ndarray:
    """Apply the activation's lines to drives z of any shape, unrounded and unlimited.

    Rounding afterwards gives what rounding each line gives: all intercepts are whole, and
    floor(v + 1/2) keeps the order of values.
    """
    slopes = lines.slope * 2.0**-lines.shift
    if lines.kind == "linear":
        return np.asarray(z * slopes[0])
    p = np.abs(z) if lines.kind == "odd" else np.maximum(z, 0.0)
    least = p * slopes[0] + lines.intercept[0]
    for slope, intercept in zip(slopes[1:], lines.intercept[1:], strict=True):
        np.minimum(least, p * slope + intercept, out=least)
    return np.asarray(np.sign(z) * least if lines.kind == "odd" else least)
