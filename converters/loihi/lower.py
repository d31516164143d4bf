"""Convert a float network to calibrated LIF neurons in Loihi's fixed point.

Of a chain of layers the memories are on neurons (LoihiNetwork), of any other graph all ensembles
(LoihiGraph).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from converters.loihi.graph import INPUT_MARGIN, decay_of, graph_on_loihi
from converters.loihi.neurons import (
    LARGEST_ROUNDED,
    MESSAGE_ONE,
    FixedPointSimulator,
    draw_neurons,
    round_rows,
)
from converters.options import (
    CALIBRATION_SAMPLES,
    NEURONS_PER_STATE,
    NEURONS_PER_UNIT,
    PRESENTATION_MS,
    PopulationOptions,
    SpikeOptions,
)
from converters.spiking.build import memory_inputs
from converters.spiking.closed_loop import scale_memory
from converters.spiking.dynamic import dynamic
from converters.spiking.graph.plan import plan_graph, whole_plan
from converters.spiking.neurons import Fit, part
from converters.spiking.recipe import (
    check_map,
    check_window,
    draw_samples,
)
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.graph.transforms import as_layers
from lmu_deploy.core.network import LMULayer, LMUNetwork, Memory
from lmu_deploy.core.options import options_of
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.spiking.chip import Calibration, check_multiple
from lmu_deploy.core.spiking.graph import OnLoihi
from lmu_deploy.core.spiking.loihi import DECAY_ONE, MESSAGE_LIMIT, ONE, LoihiMemory, LoihiNetwork
from lmu_deploy.core.validation import check_inputs, check_number
from lmu_deploy.hardware.profile import (
    DigitalProfile,
    Figure,
    LifFigures,
    load_profile,
    profile_names,
)


def check_fit(
    memories: list[Memory],
    neurons_per_state: int,
    presentation_ms: float,
    tau_ms: float,
    chip: DigitalProfile,
) -> None:
    """Raise InputError for memories that do not fit this chip.

    Parameters
    ----------
    memories : list of Memory
    neurons_per_state : int
    presentation_ms, tau_ms : float
    chip : DigitalProfile

    Raises
    ------
    InputError
        When there is no memory, the chip has too few neurons, a window is too short for the
        relays, or a calibration would not fit in memory.
    """
    if not memories:
        raise InputError(
            "the network has no LMU layer, so it has no memory that can spike; use another one."
        )
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
        check_window(memory, presentation_ms, tau_ms)
        check_map(memory, neurons_per_state, "dynamic")


OF_GRAPHS = ("neurons_per_unit", "readout_tau_ms", "calibration_samples", "calibration_steps")
"""Options that only graphs of neurons have."""


@dataclass(frozen=True)
class Recipe:
    """Options that all memories of a network share.

    Attributes
    ----------
    figures : LifFigures
    dt_ms, presentation_ms : float
        Milliseconds.
    decay : int
        Decay of the relays, in 4096ths.
    neurons_per_state : int
    seed : int
        Seed of tuning curves and calibration.
    """

    figures: LifFigures
    dt_ms: float
    presentation_ms: float
    decay: int
    neurons_per_state: int
    seed: int

    @property
    def parts(self) -> int:
        """Chip steps of one presentation."""
        return round(self.presentation_ms / self.dt_ms)


def build_memory(
    recipe: Recipe, memory: Memory, u: np.ndarray, number: int, progress: Progress | None = None
) -> tuple[LoihiMemory, Fit]:
    """Lower and calibrate one memory.

    Parameters
    ----------
    recipe : Recipe
    memory : Memory
    u : ndarray, shape (samples, steps, channels)
        Inputs of the memory for its calibration.
    number : int
        Number of the memory in the network: each has its own neurons.
    progress : callable, optional
        Called with (calibration steps done, steps in total).

    Raises
    ------
    InputError
        When the memory cannot be divided into chip steps, or a value does not fit its width.
    """
    lost = recipe.decay / DECAY_ONE
    scaled = scale_memory(memory, u, recipe.parts, 1.0 - lost)
    drawn = np.random.default_rng([recipe.seed, number, 1])
    neurons = draw_neurons(
        recipe.figures, memory.size, recipe.neurons_per_state, recipe.dt_ms, drawn
    )
    simulator = FixedPointSimulator(neurons, memory.order, recipe.dt_ms, recipe.decay)
    measuring = np.random.default_rng([recipe.seed, number, 3])
    per_spike = lost / (recipe.dt_ms * 1e-3) * ONE
    largest = LARGEST_ROUNDED / per_spike
    found = dynamic(
        simulator, scaled.targets, scaled.trajectory, measuring, progress, largest=largest
    )
    decoders = round_rows(found.weights.reshape(memory.size, -1) * per_spike)
    input_scale = np.maximum(np.abs(u).max(axis=(0, 1)) * INPUT_MARGIN, 1e-9) / MESSAGE_LIMIT
    per_message = lost * ONE * scaled.b_prime / scaled.scales * input_scale[:, None]
    inputs = round_rows(per_message.reshape(memory.size, 1))
    return LoihiMemory(
        neurons=neurons,
        decoders=decoders.weights.reshape(memory.channels, memory.order, -1),
        decoder_multiplier=decoders.multiplier,
        decoder_shift=decoders.shift,
        input_weights=inputs.weights[:, 0],
        input_multiplier=inputs.multiplier,
        input_shift=inputs.shift,
        decay=recipe.decay,
        message_shift=round(np.log2(ONE / MESSAGE_ONE)),
        scales=scaled.scales,
        input_scale=input_scale,
    ), found


def loihi_spike(
    network: Network | LMUNetwork,
    calibration_inputs: np.ndarray,
    profile: str | DigitalProfile = "loihi1",
    *,
    neurons_per_state: int = NEURONS_PER_STATE,
    presentation_ms: float = PRESENTATION_MS,
    tau_ms: float | None = None,
    maximum_rates: tuple[float, float] | None = None,
    seed: int = 0,
    units: str = "auto",
    neurons_per_unit: int = NEURONS_PER_UNIT,
    readout_tau_ms: float | None = None,
    calibration_samples: int = CALIBRATION_SAMPLES,
    calibration_steps: int | None = None,
    progress: Progress | None = None,
) -> OnLoihi:
    """Map a network onto a chip's LIF neurons, and calibrate their decoders.

    Of a chain of layers the memories are on neurons. Any other graph, and with ``units="chip"`` a
    chain, becomes a LoihiGraph, whose memories and activations are all on neurons.

    States are scaled by their 99.9 % range over the calibration inputs, and their dynamics are
    implemented by the discrete Principle 3 (:mod:`converters.spiking.closed_loop`). The decoders
    are the ridge regression from the spikes of the bit-exact simulator behind the relays, with its
    states forced along trajectories of the calibration inputs.

    Parameters
    ----------
    network : Network or LMUNetwork
        Of a chain, encoders, hidden units, LSTM layers and readout stay on the host.
    calibration_inputs : ndarray, shape (samples, steps, n_in)
        Training data, never test data. At most 200 samples are used, drawn at random with `seed`,
        and the beginning of long sequences.
    profile : str or DigitalProfile
        Digital chip with LIF neurons: the name of a profile, or a profile of your own.
    neurons_per_state : int
        Neurons of each population; there is one population for each state.
    presentation_ms : float
        Presentation time of one input, milliseconds; the window lasts theta times as long.
    tau_ms : float, optional
        Time constant of the relays, milliseconds; the profile's if absent. It is rounded to a
        decay of 12 bits.
    maximum_rates : (float, float), optional
        Range of the neurons' maximum rates, hertz, from which each is drawn uniformly; the
        profile's if absent.
    seed : int
        Of the tuning curves and of the calibration.
    units : {"auto", "chip", "host"}
        "chip" makes a graph of a chain too; "host" leaves the activations of a graph there.
    neurons_per_unit : int
        Of a graph: neurons of each unit of an activation.
    readout_tau_ms : float, optional
        Of a graph: time constant of fast synapses, milliseconds; 0.3 of the presentation time if
        absent, rounded likewise.
    calibration_samples, calibration_steps : int
        Of a graph: number of calibration inputs, and of the steps of each that are used.
    progress : callable, optional
        Called with (calibration steps done, steps in total).

    Returns
    -------
    LoihiNetwork or LoihiGraph

    Raises
    ------
    InputError
        When a time is not a whole multiple of the step, the window is too short for the relays,
        the chip has too few neurons, or a value is out of range.
    """
    options = SpikeOptions(
        neurons_per_state=neurons_per_state,
        presentation_ms=presentation_ms,
        tau_ms=tau_ms,
        maximum_rates=maximum_rates,
        seed=seed,
        units=units,
        neurons_per_unit=neurons_per_unit,
        readout_tau_ms=readout_tau_ms,
        calibration_samples=calibration_samples,
        calibration_steps=calibration_steps,
    )
    return loihi_spike_with(network, calibration_inputs, profile, options, progress)


def loihi_spike_with(
    network: Network | LMUNetwork,
    calibration_inputs: np.ndarray,
    profile: str | DigitalProfile,
    options: PopulationOptions,
    progress: Progress | None = None,
) -> OnLoihi:
    """Lower a network with options in one object; see :func:`loihi_spike`.

    Raises
    ------
    InputError
        Also when an option of analog chips was changed, or one of graphs for a chain of layers.
    """
    chip, figures = lif_chip(profile)
    if options.maximum_rates is not None:
        figures = _with_rates(figures, *options.maximum_rates)
    common = {name: getattr(options, name) for name in options_of(PopulationOptions)}
    whole = options if isinstance(options, SpikeOptions) else SpikeOptions(**common)
    plan = None
    if isinstance(network, Network):
        plan = plan_graph(network) if whole.units == "chip" else whole_plan(network, whole)
    allowed = {*common, "units", *(() if plan is None else OF_GRAPHS)}
    if wrong := sorted({*whole.changed()} - allowed):
        where = ", and for a chain of layers" if wrong[0] in OF_GRAPHS else ", for which"
        raise InputError(
            f"profile {chip.name} is a digital chip{where} {wrong[0]} has no meaning; leave it "
            f"out, or choose an analog profile (it takes {', '.join(sorted(allowed))})."
        )
    if plan is not None:
        return graph_on_loihi(plan, calibration_inputs, chip, figures, whole, progress)
    network = as_layers(network, "spike")
    inputs = check_inputs(calibration_inputs, network.n_in)
    seed, neurons_per_state = options.seed, options.neurons_per_state
    dt_ms = figures.step.value * 1e3
    tau_ms = figures.synapse_tau.value * 1e3 if options.tau_ms is None else options.tau_ms
    tau_ms = check_multiple("tau_ms", tau_ms, dt_ms)
    recipe = Recipe(
        figures=figures,
        dt_ms=dt_ms,
        presentation_ms=check_multiple("presentation_ms", options.presentation_ms, dt_ms),
        decay=decay_of(tau_ms, dt_ms),
        neurons_per_state=neurons_per_state,
        seed=seed,
    )
    memories = [layer.memory for layer in network.layers if isinstance(layer, LMULayer)]
    check_fit(memories, neurons_per_state, recipe.presentation_ms, tau_ms, chip)
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
        presentation_ms=recipe.presentation_ms,
    )


def lif_chip(profile: str | DigitalProfile) -> tuple[DigitalProfile, LifFigures]:
    """Return a digital chip and the figures of its LIF neurons.

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
    """Return the same neurons with other maximum rates."""
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
    """Lower each memory in turn."""
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
