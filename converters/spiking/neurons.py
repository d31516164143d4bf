"""NumPy simulation of a chip's neurons, for calibration.

The update and its order are those of target `brian2`, so that a calibration fits the runs there:
(1) membranes advance by one step with constant current, (2) those above threshold spike, (3) and
are reset. The equations are in :class:`lmu_deploy.core.spiking.chip.NeuronModel`. Decoders always
come from simulated spikes, because the analytic LIF rate is wrong where a spike can only fall on
whole milliseconds.

Several virtual chips can be simulated together (:class:`Batch`), each exactly as it would be alone:
all see the same states, and initial membranes and noise are the same. A batch of small chips takes
hardly longer than one of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from converters.spiking.compiled import kernels_for
from converters.spiking.device import VIRTUAL, Block, Driven, NeuronDevice
from converters.spiking.populations import with_mismatch
from converters.spiking.ridge import round_weights
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.spiking.chip import Device, NeuronModel, Populations
from lmu_deploy.core.spiking.loihi import LoihiNeurons


class Neurons(ABC):
    """Several copies of one chip's populations, each with its own states.

    Parameters
    ----------
    populations : Populations
    model : NeuronModel
    device : Device
        Noise; the mismatch is in the factors of `populations`.
    dt_ms : float
    copies : int
    rng : Generator
        Draws initial membranes (uniform between rest and threshold) and noise.
    dtype : dtype
        Single precision is faster; double reproduces the spikes of target `brian2`.
    """

    def __init__(
        self,
        populations: Populations,
        model: NeuronModel,
        device: Device,
        dt_ms: float,
        copies: int,
        rng: np.random.Generator,
        dtype: type[np.floating] = np.float32,
    ) -> None:
        self.slopes = populations.slopes.astype(dtype)
        self.offsets = populations.offsets.astype(dtype)
        self.model, self.rng, self.dtype = model, rng, dtype
        self.tau_ms, self.noise_factors = self.taus(populations), populations.noise_factors
        self.share = self.typed(dt_ms / self.tau_ms)
        self.shape = (copies, *self.slopes.shape)
        self.v = rng.random(self.shape).astype(dtype)
        self.prepare(device, dt_ms)

    def taus(self, populations: Populations) -> Any:
        """Return the membranes' time constants, milliseconds: one, or (states, neurons)."""
        nominal, factors = self.model.membrane_tau_ms, populations.tau_factors
        return nominal if factors is None else nominal * factors

    def noises(self, device: Device) -> Any:
        """Return the membrane noise in thresholds: one, or (states, neurons)."""
        nominal, factors = device.membrane_noise, self.noise_factors
        return nominal if factors is None else nominal * factors

    def typed(self, value: Any) -> Any:
        """Convert a number or an array to the precision of the membranes."""
        return self.dtype(value) if np.ndim(value) == 0 else np.asarray(value, self.dtype)

    def prepare(self, device: Device, dt_ms: float) -> None:  # noqa: B027 - optional
        """Set up further state variables and constants of a model."""

    def step(self, x: np.ndarray) -> np.ndarray:
        """Advance by one step.

        Parameters
        ----------
        x : ndarray, shape (copies, states)
            Scaled states.

        Returns
        -------
        spikes : ndarray, shape (copies, states, neurons), bool
        """
        current = x.astype(self.dtype)[:, :, None] * self.slopes
        current += self.offsets
        return self.spikes(current)

    @abstractmethod
    def spikes(self, current: np.ndarray) -> np.ndarray:
        """Advance by one step with `current`; return the spikes, (copies, states, neurons)."""


class Refractory(Neurons):
    """Neurons with a refractory time after each spike, their membranes at reset."""

    threshold, reset = 1.0, 0.0

    def prepare(self, device: Device, dt_ms: float) -> None:
        """Set up the counters of remaining refractory steps."""
        self.refractory_steps = max(round(self.model.refractory_ms / dt_ms), 1)
        self.waiting = np.zeros(self.shape, dtype=np.int16)
        self.threshold_noise = self.dtype(device.threshold_noise)

    def fire(self, moved: np.ndarray) -> np.ndarray:
        """Update the membranes of neurons that are not refractory, and return the spikes."""
        self.waiting -= 1
        self.v = np.where(self.waiting <= 0, moved, self.v)
        spikes = self.v > self.threshold
        if self.threshold_noise:
            drawn = self.rng.standard_normal(self.shape).astype(self.dtype)
            spikes = self.v > self.threshold * (self.dtype(1.0) + self.threshold_noise * drawn)
            spikes &= self.waiting <= 0  # a threshold may fall below the reset
        np.putmask(self.v, spikes, self.reset)
        np.putmask(self.waiting, spikes, self.refractory_steps)
        np.maximum(self.waiting, 0, out=self.waiting)
        return np.asarray(spikes)


