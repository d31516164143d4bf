"""Build one memory on one or several virtual chips, and the targets of the last layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from converters.spiking.calibration import calibrate, examine
from converters.spiking.closed_loop import ScaledMemory, scale_memory
from converters.spiking.neurons import Chip, Fit
from converters.spiking.populations import make_populations, with_mismatch
from converters.spiking.recipe import Recipe
from lmu_deploy.core.network import LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.reference import activate, has_hidden, run_reference
from lmu_deploy.core.spiking.network import SpikingMemory


@dataclass(frozen=True)
class Built:
    """One memory on several chips.

    Attributes
    ----------
    scaled : ScaledMemory
        The dynamics to implement, and the states along the calibration inputs.
    chips : tuple of Chip
    fits : tuple of Fit
        One for each chip.
    dead : tuple of tuple of str
        Places of the populations of each chip that do not follow their drive.
    """

    scaled: ScaledMemory
    chips: tuple[Chip, ...]
    fits: tuple[Fit, ...]
    dead: tuple[tuple[str, ...], ...]

    def memories(self) -> list[SpikingMemory]:
        """Return the memory of each chip, its weights rounded as the chip stores them."""
        scaled = self.scaled
        return [
            SpikingMemory(
                chip.populations,
                scaled.a_prime,
                scaled.b_prime,
                scaled.scales,
                chip.rounded(fit.weights),
            )
            for chip, fit in zip(self.chips, self.fits, strict=True)
        ]


def build_memory(
    recipes: Sequence[Recipe],
    memory: Memory,
    u: np.ndarray,
    number: int,
    place: str,
    progress: Progress | None = None,
    shares: int = 1,
    position: str = "",
) -> Built:
    """Lower one memory, and calibrate it on each chip.

    Parameters
    ----------
    recipes : sequence of Recipe
        One for each chip; only the seeds of their devices differ.
    memory : Memory
    u : ndarray, shape (samples, steps * shares, channels)
        Inputs of the memory for its calibration.
    number : int
        Number of the memory in the network: each has its own neurons on the chip.
    place : str
        Place of the memory in the network.
    progress : callable, optional
        Called with (calibration steps done, steps in total).
    shares : int
        Values of each input in a presentation.
    position : str
        See :class:`converters.spiking.device.Block`.

    Raises
    ------
    InputError
        When the memory cannot be divided into simulation steps.
    """
    recipe = recipes[0]
    decay = float(np.exp(-recipe.dt_ms / recipe.tau_ms))
    scaled = scale_memory(memory, u, recipe.parts, decay, shares)
    drawn = np.random.default_rng([recipe.seed, number, 1])
    nominal = make_populations(
        memory.size,
        recipe.neurons_per_state,
        recipe.model,
        recipe.maximum_rates,
        drawn,
        intercepts=recipe.intercepts,
    )
    ideal = recipe.device.ideal()
    perfect = Chip(
        nominal,
        recipe.model,
        ideal,
        recipe.dt_ms,
        recipe.tau_ms,
        memory.order,
        place=place,
        fan_in=recipe.fan_in,
        position=position,
    )
    chips = []
    for one in recipes:
        made = np.random.default_rng([one.device.seed, number, 2])
        populations = with_mismatch(nominal, one.device.mismatch, made, one.device.tau_mismatch)
        chips.append(replace(perfect, populations=populations, device=one.device, board=one.board))
    seed = [recipe.seed, number]
    dead = [
        () if recipe.calibration == "none" else _dead(examine(chip, seed).dead, place)
        for chip in chips
    ]
    fits = calibrate(recipe.calibration, perfect, chips, scaled, seed, progress)
    return Built(scaled, tuple(chips), tuple(fits), tuple(dead))


def _dead(populations: Sequence[int], place: str) -> tuple[str, ...]:
    return tuple(f"{place}/population{number}" for number in populations)


_RANGE_PERCENTILE = 99.9
_SMALLEST_SHARE = 1e-3


@dataclass(frozen=True)
class LastLayer:
    """The last layer and the readout, with inputs and target outputs for their calibration.

    Attributes
    ----------
    layer : LMULayer
        The last layer.
    readout : Readout
    scaled : ScaledMemory
        The layer's memory.
    x : ndarray, shape (samples, steps, n_in)
        Inputs of the layer for its calibration.
    parts : int
        Simulation steps of one presentation.
    """

    layer: LMULayer
    readout: Readout
    scaled: ScaledMemory
    x: np.ndarray
    parts: int

    def drives(self, step: int) -> np.ndarray:
        """Return Z (z + i) of an ideal chip after a simulation step, shape (samples, units)."""
        hidden = self.layer.hidden
        assert hidden is not None
        states = self.scaled.trajectory[step] * self.scaled.scales
        z = states.reshape(len(states), -1) @ hidden.memory_kernel
        if hidden.input_kernel is not None:
            z = z + self.x[:, step // self.parts] @ hidden.input_kernel
        return np.asarray(z if hidden.bias is None else z + hidden.bias, dtype=np.float64)

    def answers(self, step: int) -> np.ndarray:
        """Return the target outputs without the readout's bias, shape (samples, n_out)."""
        hidden = self.layer.hidden
        assert hidden is not None
        h = activate(hidden.activation, self.drives(step))
        return np.asarray(h @ self.readout.kernel.astype(np.float64))

    def ranges(self) -> np.ndarray:
        """Return the 99.9 % range of each drive at the ends of presentations, shape (units,)."""
        ends = range(self.parts - 1, len(self.scaled.trajectory), self.parts)
        seen = np.concatenate([self.drives(step) for step in ends])
        size = np.percentile(np.abs(seen), _RANGE_PERCENTILE, axis=0)
        return np.maximum(size, max(_SMALLEST_SHARE * float(size.max()), 1e-12))


