"""A spiking network in NumPy, each of whose memories can be ideal; what its spikes lack, measured.

A memory that spikes runs as spiking_network.py says: its synapses are the Brian2 target's own and
its neurons draw what Brian2 draws, so its states are that target's with ``==`` (a batch of the
target holds all samples here). An ideal memory has :math:`S^{-1} A' S x` in the place of
W s / dt: with all ideal the network is the float one. Units on neurons read their layer's memory,
so they spike where that does.

Runs of spiking networks with one float network, all judged on the same samples.

The chips that a spiking network is compared with: better ones, each calibrated for itself.

What imperfections cost cannot be taken out of a network that was fitted to all of them together. So
the float network is put on other chips, by the same recipe and with the same tuning curves: one
without mismatch, noise and rounded weights, then with one more of them at a time. Each is
calibrated dynamically, so that an imperfection costs what calibration cannot make up for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from converters.spiking import spike
from converters.spiking.neurons import NEURONS, Neurons
from lmu_deploy.core.files import fingerprint
from lmu_deploy.core.network import LMULayer, LMUNetwork, LSTMLayer
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.reference import Trace, run_reference
from lmu_deploy.core.spiking.network import SpikingMemory, SpikingNetwork
from lmu_deploy.fidelity.attribution.measure import Errors, metric_of
from lmu_deploy.fidelity.measures.agreement import deviation
from lmu_deploy.tasks.base import Task
from targets.brian2.synapses import Boundary, Synapses
from targets.brian2.units import Units
from targets.host import HostLayer, run_lstm

Observer = Callable[[int, np.ndarray, np.ndarray], None]
"""Takes a layer's number, x before a step of the simulation, (samples, states), and its spikes,
(samples, states, neurons)."""


@dataclass(frozen=True)
class Outcome:
    """What a run gave.

    Attributes
    ----------
    m : list of ndarray, shape (samples, steps, states)
        Of each memory.
    y : ndarray, shape (samples, steps, n_out)
    """

    m: list[np.ndarray]
    y: np.ndarray


class Draws:
    """The numbers that the Brian2 target draws for neurons: where membranes start, then noise.

    Stands in for a NumPy generator. The noise comes from NumPy's old generator, as in Brian2, and
    a memory and the units that read it draw it in turn.

    Parameters
    ----------
    starts : Generator
    noise : RandomState
    """

    def __init__(self, starts: np.random.Generator, noise: np.random.RandomState) -> None:
        self._starts, self._noise, self._started = starts, noise, False

    def random(self, shape: tuple[int, ...], dtype: Any = np.float64) -> np.ndarray:
        """Draw membranes the first time, chances of Poisson spikes after that; always float64."""
        if self._started:
            return np.asarray(self._noise.random_sample(shape))
        self._started = True
        return self._starts.random(shape)

    def standard_normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """Draw the noise of membranes."""
        return np.asarray(self._noise.standard_normal(shape))


def run_hybrid(
    network: SpikingNetwork,
    inputs: np.ndarray,
    spiking: Collection[int],
    seed: int = 0,
    observe: Observer | None = None,
) -> Outcome:
    """Run a network of which only some memories spike.

    Parameters
    ----------
    network : SpikingNetwork
        With synapses that are linear filters.
    inputs : ndarray, shape (samples, steps, n_in)
    spiking : collection of int
        Numbers of the layers whose memory spikes.
    seed : int
        Of where membranes start and of noise, as in the Brian2 target.
    observe : callable, optional
        Sees every step of the memories that spike.
    """
    signal, states, memories = inputs, list[np.ndarray](), 0
    units: Units | None = None
    for number, layer in enumerate(network.host.layers):
        if isinstance(layer, LSTMLayer):
            signal = run_lstm(layer, signal)
            continue
        memory = network.memories[number]
        assert memory is not None
        host = HostLayer(layer, signal)
        if number in spiking:
            seen = None if observe is None else _seen(observe, number)
            if network.units is not None and layer is network.host.layers[-1]:
                starts = np.random.default_rng([seed, memories + 1, 2])
                units = Units(network, [network.units], layer, signal, starts)
            _run_spiking(network, memory, host, (seed, memories), seen, units)
        else:
            _run_ideal(network, memory, host)
        states.append(host.m)
        signal, memories = host.output, memories + 1
    readout = network.host.readout
    y = signal @ readout.kernel.astype(np.float64) if units is None else units.y
    return Outcome(states, y if readout.bias is None else y + readout.bias)


def ideal_drive(memory: SpikingMemory) -> Callable[[np.ndarray], np.ndarray]:
    """Give the map from scaled states, (samples, states), to what W s / dt is meant to be."""
    order, matrix = memory.order, np.zeros((memory.states, memory.states))
    for channel, scales in enumerate(memory.scales):
        block = slice(channel * order, (channel + 1) * order)
        matrix[block, block] = (memory.recurrent * scales[None, :] / scales[:, None]).T
    return lambda x: x @ matrix


def effects(memory: SpikingMemory, dt_ms: float) -> np.ndarray:
    """Give what a spike adds to the drive; (channels, order, neurons, order), source first."""
    shape = (memory.channels, memory.order, memory.order, memory.populations.neurons)
    return np.asarray(memory.weights.reshape(shape).transpose(0, 2, 3, 1) / (dt_ms * 1e-3))


def _seen(observe: Observer, number: int) -> Callable[[np.ndarray, np.ndarray], None]:
    return lambda x, spikes: observe(number, x, spikes)


def _run_spiking(
    network: SpikingNetwork,
    memory: SpikingMemory,
    host: HostLayer,
    seeds: tuple[int, int],
    observe: Callable[[np.ndarray, np.ndarray], None] | None,
    units: Units | None,
) -> None:
    samples, steps, _ = host.m.shape
    noise = np.random.RandomState(int(np.random.default_rng([*seeds, 1]).integers(2**31)))
    of_chip = (network.neuron, network.device, network.dt_ms, samples)
    kind = NEURONS[network.neuron.kind]
    draws: Any = Draws(np.random.default_rng(seeds), noise)  # neurons use two of its methods
    neurons: Neurons = kind(memory.populations, *of_chip, draws, np.float64)
    firing: Neurons | None = None
    if units is not None:
        draws = Draws(units.starts, noise)
        firing = kind(units.units[0].populations, *of_chip, draws, np.float64)
    boundary = Boundary(host.channels, host.observe)
    synapses = Synapses(network, [memory], boundary, samples, steps, rasters=False)
    x = np.zeros((samples, memory.states))
    for _ in range(steps * network.steps_per_presentation):
        spikes = neurons.step(x)
        own = None if units is None or firing is None else firing.step(units.shown)
        if observe is not None:
            observe(x, spikes)
        synapses.advance(x.reshape(-1), np.flatnonzero(spikes))
        if units is not None and own is not None:
            units.advance(synapses.u, synapses.fired(), np.flatnonzero(own))


def _run_ideal(network: SpikingNetwork, memory: SpikingMemory, host: HostLayer) -> None:
    decay, drive = network.decay, ideal_drive(memory)
    x = np.zeros((len(host.m), memory.states))
    for step in range(host.m.shape[1]):
        entering = (host.channels(step)[:, :, None] * memory.scaled_input).reshape(x.shape)
        for _ in range(network.steps_per_presentation):
            x = decay * x + (1.0 - decay) * (drive(x) + entering)
        host.observe(step, x * memory.scales.reshape(-1))


class Judge:
    """Runs hybrids and says how far they are from float.

    Parameters
    ----------
    host : LMUNetwork
        The float network that all of them have.
    inputs : ndarray, shape (samples, steps, n_in)
    targets : ndarray, shape (samples, ...)
    task : Task
    seed : int
    progress : callable, optional
        Called with (work done, `total`).

    Attributes
    ----------
    reference : Errors
        Of the float network.
    layers : list of int
        Numbers of the layers with a memory.
    total : int
        Runs and calibrations that are expected.
    """

    def __init__(
        self,
        host: LMUNetwork,
        inputs: np.ndarray,
        targets: np.ndarray,
        task: Task,
        seed: int,
        progress: Progress | None,
    ) -> None:
        self.inputs, self.seed = inputs, seed
        self._targets, self._task, self._progress = targets, task, progress
        self._truth: Trace = run_reference(host, inputs, record=True)
        self.reference = Errors(metric_of(self._truth.outputs, targets, task), 0.0, 0.0)
        self.layers = [n for n, layer in enumerate(host.layers) if isinstance(layer, LMULayer)]
        self.total = self._done = 0

    def errors(self, network: SpikingNetwork, spiking: Collection[int]) -> Errors:
        """Run a network of which some memories spike, and give its figures."""
        found = run_hybrid(network, self.inputs, spiking, self.seed)
        self.report()
        return self._judged(found, network.return_sequences)

    def report(self) -> None:
        """Count a run, or a calibration."""
        self._done += 1
        if self._progress:
            self._progress(min(self._done, self.total), self.total)

    def finish(self) -> None:
        """Say that no more comes, where less was needed than expected."""
        if self._done < self.total and self._progress:
            self._progress(self.total, self.total)

    def _judged(self, found: Outcome, every_step: bool) -> Errors:
        truth = self._truth
        assert truth.m is not None
        ends = np.cumsum([m.shape[2] for m in found.m])[:-1]
        relative = [
            float(np.sum((mine - theirs) ** 2)) / max(float(np.sum(theirs**2)), 1e-300)
            for mine, theirs in zip(found.m, np.split(truth.m, ends, axis=2), strict=True)
        ]
        outputs = found.y if every_step else found.y[:, -1]
        return Errors(
            metric_of(outputs, self._targets, self._task),
            deviation(outputs, truth.outputs, self._task.washout) or 0.0,
            float(np.sqrt(np.mean(relative))),
        )


METHOD = "dynamic"
_IMPERFECTIONS = ("mismatch", "tau_mismatch", "membrane_noise", "threshold_noise", "weight_bits")


class Chips:
    """Makes them, each once.

    Parameters
    ----------
    network : SpikingNetwork
        Whose recipe is taken.
    known : ndarray, shape (samples, steps, n_in)
        Inputs to calibrate with: those that `network` was calibrated with, if its own calibration
        is to come out again.
    """

    def __init__(self, network: SpikingNetwork, known: np.ndarray) -> None:
        self.network, self._known = network, known
        self._made: dict[tuple[float, ...], SpikingNetwork] = {}

    def of(self, network: SpikingNetwork) -> Chips:
        """Give those of another network: these, if it has the same recipe but for its calibration.

        Parameters
        ----------
        network : SpikingNetwork
            Such as the same one without calibration.
        """
        others = Chips(network, self._known)
        same = fingerprint(network.host) == fingerprint(self.network.host)
        if same and others._recipe() == self._recipe():
            others._made = self._made
        return others

    def calibrated(
        self, *, mismatch: bool = False, noise: bool = False, bits: bool = False
    ) -> SpikingNetwork:
        """Give the chip with its own mismatch, noise or few bits of a weight, or without."""
        device = self.network.device
        found = (
            device.mismatch if mismatch else 0.0,
            device.tau_mismatch if mismatch else 0.0,
            device.membrane_noise if noise else 0.0,
            device.threshold_noise if noise else 0.0,
            device.weight_bits if bits else 0,
        )
        if found not in self._made:
            imperfections = dict(zip(_IMPERFECTIONS, found, strict=True))
            recipe = self._recipe() | imperfections
            self._made[found] = spike(self.network.host, self._known, calibration=METHOD, **recipe)
        return self._made[found]

    def _recipe(self) -> dict[str, Any]:
        """How the network was made, but for its float network and the method of calibration."""
        network, device = self.network, self.network.device
        memory = next(memory for memory in network.memories if memory is not None)
        return {
            "profile": device.profile,
            "neurons_per_state": memory.populations.neurons,
            "presentation_ms": network.presentation_ms,
            "tau_ms": network.tau_ms,
            "dt_ms": network.dt_ms,
            "neuron": network.neuron.kind,
            "mismatch": device.mismatch,
            "membrane_noise": device.membrane_noise,
            "threshold_noise": device.threshold_noise,
            "tau_mismatch": device.tau_mismatch,
            "weight_bits": device.weight_bits,
            "maximum_rates": network.maximum_rates,
            "calibration_samples": max(1, network.calibration.samples),
            "seed": network.calibration.seed,
            "chip_seed": device.seed,
            "units": "host",  # they come last, read by the network's own memory
        }


def alike(network: SpikingNetwork, other: SpikingNetwork) -> bool:
    """Whether two chips compute the very same: neurons, weights, times and noise."""
    plain = [
        fingerprint(replace(each, calibration=network.calibration)) for each in (network, other)
    ]
    return plain[0] == plain[1]
