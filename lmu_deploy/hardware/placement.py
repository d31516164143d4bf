"""Greedy placement of the neurons of a network on the cores of a chip.

Neurons are placed in the order of the network (for each layer memory, then hidden units; last the
readout). A new core is started when the current one has no room for neurons, synaptic memory or
input axons. Following Davies et al., IEEE Micro 38(1), 2018, a synapse is stored in the core of its
target and takes the bits of its weight; a core has one input axon for each neuron anywhere that
projects to it; a neuron has one output axon for each core to which it projects. A neuron that sends
separate events for several thresholds counts once per threshold. The input and messages of the host
are external and take no core.

On Loihi's LIF neurons (docs/reference/loihi-semantics.md), decoders and input weights are stored
with the relays and encoders with the neurons, one byte each. A chip whose messages are too narrow
for a relay (the first Loihi) has no relays on its cores: its embedded processors or the host
receive the spikes and send the messages of the relays.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from lmu_deploy.core.integer.graph import outlets, sources
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.populations import Input, Population
from lmu_deploy.core.spiking.graph import OnLoihi
from lmu_deploy.core.spiking.loihi import MESSAGE_BITS
from lmu_deploy.hardware.profile import DigitalProfile, Figure


@dataclass(frozen=True)
class Demand:
    """Resources that each neuron of a population needs on its core.

    Attributes
    ----------
    population : str
    synaptic_bytes : ndarray, shape (neurons,), float64
    sources : csr_array of bool, shape (neurons, all senders)
        Which senders project to it.
    """

    population: str
    synaptic_bytes: np.ndarray
    sources: csr_array


@dataclass(frozen=True)
class Sender:
    """Neurons that send; they correspond to consecutive columns of all sources.

    Attributes
    ----------
    population : str
    neurons : int
    outside : bool
        Whether they are external to the cores: the input, or messages of a host.
    """

    population: str
    neurons: int
    outside: bool


def relays_on_cores(profile: DigitalProfile) -> bool:
    """Return whether cores of the chip support relays, which send graded 16-bit messages."""
    return profile.message_bits.value >= MESSAGE_BITS


def loihi_senders(network: OnLoihi, profile: DigitalProfile) -> list[Sender]:
    """Return the senders, group by group: messages of the host, relays, neurons."""
    outside, found = not relays_on_cores(profile), dict[str, Sender]()
    for group in network.groups():
        for source, weights in group.reaching:
            if source not in group.spiking:
                size = weights.shape[0] * weights.shape[2]
                found.setdefault(source, Sender(source, size, outside=True))
        if group.neurons is not None:
            found[group.relays] = Sender(group.relays, group.size, outside)
            found[group.place] = Sender(group.place, group.size_of_neurons, outside=False)
    return list(found.values())


def loihi_demands(network: OnLoihi, profile: DigitalProfile) -> list[Demand]:
    """Return the demands of relays, if these are on cores, and neurons, group by group."""
    starts, total = {}, 0
    for sender in loihi_senders(network, profile):
        starts[sender.population] = total
        total += sender.neurons
    found = []
    for group in network.groups():
        if relays_on_cores(profile):
            pairs = [_by_blocks(weights, starts[source]) for source, weights in group.reaching]
            rows, columns = (np.concatenate(each) for each in zip(*pairs, strict=True))
            found.append(_demand(group.relays, (rows, columns), (group.size, total)))
        if group.neurons is not None:
            state, neuron = np.nonzero(group.neurons.encoders)
            connected = (
                state * group.neurons.neurons + neuron,
                starts[group.relays] + state,
            )
            found.append(_demand(group.place, connected, (group.size_of_neurons, total)))
    return found


def _by_blocks(weights: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of relays and senders, given the first column of these."""
    block, row, column = np.nonzero(weights)
    return block * weights.shape[1] + row, first + block * weights.shape[2] + column


def _demand(
    population: str, connected: tuple[np.ndarray, np.ndarray], shape: tuple[int, int]
) -> Demand:
    """Return the demand of neurons with a one-byte synapse for each pair."""
    sources = csr_array((np.ones(len(connected[0]), dtype=bool), connected), shape=shape)
    return Demand(population, np.diff(sources.indptr).astype(np.float64), sources)


OnChip = IntegerNetwork | OnLoihi
"""Networks that can be placed on cores."""