class LeakyIntegrateAndFire(Refractory):
    """``lif``: the exact solution of the leak over a step, then threshold, reset, refractory."""

    def prepare(self, device: Device, dt_ms: float) -> None:
        """Set up decay and noise."""
        super().prepare(device, dt_ms)
        kept = np.exp(-dt_ms / self.tau_ms)
        self.kept = self.typed(kept)
        self.noisy = device.membrane_noise > 0.0
        self.noise = self.typed(self.noises(device) * np.sqrt(1.0 - kept**2))
        self.kernels = None
        if self.dtype is np.float32 and not self.noisy and not device.threshold_noise:
            self.kernels = kernels_for(self.v.size)

    def step(self, x: np.ndarray) -> np.ndarray:
        """See :meth:`Neurons.step`."""
        if self.kernels is None:
            return super().step(x)
        spikes = np.empty(self.shape, bool)
        kept = np.broadcast_to(self.kept, self.slopes.shape)
        self.kernels[0](
            np.ascontiguousarray(x, np.float32),
            self.slopes,
            self.offsets,
            np.ascontiguousarray(kept),
            self.refractory_steps,
            self.v,
            self.waiting,
            spikes,
        )
        return spikes

    def spikes(self, current: np.ndarray) -> np.ndarray:
        """See :meth:`Neurons.spikes`."""
        moved = self.v - current
        moved *= self.kept
        moved += current
        if self.noisy:
            moved += self.noise * self.rng.standard_normal(moved.shape).astype(self.dtype)
        return self.fire(moved)


class DifferentialPairIntegrator(Refractory):
    """``dpi``: Euler's method on the circuit's equation, membranes in units of its onset.

    The noise is added to the input current. Its size is such that the membrane of a linear filter
    would vary by the device's membrane noise.
    """

    def prepare(self, device: Device, dt_ms: float) -> None:
        """Divide the circuit's currents by the onset of its feedback."""
        super().prepare(device, dt_ms)
        circuit = self.model.circuit
        assert circuit is not None
        onset = circuit.onset
        self.threshold, self.reset = circuit.spike / onset, circuit.reset / onset
        self.dark, self.gain = self.dtype(circuit.dark / onset), self.dtype(circuit.gain / onset)
        self.half_feedback = self.dtype(0.5 * circuit.feedback / circuit.leak)
        self.steepness = self.dtype(0.5 * onset / circuit.width)
        self.noisy = device.membrane_noise > 0.0
        self.noise = self.typed(self.noises(device) * np.sqrt(2.0 / self.share - 1.0))

    def spikes(self, current: np.ndarray) -> np.ndarray:
        """See :meth:`Neurons.spikes`."""
        if self.noisy:
            current += self.noise * self.rng.standard_normal(current.shape).astype(self.dtype)
        np.maximum(current, 0.0, out=current)
        current /= self.v + self.gain
        feedback = np.tanh((self.v - self.dtype(1.0)) * self.steepness)
        feedback += self.dtype(1.0)
        feedback *= self.half_feedback
        push = current
        push += feedback
        push -= self.dtype(1.0)
        push[(self.v <= self.dark) & (push < 0.0)] = 0.0
        push *= self.v
        push *= self.share
        push += self.v
        return self.fire(push)


class IntegrateAndFire(Neurons):
    """``if``: the rectified current is integrated, and a spike subtracts one threshold."""

    def spikes(self, current: np.ndarray) -> np.ndarray:
        """See :meth:`Neurons.spikes`."""
        self.v += self.share * np.maximum(current, 0.0)
        spikes = self.v > 1.0
        self.v[spikes] -= 1.0
        return np.asarray(spikes)


