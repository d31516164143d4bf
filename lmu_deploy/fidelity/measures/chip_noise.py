r"""Noise of calibrated chips, for training (`train --chip`).

The initial network is put on several virtual chips, each with its own calibration, which run freely
on training samples that no calibration has seen. With the states m of a chip and the float memory's
response :math:`m^*` to the inputs u that this chip's memory received, and s the root mean square of
:math:`m^*`, over all samples, steps and chips,

.. math::
   R_{ij} = \Big\langle \frac{(m_i - m^*_i)(m_j - m^*_j)}{s_i s_j} \Big\rangle, \qquad
   \rho = \frac{\langle \delta_t \cdot \delta_{t-1} \rangle}
               {\langle \delta_t \cdot \delta_t \rangle}, \qquad \delta = (m - m^*) / s

is what :class:`lmu_deploy.nn.memory.StateNoise` adds. R has the errors of single spikes and what
the map of a chip leaves wrong, which differs from chip to chip. With hidden units on the chip, the
answers y of the readout's synapses deviate from those that the units' drives h give. That is
ascribed to independent noise of all units, of relative size :math:`\sigma`:

.. math:: \sigma^2 = \frac{\langle |y - h W_y - b_y|^2 \rangle}
                        {\langle h^2 \rangle \sum_{io} W_{y,io}^2}

Training chips have seeds from 1,000,000 on, which no study of chips begins with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.options import SpikeOptions
from converters.spiking import spike_chips
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.graph.transforms import as_layers
from lmu_deploy.core.network import LMULayer, Memory
from lmu_deploy.core.reference import has_hidden
from lmu_deploy.core.spiking.network import SpikingNetwork
from lmu_deploy.core.validation import check_integer
from lmu_deploy.tasks.base import TaskData
from lmu_deploy.tasks.selection import CALIBRATION_SAMPLES, limited
from targets.base import Run

if TYPE_CHECKING:
    from lmu_deploy.nn.memory import StateNoise
    from lmu_deploy.training.module import ChipNoise

CHIPS = 4
"""Chips that are measured, if `chip` does not say how many."""
_FIRST_CHIP = 1_000_000
_MEASURED = 64
"""Training samples on which a chip is measured."""


def measure_noise(network: Network, chip: Mapping[str, Any], data: TaskData) -> ChipNoise:
    """Measure the noise of calibrated chips with a network that is to be trained.

    Parameters
    ----------
    network : Network
    chip : mapping
        `profile`, `chips` (their number), and options of `spike`.
    data : TaskData

    Returns
    -------
    ChipNoise

    Raises
    ------
    InputError
        If an option is unknown or wrong, or the chip cannot hold the network.
    """
    from lmu_deploy.nn.memory import StateNoise
    from lmu_deploy.training.module import ChipNoise
    from targets.brian2 import Brian2Target

    given = dict(chip)
    profile, count = given.pop("profile", "generic-analog"), given.pop("chips", CHIPS)
    count = check_integer("chip.chips", count, 1, 1000)
    if fixed := [name for name in ("chip_seed", "calibration") if name in given]:
        raise InputError(f"chip.{fixed[0]}: training sets it itself; leave it out.")
    options = SpikeOptions.build(given)
    layers = as_layers(network, "train")
    if not any(isinstance(layer, LMULayer) for layer in layers.layers):
        raise InputError("chip: the network has no memory, so no chip disturbs it; leave it out.")
    known = limited(data.train, CALIBRATION_SAMPLES).filled
    shown = data.train.taken(slice(CALIBRATION_SAMPLES, CALIBRATION_SAMPLES + _MEASURED))
    inputs = shown.filled if len(shown) else known[-_MEASURED:]
    seeds = range(_FIRST_CHIP, _FIRST_CHIP + count)
    made = spike_chips(layers, known, profile, seeds, options)
    runs = Brian2Target().run_chips(made, inputs, record=True, seed=options.seed)
    deviations = [
        _deviations(network, run, inputs) for network, run in zip(made, runs, strict=True)
    ]
    memories: list[StateNoise | None] = []
    for number, layer in enumerate(layers.layers):
        if isinstance(layer, LMULayer):
            memories.append(StateNoise(*relative_noise([of[number] for of in deviations])))
        else:
            memories.append(None)
    squares = [_of_units(network, run) for network, run in zip(made, runs, strict=True)]
    return ChipNoise(tuple(memories), float(np.sqrt(np.mean(squares))))


def relative_noise(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, float]:
    """Return R and rho of the module docstring.

    Parameters
    ----------
    pairs : list of (ndarray, ndarray), shape (samples, steps, states)
        States of a chip and those that they should be, for each chip.
    """
    wanted = np.concatenate([right for _, right in pairs])
    scale = np.sqrt(np.mean(wanted**2, axis=(0, 1)))
    scale[scale == 0.0] = np.inf  # a state that is never used has no noise
    delta = np.concatenate([found - right for found, right in pairs]) / scale
    rows = delta.reshape(-1, delta.shape[2])
    together = float(np.sum(delta[:, 1:] * delta[:, :-1]))
    alone = float(np.sqrt(np.sum(delta[:, 1:] ** 2) * np.sum(delta[:, :-1] ** 2)))
    rho = min(max(together / alone, 0.0), 0.999) if alone else 0.0
    return rows.T @ rows / len(rows), rho


def respond(memory: Memory, u: np.ndarray) -> np.ndarray:
    """Return the states of a float memory, (samples, steps, states), for inputs of its channels."""
    m, found = np.zeros((len(u), memory.channels, memory.order)), []
    for now in np.moveaxis(u, 1, 0):
        m = m @ memory.a_bar.T + now[:, :, None] * memory.b_bar
        found.append(m.reshape(len(u), -1))
    return np.stack(found, axis=1)


def _deviations(
    network: SpikingNetwork, run: Run, inputs: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the states of each layer on a chip, and those of a float memory with its inputs."""
    assert run.states is not None
    signal, first_m, first_h = np.asarray(inputs, np.float64), 0, 0
    found = []
    for layer in network.host.layers:
        m = h = np.zeros((*signal.shape[:2], 0))
        if isinstance(layer, LMULayer):
            m = run.states.m[:, :, first_m : first_m + layer.memory.size]
        if has_hidden(layer):
            h = run.states.h[:, :, first_h : first_h + layer.n_out]
        first_m, first_h = first_m + m.shape[2], first_h + h.shape[2]
        wanted = m
        if isinstance(layer, LMULayer):
            u = signal @ layer.input_encoders
            if layer.hidden_encoders is not None:
                u = u + _before(h) @ layer.hidden_encoders
            if layer.memory_encoders is not None:
                u = u + _before(m) @ layer.memory_encoders
            if layer.memory_bias is not None:
                u = u + layer.memory_bias
            wanted = respond(layer.memory, u)
        found.append((m, wanted))
        signal = h if has_hidden(layer) else m
    return found


def _before(states: np.ndarray) -> np.ndarray:
    """Return the states before each step."""
    return np.concatenate([np.zeros_like(states[:, :1]), states[:, :-1]], axis=1)


def _of_units(network: SpikingNetwork, run: Run) -> float:
    """Return sigma squared of the module docstring; 0 with hidden units on the host."""
    if network.units is None:
        return 0.0
    assert run.states is not None
    readout = network.host.readout
    h = run.states.h[:, :, -len(readout.kernel) :]
    y = h @ readout.kernel + (0.0 if readout.bias is None else readout.bias)
    explained = float(np.mean(h**2) * np.sum(np.square(readout.kernel)))
    missed = float(np.mean(np.sum((run.states.y - y) ** 2, axis=2)))
    return missed / explained if explained else 0.0
