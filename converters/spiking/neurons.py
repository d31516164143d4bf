"""A NumPy twin of the chip's neurons, used to measure them: currents in, spikes out.

The update and its order are those of the Brian2 target, so that a calibration made here fits the
run there: (1) membranes move over a step with constant current, (2) those above threshold spike,
(3) and are reset. The equations stand in :class:`lmu_deploy.core.spiking.chip.NeuronModel`.

What a calibration measures: neurons of some chip behind first-order synapses, and their map W.

Decoders always come from simulated spikes: the analytic LIF rate is wrong where a spike can only
fall on whole milliseconds.

Several virtual chips measured side by side, each exactly as it would be alone.

A calibration of one small chip spends its time between array operations, not in them; a batch of
chips takes hardly longer. All chips of a batch see the same states, and their membranes start and
are shaken alike, as those of a chip measured alone are: chips differ by their devices, not by luck.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from converters.spiking.ridge import round_weights
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.spiking.chip import Device, NeuronModel, Populations


class Neurons(ABC):
    """Many copies of one chip's populations, each copy with states of its own.

    Parameters
    ----------
    populations : Populations
    model : NeuronModel
    device : Device
        Its noise counts; its mismatch stands in the factors of `populations`.
    dt_ms : float
    copies : int
    rng : Generator
        Draws where membranes start (uniform between rest and threshold), and the noise.
    dtype : dtype
        Single precision measures as well and faster; double repeats the Brian2 target's spikes.
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
        self.tau_ms = self.taus(populations)
        self.share = self.typed(dt_ms / self.tau_ms)
        self.shape = (copies, *self.slopes.shape)
        self.v = rng.random(self.shape).astype(dtype)
        self.prepare(device, dt_ms)

    def taus(self, populations: Populations) -> Any:
        """Give membranes' time constants, milliseconds: one, or of shape (states, neurons)."""
        nominal, factors = self.model.membrane_tau_ms, populations.tau_factors
        return nominal if factors is None else nominal * factors

    def typed(self, value: Any) -> Any:
        """Give a number, or an array, in the precision of the membranes."""
        return self.dtype(value) if np.ndim(value) == 0 else np.asarray(value, self.dtype)

    def prepare(self, device: Device, dt_ms: float) -> None:  # noqa: B027 - optional
        """Set up what a model needs besides its membranes."""

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
        """Spikes of one step with `current`, both of shape (copies, states, neurons)."""


class Refractory(Neurons):
    """Neurons that rest for a while after a spike, their membranes at reset."""

    threshold, reset = 1.0, 0.0

    def prepare(self, device: Device, dt_ms: float) -> None:
        """Set up the counters of steps left to rest."""
        self.refractory_steps = max(round(self.model.refractory_ms / dt_ms), 1)
        self.waiting = np.zeros(self.shape, dtype=np.int16)
        self.wobble = self.dtype(device.threshold_noise)

    def fire(self, moved: np.ndarray) -> np.ndarray:
        """Take the moved membranes where neurons do not rest, and give their spikes."""
        self.waiting -= 1
        self.v = np.where(self.waiting <= 0, moved, self.v)
        spikes = self.v > self.threshold
        if self.wobble:
            drawn = self.rng.standard_normal(self.shape).astype(self.dtype)
            spikes = self.v > self.threshold * (self.dtype(1.0) + self.wobble * drawn)
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
        self.noise = self.typed(device.membrane_noise * np.sqrt(1.0 - kept**2))

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

    The noise is added to the input current, of such a size that a linear filter's membrane would
    vary by what the device states.
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
        self.noise = self.typed(device.membrane_noise * np.sqrt(2.0 / self.share - 1.0))

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
    """``if``: the rectified current is summed, and a spike takes one threshold away."""

    def spikes(self, current: np.ndarray) -> np.ndarray:
        """See :meth:`Neurons.spikes`."""
        self.v += self.share * np.maximum(current, 0.0)
        spikes = self.v > 1.0
        self.v[spikes] -= 1.0
        return np.asarray(spikes)