def memory_inputs(network: LMUNetwork, inputs: np.ndarray) -> list[np.ndarray | None]:
    """Compute the inputs of each memory of a float network: the channels u of every step.

    Parameters
    ----------
    network : LMUNetwork
    inputs : ndarray, shape (samples, steps, n_in)

    Returns
    -------
    list, one entry for each layer
        ndarray, shape (samples, steps, channels), or None for a layer without a memory.
    """
    trace = run_reference(network, inputs, record=True)
    assert trace.m is not None and trace.h is not None
    signal = np.asarray(inputs, dtype=np.float64)
    first_m = first_h = 0
    found: list[np.ndarray | None] = []
    for layer in network.layers:
        m = h = trace.h[:, :, :0]
        if has_hidden(layer):
            h = trace.h[:, :, first_h : first_h + layer.n_out]
            first_h += layer.n_out
        if isinstance(layer, LMULayer):
            m = trace.m[:, :, first_m : first_m + layer.memory.size]
            first_m += layer.memory.size
            found.append(_channels(layer, signal, m, h))
        else:
            found.append(None)
        signal = h if has_hidden(layer) else m
    return found


def last_layer_inputs(network: LMUNetwork, inputs: np.ndarray) -> np.ndarray:
    """Compute the inputs of the last layer, shape (samples, steps, n_in)."""
    *before, last = network.layers
    if not before:
        return np.asarray(inputs, dtype=np.float64)
    passed_on = Readout(np.eye(last.n_in), None)
    return run_reference(LMUNetwork(tuple(before), passed_on, True), inputs).outputs


def _channels(layer: LMULayer, x: np.ndarray, m: np.ndarray, h: np.ndarray) -> np.ndarray:
    u = x @ layer.input_encoders.astype(np.float64)
    if layer.hidden_encoders is not None:
        u[:, 1:] += h[:, :-1] @ layer.hidden_encoders
    if layer.memory_encoders is not None:
        u[:, 1:] += m[:, :-1] @ layer.memory_encoders
    return u if layer.memory_bias is None else u + layer.memory_bias
