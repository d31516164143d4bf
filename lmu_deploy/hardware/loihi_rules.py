"""Pre-flight rules for LoihiNetworks: widths of the specification against those of a chip."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lmu_deploy.core.spiking.loihi import STATE_BITS, LoihiMemory, LoihiNetwork
from lmu_deploy.hardware.placement import memories, relays_on_cores
from lmu_deploy.hardware.profile import DigitalProfile
from lmu_deploy.hardware.rules import Violation, cores, fan_in, fan_out, synaptic_memory, too_wide

WEIGHT_BITS = 8
_OTHER_CHIP = "choose a chip with wider ones"
Rule = Callable[[LoihiNetwork, DigitalProfile], list[Violation]]


def weight_widths(network: LoihiNetwork, profile: DigitalProfile) -> list[Violation]:
    """Check that no decoder, encoder or input weight is wider than a synapse."""
    if profile.weight_bits.value >= WEIGHT_BITS:
        return []
    return [
        too_wide(f"weights of {layer}/memory", WEIGHT_BITS, profile.weight_bits, _OTHER_CHIP)
        for layer, _ in memories(network)
    ]


def state_widths(network: LoihiNetwork, profile: DigitalProfile) -> list[Violation]:
    """Check that no membrane, current or relay is wider than a state variable."""
    if profile.state_bits.value >= STATE_BITS:
        return []
    return [
        too_wide(f"states of {layer}/memory", STATE_BITS, profile.state_bits, _OTHER_CHIP)
        for layer, _ in memories(network)
    ]


def accumulator_widths(network: LoihiNetwork, profile: DigitalProfile) -> list[Violation]:
    """Check that no sum of decoders, over spikes of all neurons, is wider than an accumulator."""
    if not relays_on_cores(profile):
        return []
    allowed = profile.accumulator_bits
    return [
        too_wide(
            f"accumulators of {layer}/relay", bits, allowed, "spike with fewer --neurons-per-state"
        )
        for layer, memory in memories(network)
        if (bits := decoder_bits(memory)) > allowed.value
    ]


def decoder_bits(memory: LoihiMemory) -> int:
    """Return the width, sign included, of the largest sum of decoders in one step."""
    weights = memory.decoders.astype(np.int64)
    largest = max(
        int(np.where(weights > 0, weights, 0).sum(axis=2).max()),
        int(np.where(weights < 0, -weights, 0).sum(axis=2).max()),
    )
    return largest.bit_length() + 1


LOIHI_RULES: tuple[Rule, ...] = (
    weight_widths,
    accumulator_widths,
    state_widths,
    fan_in,
    synaptic_memory,
    fan_out,
    cores,
)
"""All rules, in the order in which violations are listed."""
