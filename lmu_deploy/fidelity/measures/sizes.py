"""Sizes of networks (parameters, synapses, bytes), and the metrics that NeuroBench defines.

Bytes are counted at the widths of the representation (one for an 8-bit weight, three for a 24-bit
state), not at those of the arrays in Python. Routing tables and axons depend on the mapping to a
chip and are not counted. For a spiking network only the part on neurons is counted (decoders, gains
and biases, membranes and synapses), for an integer network only the layers on the chip.

The metrics of the part on the chip follow NeuroBench 2.3 (Yik et al. 2025, "The NeuroBench
framework for benchmarking neuromorphic computing algorithms and systems", Nature Communications 16,
1545). For networks that both can run the figures are equal (benchmarks/neurobench_oracle.py). A
layer of NeuroBench is one slice of a connection here; an activation is a message or a spike.

- ``footprint``: bytes of all parameters at the widths of the representation, without states.
- ``connection_sparsity``: share of weights that are zero.
- ``activation_sparsity``: share of messages that are zero, over populations, steps and samples.
  Messages of the host (inputs, and nodes that it computes) are not activations.
- ``synaptic_operations``: operations of a mean sample with nonzero messages and weights:
  ``Effective_MACs`` for graded messages, ``Effective_ACs`` for spikes. ``Dense`` includes zeros.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.integer.graph import (
    applications,
    biases,
    edges,
    frame_counts,
    outlets,
    sources,
)
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.populations import Input, Output
from lmu_deploy.core.network import LMUNetwork, Memory
from lmu_deploy.core.spiking.graph import AnalogNetwork, OnLoihi
from lmu_deploy.core.spiking.loihi import fan_outs
from lmu_deploy.fidelity.schema import NeuroBench, SynapticOperations
from lmu_deploy.fidelity.streaming import counted_of
from targets.base import Run

FLOAT_BYTES = 4
_GAIN_BITS = 15 + 5
_BIAS_BITS = 24
_LOIHI_BIAS_BITS = 13


@dataclass(frozen=True)
class Sizes:
    """Size of one representation of a network.

    Attributes
    ----------
    representation : str
        Name of the class.
    parameters : int
        Stored numbers: weights, gains, biases, matrices of the memory.
    weights : int
        All weights, zeros included; each slice of an integer weight counts as one.
    synapses : int
        Weights that are not zero.
    weight_bits : int
        Width of one weight in bits.
    weight_bytes : int
        All weights, zeros included.
    neuron_bytes : int
        Parameters of neurons: biases, gains, shifts, activation tables.
    state_bytes : int
        States of one sample.
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
    """Return the size of a network; None for an unknown representation."""
    if isinstance(network, LMUNetwork):
        network = Network.from_layers(network)
    if isinstance(network, Network):
        return _float_sizes(network)
    if isinstance(network, IntegerNetwork):
        return _integer_sizes(network)
    if isinstance(network, OnLoihi):
        return _loihi_sizes(network)
    return _spiking_sizes(network) if isinstance(network, AnalogNetwork) else None


def _float_sizes(network: Network) -> Sizes:
    """Return the size in single precision, in which networks are trained."""
    weights: list[np.ndarray] = []
    biases: list[np.ndarray] = []
    for node in network.nodes:
        _sort_arrays(node.operator, weights, biases)
    n_weights, n_biases = sum(w.size for w in weights), sum(b.size for b in biases)
    return Sizes(
        representation="Network",
        parameters=n_weights + n_biases,
        weights=n_weights,
        synapses=sum(int(np.count_nonzero(w)) for w in weights),
        weight_bits=8 * FLOAT_BYTES,
        weight_bytes=FLOAT_BYTES * n_weights,
        neuron_bytes=FLOAT_BYTES * n_biases,
        state_bytes=FLOAT_BYTES * sum(node.operator.n_states for node in network.nodes),
    )


def _sort_arrays(part: Any, weights: list[np.ndarray], biases: list[np.ndarray]) -> None:
    """Add the arrays of an operator to the weights, or to the biases if they are vectors."""
    if isinstance(part, Memory):
        weights += [part.a_bar, part.b_bar]
        return
    for each in dataclasses.fields(part):
        value = getattr(part, each.name)
        if isinstance(value, np.ndarray):
            (biases if value.ndim == 1 else weights).append(value)
        elif dataclasses.is_dataclass(value):
            _sort_arrays(value, weights, biases)


def _integer_sizes(network: IntegerNetwork) -> Sizes:
    """Return the size of the part on the chip."""
    connections = [edge.connection for edge in edges(network)]
    state_bits = table_bits = table_size = 0
    for population in network.on_chip:
        if not isinstance(population, Input | Output):
            state_bits += population.size * population.message.bits
            if not population.stateless:
                state_bits += population.size * population.stored.bits
        for function in population.functions:
            table_size += 2 * len(function.slope)
            table_bits += len(function.slope) * (15 + _BIAS_BITS)
    n_biases = sum(bias.size for bias in biases(network).values())
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


