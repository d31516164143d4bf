"""What is refused before any work is done, each with one sentence that says how to mend it."""

from __future__ import annotations

from converters.spiking.recipe import Recipe
from lmu_deploy.errors import InputError
from lmu_deploy.hardware.profile import AnalogProfile
from lmu_deploy.network import LMULayer, LMUNetwork, Memory
from lmu_deploy.spiking_units import why_on_host

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


def check_units(
    network: LMUNetwork, recipe: Recipe, wanted: str, chip: AnalogProfile
) -> str | None:
    """Say why the last layer's units stay on the host; None when they go on the chip.

    Raises
    ------
    InputError
        When they are `wanted` on the "chip" and cannot be there.
    """
    if wanted == "host":
        return "they were asked to be there"
    reason = why_on_host(network)
    if reason is None:
        reason = _no_room(network, recipe, chip)
    if reason is not None and wanted == "chip":
        raise InputError(f"the hidden units cannot be on neurons, for {reason}; use --units host.")
    return reason


def _no_room(network: LMUNetwork, recipe: Recipe, chip: AnalogProfile) -> str | None:
    if recipe.synapse is not None:
        return "the synapses are pairs of DPIs"
    layers = [layer for layer in network.layers if isinstance(layer, LMULayer)]
    of_units = layers[-1].n_out * recipe.neurons_per_unit
    needed = sum(layer.memory.size for layer in layers) * recipe.neurons_per_state + of_units
    if needed > (room := int(chip.neurons)):
        return f"with them {needed} neurons are needed and profile {chip.name} has {room}"
    if recipe.calibration == "dynamic" and of_units > LARGEST_MAP:
        return f"their {of_units} neurons are more than the {LARGEST_MAP} that can be fitted"
    return None
