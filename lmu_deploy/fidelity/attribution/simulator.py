"""Hybrid simulator: a network between its float and its integer form, in float64, step by step.

All numbers are in the units of the formats of the integer network. With all operations enabled
they are integers and equal those of the integer target with ``==``. With none they equal the float
reference up to rounding errors of float64. Tests check both extremes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lmu_deploy.core.integer.functions import PiecewiseLinear
from lmu_deploy.core.integer.layered import IntegerHidden, IntegerLayer, SeriesMemory
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.parts import Format
from lmu_deploy.core.network import LMULayer
from lmu_deploy.core.reference import activate
from lmu_deploy.fidelity.attribution.counterpart import FloatCounterpart, float_counterpart
from lmu_deploy.fidelity.attribution.layers import Layers, biases, edges, layers_of, populations
from lmu_deploy.fidelity.attribution.memories import Integrators, Series
from lmu_deploy.fidelity.attribution.switches import Switches
from lmu_deploy.fidelity.attribution.synapses import (
    MessageState,
    StepRecord,
    Synapses,
    Tally,
    half_up,
    limited,
)


class HybridSimulator:
    """Simulator of an integer network in which selected operations are those of the float network.

    Parameters
    ----------
    network : IntegerNetwork or Layers
    switches : Switches
        Operations of the integer network that are enabled.
    counterpart : FloatCounterpart, optional
        Result of :func:`float_counterpart` for `network`.
    tally : Tally, optional
        Recorder of sums and saturations.

    Raises
    ------
    InputError
        When the network does not contain its float network.
    """

    def __init__(
        self,
        network: IntegerNetwork | Layers,
        switches: Switches,
        counterpart: FloatCounterpart | None = None,
        tally: Tally | None = None,
    ) -> None:
        network = layers_of(network)
        self.network, self.switches, self.tally = network, switches, tally
        self.counterpart = float_counterpart(network) if counterpart is None else counterpart
        rounded = {"readout": "readout/output"}
        for number, _ in network.numbered:
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
                edge.place,
                edge.connection,
                self.counterpart.matrices[edge.place],
                whole,
                switches,
                tally,
            )
            self._into.setdefault(edge.target, []).append((edge.place, edge.source, synapses))
            if switches.has("threshold", edge.place):
                self._thresholds[edge.place] = edge.connection.threshold
        self._biases = {
            target: self._bias(f"{target}/bias", bias) for target, bias in biases(network).items()
        }

    def steps(self, inputs: np.ndarray) -> Iterator[StepRecord]:
        """Run real inputs, shape (batch, steps, n_in), from zero states; yield each step."""
        network, batch = self.network, len(inputs)
        memories = {number: self._memory(number, batch) for number, _ in network.numbered}
        messages = MessageState({})
        sent, tails = messages.sent, messages.tails
        for number, own in network.numbered:
            units = 0 if own.hidden is None else own.hidden.memory.n_out
            sent[f"layer{number}/hidden"] = np.zeros((batch, units))
            sent[f"layer{number}/memory"] = memories[number].message
        for t in range(inputs.shape[1]):
            real = inputs[:, t].astype(np.float64)
            sent["input"], sender = self._encode(real, network.input, "input"), "input"
            for number, layer in network.numbered:
                place = f"layer{number}"
                memory = memories[number]
                self._advance(number, memory, sender, messages)
                sent[f"{place}/memory"] = memory.message
                if isinstance(memory, Integrators) and memory.forgets:
                    tails[f"{place}/memory"] = memory.forgotten()
                sender = f"{place}/memory"
                if layer.hidden is not None:
                    z = self._total(f"{place}/hidden", messages)
                    sent[f"{place}/hidden"] = self._activate(number, layer.hidden, z)
                    sender = f"{place}/hidden"
            yield StepRecord(
                sent["input"],
                {n: memory.m for n, memory in memories.items()},
                {n: memory.message for n, memory in memories.items()},
                {n: sent[f"layer{n}/hidden"] for n, _ in network.numbered},
                self._read_out(messages),
                {n: self._real(n, memory, tails) for n, memory in memories.items()},
            )

    def _read_out(self, messages: MessageState) -> np.ndarray:
        limit = self.network.chip_readout.output.limit
        return self._limited(self._total("readout", messages), limit, "readout/output")

    def _memory(self, number: int, batch: int) -> Integrators | Series:
        place, memory = f"layer{number}", self._own(number).memory
        if isinstance(memory, SeriesMemory):
            truth = self.counterpart.series[number]
            return Series(place, memory, truth, batch, self.switches, self.tally)
        layer = self._float_layer(number)
        return Integrators(place, memory, layer, batch, self.switches, self.tally)

    def _advance(
        self,
        number: int,
        memory: Integrators | Series,
        sender: str,
        messages: MessageState,
    ) -> None:
        if isinstance(memory, Integrators):
            memory.advance(self._total(f"layer{number}/memory", messages))
            return
        drive = self._total(f"layer{number}/series", messages)
        memory.advance(drive, lambda: self._channel_inputs(number, sender, messages))

    def _channel_inputs(self, number: int, sender: str, messages: MessageState) -> np.ndarray:
        """Return the real input of the channels of a memory, through the float encoders."""
        sent, tails = messages.sent, messages.tails
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

    def _total(self, target: str, messages: MessageState) -> np.ndarray:
        """Return the sum of the inputs of a population and its bias."""
        parts = []
        for place, source, synapses in self._into[target]:
            remembered = None
            if source in messages.tails and place in self.counterpart.tails:
                remembered = messages.tails[source] @ self.counterpart.tails[place].T
            delivered = messages.delivered(place, source, self._thresholds.get(place, 0))
            parts.append(synapses.drive(delivered, remembered))
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
        """Return the preceding layer, which is on the chip."""
        return self._own(number - 1)

    def _float_layer(self, number: int) -> LMULayer:
        layer = self.counterpart.source.layers[number]
        assert isinstance(layer, LMULayer)
        return layer

    def _bias(self, place: str, bias: np.ndarray) -> np.ndarray:
        """Return integer biases for enabled rows, unrounded ones for the others."""
        whole = bias.astype(np.float64)
        if self.switches.has("weights", place):
            return whole
        mixed = self.counterpart.biases[place].copy()
        rows = self.switches.rows(place)
        mixed[rows] = whole[rows]
        return mixed


def least_line(lines: PiecewiseLinear, z: np.ndarray) -> np.ndarray:
    """Apply the lines of an activation to drives z of any shape, without rounding or saturation.

    Rounding the result equals rounding each line, because intercepts are integers and
    floor(v + 1/2) is monotonic.
    """
    slopes = lines.slope * 2.0**-lines.shift
    if lines.kind == "linear":
        return np.asarray(z * slopes[0])
    p = np.abs(z) if lines.kind == "odd" else np.maximum(z, 0.0)
    least = p * slopes[0] + lines.intercept[0]
    for slope, intercept in zip(slopes[1:], lines.intercept[1:], strict=True):
        np.minimum(least, p * slope + intercept, out=least)
    return np.asarray(np.sign(z) * least if lines.kind == "odd" else least)