@dataclass(frozen=True)
class Core:
    """Contents of a core.

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
    """Return the demands of all populations in the order of computation."""
    senders = sources(network)
    sizes = {place: s.neurons for place, s in senders.items() if not s.outside}
    for population in network.populations:
        on_chip = isinstance(population, Population) and not isinstance(population, Input)
        if on_chip and population.place not in senders:
            sizes[population.place] = population.size
    total = sum(senders[outlet.source].neurons for outlet in outlets(network))
    taken = {place: np.zeros(size) for place, size in sizes.items()}
    projecting = {place: np.zeros((size, total), dtype=bool) for place, size in sizes.items()}
    start = 0
    for outlet in outlets(network):
        stop = start + senders[outlet.source].neurons
        for edge in outlet.edges:
            # Drives of one neuron, such as the gates of an LSTM, have separate rows.
            synapses = edge.connection.slices != 0
            bits = synapses.sum(axis=(0, 2)) * (edge.connection.weight_bits / 8.0)
            by_tap = synapses.any(axis=0).reshape(len(bits), len(edge.offsets), -1).any(axis=1)
            rows = (edge.row + np.arange(len(bits))) % sizes[edge.target]
            np.add.at(taken[edge.target], rows, bits)
            found = projecting[edge.target][:, start:stop]
            for row, connected in zip(rows, by_tap, strict=True):
                found[row] |= connected
        start = stop
    return [Demand(str(place), taken[place], csr_array(projecting[place])) for place in sizes]


def demands_on(profile: DigitalProfile, network: OnChip) -> list[Demand]:
    """Return the demands of a network of either kind on a chip."""
    if isinstance(network, OnLoihi):
        return loihi_demands(network, profile)
    return demands(network)


def place(network: OnChip, profile: DigitalProfile) -> list[Core]:
    """Place a network on the cores of a chip.

    Parameters
    ----------
    network : IntegerNetwork, LoihiNetwork or LoihiGraph
    profile : DigitalProfile

    Returns
    -------
    cores : list of Core
        The cores needed, which may be more than the chip has. A neuron that exceeds the limits of
        a core gets a separate core; the pre-flight rules report it.
    """
    senders = _senders(network, profile)
    filling = _fill(network, profile, senders)
    fan_out = np.sum([core.sources for core in filling], axis=0)
    cores, homes = [], _homes(senders, filling)
    for number, core in enumerate(filling):
        cores.append(
            Core(
                dict(core.neurons),
                int(np.ceil(core.synaptic_bytes)),
                core.in_axons,
                int(fan_out[homes == number].sum()),
            )
        )
    return cores


def destinations(network: OnChip, profile: DigitalProfile) -> dict[str, float]:
    """Return to how many cores a message goes, on average over the neurons of each population.

    Events of several thresholds count apart, so a message of each goes to its own cores.
    """
    senders = _senders(network, profile)
    fan_out = np.sum([core.sources for core in _fill(network, profile, senders)], axis=0)
    found: dict[str, list[np.ndarray]] = {}
    start = 0
    for sender in senders:
        found.setdefault(sender.population, []).append(fan_out[start : start + sender.neurons])
        start += sender.neurons
    return {name: float(np.mean(counts)) for name, counts in found.items()}


def _fill(network: OnChip, profile: DigitalProfile, senders: list[Sender]) -> list[_Filling]:
    """Fill cores neuron by neuron."""
    total = sum(sender.neurons for sender in senders)
    filling = [_Filling(profile, total)]
    for demand in demands_on(profile, network):
        rows = np.split(demand.sources.indices, demand.sources.indptr[1:-1])
        for size, connected in zip(demand.synaptic_bytes, rows, strict=True):
            if not filling[-1].has_room(size, connected):
                filling.append(_Filling(profile, total))
            filling[-1].add(demand.population, size, connected)
    return filling


def table(cores: list[Core], profile: DigitalProfile) -> str:
    """Return a table of the utilization of the cores, one line each."""
    columns = f"{'neurons':>15} {'synapses':>18} {'in axons':>12} {'out axons':>12}"
    lines = [f"core {columns}  holds"]
    for number, core in enumerate(cores):
        neurons = sum(core.neurons.values())
        contents = ", ".join(f"{name} ({count})" for name, count in core.neurons.items())
        lines.append(
            f"{number:>4} {neurons:>7} {_share(neurons, profile.neurons_per_core)} "
            f"{core.synaptic_bytes / 1024:>7.1f} KB "
            f"{_share(core.synaptic_bytes, profile.synaptic_bytes_per_core)} "
            f"{core.in_axons:>5}{_share(core.in_axons, profile.fan_in)} "
            f"{core.out_axons:>5}{_share(core.out_axons, profile.fan_out)}  {contents}"
        )
    return "\n".join(lines)


def _share(value: int, limit: Figure) -> str:
    return f"{100.0 * value / limit.value:>6.1f}%"


def _senders(network: OnChip, profile: DigitalProfile) -> list[Sender]:
    """Return the senders in the order of the columns of the demands."""
    if isinstance(network, OnLoihi):
        return loihi_senders(network, profile)
    senders = sources(network)
    return [
        Sender(str(place), senders[place].neurons, senders[place].outside)
        for place in (outlet.source for outlet in outlets(network))
    ]


def _homes(senders: list[Sender], filling: list[_Filling]) -> np.ndarray:
    """Return the core of every sender, -1 for external senders."""
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
    """A core during placement.

    Parameters
    ----------
    profile : DigitalProfile
    senders : int
        Number of senders of the whole network.
    """

    def __init__(self, profile: DigitalProfile, senders: int) -> None:
        self._profile = profile
        self.neurons: Counter[str] = Counter()
        self.synaptic_bytes = 0.0
        self.sources = np.zeros(senders, dtype=bool)
        self.in_axons = 0

    def has_room(self, size: float, connected: np.ndarray) -> bool:
        """Return whether a neuron with these sources fits; an empty core accepts any neuron."""
        if not self.neurons:
            return True
        limits = self._profile
        return (
            self.neurons.total() < limits.neurons_per_core.value
            and self.synaptic_bytes + size <= limits.synaptic_bytes_per_core.value
            and self.in_axons + self._new_axons(connected) <= limits.fan_in.value
        )

    def add(self, population: str, size: float, connected: np.ndarray) -> None:
        """Add a neuron to the core."""
        self.neurons[population] += 1
        self.synaptic_bytes += size
        self.in_axons += self._new_axons(connected)
        self.sources[connected] = True

    def _new_axons(self, connected: np.ndarray) -> int:
        return len(connected) - int(np.count_nonzero(self.sources[connected]))
