"""Where each neuron of a network sits on a chip: greedily, core after core.

Neurons are taken in the order of the network (each layer's memory, its hidden units, the readout)
and put on the current core until it is full of neurons, of synaptic memory or of input axons; then
the next one begins. What counts stands in :mod:`lmu_deploy.hardware.demand`.

A neuron that sends events of its own for each of several thresholds counts there as so many.

The input comes from outside, as does what the host sends, and takes no core.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from lmu_deploy.hardware.demand import Demand, Sender
from lmu_deploy.hardware.loihi_demands import loihi_demands, loihi_senders
from lmu_deploy.hardware.profile import DigitalProfile, Figure
from lmu_deploy.integer_network import IntegerNetwork, IntegerReadout
from lmu_deploy.loihi_network import LoihiNetwork
from lmu_deploy.wiring import from_outside, outlets, populations

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
        for wire in outlet.wires:
            synapses = wire.connection.slices != 0
            taken[wire.target] += synapses.sum(axis=(0, 2)) * (wire.connection.weight_bits / 8.0)
            sources[wire.target][:, start:stop] |= synapses.any(axis=0)
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
