"""Pre-flight check: whether a network fits a chip, as a list of rules.

A rule is a function of a network and a profile that returns violations. Each violation has the
object, its value, the limit and a remedy. To add a rule for integer networks, write it here (or in
:mod:`lmu_deploy.hardware.rules` if it applies to every network on cores) and add it to `RULES`.
"""

from __future__ import annotations

from collections.abc import Callable

from lmu_deploy.core.integer.graph import edges, sources
from lmu_deploy.core.integer.memories import Integrators, Series
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.populations import Input
from lmu_deploy.core.spiking.loihi import LoihiNetwork
from lmu_deploy.hardware.loihi_rules import LOIHI_RULES
from lmu_deploy.hardware.placement import OnChip
from lmu_deploy.hardware.profile import DigitalProfile
from lmu_deploy.hardware.rules import Violation, cores, fan_in, fan_out, synaptic_memory, too_wide

__all__ = ["RULES", "Violation", "check"]

Rule = Callable[[IntegerNetwork, DigitalProfile], list[Violation]]


def check(network: OnChip, profile: DigitalProfile) -> list[Violation]:
    """Return all violations, in the order of the rules."""
    if isinstance(network, LoihiNetwork):
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
    for place, source in sources(network).items():
        if source.message.bits > allowed:
            memory = isinstance(network[place], Input | Integrators | Series)
            option = "message" if memory else "hidden"
            remedy = f"quantize with --{option}-bits {allowed}"
            if allowed < 2:
                remedy = "create a spiking network with lmu-deploy spike"
            messages = f"messages of {place}"
            found.append(too_wide(messages, source.message.bits, profile.message_bits, remedy))
    return found


def change_widths(network: IntegerNetwork, profile: DigitalProfile) -> list[Violation]:
    """Check that no change of a message is wider than the payload of a spike.

    A change can be twice as large as a message.
    """
    bits = {place: source.message.bits for place, source in sources(network).items()}
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
