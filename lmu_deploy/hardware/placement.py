"""Where each neuron of a network sits on a chip: greedily, core after core.

Neurons are taken in the order of the network (each layer's memory, its hidden units, the readout)
and put on the current core until it is full of neurons, of synaptic memory or of input axons; then
the next one begins. What counts stands in :mod:`lmu_deploy.hardware.placement`.

A neuron that sends events of its own for each of several thresholds counts there as so many.

The input comes from outside, as does what the host sends, and takes no core.

What neurons ask of the core on which they sit, whatever network they are of.

What counts, after Davies et al., IEEE Micro 38(1), 2018: a synapse is stored where its target
sits, and takes a weight's bits; a core has one input axon for each neuron, anywhere, that reaches
it, and a neuron one output axon for each core that it reaches.

What a LoihiNetwork's neurons and relays ask of cores.

The names are those of loihi-semantics.md. Decoders and input weights are stored with the
relays, encoders with the neurons, a byte each. A chip whose messages are too narrow for a relay
(the first Loihi) has none on its cores: its embedded processors, or the host, hear the neurons and
send the relays' messages from outside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from lmu_deploy.core.integer.graph import from_outside, outlets, populations
from lmu_deploy.core.integer.network import IntegerNetwork, IntegerReadout
from lmu_deploy.core.spiking.loihi import MESSAGE_BITS, LoihiMemory, LoihiNetwork
from lmu_deploy.hardware.profile import DigitalProfile, Figure


@dataclass(frozen=True)
class Demand:
    """What each neuron of a population asks of its core.

    Attributes
    ----------
    population : str
    synaptic_bytes : ndarray, shape (neurons,), float64
    sources : csr_array of bool, shape (neurons, all senders)
        Which senders reach it.
    """

    population: str
    synaptic_bytes: np.ndarray
    sources: csr_array


@dataclass(frozen=True)
class Sender:
    """Neurons that send: a part of the columns of all sources, in their order.

    Attributes
    ----------
    population : str
    neurons : int
    outside : bool
        They sit on no core: the input, or what a host sends.
    """

    population: str
    neurons: int
    outside: bool


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


OnChip = IntegerNetwork | LoihiNetwork
"""Networks that are put onto cores."""


@dataclass(frozen=True)
class Core:
    """What a core holds.

    Attributes
    ----------
    neurons : dict of population to int
    synaptic_bytes : int
    in_axons, out_axons : int
    """

    neurons: dict[str, int]
    synaptic_bytes: int
    in_axons: int
    out_axons: int


def demands(network: IntegerNetwork) -> list[Demand]:
    """List what the neurons of each population, and last the readout, ask of their cores."""
    neurons = {name: p.neurons for name, p in populations(network).items()}
    sizes = {name: size for name, size in neurons.items() if not from_outside(name)}
    if isinstance(network.readout, IntegerReadout):
        sizes["readout"] = network.n_out
    total = sum(neurons[outlet.source] for outlet in outlets(network))
    taken = {name: np.zeros(size) for name, size in sizes.items()}
    sources = {name: np.zeros((size, total), dtype=bool) for name, size in sizes.items()}
    start = 0
    for outlet in outlets(network):
        stop = start + neurons[outlet.source]
        for edge in outlet.edges:
            synapses = edge.connection.slices != 0
            taken[edge.target] += synapses.sum(axis=(0, 2)) * (edge.connection.weight_bits / 8.0)
            sources[edge.target][:, start:stop] |= synapses.any(axis=0)
        start = stop
    return [Demand(name, taken[name], csr_array(sources[name])) for name in sizes]


def demands_on(profile: DigitalProfile, network: OnChip) -> list[Demand]:
    """List what the neurons of either kind of network ask of the cores of a chip."""
    if isinstance(network, LoihiNetwork):
        return loihi_demands(network, profile)
    return demands(network)


def place(network: OnChip, profile: DigitalProfile) -> list[Core]:
    """Put a network onto the cores of a chip.

    Parameters
    ----------
    network : IntegerNetwork or LoihiNetwork
    profile : DigitalProfile

    Returns
    -------
    cores : list of Core
        As many as it takes, which may be more than the chip has. A neuron that no core can hold
        gets one of its own; the pre-flight rules name it.
    """
    senders = _senders(network, profile)
    total = sum(sender.neurons for sender in senders)
    filling = [_Filling(profile, total)]
    for demand in demands_on(profile, network):
        rows = np.split(demand.sources.indices, demand.sources.indptr[1:-1])
        for size, heard in zip(demand.synaptic_bytes, rows, strict=True):
            if not filling[-1].has_room(size, heard):
                filling.append(_Filling(profile, total))
            filling[-1].add(demand.population, size, heard)
    reach = np.sum([core.sources for core in filling], axis=0)
    cores, homes = [], _homes(senders, filling)
    for number, core in enumerate(filling):
        cores.append(
            Core(
                dict(core.neurons),
                int(np.ceil(core.synaptic_bytes)),
                core.in_axons,
                int(reach[homes == number].sum()),
            )
        )
    return cores


def table(cores: list[Core], profile: DigitalProfile) -> str:
    """Show how full each core is, a line each."""
    columns = f"{'neurons':>15} {'synapses':>18} {'in axons':>12} {'out axons':>12}"
    lines = [f"core {columns}  holds"]
    for number, core in enumerate(cores):
        neurons = sum(core.neurons.values())
        held = ", ".join(f"{name} ({count})" for name, count in core.neurons.items())
        lines.append(
            f"{number:>4} {neurons:>7} {_share(neurons, profile.neurons_per_core)} "
            f"{core.synaptic_bytes / 1024:>7.1f} KB "
            f"{_share(core.synaptic_bytes, profile.synaptic_bytes_per_core)} "
            f"{core.in_axons:>5}{_share(core.in_axons, profile.fan_in)} "
            f"{core.out_axons:>5}{_share(core.out_axons, profile.fan_out)}  {held}"
        )
    return "\n".join(lines)


def _share(value: int, limit: Figure) -> str:
    return f"{100.0 * value / limit.value:>6.1f}%"


def _senders(network: OnChip, profile: DigitalProfile) -> list[Sender]:
    """Say whose columns the demands' sources are."""
    if isinstance(network, LoihiNetwork):
        return loihi_senders(network, profile)
    neurons = {name: population.neurons for name, population in populations(network).items()}
    return [
        Sender(outlet.source, neurons[outlet.source], from_outside(outlet.source))
        for outlet in outlets(network)
    ]


