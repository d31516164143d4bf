"""Whether an integer network fits a chip: a list of small rules, and every violation at once.

A rule is a function of a network and a profile that gives its violations; a new one is written
below and added to `RULES`. Each names what is wrong, how much, the limit, and the least change that
mends it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lmu_deploy.hardware.placement import demands, place
from lmu_deploy.hardware.profile import DigitalProfile, Figure
from lmu_deploy.integer_network import Format, IntegerNetwork, IntegerReadout
from lmu_deploy.wiring import populations, wires


@dataclass(frozen=True)
class Violation:
    """One way in which a network does not fit.

    Attributes
    ----------
    object : str
        What does not fit, such as "weights of layer0/memory/recurrent, bits".
    value, limit : int
        What it takes and what there is.
    remedy : str
        The least change that mends it.
    """

    object: str
    value: int
    limit: int
    remedy: str

    def __str__(self) -> str:
        return f"{self.object}: {self.value}, and at most {self.limit} are possible; {self.remedy}."


Rule = Callable[[IntegerNetwork, DigitalProfile], list[Violation]]


def check(network: IntegerNetwork, profile: DigitalProfile) -> list[Violation]:
    """List every violation of every rule, in the order of the rules."""
    return [violation for rule in RULES for violation in rule(network, profile)]


def weight_widths(network: IntegerNetwork, profile: DigitalProfile) -> list[Violation]:
    """No weight is wider than a synapse."""
    return [
        _too_wide(
            f"weights of {wire.place}",
            wire.connection.weight_bits,
            profile.weight_bits,
            f"quantise for profile {profile.name}",
        )
        for wire in wires(network)
        if wire.connection.weight_bits > profile.weight_bits.value
    ]


def accumulator_widths(network: IntegerNetwork, profile: DigitalProfile) -> list[Violation]:
    """No sum is kept in more bits than a dendritic accumulator has."""
    return [
        _too_wide(
            f"accumulators of {wire.place}",
            wire.connection.accumulator_bits,
            profile.accumulator_bits,
            f"quantise for profile {profile.name}",
        )
        for wire in wires(network)
        if wire.connection.accumulator_bits > profile.accumulator_bits.value
    ]


def state_widths(network: IntegerNetwork, profile: DigitalProfile) -> list[Violation]:
    """No state, drive or output is wider than a neuron's state variable."""
    states: dict[str, Format] = {}
    if isinstance(network.readout, IntegerReadout):
        states["readout"] = network.readout.output
    for number, layer in network.on_chip:
        states[f"layer{number}/memory"] = layer.memory.state
        if layer.hidden is not None:
            states[f"layer{number}/hidden"] = layer.hidden.drive
    return [
        _too_wide(
            f"states of {name}",
            state.bits,
            profile.state_bits,
            f"quantise for profile {profile.name}",
        )
        for name, state in states.items()
        if state.bits > profile.state_bits.value
    ]


def message_widths(network: IntegerNetwork, profile: DigitalProfile) -> list[Violation]:
    """No message is wider than a spike's payload."""
    allowed = int(profile.message_bits)
    options = {"input": "message", "memory": "message", "hidden": "hidden", "host": "hidden"}
    found = []
    for name, population in populations(network).items():
        if population.message.bits > allowed:
            option = options[name.rsplit("/", maxsplit=1)[-1]]
            remedy = f"quantise with --{option}-bits {allowed}"
            if allowed < 2:
                remedy = "make a spiking network with lmu-deploy spike"
            messages = f"messages of {name}"
            found.append(_too_wide(messages, population.message.bits, profile.message_bits, remedy))
    return found


def change_widths(network: IntegerNetwork, profile: DigitalProfile) -> list[Violation]:
    """No change of a message, which is up to twice as large, is wider than a spike's payload."""
    bits = {name: population.message.bits for name, population in populations(network).items()}
    allowed = int(profile.message_bits)
    return [
        _too_wide(
            f"changes of messages on {wire.place}",
            bits[wire.source] + 1,
            profile.message_bits,
            f"quantise without thresholds, or with messages of at most {allowed - 1} bits",
        )
        for wire in wires(network)
        if wire.connection.threshold and bits[wire.source] + 1 > allowed
    ]


def fan_in(network: IntegerNetwork, profile: DigitalProfile) -> list[Violation]:
    """No neuron hears more neurons than its core has input axons."""
    found = []
    for demand in demands(network):
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


def synaptic_memory(network: IntegerNetwork, profile: DigitalProfile) -> list[Violation]:
    """No neuron has more synapses than its core can store."""
    found = []
    for demand in demands(network):
        most, allowed = int(demand.synaptic_bytes.max()), int(profile.synaptic_bytes_per_core)
        if most > allowed:
            found.append(
                Violation(
                    f"synapses of a neuron of {demand.population}, bytes",
                    most,
                    allowed,
                    "quantise with fewer --slices, or give what drives it fewer neurons",
                )
            )
    return found


def fan_out(network: IntegerNetwork, profile: DigitalProfile) -> list[Violation]:
    """No core sends over more output axons than it has, where the greedy placement puts things."""
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


def cores(network: IntegerNetwork, profile: DigitalProfile) -> list[Violation]:
    """No more cores are taken by the greedy placement than there are."""
    taken, allowed = len(place(network, profile)), int(profile.cores)
    if taken <= allowed:
        return []
    factor = taken / allowed
    remedy = f"quantise with fewer --slices, or use {factor:.1f} times fewer synapses"
    return [Violation(f"cores of {profile.title}", taken, allowed, remedy)]


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
"""Every rule, in the order in which violations are listed."""


def _too_wide(object_: str, bits: int, limit: Figure, remedy: str) -> Violation:
    return Violation(f"{object_}, bits", bits, int(limit), remedy)
