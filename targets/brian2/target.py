"""Target `brian2`: spiking networks on Brian2 in batches, and the Run of a spiking network."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lmu_deploy.core.errors import InputError, RunError
from lmu_deploy.core.files import fingerprint
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.spiking.graph import AnalogNetwork, SpikingGraph
from lmu_deploy.core.spiking.network import SpikingNetwork, why_on_host
from lmu_deploy.core.validation import check_inputs, check_integer
from targets.base import Run, States, check_supported
from targets.brian2.graph import simulate
from targets.brian2.library import brian2_library, code_generator
from targets.brian2.simulation import Batch, Pipeline
from targets.host import feedback_notes, lstm_notes
from targets.spiking.graph import GraphRunner, foreign


def make_run(
    target: str,
    network: SpikingNetwork,
    m: np.ndarray,
    h: np.ndarray,
    y: np.ndarray,
    *,
    events: Mapping[str, np.ndarray],
    synops: int,
    saturations: Mapping[str, int],
    rasters: Mapping[str, np.ndarray],
    counts: Mapping[str, np.ndarray],
    record: bool,
    seed: int,
    wall_seconds: float,
    version: str,
    codegen: str,
) -> Run:
    """Build the Run of a target for SpikingNetworks.

    Parameters
    ----------
    target : str
    network : SpikingNetwork
    m, h, y : ndarray, shape (samples, steps, states | units | n_out)
    events, synops, saturations, rasters, counts, seed, wall_seconds
        As in :class:`targets.base.Run`.
    record : bool
        Whether states were requested.
    version : str
        Version of Brian2.
    codegen : str
        What it ran its equations with.
    """
    steps = y.shape[1]
    sizes = [memory.neurons for memory in network.memories if memory is not None]
    sizes += [] if network.units is None else [network.units.neurons]
    return Run(
        target=target,
        outputs=y if network.return_sequences else y[:, -1],
        neurons=dict(zip(events, sizes, strict=True)),
        events=events,
        synops=synops,
        saturations=saturations,
        steps=steps,
        chip_steps=steps * network.steps_per_presentation,
        wall_seconds=wall_seconds,
        seed=seed,
        states=States.of_reals(m, h, y) if record else None,
        rasters=rasters,
        counts={name: values for name, values in counts.items() if len(values)},
        notes=_notes(network),
        settings=_settings(network, version, codegen),
    )


def _notes(network: SpikingNetwork) -> tuple[str, ...]:
    notes = [
        _where(network),
        f"Each input was presented for {network.presentation_ms:g} ms; m is the state of the "
        "synapses at the end of the presentation.",
        "Synaptic operations count every neuron that receives a spike, weights not factored.",
        *feedback_notes(network.host),
    ]
    if network.synapse is not None:
        notes.append(
            f"Synapses were pairs of DPIs of gain {network.synapse.gain:g}; W was calibrated for "
            "linear ones."
        )
    return (*notes, *lstm_notes(network.host))


def _where(network: SpikingNetwork) -> str:
    if network.units is not None:
        note = (
            "Memories, the last layer's hidden units and the readout ran on spiking neurons; "
            "encoders and biases came from the host. h is computed from the units' drives, y is "
            "the state of the readout's synapses."
        )
        return note + (
            " Hidden units of other layers ran on the host in float."
            if len(network.host.layers) > 1
            else ""
        )
    reason = why_on_host(network.host)
    return (
        "The memory ran on spiking neurons; encoders, hidden layer and readout ran on the host "
        "in float"
        + (f", for {reason}." if reason else ", although they can run on neurons (--units chip).")
    )


def _settings(network: SpikingNetwork, version: str, codegen: str) -> dict[str, Any]:
    """Return the configuration of chip and simulation as JSON values."""
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
_SECONDS_TO_START = 3.0
_SECONDS_PER_STEP, _SECONDS_PER_NEURON = 3e-4, 1.2e-7
"""CPU time of a chip step of a batch, and of a neuron in it, for the first sample."""
_SECONDS_PER_UPDATE = 2e-8
"""CPU time of a chip step of one neuron in each further sample of a batch."""


class Brian2Target:
    """Run spiking networks, many samples at once."""

    name = "brian2"
    accepts: tuple[type, ...] = (SpikingNetwork, SpikingGraph)

    def unsupported(self, network: AnalogNetwork) -> list[str]:
        """Return why a network cannot run: it was calibrated for a device without a simulation."""
        return foreign(network)

    def estimated_seconds(self, network: AnalogNetwork, samples: int, steps: int) -> float:
        """Return about how long a run takes; see :class:`targets.base.Slow`."""
        batches = -(-samples // _batch_samples([network]))
        first = _SECONDS_PER_STEP + _SECONDS_PER_NEURON * network.neurons
        each = batches * first + _SECONDS_PER_UPDATE * network.neurons * samples
        return _SECONDS_TO_START + each * steps * network.steps_per_presentation

    def run(
        self,
        network: AnalogNetwork,
        inputs: np.ndarray,
        *,
        record: bool = False,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Run:
        """Run on Brian2; see :class:`targets.base.Target`.

        `seed` is that of initial membranes and noise; the chip's mismatch is in the network.
        """
        check_supported(self, network)
        if isinstance(network, SpikingGraph):
            with _failures():
                return self._runner(network, inputs, seed, progress).run(record)
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
        """Run one network on several virtual chips in one group of neurons.

        Parameters
        ----------
        chips : sequence of SpikingNetwork
            They may differ in mismatch and weights only.
        inputs : ndarray, shape (samples, steps, n_in)
            Inputs of every chip.
        record : bool
            Record the states of every step.
        seed : int
            Initial membranes are the same on every chip, as if it ran alone; noise and Poisson
            spikes are drawn for each.
        progress : callable, optional
            Called with (samples done on every chip, samples in total).

        Returns
        -------
        list of Run
            One for each chip; its wall_seconds are an equal share of the total.

        Raises
        ------
        InputError
            When there is no chip, or two chips differ in more than mismatch and weights.
        """
        start = time.perf_counter()
        recorded = len(inputs) if record else 0
        whole = Batch.joined(list(self._batches(chips, inputs, seed, progress, recorded)))
        seconds = (time.perf_counter() - start) / len(chips)
        return [
            self._run_of(network, whole, chip, record=record, seed=seed, wall_seconds=seconds)
            for chip, network in enumerate(chips)
        ]

    def parts(
        self,
        network: AnalogNetwork,
        inputs: np.ndarray,
        *,
        record: int = 0,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Iterator[Run]:
        """Yield the result of `run` batch by batch; see :class:`targets.base.InParts`."""
        check_supported(self, network)
        if isinstance(network, SpikingGraph):
            with _failures():
                yield from self._runner(network, inputs, seed, progress).parts(record)
            return
        done, start = 0, time.perf_counter()
        for batch in self._batches([network], inputs, seed, progress, record):
            recorded, seconds = done < record, time.perf_counter() - start
            yield self._run_of(network, batch, 0, record=recorded, seed=seed, wall_seconds=seconds)
            done, start = done + batch.y.shape[1], time.perf_counter()

    def _batches(
        self,
        chips: Sequence[SpikingNetwork],
        inputs: np.ndarray,
        seed: int,
        progress: Progress | None,
        record: int,
    ) -> Iterator[Batch]:
        for number, network in enumerate(chips):
            check_supported(self, network)
            _check_same(chips[0], network, number)
        if not chips:
            raise InputError("there is no chip to run on; give at least one network.")
        inputs = check_inputs(inputs, chips[0].n_in)
        seed = check_integer("seed", seed, 0, 2**32 - 1)
        samples, steps, _ = inputs.shape
        work = Pipeline(chips, samples, steps, seed, progress, record)
        size = _batch_samples(chips)
        with _failures():
            for first in range(0, samples, size):
                yield work.run(inputs[first : first + size])

    def _runner(
        self, graph: SpikingGraph, inputs: np.ndarray, seed: int, progress: Progress | None
    ) -> GraphRunner:
        settings = {"brian2": brian2_library().__version__, "codegen": code_generator()}
        return GraphRunner(self.name, graph, inputs, seed, simulate, settings, progress)

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
        return make_run(
            self.name,
            network,
            batch.m[chip],
            batch.h[chip],
            batch.y[chip],
            events={name: counts[chip] for name, counts in batch.events.items()},
            synops=int(batch.synops[chip]),
            saturations={name: int(counts[chip]) for name, counts in batch.beyond.items()},
            rasters={name: rasters[chip] for name, rasters in batch.rasters.items()},
            counts={name: counted[chip] for name, counted in batch.counted.items()},
            record=record,
            seed=seed,
            wall_seconds=wall_seconds,
            version=brian2_library().__version__,
            codegen=code_generator(),
        )


def _batch_samples(chips: Sequence[AnalogNetwork]) -> int:
    """Return how many samples run at once on every chip."""
    first = chips[0]
    if isinstance(first, SpikingGraph):
        largest = first.neurons
    else:
        largest = max((m.neurons for m in first.memories if m is not None), default=1)
    return int(np.clip(_NEURONS_AT_ONCE // (largest * len(chips)), 1, _MOST_SAMPLES))


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    """Raise RunError for errors of Brian2."""
    try:
        yield
    except brian2_library().BrianObjectException as error:
        raise RunError(f"Brian2 failed: {error}; run again with --debug.") from error


def _check_same(first: SpikingNetwork, other: SpikingNetwork, number: int) -> None:
    """Raise InputError for a chip that cannot run together with the first."""
    for name, of in (
        ("network", lambda n: fingerprint(n.host)),
        ("neuron model", lambda n: n.neuron),
        ("synapse", lambda n: n.synapse),
        ("membrane noise", lambda n: n.device.membrane_noise),
        ("threshold noise", lambda n: n.device.threshold_noise),
        ("device", lambda n: n.device.board),
        ("times", lambda n: (n.dt_ms, n.tau_ms, n.presentation_ms)),
        ("neurons", lambda n: [None if m is None else m.neurons for m in n.memories]),
        ("units", lambda n: None if n.units is None else (n.units.neurons, n.units.tau_ms)),
    ):
        if other is not first and of(first) != of(other):
            raise InputError(
                f"chip {number} has another {name} than chip 0, and chips that run together may "
                "only differ in mismatch and weights; run it alone."
            )