class PoissonRectifiedLinear(Neurons):
    """``poisson``: spikes at random, with a probability proportional to the rectified current."""

    def spikes(self, current: np.ndarray) -> np.ndarray:
        """See :meth:`Neurons.spikes`."""
        return np.asarray(self.rng.random(self.shape, dtype=np.float32) < self.share * current)


NEURONS: dict[str, type[Neurons]] = {
    "lif": LeakyIntegrateAndFire,
    "dpi": DifferentialPairIntegrator,
    "if": IntegrateAndFire,
    "poisson": PoissonRectifiedLinear,
}


_FINE = 1000
"""Steps of progress that each part of a calibration is reported as."""


def part(progress: Progress | None, number: int, parts: int) -> Progress | None:
    """Return a callable that reports progress of one of several equal parts as that of all."""
    if progress is None:
        return None
    return lambda done, steps: progress(round(_FINE * (number + done / steps)), _FINE * parts)


class NeuronSimulator(Protocol):
    """What a dynamic calibration needs to measure: neurons behind first-order synapses."""

    @property
    def order(self) -> int:
        """Number of states of a channel."""

    @property
    def channels(self) -> int:
        """Number of channels."""

    @property
    def neurons_per_state(self) -> int:
        """Number of neurons of a population."""

    @property
    def dt_ms(self) -> float:
        """Simulation step, milliseconds."""

    @property
    def tau_ms(self) -> float:
        """Time constant of the synapses, milliseconds."""

    def neurons(self, copies: int, rng: np.random.Generator) -> Driven:
        """Build simulated copies of the chip."""


class PopulationSizes:
    """Sizes of simulators that have populations of `order` states per channel."""

    populations: Populations | LoihiNeurons
    order: int

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.populations.states // self.order

    @property
    def neurons_per_state(self) -> int:
        """Number of neurons of a population."""
        return self.populations.neurons


class VirtualDevice(NeuronDevice):
    """A simulated chip.

    Parameters
    ----------
    device : Device
        Noise, and the mismatch of a chip with a seed.
    seed : int, optional
        Seed of mismatch factors that only this object knows, as those of a chip in a laboratory
        are known to nobody. By default the factors are those of the block's populations.
    dtype : dtype
        See :class:`Neurons`.
    """

    name = VIRTUAL
    live = True

    def __init__(
        self,
        device: Device,
        seed: int | None = None,
        dtype: type[np.floating] = np.float32,
    ) -> None:
        self.device, self.seed, self.dtype = device, seed, dtype

    def populations(self, block: Block) -> Populations:
        """Return the populations of a block as they are on this chip."""
        if self.seed is None:
            return block.populations
        rng = np.random.default_rng([self.seed, *(block.position or block.place).encode()])
        of = self.device
        return with_mismatch(block.populations, of.mismatch, rng, of.tau_mismatch)

    def start(self, block: Block, copies: int, rng: np.random.Generator) -> Neurons:
        """See :meth:`NeuronDevice.start`."""
        kind = NEURONS[block.model.kind]
        populations = self.populations(block)
        return kind(populations, block.model, self.device, block.dt_ms, copies, rng, self.dtype)

    def run(self, block: Block, drive: np.ndarray, seed: Sequence[int]) -> np.ndarray:
        """See :meth:`NeuronDevice.run`."""
        neurons = self.start(block, drive.shape[1], np.random.default_rng(seed))
        return np.stack([neurons.step(x) for x in drive])


@dataclass(frozen=True)
class Chip(PopulationSizes):
    """Neurons of one chip, and their synapses.

    Attributes
    ----------
    populations : Populations
        Those of a virtual chip with its mismatch; for a board, as they are programmed.
    model : NeuronModel
    device : Device
    dt_ms, tau_ms : float
    order : int
    board : NeuronDevice, optional
        What is measured in place of a virtual chip.
    place, position : str
        Of the populations in the network; see :class:`Block`.
    """

    populations: Populations
    model: NeuronModel
    device: Device
    dt_ms: float
    tau_ms: float
    order: int
    board: NeuronDevice | None = None
    place: str = ""
    fan_in: int = 0
    position: str = ""

    @property
    def limit(self) -> int:
        """Largest number of weights other than zero in a row of W; 0 where W has fewer columns."""
        return self.fan_in if self.fan_in < self.order * self.neurons_per_state else 0

    @property
    def block(self) -> Block:
        """What is programmed on the device."""
        return Block(self.place, self.populations, self.model, self.dt_ms, self.position)

    def neurons(self, copies: int, rng: np.random.Generator) -> Driven:
        """Start copies of the neurons, whose spikes of a step are known before the next."""
        board = VirtualDevice(self.device) if self.board is None else self.board
        return board.start(self.block, copies, rng)

    def rounded(self, weights: np.ndarray) -> np.ndarray:
        """Round weights (channels, order, features) as the chip stores them."""
        return round_weights(weights, self.device.weight_bits)


