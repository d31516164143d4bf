"""LMUNetwork to SpikingNetwork: memories onto calibrated populations of a virtual chip."""

from __future__ import annotations

import numpy as np

from converters.spiking.build import Recipe, build_memory
from converters.spiking.calibrate import Fit, Progress
from converters.spiking.host_inputs import memory_inputs
from converters.spiking.limits import check_map, check_room, check_window
from converters.spiking.saved import SavedCalibration, check_calibration
from lmu_deploy.checks import check_choice, check_inputs, check_integer, check_number
from lmu_deploy.hardware.profile import AnalogProfile, load_profile
from lmu_deploy.network import LMULayer, LMUNetwork
from lmu_deploy.spiking_chip import (
    CALIBRATIONS,
    Calibration,
    Device,
    NeuronModel,
    check_multiple,
)
from lmu_deploy.spiking_dpi import DPISynapse
from lmu_deploy.spiking_network import SpikingMemory, SpikingNetwork

DT_MS = 1.0
HOLD_MS = 50.0
CALIBRATION_SAMPLES = 200
SYNAPSES = {"linear": None, "dpi": DPISynapse()}
_TRAJECTORY_ELEMENTS = 50_000_000
"""Steps times samples times states of a calibration, at most (4 bytes each)."""


def spike(
    network: LMUNetwork,
    calibration_inputs: np.ndarray,
    profile: str | AnalogProfile = "generic-analog",
    *,
    neurons_per_state: int = 100,
    hold_ms: float = HOLD_MS,
    tau_ms: float | None = None,
    dt_ms: float = DT_MS,
    neuron: str | None = None,
    synapse: str | None = None,
    mismatch: float | None = None,
    membrane_noise: float | None = None,
    weight_bits: int | None = None,
    calibration: str = "dynamic",
    calibration_samples: int = CALIBRATION_SAMPLES,
    calibration_steps: int | None = None,
    saved: SavedCalibration | None = None,
    seed: int = 0,
    chip_seed: int | None = None,
    progress: Progress | None = None,
) -> SpikingNetwork:
    """Put the memories of `network` on spiking neurons of one virtual chip, and calibrate them.

    States are scaled by their 99.9 % range over the calibration inputs and held by the discrete
    Principle 3; see :mod:`converters.spiking.principle3` and :mod:`converters.spiking.calibrate`.

    Parameters
    ----------
    network : LMUNetwork
        Encoders, hidden units, LSTM layers and readout stay on the host.
    calibration_inputs : ndarray, shape (samples, steps, n_in)
        Of the kind that the network will see, never the ones it will be judged by. At most
        `calibration_samples` are used, drawn by `seed`, and of each the first `calibration_steps`
        (by default as many as fit in memory).
    profile : str or AnalogProfile
        Analog chip, by name or with figures of one's own.
    neurons_per_state : int
        Neurons of each population; there is one population for each state.
    hold_ms : float
        Milliseconds that an input of the task is held; the window lasts theta times as long.
    tau_ms : float, optional
        Time constant of the synapses, milliseconds; the profile's if absent.
    dt_ms : float
        Step of the simulation, milliseconds.
    neuron : {"lif", "dpi", "if", "poisson"}, optional
        See :class:`lmu_deploy.spiking_chip.NeuronModel`; the profile's if absent.
    synapse : {"linear", "dpi"}, optional
        See :class:`lmu_deploy.spiking_dpi.DPISynapse`; linear if absent.
    mismatch, membrane_noise, weight_bits : float, float, int, optional
        See :class:`lmu_deploy.spiking_chip.Device`; the profile's if absent.
    calibration : {"dynamic", "static", "none"}
        "none" gives the figure before calibration: an ideal chip's decoders on this chip.
    calibration_samples : int
    calibration_steps : int, optional
    saved : SavedCalibration, optional
        Used instead of measuring the chip again; it must be of this network, chip and options.
    seed : int
        Of the tuning curves and of the calibration.
    chip_seed : int, optional
        Which virtual chip, by its mismatch; `seed` if absent.
    progress : callable, optional
        Called with (steps of calibration done, in all).

    Returns
    -------
    SpikingNetwork

    Raises
    ------
    InputError
        When a time is no whole multiple of the step, the window is shorter than the synapse can
        serve, the chip has too few neurons, `saved` is of something else, or a value is out of
        range.
    """
    chip = load_profile(profile, "analog")
    assert isinstance(chip, AnalogProfile)
    inputs = check_inputs(calibration_inputs, network.n_in)
    seed = check_integer("seed", seed, 0, 2**32 - 1)
    dt_ms = check_number("dt_ms", dt_ms, 1e-3, 100.0)
    tau_ms = chip.synapse_tau.value * 1e3 if tau_ms is None else tau_ms
    recipe = Recipe(
        model=_neuron_model(chip.neuron.value if neuron is None else neuron, chip),
        device=Device(
            profile=chip.name,
            seed=seed if chip_seed is None else chip_seed,
            mismatch=chip.mismatch.value if mismatch is None else mismatch,
            membrane_noise=chip.membrane_noise.value if membrane_noise is None else membrane_noise,
            weight_bits=int(chip.weight_bits) if weight_bits is None else weight_bits,
        ),
        dt_ms=dt_ms,
        tau_ms=check_multiple("tau_ms", tau_ms, dt_ms),
        hold_ms=check_multiple("hold_ms", hold_ms, dt_ms),
        neurons_per_state=check_integer("neurons_per_state", neurons_per_state, 1, 100_000),
        maximum_rate=chip.maximum_rate.value,
        calibration=check_choice("calibration", calibration, CALIBRATIONS),
        seed=seed,
        synapse=SYNAPSES[check_choice("synapse", synapse or "linear", tuple(SYNAPSES))],
    )
    check_multiple("refractory_ms", recipe.model.refractory_ms, dt_ms, least=0)
    memories = [layer.memory for layer in network.layers if isinstance(layer, LMULayer)]
    check_room(memories, recipe.neurons_per_state, chip)
    for memory in memories:
        check_window(memory, recipe.hold_ms, recipe.tau_ms)
        check_map(memory, recipe.neurons_per_state, recipe.calibration)
    samples = check_integer("calibration_samples", calibration_samples, 1, 1_000_000)
    if calibration_steps is not None:
        inputs = inputs[:, : check_integer("calibration_steps", calibration_steps, 1, 10**9)]
    if saved is not None:
        check_calibration(saved, network, recipe)
        return _network(network, recipe, saved.memories, saved.calibration)
    largest = max(memory.size for memory in memories)
    rng = np.random.default_rng([seed, 0])
    return _build(network, recipe, _choose(inputs, samples, recipe.parts * largest, rng), progress)


