"""What a LoihiNetwork's neurons and relays ask of cores.

The names are those of docs/spiking-semantics.md. Decoders and input weights are stored with the
relays, encoders with the neurons, a byte each. A chip whose messages are too narrow for a relay
(the first Loihi) has none on its cores: its embedded processors, or the host, hear the neurons and
send the relays' messages from outside.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.sparse import csr_array

from lmu_deploy.hardware.demand import Demand, Sender
from lmu_deploy.hardware.profile import DigitalProfile
from lmu_deploy.loihi_memory import MESSAGE_BITS, LoihiMemory
from lmu_deploy.loihi_network import LoihiNetwork


def relays_on_cores(profile: DigitalProfile) -> bool:
    """Whether a core of the chip could be a relay, which sends graded messages of 16 bits."""
    return profile.message_bits.value >= MESSAGE_BITS


def loihi_senders(network: LoihiNetwork, profile: DigitalProfile) -> list[Sender]:
    """List who sends, memory after memory: the host's input, the relays, the neurons."""
    outside = not relays_on_cores(profile)
    return [
        sender
        for layer, memory in memories(network)
        for sender in (
            Sender(f"{layer}/input", memory.channels, outside=True),
            Sender(f"{layer}/relay", memory.states, outside),
            Sender(f"{layer}/memory", memory.size, outside=False),
        )
    ]


def loihi_demands(network: LoihiNetwork, profile: DigitalProfile) -> list[Demand]:
    """List what relays, if they are on cores, and neurons ask of them, memory after memory."""
    total = sum(sender.neurons for sender in loihi_senders(network, profile))
    found, inputs = [], 0
    for layer, memory in memories(network):
        relays = inputs + memory.channels
        neurons = relays + memory.states
        if relays_on_cores(profile):
            heard = _by_relays(memory, inputs, neurons)
            found.append(_demand(f"{layer}/relay", heard, (memory.states, total)))
        state, neuron = np.nonzero(memory.neurons.encoders)
        heard = (state * memory.neurons.neurons + neuron, relays + state)
        found.append(_demand(f"{layer}/memory", heard, (memory.size, total)))
        inputs = neurons + memory.size
    return found


def memories(network: LoihiNetwork) -> Iterator[tuple[str, LoihiMemory]]:
    """Give each memory with the name of its layer."""
    for number, memory in enumerate(network.memories):
        if memory is not None:
            yield f"layer{number}", memory


def _by_relays(memory: LoihiMemory, inputs: int, neurons: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of a relay and what it hears, whose first columns are given."""
    channel, state, neuron = np.nonzero(memory.decoders)
    decoding = channel * memory.order + state
    decoded = neurons + channel * memory.decoders.shape[2] + neuron
    driven = np.flatnonzero(memory.input_weights)
    return (
        np.concatenate([decoding, driven]),
        np.concatenate([decoded, inputs + driven // memory.order]),
    )


def _demand(
    population: str, heard: tuple[np.ndarray, np.ndarray], shape: tuple[int, int]
) -> Demand:
    """Make the demand of neurons that have a synapse of one byte for each pair."""
    sources = csr_array((np.ones(len(heard[0]), dtype=bool), heard), shape=shape)
    return Demand(population, np.diff(sources.indptr).astype(np.float64), sources)
