"""Recipe of a spiking network on a virtual chip: options completed by a profile, and checks.

A calibration can be kept in a file, so that a chip is measured only once. It belongs to one network
on one chip; the file contains the recipe, which is compared before the calibration is used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from converters.options import SpikeOptions
from converters.spiking.device import NeuronDevice
from converters.spiking.populations import INTERCEPTS
from lmu_deploy.core import files
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import LATER, fingerprint
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.network import LMULayer, LMUNetwork, Memory
from lmu_deploy.core.spiking.chip import (
    Calibration,
    Device,
    DPISynapse,
    NeuronModel,
    Populations,
    check_multiple,
    check_rates,
)
from lmu_deploy.core.spiking.graph import (
    SPIKING_GRAPH_CLASSES,
    AnalogNetwork,
    Ensemble,
    SpikingGraph,
)
from lmu_deploy.core.spiking.network import (
    SPIKING_CLASSES,
    SpikingMemory,
    SpikingUnits,
    why_on_host,
)
from lmu_deploy.core.validation import check_integer, check_text
from lmu_deploy.hardware.profile import AnalogProfile

_LOG = logging.getLogger(f"lmu_deploy.{__name__}")

_LOWEST_SHARE = 0.5
"""Lower limit of maximum rates, as a fraction of the profile's maximum rate."""
READOUT_SHARE = 0.3
"""Time constant of the readout's synapses as a fraction of the presentation time: long enough to
average spikes, short enough to settle before the next input."""
_SYNAPSES = {"linear": None, "dpi": DPISynapse()}


@dataclass(frozen=True)
class Recipe:
    """Parameters of all spiking memories of a network.

    Attributes
    ----------
    model : NeuronModel
    device : Device
    dt_ms, tau_ms, presentation_ms : float
        Step of the simulation, time constant of the synapses, and presentation time,
        milliseconds.
    neurons_per_state : int
    maximum_rates : (float, float)
        Range from which the rate of a neuron at the end of its range is drawn, in hertz.
    calibration : {"dynamic", "static", "none"}
    seed : int
        Seed of tuning curves and calibration; that of the chip is in `device`.
    synapse : DPISynapse or None
        None for linear synapses, for which W is calibrated in both cases.
    neurons_per_unit : int
        Neurons of each hidden unit of the last layer; 0 if the units are on the host.
    readout_tau_ms : float
        Time constant of the synapses of the readout, in milliseconds.
    board : NeuronDevice, optional
        What is calibrated in place of a virtual chip.
    fan_in : int
        Largest number of synapses onto a neuron from other neurons; 0 for no limit.
    intercepts : (float, float)
    """

    model: NeuronModel
    device: Device
    dt_ms: float
    tau_ms: float
    presentation_ms: float
    neurons_per_state: int
    maximum_rates: tuple[float, float]
    calibration: str
    seed: int
    synapse: DPISynapse | None = None
    neurons_per_unit: int = 0
    readout_tau_ms: float = 0.0
    board: NeuronDevice | None = None
    fan_in: int = 0
    intercepts: tuple[float, float] = INTERCEPTS

    @property
    def parts(self) -> int:
        """Number of simulation steps of one presentation."""
        return round(self.presentation_ms / self.dt_ms)

    def on_chip(self, seed: int) -> Recipe:
        """Return the same recipe for another chip."""
        return replace(self, device=replace(self.device, seed=seed))

    def warn_of(self, dead: Sequence[str]) -> None:
        """Log a warning that names dead populations, if there are any."""
        if dead:
            _LOG.warning(
                "%s: no neuron of %s follows its drive; calibration works around it with the other "
                "populations. Compare the error of the states in a report, or use other neurons.",
                self.device.board or f"chip {self.device.seed}",
                ", ".join(dead),
            )

    def on_board(self, board: NeuronDevice) -> Recipe:
        """Return the same recipe for a device, whose mismatch is unknown."""
        device = replace(self.device, mismatch=0.0, tau_mismatch=0.0, board=board.name)
        return replace(self, device=device, board=board)