def _homes(senders: list[Sender], filling: list[_Filling]) -> np.ndarray:
    """Core of every sender; -1 for those outside."""
    homes: dict[str, list[int]] = {}
    for number, core in enumerate(filling):
        for name, count in core.neurons.items():
            homes.setdefault(name, []).extend([number] * count)
    return np.concatenate(
        [
            [-1] * sender.neurons if sender.outside else homes[sender.population]
            for sender in senders
        ]
    )


class _Filling:
    """A core while it is being filled.

    Parameters
    ----------
    profile : DigitalProfile
    senders : int
        Of the whole network.
    """

    def __init__(self, profile: DigitalProfile, senders: int) -> None:
        self._profile = profile
        self.neurons: Counter[str] = Counter()
        self.synaptic_bytes = 0.0
        self.sources = np.zeros(senders, dtype=bool)
        self.in_axons = 0

    def has_room(self, size: float, heard: np.ndarray) -> bool:
        """Whether one more neuron, which hears these senders, fits; an empty core takes any."""
        if not self.neurons:
            return True
        limits = self._profile
        return (
            self.neurons.total() < limits.neurons_per_core.value
            and self.synaptic_bytes + size <= limits.synaptic_bytes_per_core.value
            and self.in_axons + self._unheard(heard) <= limits.fan_in.value
        )

    def add(self, population: str, size: float, heard: np.ndarray) -> None:
        """Put one neuron here."""
        self.neurons[population] += 1
        self.synaptic_bytes += size
        self.in_axons += self._unheard(heard)
        self.sources[heard] = True

    def _unheard(self, heard: np.ndarray) -> int:
        return len(heard) - int(np.count_nonzero(self.sources[heard]))
