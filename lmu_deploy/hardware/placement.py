"""Where each neuron of an integer network sits on a chip: greedily, core after core.

Neurons are taken in the order of the network (each layer's memory, its hidden units, the readout)
and put on the current core until it is full of neurons, of synaptic memory or of input axons; then
the next one begins. What counts, after Davies et al., IEEE Micro 38(1), 2018:

- a synapse is stored where its target sits, and takes a weight's bits;
- a core has one input axon for each neuron, anywhere, that reaches it;
- a neuron has one output axon for each core that it reaches.

A neuron that sends events of its own for each of several thresholds counts there as so many.

The input comes from outside, as does what the host sends, and takes no core.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from lmu_deploy.hardware.profile import DigitalProfile, Figure
from lmu_deploy.integer_network import IntegerNetwork, IntegerReadout
from lmu_deploy.wiring import from_outside, outlets, populations


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


@dataclass(frozen=True)
class Demand:
    """What each neuron of a population asks of its core.

    Attributes
    ----------
    population : str
    synaptic_bytes : ndarray, shape (neurons,), float64
    sources : ndarray of bool, shape (neurons, neurons of all outlets)
        Which neurons reach it, outlet by outlet.
    """

    population: str
    synaptic_bytes: np.ndarray
    sources: np.ndarray


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
    return [Demand(name, taken[name], sources[name]) for name in sizes]


def place(network: IntegerNetwork, profile: DigitalProfile) -> list[Core]:
    """Put a network onto the cores of a chip.

    Parameters
    ----------
    network : IntegerNetwork
    profile : DigitalProfile

    Returns
    -------
    cores : list of Core
        As many as it takes, which may be more than the chip has. A neuron that no core can hold
        gets one of its own; the pre-flight rules name it.
    """
    filling = [_Filling(profile)]
    for demand in demands(network):
        for size, sources in zip(demand.synaptic_bytes, demand.sources, strict=True):
            if not filling[-1].has_room(size, sources):
                filling.append(_Filling(profile))
            filling[-1].add(demand.population, size, sources)
    reach = np.sum([core.sources for core in filling], axis=0)
    cores, homes = [], _homes(network, filling)
    for number, core in enumerate(filling):
        cores.append(
            Core(
                dict(core.neurons),
                int(np.ceil(core.synaptic_bytes)),
                int(core.sources.sum()),
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


def _homes(network: IntegerNetwork, filling: list[_Filling]) -> np.ndarray:
    """Core of every neuron of every outlet; -1 for those of the input and the host."""
    homes: dict[str, list[int]] = {
        name: [-1] * p.neurons for name, p in populations(network).items() if from_outside(name)
    }
    for number, core in enumerate(filling):
        for name, count in core.neurons.items():
            homes.setdefault(name, []).extend([number] * count)
    return np.concatenate([homes[outlet.source] for outlet in outlets(network)])


class _Filling:
    """A core while it is being filled."""

    def __init__(self, profile: DigitalProfile) -> None:
        self._profile = profile
        self.neurons: Counter[str] = Counter()
        self.synaptic_bytes = 0.0
        self.sources: np.ndarray = np.zeros(0, dtype=bool)

    def has_room(self, size: float, sources: np.ndarray) -> bool:
        """Whether one more neuron fits; an empty core takes any."""
        if not self.neurons:
            return True
        limits = self._profile
        return (
            self.neurons.total() < limits.neurons_per_core.value
            and self.synaptic_bytes + size <= limits.synaptic_bytes_per_core.value
            and int((self.sources | sources).sum()) <= limits.fan_in.value
        )

    def add(self, population: str, size: float, sources: np.ndarray) -> None:
        """Put one neuron here."""
        self.neurons[population] += 1
        self.synaptic_bytes += size
        self.sources = self.sources | sources if self.sources.size else sources.copy()