@dataclass(frozen=True)
class Fit:
    """A map W and how it was fitted; see :class:`lmu_deploy.core.spiking.chip.Calibration`."""

    weights: np.ndarray
    ridge: float
    error: float


@dataclass(frozen=True)
class Batch:
    """Chips that differ only in the devices of their populations.

    Attributes
    ----------
    chips : sequence of Chip
    """

    chips: Sequence[Chip]

    def neurons(self, copies: int, rng: np.random.Generator) -> Driven:
        """Build simulated copies of every chip, which all encode the same states.

        Their `step` takes scaled states (copies, states) and returns spikes
        (copies, chips * states, neurons), chip by chip.
        """
        driven = self.apart(copies, rng)
        return driven if len(self.chips) == 1 else _Shared(driven, len(self.chips))

    def apart(self, copies: int, rng: np.random.Generator) -> Driven:
        """Build copies whose chips encode states of their own.

        Their `step` takes scaled states (copies, chips * states).
        """
        if len(self.chips) == 1:
            return self.chips[0].neurons(copies, rng)
        if self.chips[0].board is not None:
            return _Apart([chip.neurons(copies, rng) for chip in self.chips])
        repeated: Any = _Repeated(rng, len(self.chips))
        whole = replace(self.chips[0], populations=_side_by_side(self.chips))
        return whole.neurons(copies, repeated)


def _side_by_side(chips: Sequence[Chip]) -> Populations:
    joined = {}
    for name, default in ABSENT.items():
        arrays = [getattr(chip.populations, name) for chip in chips]
        if any(array is not None for array in arrays):
            plain = np.full(chips[0].populations.encoders.shape, default)
            joined[name] = np.concatenate([plain if array is None else array for array in arrays])
    return Populations(**joined)


ABSENT = {
    **dict.fromkeys(("encoders", "gains", "biases", "gain_factors", "bias_factors"), 1.0),
    **dict.fromkeys(("tau_factors", "noise_factors"), 1.0),
    "faults": 0.0,
}
"""Arrays of populations, and what absent ones stand for."""


class _Shared:
    """Neurons of several chips that encode the same states."""

    def __init__(self, neurons: Driven, chips: int) -> None:
        self._neurons, self._chips = neurons, chips

    def step(self, x: np.ndarray) -> np.ndarray:
        return self._neurons.step(np.tile(x, (1, self._chips)))


class _Apart:
    """Neurons of several boards, each with states of its own."""

    def __init__(self, driven: Sequence[Driven]) -> None:
        self._driven = driven

    def step(self, x: np.ndarray) -> np.ndarray:
        parts = np.split(x, len(self._driven), axis=1)
        spikes = [one.step(part) for one, part in zip(self._driven, parts, strict=True)]
        return np.concatenate(spikes, axis=1)


class _Repeated:
    """Generator of arrays (copies, states, neurons) that are repeated for each chip."""

    def __init__(self, rng: np.random.Generator, chips: int) -> None:
        self._rng, self._chips = rng, chips

    def random(self, shape: tuple[int, ...], dtype: Any = np.float64) -> np.ndarray:
        return self._repeated(self._rng.random(self._of_one(shape), dtype=dtype))

    def standard_normal(self, shape: tuple[int, ...]) -> np.ndarray:
        return self._repeated(self._rng.standard_normal(self._of_one(shape)))

    def _of_one(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        copies, states, *rest = shape
        return (copies, states // self._chips, *rest)

    def _repeated(self, drawn: np.ndarray) -> np.ndarray:
        return np.tile(drawn, (1, self._chips, 1))