class PoissonRectifiedLinear(Neurons):
    """``poisson``: a spike by chance, as likely as the rectified current is large."""

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
"""Steps that a part of a calibration is shown as, however many it has."""


def part(progress: Progress | None, number: int, parts: int) -> Progress | None:
    """Show the progress of one of several parts as that of the whole, as if all took as long."""
    if progress is None:
        return None
    return lambda done, steps: progress(round(_FINE * (number + done / steps)), _FINE * parts)


class Driven(Protocol):
    """Neurons whose states are given to them at every step."""

    def step(self, x: np.ndarray) -> np.ndarray:
        """Take scaled states (copies, states); give spikes (copies, states, neurons), bool."""


class Bench(Protocol):
    """What a dynamic calibration measures: any neurons behind first-order synapses."""

    @property
    def order(self) -> int:
        """States of a channel."""

    @property
    def channels(self) -> int:
        """Number of channels."""

    @property
    def neurons_per_state(self) -> int:
        """Neurons of a population."""

    @property
    def dt_ms(self) -> float:
        """Step of the simulation, milliseconds."""

    @property
    def tau_ms(self) -> float:
        """Time constant of the synapses, milliseconds."""

    def neurons(self, copies: int, rng: np.random.Generator) -> Driven:
        """Make simulated copies of the chip."""


@dataclass(frozen=True)
class Chip:
    """What a calibration measures: neurons with all their imperfections, and their synapses."""

    populations: Populations
    model: NeuronModel
    device: Device
    dt_ms: float
    tau_ms: float
    order: int

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.populations.states // self.order

    @property
    def neurons_per_state(self) -> int:
        """Number of neurons of a population."""
        return self.populations.neurons

    def neurons(self, copies: int, rng: np.random.Generator) -> Neurons:
        """Make simulated copies of the chip."""
        return NEURONS[self.model.kind](
            self.populations, self.model, self.device, self.dt_ms, copies, rng
        )

    def held(self, weights: np.ndarray) -> np.ndarray:
        """Give weights (channels, order, features) as the chip holds them."""
        return round_weights(weights, self.device.weight_bits)


@dataclass(frozen=True)
class Fit:
    """A map and how it was found; see :class:`lmu_deploy.core.spiking.chip.Calibration`."""

    weights: np.ndarray
    ridge: float
    error: float


@dataclass(frozen=True)
class Batch:
    """Chips that differ in the devices of their populations alone.

    Attributes
    ----------
    chips : sequence of Chip
    """

    chips: Sequence[Chip]

    def neurons(self, copies: int, rng: np.random.Generator) -> Driven:
        """Make simulated copies of every chip.

        Their `step` takes scaled states (copies, states) that all chips see, and gives spikes
        (copies, chips * states, neurons), chip by chip.
        """
        driven = self.apart(copies, rng)
        return driven if len(self.chips) == 1 else _Shared(driven, len(self.chips))

    def apart(self, copies: int, rng: np.random.Generator) -> Driven:
        """Make the same, but for states of their own: `step` takes (copies, chips * states)."""
        if len(self.chips) == 1:
            return self.chips[0].neurons(copies, rng)
        alike: Any = _Alike(rng, len(self.chips))
        whole = replace(self.chips[0], populations=_side_by_side(self.chips))
        return whole.neurons(copies, alike)


def _side_by_side(chips: Sequence[Chip]) -> Populations:
    names = ["encoders", "gains", "biases", "gain_factors", "bias_factors"]
    if chips[0].populations.tau_factors is not None:
        names.append("tau_factors")
    return Populations(
        *(np.concatenate([getattr(chip.populations, name) for chip in chips]) for name in names)
    )


class _Shared:
    """Neurons of several chips that are shown the same states."""

    def __init__(self, neurons: Driven, chips: int) -> None:
        self._neurons, self._chips = neurons, chips

    def step(self, x: np.ndarray) -> np.ndarray:
        return self._neurons.step(np.tile(x, (1, self._chips)))


class _Alike:
    """What neurons ask of a Generator: arrays (copies, states, neurons), repeated for each chip."""

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