def _spiking_sizes(network: AnalogNetwork) -> Sizes:
    """Return the size of the part on neurons; floats have single precision."""
    groups = list(network.groups())
    weights = [array for group in groups for array in group.weights]
    n_states = sum(len(group.fan_in) for group in groups)
    n_weights, n_neurons = sum(w.size for w in weights), network.neurons
    bits = network.device.weight_bits or 8 * FLOAT_BYTES
    return Sizes(
        representation=type(network).__name__,
        parameters=n_weights + 2 * n_neurons,
        weights=n_weights,
        synapses=sum(int(np.count_nonzero(w)) for w in weights),
        weight_bits=bits,
        weight_bytes=_bytes([n_weights * bits]),
        neuron_bytes=FLOAT_BYTES * 2 * n_neurons,
        state_bytes=FLOAT_BYTES * (n_neurons + n_states),
    )


def _loihi_sizes(network: OnLoihi) -> Sizes:
    """Return the size of the part on the chip, with relays, currents and membranes as states."""
    groups = list(network.groups())
    weights = [array for group in groups for array in group.arrays]
    n_neurons = sum(group.size_of_neurons for group in groups)
    n_gains = sum(len(group.reaching) * group.size for group in groups)
    n_states = sum(group.registers * group.size for group in groups)
    n_weights = sum(array.size for array in weights)
    return Sizes(
        representation=type(network).__name__,
        parameters=n_weights + n_neurons + 2 * n_gains,
        weights=n_weights,
        synapses=sum(int(np.count_nonzero(array)) for array in weights),
        weight_bits=8,
        weight_bytes=n_weights,
        neuron_bytes=_bytes([n_neurons * _LOIHI_BIAS_BITS, n_gains * _GAIN_BITS]),
        state_bytes=_bytes([(2 * n_neurons + n_states) * _BIAS_BITS]),
    )


def _bytes(bits: Iterable[int]) -> int:
    return -(-sum(bits) // 8)


def neurobench_of(run: Run, network: object) -> NeuroBench | None:
    """Compute the NeuroBench metrics of a run; None for a network of unknown size.

    Parameters
    ----------
    run : Run
    network : Network, IntegerNetwork, LoihiNetwork or SpikingNetwork
        The network that was run. A float network sends no messages and has the first two metrics.
    """
    sizes = network_sizes(network)
    if sizes is None or not sizes.weights:
        return None
    return NeuroBench(
        footprint=sizes.weight_bytes + sizes.neuron_bytes,
        connection_sparsity=(sizes.weights - sizes.synapses) / sizes.weights,
        activation_sparsity=_activation_sparsity(run, network),
        synaptic_operations=_operations(run, network),
    )


def _activation_sparsity(run: Run, network: object) -> float | None:
    """Return the share of possible messages that were not sent."""
    possible = _messages(run, network)
    if possible is None:
        return None
    counted = [counts for name, counts in counted_of(run).items() if name in possible]
    most = sum(possible.values()) * len(run.outputs)
    sent = sum(counts.total for counts in counted)
    return (most - sent) / most if counted and most else None


def _messages(run: Run, network: object) -> dict[str, int] | None:
    """Count the possible messages of one sample by population, zeros included."""
    if isinstance(network, IntegerNetwork):
        found: dict[str, int] = {}
        senders_of, counts = sources(network), frame_counts(network, run.steps)
        for outlet in outlets(network):
            source = str(outlet.source)
            if not senders_of[outlet.source].outside:
                times = applications(network, outlet.edges[0])
                frames = counts[network[outlet.source].place]
                found[source] = found.get(source, 0) + run.neurons[source] * times * frames
        return found
    if isinstance(network, AnalogNetwork | OnLoihi):
        senders = [name for group in network.groups() for name in group.senders]
        return {name: run.neurons[name] * run.chip_steps for name in senders}
    return None


def _operations(run: Run, network: object) -> SynapticOperations | None:
    """Count the synaptic operations of a mean sample; None without events."""
    if not counted_of(run):
        return None
    effective = run.synops / len(run.outputs)
    if isinstance(network, IntegerNetwork):
        counts = frame_counts(network, run.steps)
        dense = sum(
            edge.connection.slices.size
            * applications(network, edge)
            * counts[network[edge.target].place]
            for edge in edges(network)
        )
        return _synaptic(effective, 0.0, float(dense))
    if isinstance(network, AnalogNetwork):
        dense = sum(
            array.size * group.copies for group in network.groups() for array in group.weights
        )
        return _synaptic(0.0, effective, dense * run.chip_steps)
    return _loihi_operations(run, network) if isinstance(network, OnLoihi) else None


def _loihi_operations(run: Run, network: OnLoihi) -> SynapticOperations | None:
    """Count accumulations for spikes, and multiplications for messages of relays and host.

    Return None when relays reach different numbers of neurons, because a run does not count the
    events of each relay.
    """
    groups = list(network.groups())
    dense = sum(array.size for group in groups for array in group.arrays)
    spiking = {group.place for group in groups}
    graded = 0
    for name, reached in fan_outs(groups).items():
        if name not in spiking:
            if reached.min() != reached.max():
                return None
            graded += counted_of(run)[name].total * int(reached[0])
    samples = len(run.outputs)
    macs, acs = graded / samples, (run.synops - graded) / samples
    return _synaptic(macs, acs, dense * run.chip_steps)


def _synaptic(macs: float, acs: float, dense: float) -> SynapticOperations:
    return SynapticOperations(Effective_MACs=macs, Effective_ACs=acs, Dense=dense)
