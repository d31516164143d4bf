"""The Target interface on top of the pipeline: batches, notes and settings.

What a reader of the results has to know of a run on Brian2: notes and settings.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lmu_deploy.core.errors import InputError, RunError
from lmu_deploy.core.files import fingerprint
from lmu_deploy.core.network import LMULayer
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.spiking.network import SpikingNetwork
from lmu_deploy.core.spiking.units import why_on_host
from lmu_deploy.core.validation import check_inputs, check_integer
from targets.base import Run, States, check_supported
from targets.brian2.library import brian2_library, code_generator
from targets.brian2.simulation import Batch, Pipeline


def notes_of(network: SpikingNetwork) -> tuple[str, ...]:
    """Say which part ran where, and what else a reader has to know."""
    told = [
        _where(network),
        f"Each input was presented for {network.presentation_ms:g} ms; m is the state of the "
        "synapses at the end of the presentation.",
        "Synaptic operations count every neuron that a spike reaches, weights not factored.",
    ]
    layers = [layer for layer in network.host.layers if isinstance(layer, LMULayer)]
    if any(layer.feeds_back for layer in layers):
        told.append(
            "Feedback from hidden units or memory into the memory's input went through the host "
            "once in each hold."
        )
    if network.synapse is not None:
        told.append(
            f"Synapses were pairs of DPIs of gain {network.synapse.gain:g}; W was calibrated for "
            "linear ones."
        )
    if len(layers) < len(network.host.layers):
        told.append("LSTM layers ran on the host in float.")
    return tuple(told)


def _where(network: SpikingNetwork) -> str:
    if network.units is not None:
        told = (
            "Memories, the last layer's hidden units and the readout ran on spiking neurons; "
            "encoders and biases came from the host. h is what the units' drives stand for, y "
            "the state of the readout's synapses."
        )
        return told + (
            " Hidden units of other layers ran on the host in float."
            if len(network.host.layers) > 1
            else ""
        )
    reason = why_on_host(network.host)
    return (
        "The memory ran on spiking neurons; encoders, hidden layer and readout ran on the host "
        "in float"
        + (f", for {reason}." if reason else ", though they could be on neurons (--units chip).")
    )


def settings_of(network: SpikingNetwork, version: str, codegen: str) -> dict[str, Any]:
    """Say how the chip and the simulation were set up, as JSON values."""
    memories = [memory for memory in network.memories if memory is not None]
    units = network.units
    return {
        "profile": network.device.profile,
        "chip_seed": network.device.seed,
        "mismatch": network.device.mismatch,
        "membrane_noise": network.device.membrane_noise,
        "threshold_noise": network.device.threshold_noise,
        "tau_mismatch": network.device.tau_mismatch,
        "weight_bits": network.device.weight_bits,
        "neuron": network.neuron.kind,
        "synapse": "linear" if network.synapse is None else "dpi",
        "neurons_per_state": memories[0].populations.neurons if memories else 0,
        "neurons_per_unit": 0 if units is None else units.populations.neurons,
        "readout_tau_ms": None if units is None else units.tau_ms,
        "maximum_rates": network.maximum_rates,
        "calibration": network.calibration.method,
        "calibration_error": network.calibration.fit_error,
        "calibration_ridge": network.calibration.ridge,
        "dt_ms": network.dt_ms,
        "tau_ms": network.tau_ms,
        "presentation_ms": network.presentation_ms,
        "brian2": version,
        "codegen": codegen,
    }


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
        start = time.perf_counter()
        whole = Batch.joined(list(self._batches(chips, inputs, seed, progress)))
        seconds = (time.perf_counter() - start) / len(chips)
        return [
            self._run_of(network, whole, chip, record=record, seed=seed, wall_seconds=seconds)
            for chip, network in enumerate(chips)
        ]

    def parts(
        self,
        network: SpikingNetwork,
        inputs: np.ndarray,
        *,
        record: int = 0,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Iterator[Run]:
        """Give what `run` gives batch by batch; see :class:`targets.base.InParts`."""
        done, start = 0, time.perf_counter()
        for batch in self._batches([network], inputs, seed, progress):
            kept, seconds = done < record, time.perf_counter() - start
            yield self._run_of(network, batch, 0, record=kept, seed=seed, wall_seconds=seconds)
            done, start = done + batch.y.shape[1], time.perf_counter()

    def _batches(
        self,
        chips: Sequence[SpikingNetwork],
        inputs: np.ndarray,
        seed: int,
        progress: Progress | None,
    ) -> Iterator[Batch]:
        for number, network in enumerate(chips):
            check_supported(self, network)
            _check_alike(chips[0], network, number)
        if not chips:
            raise InputError("there is no chip to run on; give one network or more.")
        inputs = check_inputs(inputs, chips[0].n_in)
        seed = check_integer("seed", seed, 0, 2**32 - 1)
        b2 = brian2_library()
        samples, steps, _ = inputs.shape
        work = Pipeline(chips, samples, steps, seed, progress)
        largest = max((m.neurons for m in chips[0].memories if m is not None), default=1)
        size = int(np.clip(_NEURONS_AT_ONCE // (largest * len(chips)), 1, _MOST_SAMPLES))
        try:
            for first in range(0, samples, size):
                yield work.run(inputs[first : first + size])
        except b2.BrianObjectException as error:
            raise RunError(f"Brian2 failed: {error}; run again with --debug.") from error

    def _run_of(
        self,
        network: SpikingNetwork,
        batch: Batch,
        chip: int,
        *,
        record: bool,
        seed: int,
        wall_seconds: float,
    ) -> Run:
        m, h, y = batch.m[chip], batch.h[chip], batch.y[chip]
        steps = y.shape[1]
        sizes = [memory.neurons for memory in network.memories if memory is not None]
        sizes += [] if network.units is None else [network.units.neurons]
        return Run(
            target=self.name,
            outputs=y if network.return_sequences else y[:, -1],
            neurons=dict(zip(batch.events, sizes, strict=True)),
            events={name: counts[chip] for name, counts in batch.events.items()},
            synops=int(batch.synops[chip]),
            saturations={name: int(counts[chip]) for name, counts in batch.beyond.items()},
            steps=steps,
            chip_steps=steps * network.steps_per_presentation,
            wall_seconds=wall_seconds,
            seed=seed,
            states=_states(m, h, y) if record else None,
            rasters={name: rasters[chip] for name, rasters in batch.rasters.items()},
            notes=notes_of(network),
            settings=settings_of(network, brian2_library().__version__, code_generator()),
        )


def _states(m: np.ndarray, h: np.ndarray, y: np.ndarray) -> States:
    return States(m, h, y, np.ones(m.shape[2]), np.ones(h.shape[2]))


def _check_alike(first: SpikingNetwork, other: SpikingNetwork, number: int) -> None:
    """Refuse a chip that cannot share a simulation with the first."""
    for name, of in (
        ("network", lambda n: fingerprint(n.host)),
        ("neuron model", lambda n: n.neuron),
        ("synapse", lambda n: n.synapse),
        ("membrane noise", lambda n: n.device.membrane_noise),
        ("threshold noise", lambda n: n.device.threshold_noise),
        ("spread of time constants", lambda n: n.device.tau_mismatch > 0.0),
        ("times", lambda n: (n.dt_ms, n.tau_ms, n.presentation_ms)),
        ("neurons", lambda n: [None if m is None else m.neurons for m in n.memories]),
        ("units", lambda n: None if n.units is None else (n.units.neurons, n.units.tau_ms)),
    ):
        if other is not first and of(first) != of(other):
            raise InputError(
                f"chip {number} has another {name} than chip 0, and chips that run together may "
                "only differ in mismatch and weights; run it alone."
            )
