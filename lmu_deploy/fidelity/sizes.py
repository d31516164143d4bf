"""What a network takes to hold: parameters, synapses, and bytes of weights and of states.

Bytes are those of the representation's own widths (an 8-bit weight is one byte, a 24-bit state
three), not of the arrays that hold it in Python. What a chip needs beyond them (routing tables,
axons) depends on its mapping and is not counted. Of a spiking network only the part on neurons is:
decoders, gains and biases, membranes and synapses; of an integer network the layers on the chip.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lmu_deploy.integer_network import Connection, IntegerLayer, IntegerNetwork, IntegerReadout
from lmu_deploy.loihi_network import LoihiNetwork
from lmu_deploy.network import LMUNetwork, LSTMLayer
from lmu_deploy.reference import has_hidden
from lmu_deploy.spiking_network import SpikingNetwork

FLOAT_BYTES = 4
_GAIN_BITS = 15 + 5
_BIAS_BITS = 24
_LOIHI_BIAS_BITS = 13


@dataclass(frozen=True)
class Sizes:
    """What one representation of a network takes.

    Attributes
    ----------
    representation : str
        Name of its class.
    parameters : int
        Numbers stored: weights, gains, biases, the memory's matrices.
    weights : int
        All of them, zeros included; each slice of an integer weight is one.
    synapses : int
        Weights that are not zero.
    weight_bits : int
        Width of one weight.
    weight_bytes : int
        All weights, zeros included.
    neuron_bytes : int
        What is stored per neuron: biases, gains, shifts, activation tables.
    state_bytes : int
        What changes from step to step, for one sample.
    """

    representation: str
    parameters: int
    weights: int
    synapses: int
    weight_bits: int
    weight_bytes: int
    neuron_bytes: int
    state_bytes: int


def network_sizes(network: object) -> Sizes | None:
    """Measure a network; None for a representation that has no widths of its own."""
    if isinstance(network, LMUNetwork):
        return _float_sizes(network)
    if isinstance(network, IntegerNetwork):
        return _integer_sizes(network)
    if isinstance(network, LoihiNetwork):
        return _loihi_sizes(network)
    return _spiking_sizes(network) if isinstance(network, SpikingNetwork) else None


def _float_sizes(network: LMUNetwork) -> Sizes:
    """As single precision, the least that keeps a trained network as it is."""
    weights: list[np.ndarray | None] = [network.readout.kernel]
    biases: list[np.ndarray | None] = [network.readout.bias]
    states = 0
    for layer in network.layers:
        states += layer.n_out if has_hidden(layer) else 0
        if isinstance(layer, LSTMLayer):
            weights += [layer.kernel, layer.recurrent_kernel]
            biases += [layer.bias]
            states += layer.n_out
            continue
        states += layer.memory.size
        weights += [layer.memory.a_bar, layer.memory.b_bar, layer.input_encoders]
        weights += [layer.hidden_encoders, layer.memory_encoders]
        biases += [layer.memory_bias]
        if (hidden := layer.hidden) is not None:
            weights += [hidden.memory_kernel, hidden.input_kernel, hidden.recurrent_kernel]
            biases += [hidden.bias]
    n_weights = sum(w.size for w in weights if w is not None)
    n_biases = sum(b.size for b in biases if b is not None)
    return Sizes(
        representation="LMUNetwork",
        parameters=n_weights + n_biases,
        weights=n_weights,
        synapses=sum(int(np.count_nonzero(w)) for w in weights if w is not None),
        weight_bits=8 * FLOAT_BYTES,
        weight_bytes=FLOAT_BYTES * n_weights,
        neuron_bytes=FLOAT_BYTES * n_biases,
        state_bytes=FLOAT_BYTES * states,
    )


def _integer_sizes(network: IntegerNetwork) -> Sizes:
    """Only what is on the chip."""
    connections: list[Connection] = []
    biases: list[np.ndarray | None] = []
    if isinstance(network.readout, IntegerReadout):
        connections.append(network.readout.connection)
        biases.append(network.readout.bias)
    state_bits = table_bits = table_size = 0
    for _, layer in network.on_chip:
        connections += _connections(layer)
        biases += [layer.memory.bias]
        state_bits += layer.memory.size * (layer.memory.state.bits + layer.memory.message.bits)
        if layer.hidden is not None:
            biases += [layer.hidden.bias]
            state_bits += layer.hidden.units * layer.hidden.message.bits
            table_size += 2 * len(layer.hidden.activation.slope)
            table_bits += len(layer.hidden.activation.slope) * (15 + _BIAS_BITS)
    n_biases = sum(bias.size for bias in biases if bias is not None)
    n_gains = sum(c.multiplier.size for c in connections)
    n_weights = sum(c.slices.size for c in connections)
    return Sizes(
        representation="IntegerNetwork",
        parameters=n_weights + 2 * n_gains + n_biases + table_size,
        weights=n_weights,
        synapses=sum(int(np.count_nonzero(c.slices)) for c in connections),
        weight_bits=max(c.weight_bits for c in connections),
        weight_bytes=_bytes(c.slices.size * c.weight_bits for c in connections),
        neuron_bytes=_bytes([n_gains * _GAIN_BITS, n_biases * _BIAS_BITS, table_bits]),
        state_bytes=_bytes([state_bits]),
    )


def _spiking_sizes(network: SpikingNetwork) -> Sizes:
    """Only what is on neurons; real numbers in single precision, as are weights without bits."""
    memories = [memory for memory in network.memories if memory is not None]
    weights = [memory.weights for memory in memories]
    n_states = sum(memory.states for memory in memories)
    if (units := network.units) is not None:
        weights += [units.drive, units.decoders]
        n_states += units.units + len(units.decoders)
    n_weights, n_neurons = sum(w.size for w in weights), network.neurons
    bits = network.device.weight_bits or 8 * FLOAT_BYTES
    return Sizes(
        representation="SpikingNetwork",
        parameters=n_weights + 2 * n_neurons,
        weights=n_weights,
        synapses=sum(int(np.count_nonzero(w)) for w in weights),
        weight_bits=bits,
        weight_bytes=_bytes([n_weights * bits]),
        neuron_bytes=FLOAT_BYTES * 2 * n_neurons,
        state_bytes=FLOAT_BYTES * (n_neurons + n_states),
    )


def _loihi_sizes(network: LoihiNetwork) -> Sizes:
    """Only what is on the chip: decoders, encoders, gains, biases; relays, currents, membranes."""
    memories = [memory for memory in network.memories if memory is not None]
    n_neurons = sum(memory.size for memory in memories)
    n_states = sum(memory.states for memory in memories)
    weights = [
        array for m in memories for array in (m.decoders, m.neurons.encoders, m.input_weights)
    ]
    n_weights = sum(array.size for array in weights)
    return Sizes(
        representation="LoihiNetwork",
        parameters=n_weights + n_neurons + 4 * n_states,
        weights=n_weights,
        synapses=sum(int(np.count_nonzero(array)) for array in weights),
        weight_bits=8,
        weight_bytes=n_weights,
        neuron_bytes=_bytes([n_neurons * _LOIHI_BIAS_BITS, 2 * n_states * _GAIN_BITS]),
        state_bytes=_bytes([(2 * n_neurons + n_states) * _BIAS_BITS]),
    )


def _connections(layer: IntegerLayer) -> list[Connection]:
    found: list[Connection | None] = [layer.memory.recurrent, layer.memory.input]
    found += [layer.memory.hidden]
    if layer.hidden is not None:
        found += [layer.hidden.memory, layer.hidden.input, layer.hidden.recurrent]
    return [connection for connection in found if connection is not None]


def _bytes(bits: Iterable[int]) -> int:
    return -(-sum(bits) // 8)
