"""The Target interface on top of the pipeline: batches, notes and settings."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np

from lmu_deploy.checks import check_inputs, check_integer
from lmu_deploy.errors import InputError, RunError
from lmu_deploy.fingerprint import fingerprint
from lmu_deploy.spiking_network import SpikingNetwork
from targets.base import Progress, Run, States, check_supported
from targets.brian2.library import brian2_library, code_generator
from targets.brian2.pipeline import Batch, Pipeline
from targets.brian2.told import notes_of, settings_of

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
            chip_steps=steps * network.steps_per_hold,
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
        ("times", lambda n: (n.dt_ms, n.tau_ms, n.hold_ms)),
        ("neurons", lambda n: [None if m is None else m.neurons for m in n.memories]),
        ("units", lambda n: None if n.units is None else (n.units.neurons, n.units.tau_ms)),
    ):
        if other is not first and of(first) != of(other):
            raise InputError(
                f"chip {number} has another {name} than chip 0, and chips that run together may "
                "only differ in mismatch and weights; run it alone."
            )
