"""LMUNetwork to LoihiNetwork: memories onto calibrated LIF neurons in fixed point."""

from __future__ import annotations

import numpy as np

from converters.loihi_spiking.build import Recipe, build_memory
from converters.loihi_spiking.limits import check_fit
from converters.spiking.bench import Fit, Progress, part
from converters.spiking.drawn import CALIBRATION_SAMPLES, draw_samples
from converters.spiking.host_inputs import memory_inputs
from converters.spiking.recipe import HOLD_MS, NEURONS_PER_STATE
from lmu_deploy.checks import check_inputs, check_integer, check_number
from lmu_deploy.errors import InputError
from lmu_deploy.hardware.profile import (
    DigitalProfile,
    Figure,
    LifFigures,
    load_profile,
    profile_names,
)
from lmu_deploy.loihi_memory import DECAY_ONE, LoihiMemory
from lmu_deploy.loihi_network import LoihiNetwork
from lmu_deploy.network import LMULayer, LMUNetwork
from lmu_deploy.spiking_chip import Calibration, check_multiple


def loihi_spike(
    network: LMUNetwork,
    calibration_inputs: np.ndarray,
    profile: str | DigitalProfile = "loihi1",
    *,
    neurons_per_state: int = NEURONS_PER_STATE,
    hold_ms: float = HOLD_MS,
    tau_ms: float | None = None,
    maximum_rates: tuple[float, float] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> LoihiNetwork:
    """Put the memories of `network` on a chip's LIF neurons, and calibrate their decoders.

    States are scaled by their 99.9 % range over the calibration inputs and held by the discrete
    Principle 3 (:mod:`converters.spiking.principle3`); the decoders are the ridge regression from
    the twin's own spikes behind the relays, its states forced along real trajectories.

    Parameters
    ----------
    network : LMUNetwork
        Encoders, hidden units, LSTM layers and readout stay on the host.
    calibration_inputs : ndarray, shape (samples, steps, n_in)
        Of the kind that the network will see, never the ones it will be judged by. At most 200
        samples are used, drawn by `seed`, and of long sequences the beginning.
    profile : str or DigitalProfile
        Digital chip with LIF neurons, by name or with figures of one's own.
    neurons_per_state : int
        Neurons of each population; there is one population for each state.
    hold_ms : float
        Milliseconds that an input of the task is held; the window lasts theta times as long.
    tau_ms : float, optional
        Time constant of the relays, milliseconds; the profile's if absent. It is rounded to what a
        decay of 12 bits can be.
    maximum_rates : (float, float), optional
        Between which a neuron's rate at the end of its range is drawn, hertz; the profile's if
        absent.
    seed : int
        Of the tuning curves and of the calibration.
    progress : callable, optional
        Called with (steps of calibration done, in all).

    Returns
    -------
    LoihiNetwork

    Raises
    ------
    InputError
        When a time is no whole multiple of the step, the window is shorter than the relays can
        serve, the chip has too few neurons, or a value is out of range.
    """
    chip, figures = lif_chip(profile)
    if maximum_rates is not None:
        figures = _with_rates(figures, *maximum_rates)
    inputs = check_inputs(calibration_inputs, network.n_in)
    seed = check_integer("seed", seed, 0, 2**32 - 1)
    dt_ms = figures.step.value * 1e3
    tau_ms = check_multiple(
        "tau_ms", figures.synapse_tau.value * 1e3 if tau_ms is None else tau_ms, dt_ms
    )
    recipe = Recipe(
        figures=figures,
        dt_ms=dt_ms,
        hold_ms=check_multiple("hold_ms", hold_ms, dt_ms),
        decay=max(round(DECAY_ONE * -np.expm1(-dt_ms / tau_ms)), 1),
        neurons_per_state=check_integer("neurons_per_state", neurons_per_state, 1, 100_000),
        seed=seed,
    )
    memories = [layer.memory for layer in network.layers if isinstance(layer, LMULayer)]
    check_fit(memories, neurons_per_state, recipe.hold_ms, tau_ms, chip)
    largest = max(memory.size for memory in memories)
    chosen = draw_samples(inputs, CALIBRATION_SAMPLES, recipe.parts * largest, seed)
    built = _build(network, recipe, chosen, progress)
    fits = [fit for _, fit in built if fit is not None]
    return LoihiNetwork(
        memories=tuple(memory for memory, _ in built),
        host=network,
        profile=chip.name,
        calibration=Calibration(
            method="dynamic",
            seed=seed,
            samples=len(chosen),
            ridge=max(fit.ridge for fit in fits),
            fit_error=max(fit.error for fit in fits),
        ),
        dt_ms=dt_ms,
        tau_ms=tau_ms,
        hold_ms=recipe.hold_ms,
    )


def lif_chip(profile: str | DigitalProfile) -> tuple[DigitalProfile, LifFigures]:
    """Give a digital chip and the figures of its LIF neurons.

    Raises
    ------
    InputError
        When the profile is unknown, not digital, or says nothing of LIF neurons.
    """
    chip = load_profile(profile, "digital")
    assert isinstance(chip, DigitalProfile)
    if chip.lif is None:
        spiking = [name for name in profile_names("digital") if _has_lif(name)]
        raise InputError(
            f"profile {chip.name} has no LIF neurons for a spiking memory; choose one of "
            f"{', '.join(spiking)}, or an analog profile."
        )
    return chip, chip.lif


def _with_rates(figures: LifFigures, lowest: float, highest: float) -> LifFigures:
    """Give the same neurons with other rates at the ends of their ranges."""
    lowest = check_number("lowest maximum rate", lowest, 1.0, 900.0)
    highest = check_number("highest maximum rate", highest, lowest, 900.0)
    given = {"lowest_rate": lowest, "highest_rate": highest}
    return figures.model_copy(
        update={name: Figure(value=v, source="given by the caller") for name, v in given.items()}
    )


def _has_lif(name: str) -> bool:
    chip = load_profile(name)
    return isinstance(chip, DigitalProfile) and chip.lif is not None


def _build(
    network: LMUNetwork, recipe: Recipe, inputs: np.ndarray, progress: Progress | None
) -> list[tuple[LoihiMemory | None, Fit | None]]:
    """Lower each memory in turn, as parts of one piece of work."""
    reaching = memory_inputs(network, inputs)
    total = sum(u is not None for u in reaching)
    built: list[tuple[LoihiMemory | None, Fit | None]] = []
    number = 0
    for layer, u in zip(network.layers, reaching, strict=True):
        if not isinstance(layer, LMULayer) or u is None:
            built.append((None, None))
            continue
        built.append(build_memory(recipe, layer.memory, u, number, part(progress, number, total)))
        number += 1
    return built
