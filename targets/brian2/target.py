"""The Target interface on top of the pipeline: batches, notes and settings."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from lmu_deploy.checks import check_inputs, check_integer
from lmu_deploy.errors import InputError, RunError
from lmu_deploy.fingerprint import fingerprint
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
        return self.run_chips([network], inputs, record=record, seed=seed, progress=progress)[0]

    def run_chips(
        self,
        chips: Sequence[SpikingNetwork],
        inputs: np.ndarray,
        *,
        record: bool = False,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> list[Run]:
        """Run one network on several virtual chips at once, all in one group of neurons.

        Parameters
        ----------
        chips : sequence of SpikingNetwork
            The same network, neuron model, times and noise; mismatch and weights may differ.
        inputs : ndarray, shape (samples, steps, n_in)
            Every chip gets all of them.
        record : bool
            Keep the states of every step.
        seed : int
            Membranes start alike on every chip, as they would if it ran alone; noise and Poisson
            spikes are drawn anew for each.
        progress : callable, optional
            Called with (samples done on every chip, in all).

        Returns
        -------
        list of Run
            One for each chip; its wall_seconds are an equal share of the whole.

        Raises
        ------
        InputError
            When there is no chip, or two of them differ in more than mismatch and weights.
        """
        for number, network in enumerate(chips):
            check_supported(self, network)
            _check_alike(chips[0], network, number)
        if not chips:
            raise InputError("there is no chip to run on; give one network or more.")
        inputs = check_inputs(inputs, chips[0].n_in)
        seed = check_integer("seed", seed, 0, 2**32 - 1)
        b2 = brian2_library()
        start = time.perf_counter()
        samples, steps, _ = inputs.shape
        work = Pipeline(chips, samples, steps, seed, progress)
        largest = max((m.neurons for m in chips[0].memories if m is not None), default=1)
        batch = int(np.clip(_NEURONS_AT_ONCE // (largest * len(chips)), 1, _MOST_SAMPLES))
        try:
            parts = [work.run(inputs[i : i + batch], i) for i in range(0, samples, batch)]
        except b2.BrianObjectException as error:
            raise RunError(f"Brian2 failed: {error}; run again with --debug.") from error
        m, h, y = (np.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True))
        seconds = (time.perf_counter() - start) / len(chips)
        return [
            Run(
                target=self.name,
                outputs=y[c] if network.return_sequences else y[c, :, -1],
                neurons={name: memories[c].neurons for name, memories in work.memories.items()},
                events={name: counts[c] for name, counts in work.events.items()},
                synops=int(work.synops[c]),
                saturations={},
                steps=steps,
                chip_steps=steps * network.steps_per_hold,
                wall_seconds=seconds,
                seed=seed,
                states=_states(m[c], h[c], y[c]) if record else None,
                rasters={name: rasters[c] for name, rasters in work.rasters.items()},
                notes=_notes(network),
                settings=_settings(network, b2.__version__, code_generator()),
            )
            for c, network in enumerate(chips)
        ]


def _states(m: np.ndarray, h: np.ndarray, y: np.ndarray) -> States:
    return States(m, h, y, np.ones(m.shape[2]), np.ones(h.shape[2]))


def _check_alike(first: SpikingNetwork, other: SpikingNetwork, number: int) -> None:
    """Refuse a chip that cannot share a simulation with the first."""
    for name, of in (
        ("network", lambda n: fingerprint(n.host)),
        ("neuron model", lambda n: n.neuron),
        ("synapse", lambda n: n.synapse),
        ("membrane noise", lambda n: n.device.membrane_noise),
        ("times", lambda n: (n.dt_ms, n.tau_ms, n.hold_ms)),
        ("neurons", lambda n: [None if m is None else m.neurons for m in n.memories]),
    ):
        if other is not first and of(first) != of(other):
            raise InputError(
                f"chip {number} has another {name} than chip 0, and chips that run together may "
                "only differ in mismatch and weights; run it alone."
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
    if network.synapse is not None:
        notes.append(
            f"Synapses were pairs of DPIs of gain {network.synapse.gain:g}; W was calibrated for "
            "linear ones."
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
        "synapse": "linear" if network.synapse is None else "dpi",
        "neurons_per_state": memories[0].populations.neurons if memories else 0,
        "maximum_rates": network.maximum_rates,
        "calibration": network.calibration.method,
        "calibration_error": network.calibration.fit_error,
        "calibration_ridge": network.calibration.ridge,
        "dt_ms": network.dt_ms,
        "tau_ms": network.tau_ms,
        "hold_ms": network.hold_ms,
        "brian2": version,
        "codegen": codegen,
    }
