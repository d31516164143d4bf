"""Calibrations in files, so that one virtual chip is measured only once.

A calibration belongs to one network on one chip. The file contains the settings that it was
measured with, and they are compared before it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from converters.spiking.recipe import Recipe
from lmu_deploy.core import files
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import LATER, fingerprint
from lmu_deploy.core.network import LMUNetwork
from lmu_deploy.core.spiking.chip import Calibration, Device, NeuronModel
from lmu_deploy.core.spiking.network import SPIKING_CLASSES, SpikingMemory, SpikingNetwork
from lmu_deploy.core.spiking.units import SpikingUnits
from lmu_deploy.core.validation import check_integer, check_text


@dataclass(frozen=True)
class SavedCalibration:
    """The calibration of one chip, and the settings it was measured with.

    Attributes
    ----------
    network : str
        Fingerprint of the float network.
    neuron : NeuronModel
    device : Device
    dt_ms, tau_ms, presentation_ms : float
    neurons_per_state : int
    calibration : Calibration
    memories : tuple of SpikingMemory or None
        As :class:`lmu_deploy.core.spiking.network.SpikingNetwork` has them.
    maximum_rates : (float, float), optional
        As :class:`lmu_deploy.core.spiking.network.SpikingNetwork` has them.
    units : SpikingUnits, optional
        As :class:`lmu_deploy.core.spiking.network.SpikingNetwork` has them.
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

    def __post_init__(self) -> None:
        check_text("calibration network", self.network, 64)
        check_integer("calibration neurons_per_state", self.neurons_per_state, 1, 100_000)
        kinds = (NeuronModel, Device, Calibration)
        given = (self.neuron, self.device, self.calibration)
        if not all(isinstance(v, kind) for v, kind in zip(given, kinds, strict=True)):
            raise InputError("a saved calibration lacks its chip; create the file again.")


CALIBRATION_CLASSES: tuple[type, ...] = (SavedCalibration, *SPIKING_CLASSES)


def keep_calibration(network: SpikingNetwork) -> SavedCalibration:
    """Return the calibration of a spiking network."""
    memories = [memory for memory in network.memories if memory is not None]
    return SavedCalibration(
        network=fingerprint(network.host),
        neuron=network.neuron,
        device=network.device,
        dt_ms=network.dt_ms,
        tau_ms=network.tau_ms,
        presentation_ms=network.presentation_ms,
        neurons_per_state=memories[0].populations.neurons,
        calibration=network.calibration,
        memories=network.memories,
        maximum_rates=network.maximum_rates,
        units=network.units,
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


def check_calibration(saved: SavedCalibration, network: LMUNetwork, recipe: Recipe) -> None:
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
    saved: SavedCalibration, network: LMUNetwork, recipe: Recipe
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
        of_memories = [memory for memory in saved.memories if memory is not None]
        most = max((int(memory.fan_in.max()) for memory in of_memories), default=0)
        yield "synapses of a neuron", most, min(most, recipe.fan_in)
    units = saved.units
    on_chip = 0 if units is None else units.populations.neurons
    yield "neurons of a hidden unit", on_chip, recipe.neurons_per_unit
    if units is not None:
        yield "readout_tau_ms", units.tau_ms, recipe.readout_tau_ms
    yield "method", saved.calibration.method, recipe.calibration
    yield "seed", saved.calibration.seed, recipe.seed
