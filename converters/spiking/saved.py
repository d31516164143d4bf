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
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.network import LMUNetwork
from lmu_deploy.core.spiking.chip import Calibration, Device, NeuronModel
from lmu_deploy.core.spiking.graph import SPIKING_GRAPH_CLASSES, AnalogNetwork, SpikingGraph
from lmu_deploy.core.spiking.network import SPIKING_CLASSES, SpikingMemory
from lmu_deploy.core.spiking.units import SpikingUnits
from lmu_deploy.core.validation import check_integer, check_text


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


CALIBRATION_CLASSES: tuple[type, ...] = tuple(
    dict.fromkeys((SavedCalibration, *SPIKING_CLASSES, *SPIKING_GRAPH_CLASSES))
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
