"""What is refused before any work is done, each with one sentence that says how to mend it."""

from __future__ import annotations

from converters.spiking.limits import check_map, check_window
from lmu_deploy.errors import InputError
from lmu_deploy.hardware.profile import DigitalProfile
from lmu_deploy.network import Memory


def check_fit(
    memories: list[Memory],
    neurons_per_state: int,
    hold_ms: float,
    tau_ms: float,
    chip: DigitalProfile,
) -> None:
    """Refuse what cannot be lowered to this chip.

    Parameters
    ----------
    memories : list of Memory
    neurons_per_state : int
    hold_ms, tau_ms : float
    chip : DigitalProfile

    Raises
    ------
    InputError
        When there is no memory, the chip has too few neurons, a window is too short for the
        relays, or a calibration would not fit in memory.
    """
    if not memories:
        raise InputError("the network has no LMU layer, so nothing of it can spike; give another.")
    states = sum(memory.size for memory in memories)
    room = int(chip.neurons_per_core) * int(chip.cores)
    if (needed := states * (neurons_per_state + 1)) > room:
        most = room // states - 1
        advice = (
            f"use at most {most} neurons per state"
            if most >= 1
            else "train a network with fewer states"
        )
        raise InputError(
            f"{states} states of {neurons_per_state} neurons and a relay need {needed} neurons, "
            f"and profile {chip.name} has {room}; {advice}."
        )
    for memory in memories:
        check_window(memory, hold_ms, tau_ms)
        check_map(memory, neurons_per_state, "dynamic")
