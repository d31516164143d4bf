"""Convert an LMUNetwork into a SpikingNetwork on populations of a virtual chip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from converters.options import (
    CALIBRATION_SAMPLES,
    DT_MS,
    NEURONS_PER_STATE,
    NEURONS_PER_UNIT,
    PRESENTATION_MS,
    SpikeOptions,
)
from converters.spiking.build import LastLayer, build_memory, last_layer_inputs, memory_inputs
from converters.spiking.device import GROUP, VIRTUAL, NeuronDevice, RecordedDevice
from converters.spiking.graph.build import build_graphs
from converters.spiking.graph.plan import plan_graph, recipe_of_graph, whole_plan
from converters.spiking.neurons import Fit, VirtualDevice, part
from converters.spiking.recipe import (
    Keep,
    Recipe,
    SavedCalibration,
    check_calibration,
    check_map,
    check_room,
    check_units,
    check_window,
    draw_samples,
    fan_in_of,
    make_recipe,
)
from converters.spiking.units import build_units
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.graph.transforms import as_layers
from lmu_deploy.core.integer.parts import Place
from lmu_deploy.core.network import LMULayer, LMUNetwork, default_names
from lmu_deploy.core.plugins import make_plugin, plugin_names
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.spiking.chip import Calibration
from lmu_deploy.core.spiking.graph import AnalogNetwork, SpikingGraph
from lmu_deploy.core.spiking.network import SpikingMemory, SpikingNetwork, SpikingUnits
from lmu_deploy.core.validation import check_inputs
from lmu_deploy.hardware.profile import AnalogProfile, load_profile

DeviceLike = NeuronDevice | str | Path


def build_networks(
    network: LMUNetwork,
    recipes: Sequence[Recipe],
    inputs: np.ndarray,
    progress: Progress | None,
) -> list[SpikingNetwork]:
    """Lower each memory, and then the units of the last layer, on every chip.

    Parameters
    ----------
    network : LMUNetwork
    recipes : sequence of Recipe
        One for each chip; only the seeds of their devices differ.
    inputs : ndarray, shape (samples, steps, n_in)
        To calibrate on.
    progress : callable, optional
        Called with (calibration steps done, steps in total).
    """
    memories: list[list[SpikingMemory | None]] = [[] for _ in recipes]
    fits: list[list[Fit]] = [[] for _ in recipes]
    dead: list[list[str]] = [[] for _ in recipes]
    units: list[SpikingUnits | None] = [None for _ in recipes]
    reaching = memory_inputs(network, inputs)
    on_chip = recipes[0].neurons_per_unit > 0
    total, number = sum(u is not None for u in reaching) + on_chip, 0
    names, numbered = network.node_names, default_names(len(network.layers))
    for index, (layer, u) in enumerate(zip(network.layers, reaching, strict=True)):
        if not isinstance(layer, LMULayer) or u is None:
            for of_chip in memories:
                of_chip.append(None)
            continue
        place, position = (str(Place(each[index], "memory")) for each in (names, numbered))
        shown = part(progress, number, total)
        built = build_memory(recipes, layer.memory, u, number, place, shown, position=position)
        for chip, memory in enumerate(built.memories()):
            memories[chip].append(memory)
            fits[chip].append(built.fits[chip])
            dead[chip] += built.dead[chip]
        number += 1
        if on_chip and layer is network.layers[-1]:
            last = LastLayer(
                layer,
                network.readout,
                built.scaled,
                last_layer_inputs(network, inputs),
                recipes[0].parts,
            )
            shown = part(progress, number, total)
            units = list(build_units(recipes, last, built, number - 1, shown))
    made = []
    for chip, recipe in enumerate(recipes):
        summary = _summary(recipe, len(inputs), fits[chip], dead[chip])
        made.append(assemble(network, recipe, tuple(memories[chip]), summary, units[chip]))
    return made


def _summary(recipe: Recipe, samples: int, fits: Sequence[Fit], dead: Sequence[str]) -> Calibration:
    recipe.warn_of(dead)
    return Calibration(
        method=recipe.calibration,
        seed=recipe.seed,
        samples=samples,
        ridge=max(fit.ridge for fit in fits),
        fit_error=max(fit.error for fit in fits),
        dead=tuple(dead),
    )


def assemble(
    network: LMUNetwork,
    recipe: Recipe,
    memories: tuple[SpikingMemory | None, ...],
    calibration: Calibration,
    units: SpikingUnits | None,
) -> SpikingNetwork:
    """Build the SpikingNetwork of one chip from its parts and the common recipe."""
    return SpikingNetwork(
        memories=memories,
        host=network,
        neuron=recipe.model,
        device=recipe.device,
        calibration=calibration,
        dt_ms=recipe.dt_ms,
        tau_ms=recipe.tau_ms,
        presentation_ms=recipe.presentation_ms,
        synapse=recipe.synapse,
        maximum_rates=recipe.maximum_rates,
        units=units,
    )


def spike(
    network: Network | LMUNetwork,
    calibration_inputs: np.ndarray,
    profile: str | AnalogProfile = "generic-analog",
    *,
    neurons_per_state: int = NEURONS_PER_STATE,
    presentation_ms: float = PRESENTATION_MS,
    tau_ms: float | None = None,
    dt_ms: float = DT_MS,
    neuron: str | None = None,
    synapse: str | None = None,
    mismatch: float | None = None,
    membrane_noise: float | None = None,
    weight_bits: int | None = None,
    fan_in: int | None = None,
    threshold_noise: float = 0.0,
    tau_mismatch: float = 0.0,
    maximum_rates: tuple[float, float] | None = None,
    calibration: str = "dynamic",
    units: str = "auto",
    neurons_per_unit: int = NEURONS_PER_UNIT,
    readout_tau_ms: float | None = None,
    calibration_samples: int = CALIBRATION_SAMPLES,
    calibration_steps: int | None = None,
    saved: SavedCalibration | None = None,
    seed: int = 0,
    chip_seed: int | None = None,
    device: DeviceLike | None = None,
    progress: Progress | None = None,
) -> AnalogNetwork:
    """Map the memories of `network` onto spiking neurons of one virtual chip, and calibrate them.

    States are scaled by their 99.9 % range over the calibration inputs, and their dynamics are
    implemented by the discrete Principle 3; see :mod:`converters.spiking.closed_loop`,
    :mod:`converters.spiking.calibration` and :mod:`converters.spiking.dynamic`.

    Parameters
    ----------
    network : Network or LMUNetwork
        Of a chain of layers, encoders and LSTM layers stay on the host, and so do hidden units and
        readout, except those of a last layer with feed-forward units: see `units`. Any other graph
        becomes a SpikingGraph (:mod:`converters.spiking.graph`).
    calibration_inputs : ndarray, shape (samples, steps, n_in)
        Training data, never test data. At most `calibration_samples` are used, drawn at random
        with `seed`, and of each the first `calibration_steps`. By default samples are whole if 40
        of them fit in memory, and as many are used as do; else they are shortened.
    profile : str or AnalogProfile
        Analog chip: the name of a profile, or a profile of your own.
    neurons_per_state : int
        Neurons of each population; there is one population for each state.
    presentation_ms : float
        Presentation time of one input, milliseconds; the window lasts theta times as long.
    tau_ms : float, optional
        Time constant of the synapses, milliseconds; the profile's if absent.
    dt_ms : float
        Step of the simulation, milliseconds.
    neuron : {"lif", "dpi", "if", "poisson"}, optional
        See :class:`lmu_deploy.core.spiking.chip.NeuronModel`; the profile's if absent.
    synapse : {"linear", "dpi"}, optional
        See :class:`lmu_deploy.core.spiking.chip.DPISynapse`; linear if absent.
    mismatch, membrane_noise, weight_bits : float, float, int, optional
        See :class:`lmu_deploy.core.spiking.chip.Device`; the profile's if absent.
    fan_in : int, optional
        Largest number of synapses onto a neuron from other neurons, 0 for no limit; the profile's
        if absent. Where a map has more, the sparsest map within the limit is fitted.
    threshold_noise, tau_mismatch : float
        See :class:`lmu_deploy.core.spiking.chip.Device`; no profile has a figure for them.
    maximum_rates : (float, float), optional
        Range of the neurons' maximum rates, hertz, from which each is drawn uniformly; from half
        the profile's maximum rate up to that rate if absent.
    calibration : {"dynamic", "static", "none"}
        "none" uses the decoders of an ideal chip on this chip.
    units : {"auto", "chip", "host"}
        Where the last layer's hidden units and the readout run: "auto" puts them on neurons where
        that is possible and the chip has room (:mod:`lmu_deploy.core.spiking.network`). With
        "chip", feed-forward layers one behind the other become a SpikingGraph, all on neurons.
    neurons_per_unit : int
        Neurons of each hidden unit on the chip.
    readout_tau_ms : float, optional
        Time constant of the readout's synapses, milliseconds; 0.3 of the presentation time if
        absent.
    calibration_samples : int
    calibration_steps : int, optional
    saved : SavedCalibration, optional
        Used instead of a new calibration; it must be of this network, chip and options.
    seed : int
        Of the tuning curves and of the calibration.
    chip_seed : int, optional
        Seed of the chip's mismatch; `seed` if absent.
    device : NeuronDevice, str or path, optional
        A device to calibrate in place of a virtual chip: an object, the name of a plug-in, or an
        ``.npz`` file of a session (:mod:`converters.spiking.device`).
    progress : callable, optional
        Called with (calibration steps done, steps in total).

    Returns
    -------
    SpikingNetwork or SpikingGraph

    Raises
    ------
    InputError
        When a time is not a whole multiple of the step, the window is too short for the synapse,
        the chip has too few neurons, `saved` does not match, or a value is out of range.
    """
    options = SpikeOptions(
        neurons_per_state=neurons_per_state,
        presentation_ms=presentation_ms,
        tau_ms=tau_ms,
        dt_ms=dt_ms,
        neuron=neuron,
        synapse=synapse,
        mismatch=mismatch,
        membrane_noise=membrane_noise,
        weight_bits=weight_bits,
        fan_in=fan_in,
        threshold_noise=threshold_noise,
        tau_mismatch=tau_mismatch,
        maximum_rates=maximum_rates,
        calibration=calibration,
        units=units,
        neurons_per_unit=neurons_per_unit,
        readout_tau_ms=readout_tau_ms,
        calibration_samples=calibration_samples,
        calibration_steps=calibration_steps,
        seed=seed,
        chip_seed=chip_seed,
    )
    return spike_with(network, calibration_inputs, profile, options, saved, progress, device)


def spike_with(
    network: Network | LMUNetwork,
    calibration_inputs: np.ndarray,
    profile: str | AnalogProfile,
    options: SpikeOptions,
    saved: SavedCalibration | None = None,
    progress: Progress | None = None,
    device: DeviceLike | None = None,
    keep: Keep | None = None,
) -> AnalogNetwork:
    """Lower a network with options in one object; see :func:`spike`.

    `keep` keeps the calibrated ensembles of a graph, so that a calibration that was stopped goes
    on.
    """
    own_seed = options.seed if options.chip_seed is None else options.chip_seed
    if isinstance(network, Network) and (plan := whole_plan(network, options)) is not None:
        recipe = recipe_of_graph(plan, profile, options).on_chip(own_seed)
        if device is not None:
            recipe = recipe.on_board(_opened(device, recipe, options))
        if saved is None:
            # Threads of products that are this small cost more than they gain.
            with threadpool_limits(1, "blas"):
                return build_graphs(plan, calibration_inputs, [recipe], options, progress, keep)[0]
        check_calibration(saved, plan.host, recipe)
        assert saved.graph is not None  # of a network of the same fingerprint
        return replace(saved.graph, host=plan.host)
    network = as_layers(network, "spike")
    inputs = check_inputs(calibration_inputs, network.n_in)
    if saved is None:
        return spike_chips(
            network, inputs, profile, [own_seed], options, progress=progress, device=device
        )[0]
    recipe = _recipe(network, profile, options, device).on_chip(own_seed)
    check_calibration(saved, network, recipe)
    return assemble(network, recipe, saved.memories, saved.calibration, saved.units)


def spike_again(
    graph: SpikingGraph,
    calibration_inputs: np.ndarray,
    *,
    seed: int,
    chip_seed: int,
    calibration_samples: int,
    progress: Progress | None = None,
    keep: Keep | None = None,
) -> SpikingGraph:
    """Convert the float network of a graph of neurons again, with the settings in its file.

    With its own seeds and inputs the result is the graph as :func:`spike` made it, unless this was
    with `fan_in` or `calibration_steps`, which the file does not hold.

    Parameters
    ----------
    graph : SpikingGraph
    calibration_inputs, seed, chip_seed, calibration_samples, progress
        As for :func:`spike`.
    keep : callable, optional
        As for :func:`spike_with`.

    Raises
    ------
    InputError
        As :func:`spike`, for example because the profile no longer exists.
    """
    device, units = graph.device, graph.neurons_per("units")
    options = SpikeOptions(
        neurons_per_state=graph.neurons_per("memory"),
        presentation_ms=graph.presentation_ms,
        tau_ms=graph.tau_ms,
        dt_ms=graph.dt_ms,
        neuron=graph.neuron.kind,
        mismatch=device.mismatch,
        membrane_noise=device.membrane_noise,
        weight_bits=device.weight_bits,
        threshold_noise=device.threshold_noise,
        tau_mismatch=device.tau_mismatch,
        maximum_rates=graph.maximum_rates,
        calibration=graph.calibration.method,
        neurons_per_unit=units or NEURONS_PER_UNIT,
        readout_tau_ms=graph.fast_tau_ms,
        calibration_samples=calibration_samples,
        seed=seed,
    )
    plan = plan_graph(graph.host, units > 0)
    recipe = recipe_of_graph(plan, device.profile, options).on_chip(chip_seed)
    with threadpool_limits(1, "blas"):
        (made,) = build_graphs(plan, calibration_inputs, [recipe], options, progress, keep)
    hidden = {each.name for each in graph.ensembles if each.hidden}
    ensembles = (replace(each, hidden=each.name in hidden) for each in made.ensembles)
    return replace(made, ensembles=tuple(ensembles), host=graph.host)


def spike_chips(
    network: Network | LMUNetwork,
    calibration_inputs: np.ndarray,
    profile: str | AnalogProfile,
    chip_seeds: Sequence[int],
    options: SpikeOptions | None = None,
    *,
    progress: Progress | None = None,
    device: DeviceLike | None = None,
) -> list[SpikingNetwork]:
    """Map one network onto several virtual chips of a profile, each as :func:`spike` does.

    What does not depend on the chip is computed once, and small chips are measured together.

    Parameters
    ----------
    network, calibration_inputs, profile
        As for :func:`spike`.
    chip_seeds : sequence of int
        One for each chip.
    options : SpikeOptions, optional
        Its `chip_seed` has no effect. By default every option has its default.
    progress : callable, optional
        Called with (calibration steps done, steps in total).
    device : NeuronDevice, str or path, optional
        As for :func:`spike`; there is one chip then.

    Returns
    -------
    list of SpikingNetwork

    Raises
    ------
    InputError
        As :func:`spike`, and when `chip_seeds` is empty.
    """
    network = as_layers(network, "spike")
    options = options or SpikeOptions()
    inputs = check_inputs(calibration_inputs, network.n_in)
    if not chip_seeds:
        raise InputError("there is no chip to put the network on; give at least one seed.")
    recipe = _recipe(network, profile, options, device)
    if options.calibration_steps is not None:
        inputs = inputs[:, : options.calibration_steps]
    largest = max(memory.size for memory in _memories(network))
    samples = options.calibration_samples
    chosen = draw_samples(inputs, samples, recipe.parts * largest, recipe.seed)
    return build_networks(network, [recipe.on_chip(seed) for seed in chip_seeds], chosen, progress)


def _memories(network: LMUNetwork) -> list[Any]:
    return [layer.memory for layer in network.layers if isinstance(layer, LMULayer)]


def _recipe(
    network: LMUNetwork,
    profile: str | AnalogProfile,
    options: SpikeOptions,
    device: DeviceLike | None = None,
) -> Recipe:
    """Check the options against the profile and the network."""
    chip = load_profile(profile, "analog")
    assert isinstance(chip, AnalogProfile)
    recipe, memories = make_recipe(chip, options), _memories(network)
    if device is not None:
        recipe = recipe.on_board(_opened(device, recipe, options))
    check_room(memories, recipe.neurons_per_state, chip)
    if options.fan_in is None:
        recipe = replace(recipe, fan_in=fan_in_of(memories, recipe, chip))
    for memory in memories:
        check_window(memory, recipe.presentation_ms, recipe.tau_ms)
        check_map(memory, recipe.neurons_per_state, recipe.calibration)
    if check_units(network, recipe, options.units, chip) is not None:
        recipe = replace(recipe, neurons_per_unit=0)
    return recipe


def device_for(
    device: DeviceLike | None, profile: str | AnalogProfile, options: SpikeOptions
) -> NeuronDevice | None:
    """Open a device; the virtual one has the imperfections of the profile and the options.

    Raises
    ------
    InputError
        When there is no such device or file, or the file is wrong.
    """
    if device is None:
        return None
    chip = load_profile(profile, "analog")
    assert isinstance(chip, AnalogProfile)
    return _opened(device, make_recipe(chip, options), options)


def _opened(device: DeviceLike, recipe: Recipe, options: SpikeOptions) -> NeuronDevice:
    if isinstance(device, NeuronDevice):
        return device
    if str(device) == VIRTUAL:
        own_seed = options.seed if options.chip_seed is None else options.chip_seed
        return VirtualDevice(recipe.device, own_seed)
    return open_device(device)


def open_device(name: str | Path) -> NeuronDevice:
    """Return the device of a session file (``.npz``), or of a plug-in.

    Raises
    ------
    InputError
        When no file or plug-in has that name (the message lists the plug-ins), or the plug-in is
        no NeuronDevice.
    """
    if str(name).endswith(".npz"):
        return RecordedDevice.load(name)
    names = [VIRTUAL, *plugin_names(GROUP)]
    if str(name) not in names:
        raise InputError(
            f"unknown device {str(name)!r}; choose one of {', '.join(names)}, or a session file "
            "that ends in .npz."
        )
    device = make_plugin(GROUP, str(name), "device")
    if not isinstance(device, NeuronDevice):
        raise InputError(
            f"device {name} is a {type(device).__name__}, not a NeuronDevice; update the package "
            "that registers it."
        )
    return device