def _neuron_model(kind: str, chip: AnalogProfile) -> NeuronModel:
    refractory_ms = chip.refractory.value * 1e3 if kind in ("lif", "dpi") else 0.0
    return NeuronModel(kind, chip.membrane_tau.value * 1e3, refractory_ms)


def _build(
    network: LMUNetwork, recipe: Recipe, inputs: np.ndarray, progress: Progress | None
) -> SpikingNetwork:
    """Lower each memory in turn, as parts of one piece of work."""
    memories: list[SpikingMemory | None] = []
    fits: list[Fit] = []
    reaching = memory_inputs(network, inputs)
    total = sum(u is not None for u in reaching)
    for layer, u in zip(network.layers, reaching, strict=True):
        if not isinstance(layer, LMULayer) or u is None:
            memories.append(None)
            continue
        part = _part(progress, len(fits), total)
        memory, fit = build_memory(recipe, layer.memory, u, len(fits), part)
        memories.append(memory)
        fits.append(fit)
    summary = Calibration(
        method=recipe.calibration,
        seed=recipe.seed,
        samples=len(inputs),
        ridge=max(fit.ridge for fit in fits),
        fit_error=max(fit.error for fit in fits),
    )
    return _network(network, recipe, tuple(memories), summary)


def _network(
    network: LMUNetwork,
    recipe: Recipe,
    memories: tuple[SpikingMemory | None, ...],
    calibration: Calibration,
) -> SpikingNetwork:
    return SpikingNetwork(
        memories=memories,
        host=network,
        neuron=recipe.model,
        device=recipe.device,
        calibration=calibration,
        dt_ms=recipe.dt_ms,
        tau_ms=recipe.tau_ms,
        hold_ms=recipe.hold_ms,
        synapse=recipe.synapse,
    )


def _choose(
    inputs: np.ndarray, most: int, elements_per_step: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw samples, and cut sequences, so that a calibration's trajectory fits in memory."""
    samples = min(len(inputs), most)
    steps = max(1, min(inputs.shape[1], _TRAJECTORY_ELEMENTS // (samples * elements_per_step)))
    chosen = np.sort(rng.permutation(len(inputs))[:samples])
    return inputs[chosen, :steps]


def _part(progress: Progress | None, number: int, total: int) -> Progress | None:
    if progress is None:
        return None
    return lambda done, steps: progress(number * steps + done, total * steps)
