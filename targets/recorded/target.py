"""Target `recorded`: a recording as the run of a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.spiking.graph import LoihiGraph, SpikingGraph
from lmu_deploy.core.spiking.loihi import LoihiNetwork
from lmu_deploy.core.spiking.network import SpikingNetwork
from targets.base import InOnePart, Run, checked_inputs
from targets.recorded import integer, layout, neurons
from targets.recorded.file import Recording


class RecordedTarget(InOnePart):
    """Return a recording as the run of a network.

    Parameters
    ----------
    recording : Recording, path or str
        A path may have the form of the network in front, as in ``spiking=board.npz``.
    """

    accepts: tuple[type, ...] = (
        IntegerNetwork, SpikingNetwork, SpikingGraph, LoihiNetwork, LoihiGraph
    )  # fmt: skip

    def __init__(self, recording: Recording | Path | str) -> None:
        if not isinstance(recording, Recording):
            recording = Recording.load(recording)
        self.recording = recording
        self.name = f"recorded/{recording.name}"

    @property
    def samples(self) -> int:
        """Number of samples of the shortest array."""
        return self.recording.samples

    def unsupported(self, network: Any) -> list[str]:
        """Return the reasons why the recording is none of this network: arrays that it lacks."""
        of = integer if isinstance(network, IntegerNetwork) else layout
        return of.reasons(self.recording, network)

    def run(
        self,
        network: Any,
        inputs: np.ndarray,
        *,
        record: bool = False,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Run:
        """Return the recording of these inputs; nothing runs.

        Raises
        ------
        InputError
            When an array has another shape than the network and the inputs need.
        """
        inputs = checked_inputs(self, network, inputs)
        samples, steps = inputs.shape[:2]
        of: integer.IntegerRecording | neurons.NeuronRecording
        if isinstance(network, IntegerNetwork):
            of = integer.IntegerRecording(self.recording, network, inputs)
        else:
            of = neurons.NeuronRecording(self.recording, network, inputs)
        found = of.run(record)
        if progress:
            progress(samples, samples)
        arrays = list(self.recording.arrays)
        default = {"synops": 0, "saturations": {}, "steps": steps, "chip_steps": steps}
        return Run(
            target=self.name,
            wall_seconds=0.0,
            seed=seed,
            settings={"recording": self.recording.name, "arrays": arrays},
            **{**default, **found},
        )
