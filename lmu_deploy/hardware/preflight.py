"""Pre-flight check: whether a network fits a chip, as lists of rules.

A rule is a function of a network and a profile that returns violations. Each violation has the
object, its value, the limit and a remedy. To add a rule, write it here and add it to `RULES`
(integer networks), `LOIHI_RULES` or `ANALOG_RULES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.graph import edges, sources
from lmu_deploy.core.integer.memories import Integrators, Series
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.populations import Input
from lmu_deploy.core.spiking.graph import AnalogNetwork, LoihiGraph, OnLoihi
from lmu_deploy.core.spiking.loihi import STATE_BITS, LoihiNetwork
from lmu_deploy.hardware.placement import OnChip, demands_on, place, relays_on_cores
from lmu_deploy.hardware.profile import AnalogProfile, DigitalProfile, Figure

__all__ = ["RULES", "Violation", "check"]


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


_FEWER_NEURONS = "spike with fewer --neurons-per-state"
_FEWER: dict[type, str] = {
    IntegerNetwork: "quantize with fewer --slices",
    LoihiNetwork: _FEWER_NEURONS,
    LoihiGraph: _FEWER_NEURONS,
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


Rule = Callable[[IntegerNetwork, DigitalProfile], list[Violation]]


def check(
    network: OnChip | AnalogNetwork, profile: DigitalProfile | AnalogProfile
) -> list[Violation]:
    """Return all violations, in the order of the rules.

    Raises
    ------
    InputError
        When the chip is of a kind that cannot run such a network.
    """
    if isinstance(network, AnalogNetwork) != isinstance(profile, AnalogProfile):
        raise InputError(
            f"profile {profile.name} is of a chip that is {profile.kind} and cannot run a "
            f"{type(network).__name__}; choose a profile of the other kind."
        )
    if isinstance(network, AnalogNetwork):
        assert isinstance(profile, AnalogProfile)
        return [violation for rule in ANALOG_RULES for violation in rule(network, profile)]
    assert isinstance(profile, DigitalProfile)
    if isinstance(network, OnLoihi):
        return [violation for rule in LOIHI_RULES for violation in rule(network, profile)]
    return [violation for rule in RULES for violation in rule(network, profile)]


def weight_widths(network: IntegerNetwork, profile: DigitalProfile) -> list[Violation]:
    """Check that no weight is wider than a synapse."""
    return [
        too_wide(
            f"weights of {edge.place}",
            edge.connection.weight_bits,
            profile.weight_bits,
            f"quantize for profile {profile.name}",
        )
        for edge in edges(network)
        if edge.connection.weight_bits > profile.weight_bits.value
    ]


def accumulator_widths(network: IntegerNetwork, profile: DigitalProfile) -> list[Violation]:
    """Check that no sum is wider than a dendritic accumulator."""
    return [
        too_wide(
            f"accumulators of {edge.place}",
            edge.connection.accumulator_bits,
            profile.accumulator_bits,
            f"quantize for profile {profile.name}",
        )
        for edge in edges(network)
        if edge.connection.accumulator_bits > profile.accumulator_bits.value
    ]


def state_widths(network: IntegerNetwork, profile: DigitalProfile) -> list[Violation]:
    """Check that no state, drive or output is wider than a state variable of a neuron."""
    return [
        too_wide(
            f"states of {population.place}",
            population.stored.bits,
            profile.state_bits,
            f"quantize for profile {profile.name}",
        )
        for population in network.on_chip
        if not isinstance(population, Input) and population.stored.bits > profile.state_bits.value
    ]


def message_widths(network: IntegerNetwork, profile: DigitalProfile) -> list[Violation]:
    """Check that no message is wider than the payload of a spike."""
    allowed = int(profile.message_bits)
    found = []
    for sender, source in sources(network).items():
        if source.message.bits > allowed:
            memory = isinstance(network[sender], Input | Integrators | Series)
            option = "message" if memory else "hidden"
            remedy = f"quantize with --{option}-bits {allowed}"
            if allowed < 2:
                remedy = "create a spiking network with lmu-deploy spike"
            messages = f"messages of {sender}"
            found.append(too_wide(messages, source.message.bits, profile.message_bits, remedy))
    return found


def change_widths(network: IntegerNetwork, profile: DigitalProfile) -> list[Violation]:
    """Check that no change of a message is wider than the payload of a spike.

    A change can be twice as large as a message.
    """
    bits = {sender: source.message.bits for sender, source in sources(network).items()}
    allowed = int(profile.message_bits)
    return [
        too_wide(
            f"changes of messages on {edge.place}",
            bits[edge.source] + 1,
            profile.message_bits,
            f"quantize without thresholds, or with messages of at most {allowed - 1} bits",
        )
        for edge in edges(network)
        if edge.connection.threshold and bits[edge.source] + 1 > allowed
    ]


RULES: tuple[Rule, ...] = (
    weight_widths,
    accumulator_widths,
    state_widths,
    message_widths,
    change_widths,
    fan_in,
    synaptic_memory,
    fan_out,
    cores,
)
"""All rules for integer networks, in the order in which violations are listed."""


def analog_neurons(network: AnalogNetwork, profile: AnalogProfile) -> list[Violation]:
    """Check that an analog chip has enough neurons."""
    if network.neurons <= (room := int(profile.neurons)):
        return []
    remedy = "use fewer neurons per state"
    return [Violation(f"neurons of {profile.title}", network.neurons, room, remedy)]


def analog_fan_in(network: AnalogNetwork, profile: AnalogProfile) -> list[Violation]:
    """Check that no analog neuron has more synapses than its chip gives it."""
    if not (allowed := int(profile.fan_in)):
        return []
    return [
        Violation(f"synapses of a neuron of {part}", most, allowed, remedy)
        for part, synapses, remedy in _analog_synapses(network, allowed)
        if (most := int(synapses.max())) > allowed
    ]


def analog_synapses(network: AnalogNetwork, profile: AnalogProfile) -> list[Violation]:
    """Check that an analog chip has enough synapses."""
    needed = sum(int(synapses.sum()) for _, synapses, _ in _analog_synapses(network, 1))
    if not (allowed := int(profile.synapses)) or needed <= allowed:
        return []
    remedy = f"spike with --fan-in {max(allowed // max(network.neurons, 1), 1)}"
    return [Violation(f"synapses of {profile.title}", needed, allowed, remedy)]


def _analog_synapses(network: AnalogNetwork, allowed: int) -> Iterator[tuple[str, np.ndarray, str]]:
    """Yield each group of populations, the synapses onto each neuron, and a remedy."""
    for group in network.groups():
        if group.neurons:
            remedy = f"--fan-in {allowed}" if group.memory else "--units host"
            yield group.place, np.repeat(group.fan_in, group.neurons), f"spike with {remedy}"


ANALOG_RULES: tuple[Callable[[AnalogNetwork, AnalogProfile], list[Violation]], ...] = (
    analog_neurons,
    analog_fan_in,
    analog_synapses,
)
"""All rules for networks on analog chips, in the order in which violations are listed."""


def demand_table(network: AnalogNetwork, profile: AnalogProfile) -> str:
    """Return a line for each group of populations with its neurons and synapses."""
    lines, total = [], 0
    for part, synapses, _ in _analog_synapses(network, 1):
        total += int(synapses.sum())
        lines.append(
            f"{part}: {len(synapses):,} neurons, each with {synapses.min():,} to "
            f"{synapses.max():,} synapses"
        )
    shared = sum(group.factored for group in network.groups() if group.memory)
    return "\n".join(
        [
            *lines,
            f"{profile.title}: {network.neurons:,} of {int(profile.neurons):,} neurons, "
            f"{total:,} synapses{_of(profile.synapses)}.",
            f"A chip that decodes each population once, before A', needs {shared:,} weights for "
            "the memories.",
        ]
    )


def _of(limit: Figure) -> str:
    return f" of {int(limit):,}" if limit.value else ""


_LOIHI_WEIGHT_BITS = 8
_OTHER_CHIP = "choose a chip with wider ones"
LoihiRule = Callable[[OnLoihi, DigitalProfile], list[Violation]]


def loihi_weight_widths(network: OnLoihi, profile: DigitalProfile) -> list[Violation]:
    """Check that no decoder, encoder or input weight is wider than a synapse."""
    if profile.weight_bits.value >= _LOIHI_WEIGHT_BITS:
        return []
    return [
        too_wide(f"weights of {group.place}", _LOIHI_WEIGHT_BITS, profile.weight_bits, _OTHER_CHIP)
        for group in network.groups()
    ]


def loihi_state_widths(network: OnLoihi, profile: DigitalProfile) -> list[Violation]:
    """Check that no membrane, current or relay is wider than a state variable."""
    if profile.state_bits.value >= STATE_BITS:
        return []
    return [
        too_wide(f"states of {group.place}", STATE_BITS, profile.state_bits, _OTHER_CHIP)
        for group in network.groups()
    ]


def loihi_accumulator_widths(network: OnLoihi, profile: DigitalProfile) -> list[Violation]:
    """Check that no sum of decoders, over spikes of all neurons, is wider than an accumulator."""
    if not relays_on_cores(profile):
        return []
    allowed = profile.accumulator_bits
    return [
        too_wide(f"accumulators of {group.relays}", bits, allowed, _FEWER_NEURONS)
        for group in network.groups()
        if (bits := group.accumulator_bits) > allowed.value
    ]


LOIHI_RULES: tuple[LoihiRule, ...] = (
    loihi_weight_widths,
    loihi_accumulator_widths,
    loihi_state_widths,
    fan_in,
    synaptic_memory,
    fan_out,
    cores,
)
"""All rules, in the order in which violations are listed."""
