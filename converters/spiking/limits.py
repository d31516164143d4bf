"""What is refused before any work is done, each with one sentence that says how to mend it."""

from __future__ import annotations

from lmu_deploy.errors import InputError
from lmu_deploy.hardware.profile import AnalogProfile
from lmu_deploy.network import Memory

LARGEST_MAP = 12_000
_ORDER_SERVED = 8.0


def check_room(memories: list[Memory], neurons_per_state: int, chip: AnalogProfile) -> None:
    """Refuse a network without memories, or with more neurons than the chip has."""
    if not memories:
        raise InputError("the network has no LMU layer, so nothing of it can spike; give another.")
    states = sum(memory.size for memory in memories)
    if (needed := states * neurons_per_state) > (room := int(chip.neurons)):
        advice = (
            f"use at most {room // states} neurons per state"
            if room >= states
            else "train a network with fewer states"
        )
        raise InputError(
            f"{states} states of {neurons_per_state} neurons need {needed} neurons and profile "
            f"{chip.name} has {room}; {advice}."
        )


def check_window(memory: Memory, hold_ms: float, tau_ms: float) -> None:
    """Refuse a window that the synapse is too slow for.

    To first order A' = tau A / theta + I, and A grows with the order, so a short window makes the
    weights amplify the spikes' noise. With 50 LIF neurons a state, dynamically calibrated, the
    error of the states was measured (orders 2 to 12) to pass half of their size where theta falls
    to about tau * order / 8.
    """
    window = memory.theta * hold_ms
    least = tau_ms * max(1.0, memory.order / _ORDER_SERVED)
    if window < least:
        raise InputError(
            f"a window of {memory.theta:g} steps of {hold_ms:g} ms lasts {window:g} ms, and for "
            f"order {memory.order} a synapse of {tau_ms:g} ms can serve {least:g} ms or more; hold "
            f"each input for at least {least / memory.theta:.4g} ms or use a faster synapse."
        )


def check_map(memory: Memory, neurons_per_state: int, calibration: str) -> None:
    """Refuse a dynamic calibration whose regression would not fit in memory."""
    features = memory.order * neurons_per_state
    if calibration == "dynamic" and features > LARGEST_MAP:
        raise InputError(
            f"dynamic calibration of order {memory.order} with {neurons_per_state} neurons per "
            f"state has {features} weights for each state, and {LARGEST_MAP} can be fitted; use "
            f"at most {max(LARGEST_MAP // memory.order, 1)} neurons per state, or static."
        )
