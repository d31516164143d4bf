"""Lifetime of whole graphs of neurons: their ensembles age, and are calibrated block by block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from converters.options import SpikeOptions
from converters.spiking import spike_with
from converters.spiking.graph.build import graphs_on_chips
from converters.spiking.graph.plan import whole_plan
from converters.spiking.populations import ChipLife
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.graph.transforms import as_layers
from lmu_deploy.core.network import LMUNetwork
from lmu_deploy.core.spiking.graph import SpikingGraph
from lmu_deploy.fidelity.attribution.chips import VirtualChip
from lmu_deploy.studies.lifetime import LifetimeStudy
from targets.base import Run
from targets.spiking import SpikingTarget

_LIFE = 10
"""Stream of random numbers, as for chains of layers."""


def study_of(
    network: Network, options: SpikeOptions
) -> tuple[type[LifetimeStudy], Network | LMUNetwork, SpikeOptions]:
    """Return the study of a network, the form that it takes, and its options.

    Raises
    ------
    InputError
        When the hidden units of a chain of layers are to be on the chip.
    """
    if whole_plan(network, options) is not None:
        return GraphLifetimeStudy, network, options
    if options.units == "chip":
        raise InputError("a lifetime study has hidden units on the host; leave out units.")
    return LifetimeStudy, as_layers(network, "yield"), options.replace(units="host")


class GraphLifetimeStudy(LifetimeStudy):
    """A :class:`LifetimeStudy` of a network that becomes a graph on each chip.

    Raises
    ------
    InputError
        When the schedule calibrates the readout alone: it is on neurons.
    """

    def prepare(self) -> None:
        """Check the schedule."""
        if self.schedule.method != "full":
            raise InputError(
                "the readout of a graph is on neurons, so it cannot be calibrated alone; use "
                "--recalibration full."
            )

    def float_outputs(self, inputs: np.ndarray) -> np.ndarray:
        """Return the outputs of the float network."""
        return run(self.network, inputs)

    def new_chips(self, seeds: Sequence[int]) -> list[SpikingGraph]:
        """Return chips as they are calibrated when new."""
        return graphs_on_chips(self.network, self.known, self.profile, seeds, self.options)

    def lives(self, chip: SpikingGraph) -> list[ChipLife | None]:
        """Return the life of each ensemble of a chip."""
        return [
            None
            if each.populations is None
            else ChipLife(each.populations, self.drift, [chip.device.seed, number, _LIFE])
            for number, each in enumerate(chip.ensembles)
        ]

    def aged(
        self, network: SpikingGraph, lives: list[ChipLife | None], day: int, warmth: float
    ) -> SpikingGraph:
        """Return a graph on its chip at an age and a temperature, its weights unchanged."""
        ensembles = tuple(
            each if life is None else replace(each, populations=life.at(day, warmth))
            for each, life in zip(network.ensembles, lives, strict=True)
        )
        return replace(network, ensembles=ensembles)

    def calibrated_again(self, chip: SpikingGraph) -> SpikingGraph:
        """Return a chip as it is now, with a full calibration."""
        options = self.options.replace(chip_seed=chip.device.seed)
        made: Any = spike_with(
            self.network, self.known, self.profile, options, device=VirtualChip(chip)
        )
        ensembles = tuple(
            replace(each, populations=chip[each.name].populations) for each in made.ensembles
        )
        return replace(made, ensembles=ensembles, device=chip.device)

    def run_chips(
        self, chips: Sequence[SpikingGraph], inputs: np.ndarray, record: bool = False
    ) -> list[Run]:
        """Run chips, one after the other."""
        seed = self.options.seed
        return [SpikingTarget().run(each, inputs, record=record, seed=seed) for each in chips]