def make_recipe(chip: AnalogProfile, options: SpikeOptions) -> Recipe:
    """Complete the options with the figures of a profile.

    The recipe's chip has the seed of the options until :meth:`Recipe.on_chip` replaces it, and its
    hidden units are on the chip.

    Raises
    ------
    InputError
        If a time is not a multiple of the step, or a value is out of range.
    """
    dt_ms, presentation_ms = options.dt_ms, options.presentation_ms
    tau_ms = chip.synapse_tau.value * 1e3 if options.tau_ms is None else options.tau_ms
    readout_tau_ms = options.readout_tau_ms
    if readout_tau_ms is None:
        readout_tau_ms = max(round(min(tau_ms, READOUT_SHARE * presentation_ms) / dt_ms), 1) * dt_ms
    kind = options.neuron or chip.neuron.value
    refractory_ms = chip.refractory.value * 1e3 if kind in ("lif", "dpi") else 0.0
    model = NeuronModel(kind, chip.membrane_tau.value * 1e3, refractory_ms)
    highest, rates = chip.maximum_rate.value, options.maximum_rates
    if rates is None:
        rates = (_LOWEST_SHARE * highest, highest)
    recipe = Recipe(
        model=model,
        device=Device(
            profile=chip.name,
            seed=options.seed,
            mismatch=_first(options.mismatch, chip.mismatch.value),
            membrane_noise=_first(options.membrane_noise, chip.membrane_noise.value),
            weight_bits=int(_first(options.weight_bits, int(chip.weight_bits))),
            threshold_noise=options.threshold_noise,
            tau_mismatch=options.tau_mismatch,
        ),
        dt_ms=dt_ms,
        tau_ms=check_multiple("tau_ms", tau_ms, dt_ms),
        presentation_ms=check_multiple("presentation_ms", presentation_ms, dt_ms),
        neurons_per_state=options.neurons_per_state,
        maximum_rates=check_rates(rates, model),
        calibration=options.calibration,
        seed=options.seed,
        neurons_per_unit=options.neurons_per_unit,
        readout_tau_ms=check_multiple("readout_tau_ms", readout_tau_ms, dt_ms),
        synapse=_SYNAPSES[options.synapse or "linear"],
        fan_in=int(_first(options.fan_in, chip.fan_in.value)),
    )
    check_multiple("refractory_ms", recipe.model.refractory_ms, dt_ms, least=0)
    return recipe


def _first(value: float | None, of_profile: float) -> float:
    return of_profile if value is None else value


_TRAJECTORY_ELEMENTS = 50_000_000
"""Largest number of values (4 bytes each) in the trajectory of a calibration."""
_WHOLE_SAMPLES = 40
"""Samples that are rather shortened than left out where the trajectory does not fit."""


