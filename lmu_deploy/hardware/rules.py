"""Pre-flight rules of the resources of cores, for every kind of network on cores."""

from __future__ import annotations

from dataclasses import dataclass

from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.spiking.loihi import LoihiNetwork
from lmu_deploy.hardware.placement import OnChip, demands_on, place
from lmu_deploy.hardware.profile import DigitalProfile, Figure


@dataclass(frozen=True)
class Violation:
    """A resource limit of a chip that a network exceeds.

    Attributes
    ----------
    object : str
        Object that exceeds the limit, such as "weights of layer0/memory/recurrent, bits".
    value, limit : int
        Required and available amount.
    remedy : str
        Smallest change of the network that satisfies the limit.
    """

    object: str
    value: int
    limit: int
    remedy: str

    def __str__(self) -> str:
        return f"{self.object}: {self.value}, and at most {self.limit} are possible; {self.remedy}."


def too_wide(what: str, bits: int, limit: Figure, remedy: str) -> Violation:
    """Return the violation of a width in bits."""
    return Violation(f"{what}, bits", bits, int(limit), remedy)


_FEWER: dict[type, str] = {
    IntegerNetwork: "quantize with fewer --slices",
    LoihiNetwork: "spike with fewer --neurons-per-state",
}
_LESS_MEMORY = {
    **_FEWER,
    IntegerNetwork: f"{_FEWER[IntegerNetwork]}, or give what drives it fewer neurons",
}


def fan_in(network: OnChip, profile: DigitalProfile) -> list[Violation]:
    """Check that the fan-in of no neuron exceeds the input axons of a core."""
    found = []
    for demand in demands_on(profile, network):
        most, allowed = int(demand.sources.sum(axis=1).max()), int(profile.fan_in)
        if most > allowed:
            found.append(
                Violation(
                    f"fan-in of a neuron of {demand.population}",
                    most,
                    allowed,
                    f"give what drives it {most - allowed} neurons less, or split the layer",
                )
            )
    return found


def synaptic_memory(network: OnChip, profile: DigitalProfile) -> list[Violation]:
    """Check that the synapses of no neuron exceed the memory of a core."""
    found = []
    for demand in demands_on(profile, network):
        most, allowed = int(demand.synaptic_bytes.max()), int(profile.synaptic_bytes_per_core)
        if most > allowed:
            found.append(
                Violation(
                    f"synapses of a neuron of {demand.population}, bytes",
                    most,
                    allowed,
                    _LESS_MEMORY[type(network)],
                )
            )
    return found


def fan_out(network: OnChip, profile: DigitalProfile) -> list[Violation]:
    """Check that no core exceeds its output axons in the greedy placement."""
    allowed = int(profile.fan_out)
    return [
        Violation(
            f"output axons of core {number} ({', '.join(core.neurons)})",
            core.out_axons,
            allowed,
            "give its populations fewer neurons, so that they reach fewer cores",
        )
        for number, core in enumerate(place(network, profile))
        if core.out_axons > allowed
    ]


def cores(network: OnChip, profile: DigitalProfile) -> list[Violation]:
    """Check that the greedy placement does not need more cores than there are."""
    taken, allowed = len(place(network, profile)), int(profile.cores)
    if taken <= allowed:
        return []
    factor = taken / allowed
    remedy = f"{_FEWER[type(network)]}, or use {factor:.1f} times fewer synapses"
    return [Violation(f"cores of {profile.title}", taken, allowed, remedy)]
