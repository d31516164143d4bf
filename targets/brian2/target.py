"""The Target interface on top of the pipeline: batches, notes and settings."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from lmu_deploy.checks import check_inputs, check_integer
from lmu_deploy.errors import RunError
from lmu_deploy.network import LMULayer
from lmu_deploy.spiking_network import SpikingNetwork
from targets.base import Progress, Run, States, check_supported
from targets.brian2.library import brian2_library, code_generator
from targets.brian2.pipeline import Pipeline

_NEURONS_AT_ONCE = 500_000
_MOST_SAMPLES = 128


class Brian2Target:
    """Runs every SpikingNetwork, many samples at once."""

    name = "brian2"
    accepts: tuple[type, ...] = (SpikingNetwork,)

    def unsupported(self, network: SpikingNetwork) -> list[str]:
        """Nothing that a SpikingNetwork can hold is unsupported."""
        return []

    def run(
        self,
        network: SpikingNetwork,
        inputs: np.ndarray,
        *,
        record: bool = False,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Run:
        """Run on Brian2; see :class:`targets.base.Target`.

        `seed` draws where membranes start and the noise; the chip's mismatch is in the network.
        """
        check_supported(self, network)
        inputs = check_inputs(inputs, network.n_in)
        seed = check_integer("seed", seed, 0, 2**32 - 1)
        b2 = brian2_library()
        start = time.perf_counter()
        samples, steps, _ = inputs.shape
        work = Pipeline(network, samples, steps, seed, progress)
        largest = max((m.neurons for m in network.memories if m is not None), default=1)
        batch = int(np.clip(_NEURONS_AT_ONCE // largest, 1, _MOST_SAMPLES))
        try:
            parts = [work.run(inputs[i : i + batch], i) for i in range(0, samples, batch)]
        except b2.BrianObjectException as error:
            raise RunError(f"Brian2 failed: {error}; run again with --debug.") from error
        m, h, y = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        states = None
        if record:
            states = States(m, h, y, np.ones(m.shape[2]), np.ones(h.shape[2]))
        return Run(
            target=self.name,
            outputs=y if network.return_sequences else y[:, -1],
            neurons={name: memory.neurons for name, memory in work.memories.items()},
            events=work.events,
            synops=work.synops,
            saturations={},
            steps=steps,
            chip_steps=steps * network.steps_per_hold,
            wall_seconds=time.perf_counter() - start,
            seed=seed,
            states=states,
            rasters=work.rasters,
            notes=_notes(network),
            settings=_settings(network, b2.__version__, code_generator()),
        )


def _notes(network: SpikingNetwork) -> tuple[str, ...]:
    """Say which part ran where, and what else a reader has to know."""
    notes = [
        "The memory ran on spiking neurons; encoders, hidden layer and readout ran on the host "
        "in float.",
        f"Each input was held for {network.hold_ms:g} ms; m is the state of the synapses at the "
        "end of the hold.",
        "Synaptic operations count every neuron that a spike reaches, weights not factored.",
    ]
    layers = [layer for layer in network.host.layers if isinstance(layer, LMULayer)]
    if any(layer.feeds_back for layer in layers):
        notes.append(
            "Feedback from hidden units or memory into the memory's input went through the host "
            "once in each hold."
        )
    if len(layers) < len(network.host.layers):
        notes.append("LSTM layers ran on the host in float.")
    return tuple(notes)


def _settings(network: SpikingNetwork, version: str, codegen: str) -> dict[str, Any]:
    memories = [memory for memory in network.memories if memory is not None]
    return {
        "profile": network.device.profile,
        "chip_seed": network.device.seed,
        "mismatch": network.device.mismatch,
        "membrane_noise": network.device.membrane_noise,
        "weight_bits": network.device.weight_bits,
        "neuron": network.neuron.kind,
        "neurons_per_state": memories[0].populations.neurons if memories else 0,
        "calibration": network.calibration.method,
        "calibration_error": network.calibration.fit_error,
        "calibration_ridge": network.calibration.ridge,
        "dt_ms": network.dt_ms,
        "tau_ms": network.tau_ms,
        "hold_ms": network.hold_ms,
        "brian2": version,
        "codegen": codegen,
    }