def draw_samples(inputs: np.ndarray, most: int, elements_per_step: int, seed: int) -> np.ndarray:
    """Return a random subset of samples whose trajectory fits in memory.

    Samples are left out before the others are shortened: a memory whose window is as long as a
    sample shows its whole range at the end.

    Parameters
    ----------
    inputs : ndarray, shape (samples, steps, n_in)
    most : int
        Largest number of samples.
    elements_per_step : int
        Number of values of the trajectory per sample and step.
    seed : int
    """
    rng = np.random.default_rng([seed, 0])
    room, samples = _TRAJECTORY_ELEMENTS // elements_per_step, min(len(inputs), most)
    samples = min(samples, max(room // inputs.shape[1], _WHOLE_SAMPLES))
    steps = max(1, min(inputs.shape[1], room // samples))
    chosen = np.sort(rng.permutation(len(inputs))[:samples])
    return np.asarray(inputs[chosen, :steps])


LARGEST_MAP = 12_000
_ORDER_SERVED = 8.0


def check_room(memories: list[Memory], neurons_per_state: int, chip: AnalogProfile) -> None:
    """Check that there are memories, and that the chip has enough neurons for them."""
    if not memories:
        raise InputError(
            "the network has no LMU layer, so it has no memory that can spike; use another one."
        )
    states = sum(memory.size for memory in memories)
    if (needed := states * neurons_per_state) > (room := int(chip.neurons)):
        advice = "train a network with fewer states"
        if room >= states:
            advice = f"use at most {room // states} neurons per state"
        raise InputError(
            f"{states} states of {neurons_per_state} neurons need {needed} neurons and profile "
            f"{chip.name} has {room}; {advice}."
        )


def fan_in_of(memories: list[Memory], recipe: Recipe, chip: AnalogProfile) -> int:
    """Return the largest number of synapses onto a neuron, by neuron and by chip; 0 for no limit.

    Where the chip has too few synapses for the whole map of every memory, each neuron gets an equal
    share of them.
    """
    needed = sum(m.size * m.order * recipe.neurons_per_state**2 for m in memories)
    if not (room := int(chip.synapses)) or needed <= room:
        return recipe.fan_in
    share = max(room // (sum(m.size for m in memories) * recipe.neurons_per_state), 1)
    return min(share, recipe.fan_in or share)


def check_window(memory: Memory, presentation_ms: float, tau_ms: float) -> None:
    """Check that the window is long enough for the synapse.

    To first order A' = tau A / theta + I, and A grows with the order, so that in a short window the
    weights amplify the noise of the spikes. With 50 LIF neurons per state and dynamic calibration,
    the measured error of the states (orders 2 to 12) exceeded half of their size at a theta of
    about tau * order / 8.
    """
    window = memory.theta * presentation_ms
    least = tau_ms * max(1.0, memory.order / _ORDER_SERVED)
    if window < least:
        raise InputError(
            f"a window of {memory.theta:g} steps of {presentation_ms:g} ms lasts {window:g} ms, "
            f"and for order {memory.order} a synapse of {tau_ms:g} ms needs {least:g} ms or more; "
            f"present each input for at least {least / memory.theta:.4g} ms or use a faster "
            "synapse."
        )


def check_map(memory: Memory, neurons_per_state: int, calibration: str) -> None:
    """Check that the regression of a dynamic calibration fits in memory."""
    features = memory.order * neurons_per_state
    if calibration == "dynamic" and features > LARGEST_MAP:
        raise InputError(
            f"dynamic calibration of order {memory.order} with {neurons_per_state} neurons per "
            f"state has {features} weights for each state, and {LARGEST_MAP} can be fitted; "
            f"use at most {max(LARGEST_MAP // memory.order, 1)} neurons per state, or static."
        )


def check_units(
    network: LMUNetwork, recipe: Recipe, wanted: str, chip: AnalogProfile
) -> str | None:
    """Return the reason why the last layer's units are on the host; None if they are on the chip.

    Raises
    ------
    InputError
        If `wanted` is "chip" and they cannot be on the chip.
    """
    if wanted == "host":
        return "the option units puts them there"
    reason = why_on_host(network)
    if reason is None:
        reason = _no_room(network, recipe, chip)
    if reason is not None and wanted == "chip":
        raise InputError(f"the hidden units cannot be on the chip: {reason}; use --units host.")
    return reason


def _no_room(network: LMUNetwork, recipe: Recipe, chip: AnalogProfile) -> str | None:
    if recipe.synapse is not None:
        return "the synapses are pairs of DPIs"
    if recipe.board is not None:
        return "of a device, only memories are calibrated"
    layers = [layer for layer in network.layers if isinstance(layer, LMULayer)]
    of_units = layers[-1].n_out * recipe.neurons_per_unit
    needed = sum(layer.memory.size for layer in layers) * recipe.neurons_per_state + of_units
    if needed > (room := int(chip.neurons)):
        return f"they need {needed} neurons in all and profile {chip.name} has {room}"
    reaching = layers[-1].memory.size * recipe.neurons_per_state
    if recipe.fan_in and reaching > recipe.fan_in:
        return (
            f"a neuron of a unit reads all {reaching} neurons of the memory and may have "
            f"{recipe.fan_in} synapses"
        )
    if recipe.calibration == "dynamic" and of_units > LARGEST_MAP:
        return f"their {of_units} neurons are more than the {LARGEST_MAP} that can be fitted"
    return None


@dataclass(frozen=True)
class SavedCalibration:
    """The calibration of one chip, and the settings it was measured with.

    Attributes
    ----------
    network : str
        Fingerprint of the float network; of a graph, of its form in which ensembles are nodes.
    neuron : NeuronModel
    device : Device
    dt_ms, tau_ms, presentation_ms : float
    neurons_per_state : int
    calibration : Calibration
    memories : tuple of SpikingMemory or None
        As :class:`lmu_deploy.core.spiking.network.SpikingNetwork` has them; empty for a graph.
    maximum_rates : (float, float), optional
        As :class:`lmu_deploy.core.spiking.network.SpikingNetwork` has them.
    units : SpikingUnits, optional
        As :class:`lmu_deploy.core.spiking.network.SpikingNetwork` has them.
    graph : SpikingGraph, optional
        What was calibrated, if it is no chain of layers.
    """

    network: str
    neuron: NeuronModel
    device: Device
    dt_ms: float
    tau_ms: float
    presentation_ms: float
    neurons_per_state: int
    calibration: Calibration
    memories: tuple[SpikingMemory | None, ...]
    maximum_rates: tuple[float, float] | None = field(default=None, metadata=LATER)
    units: SpikingUnits | None = field(default=None, metadata=LATER)
    graph: SpikingGraph | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        check_text("calibration network", self.network, 64)
        check_integer("calibration neurons_per_state", self.neurons_per_state, 1, 100_000)
        kinds = (NeuronModel, Device, Calibration)
        given = (self.neuron, self.device, self.calibration)
        if not all(isinstance(v, kind) for v, kind in zip(given, kinds, strict=True)):
            raise InputError("a saved calibration lacks its chip; create the file again.")

    @property
    def neurons_per_unit(self) -> int:
        """Number of neurons of each hidden unit; 0 if the units are on the host."""
        if self.graph is not None:
            return self.graph.neurons_per("units")
        return 0 if self.units is None else self.units.populations.neurons

    @property
    def readout_tau_ms(self) -> float | None:
        """Time constant of the readout's synapses, milliseconds; None if there are none."""
        if self.graph is not None:
            return self.graph.fast_tau_ms
        return None if self.units is None else self.units.tau_ms

    @property
    def fan_in(self) -> int:
        """Largest number of synapses onto a neuron of a memory, and in a graph onto any neuron."""
        parts = self.memories if self.graph is None else self.graph.ensembles
        return max((int(each.fan_in.max()) for each in parts if each is not None), default=0)


@dataclass(frozen=True)
class Calibrated:
    """An ensemble or probe with all that those behind it need of it.

    Attributes
    ----------
    ensemble : Ensemble
        An uncalibrated one is that of an ideal chip.
    own : Populations or None
        Those of the chip.
    pushes : mapping of ensemble to ndarray
        See :class:`converters.spiking.graph.partial.PartialChip`; empty except of a memory.
    states : mapping of memory to ndarray
        See :class:`converters.spiking.graph.partial.PartialChip`.
    fits : tuple of (float, float)
        Regularization and held-out error of every regression.
    dead : tuple of str
        Populations that do not follow their drive.
    """

    ensemble: Ensemble
    own: Populations | None
    pushes: Mapping[str, np.ndarray] = field(default_factory=dict)
    states: Mapping[str, np.ndarray] = field(default_factory=dict)
    fits: tuple[tuple[float, float], ...] = ()
    dead: tuple[str, ...] = ()


Keep = Callable[..., Calibrated]
"""Callable with a function that calibrates an ensemble, and with all that its result depends on; it
returns what the function returns, or what an earlier call with the same did."""


CALIBRATION_CLASSES: tuple[type, ...] = tuple(
    dict.fromkeys((SavedCalibration, Calibrated, *SPIKING_CLASSES, *SPIKING_GRAPH_CLASSES))
)


def keep_calibration(network: AnalogNetwork) -> SavedCalibration:
    """Return the calibration of a network on a chip."""
    kept: dict[str, Any]
    if isinstance(network, SpikingGraph):
        kept = {"memories": (), "graph": network}
        neurons = network.neurons_per("memory")
    else:
        kept = {"memories": network.memories, "units": network.units}
        memories = [memory for memory in network.memories if memory is not None]
        neurons = memories[0].populations.neurons
    return SavedCalibration(
        network=fingerprint(network.host),
        neuron=network.neuron,
        device=network.device,
        dt_ms=network.dt_ms,
        tau_ms=network.tau_ms,
        presentation_ms=network.presentation_ms,
        neurons_per_state=neurons,
        calibration=network.calibration,
        maximum_rates=network.maximum_rates,
        **kept,
    )


def load_calibration(path: Path | str) -> SavedCalibration:
    """Read a calibration that :func:`lmu_deploy.core.files.save` wrote.

    Raises
    ------
    InputError
        When there is no such file, or it contains something else.
    """
    found = files.load(path, CALIBRATION_CLASSES)
    if not isinstance(found, SavedCalibration):
        raise InputError(
            f"{path} contains a {type(found).__name__}, not a calibration; give a file that "
            "--save-calibration wrote."
        )
    return found


def check_calibration(
    saved: SavedCalibration, network: LMUNetwork | Network, recipe: Recipe
) -> None:
    """Raise InputError when a calibration does not match the network and the recipe.

    Raises
    ------
    InputError
        With the first setting that differs.
    """
    for name, theirs, ours in _compared(saved, network, recipe):
        if theirs != ours:
            raise InputError(
                f"the saved calibration is for {name} {theirs}, and {ours} is requested; request "
                f"{theirs}, or calibrate again."
            )


def _compared(
    saved: SavedCalibration, network: LMUNetwork | Network, recipe: Recipe
) -> Iterator[tuple[str, Any, Any]]:
    yield "profile", saved.device.profile, recipe.device.profile
    yield "device", saved.device.board or "none", recipe.device.board or "none"
    yield "chip seed", saved.device.seed, recipe.device.seed
    yield "network", saved.network[:12], fingerprint(network)[:12]
    for name in ("mismatch", "membrane_noise", "weight_bits", "threshold_noise", "tau_mismatch"):
        yield name, getattr(saved.device, name), getattr(recipe.device, name)
    yield "neuron model", saved.neuron.kind, recipe.model.kind
    yield "neuron parameters", saved.neuron, recipe.model
    for name in ("dt_ms", "tau_ms", "presentation_ms", "neurons_per_state"):
        yield name, getattr(saved, name), getattr(recipe, name)
    if saved.maximum_rates is not None:
        yield "maximum rates", saved.maximum_rates, recipe.maximum_rates
    if recipe.fan_in:
        yield "synapses of a neuron", saved.fan_in, min(saved.fan_in, recipe.fan_in)
    yield "neurons of a hidden unit", saved.neurons_per_unit, recipe.neurons_per_unit
    if saved.readout_tau_ms is not None:
        yield "readout_tau_ms", saved.readout_tau_ms, recipe.readout_tau_ms
    yield "method", saved.calibration.method, recipe.calibration
    yield "seed", saved.calibration.seed, recipe.seed
