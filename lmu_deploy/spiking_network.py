r"""SpikingNetwork: the memories of an LMUNetwork on spiking neurons, the rest of it on the host.

The state x of a memory, scaled to +-1, lives in first-order synapses (Principle 3 of the Neural
Engineering Framework in its discrete form; Voelker, Eliasmith 2018, "Improving spiking dynamical
networks", section 3). With :math:`a = e^{-dt/\tau}`, every step of the simulation computes

.. math::
   J_{ij} &= g_{ij}\, e_{ij}\, x_i + b_{ij}         && \text{(current of neuron j of state i)} \\
   s_{ij} &= \text{spikes of the neuron model}(J_{ij}) && \text{(0 or 1)} \\
   x      &\leftarrow a\, x + (1 - a)\,(W s / dt + S^{-1} B' u)

where W is meant to give :math:`W s / dt \approx S^{-1} A' S x`, with
:math:`A' = (\bar A - a I)/(1 - a)`, :math:`B' = \bar B/(1 - a)` and :math:`\bar A, \bar B` the
memory for one step of the simulation. The input u of a task step is held for `hold_ms`; the state
at the end of the hold, :math:`m = S x`, is what the host's hidden layer sees. Channels of a memory
do not meet on the chip, so W is one block for each. With DPI synapses the last line is that of
:class:`lmu_deploy.spiking_dpi.DPISynapse`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from lmu_deploy.checks import check_array, check_number, check_text
from lmu_deploy.errors import InputError
from lmu_deploy.network import FLOAT_CLASSES, LMULayer, LMUNetwork
from lmu_deploy.spiking_chip import (
    NOISY_KINDS,
    Calibration,
    Device,
    NeuronModel,
    Populations,
    check_multiple,
)
from lmu_deploy.spiking_dpi import DPICircuit, DPISynapse


def _set(instance: object, **values: object) -> None:
    for name, value in values.items():
        object.__setattr__(instance, name, value)


@dataclass(frozen=True)
class SpikingMemory:
    """The memory of one LMU layer on neurons; states are ordered channel by channel.

    Attributes
    ----------
    populations : Populations, one for each of channels * order states
    recurrent : ndarray, shape (order, order)
        A' of Principle 3 for one step of the simulation, states unscaled.
    input : ndarray, shape (order,)
        B' of Principle 3, likewise.
    scales : ndarray, shape (channels, order)
        S: the state that x = 1 stands for.
    weights : ndarray, shape (channels, order, order * neurons)
        W as the chip holds it, in seconds: what a spike rate in hertz adds to the scaled states
        of its own channel. Neurons are ordered state by state.
    """

    populations: Populations
    recurrent: np.ndarray
    input: np.ndarray
    scales: np.ndarray
    weights: np.ndarray

    def __post_init__(self) -> None:
        if not isinstance(self.populations, Populations):
            raise InputError("a spiking memory needs Populations; mend the file.")
        recurrent = check_array("memory recurrent", self.recurrent, (None, None))
        order = recurrent.shape[0]
        if order == 0 or self.populations.states % order:
            raise InputError(
                f"{self.populations.states} populations cannot be channels of order {order}; "
                "mend the file."
            )
        channels = self.populations.states // order
        shape = (channels, order, order * self.populations.neurons)
        _set(
            self,
            recurrent=check_array("memory recurrent", recurrent, (order, order)),
            input=check_array("memory input", self.input, (order,)),
            scales=check_array("memory scales", self.scales, (channels, order)),
            weights=check_array("memory weights", self.weights, shape),
        )
        if not np.all(self.scales > 0.0):
            raise InputError("memory scales must be above zero throughout; mend the file.")

    @property
    def order(self) -> int:
        """Number of states of a channel."""
        return int(self.recurrent.shape[0])

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.scales.shape[0])

    @property
    def states(self) -> int:
        """Number of states."""
        return self.channels * self.order

    @property
    def neurons(self) -> int:
        """Number of neurons of all populations."""
        return self.states * self.populations.neurons

    @property
    def scaled_input(self) -> np.ndarray:
        """B' in scaled states, shape (channels, order)."""
        return np.asarray(self.input / self.scales)

    @property
    def synapses(self) -> np.ndarray:
        """Synapses that leave each neuron, shape (neurons,): W reaches whole populations."""
        reached = (self.weights != 0.0).sum(axis=1).reshape(-1)
        return np.asarray(reached * self.populations.neurons, dtype=np.int64)


@dataclass(frozen=True)
class SpikingNetwork:
    """A network whose memories are spiking and whose other parts run on the host in float.

    Attributes
    ----------
    memories : tuple of SpikingMemory or None
        One entry for each layer of `host`; None for layers without a memory (LSTM).
    host : LMUNetwork
        The float network: its encoders, hidden units, LSTM layers and readout run on the host,
        and its own memory is the truth that the spiking one is judged by.
    neuron : NeuronModel
    device : Device
    calibration : Calibration
    dt_ms, tau_ms, hold_ms : float
        Step of the simulation, time constant of the synapses, and how long an input is held;
        milliseconds, the last a whole multiple of the first.
    provenance : mapping of str to str
    synapse : DPISynapse, optional
        What the synapses are if they are no linear filters.

    Raises
    ------
    InputError
        At construction, when a shape, type or value does not fit.
    """

    memories: tuple[SpikingMemory | None, ...]
    host: LMUNetwork
    neuron: NeuronModel
    device: Device
    calibration: Calibration
    dt_ms: float
    tau_ms: float
    hold_ms: float
    provenance: Mapping[str, str] = field(default_factory=dict)
    synapse: DPISynapse | None = None

    def __post_init__(self) -> None:
        _check_type(self.host, LMUNetwork)
        _check_type(self.neuron, NeuronModel)
        _check_type(self.device, Device)
        _check_type(self.calibration, Calibration)
        if self.synapse is not None:
            _check_type(self.synapse, DPISynapse)
        memories = tuple(self.memories)
        if len(memories) != len(self.host.layers):
            raise InputError(
                f"{len(memories)} memories for {len(self.host.layers)} layers; give one for each, "
                "None for a layer without a memory."
            )
        for number, (memory, layer) in enumerate(zip(memories, self.host.layers, strict=True)):
            _check_memory(number, memory, layer)
        dt = check_number("dt_ms", self.dt_ms, 1e-3, 1e3)
        if not isinstance(self.provenance, Mapping):
            raise InputError("provenance must map names to texts.")
        for key, value in self.provenance.items():
            check_text("provenance key", key, 200)
            check_text(f"provenance {key}", value)
        _set(
            self,
            memories=memories,
            dt_ms=dt,
            tau_ms=check_multiple("tau_ms", self.tau_ms, dt),
            hold_ms=check_multiple("hold_ms", self.hold_ms, dt),
            provenance=dict(self.provenance),
        )
        check_multiple("refractory_ms", self.neuron.refractory_ms, dt, least=0)
        if self.device.membrane_noise and self.neuron.kind not in NOISY_KINDS:
            raise InputError(
                f"membrane_noise is {self.device.membrane_noise:g}, and it is defined for the "
                f"neuron models {' and '.join(NOISY_KINDS)}, not {self.neuron.kind}; give 0."
            )

    @property
    def n_in(self) -> int:
        """Number of input features."""
        return self.host.n_in

    @property
    def n_out(self) -> int:
        """Number of outputs."""
        return self.host.n_out

    @property
    def return_sequences(self) -> bool:
        """Whether the answer is y at every step, or y at the last one."""
        return self.host.return_sequences

    @property
    def task(self) -> str | None:
        """Name of the task that it was trained for."""
        return self.host.task

    @property
    def steps_per_hold(self) -> int:
        """Steps of the simulation for one step of the task."""
        return round(self.hold_ms / self.dt_ms)

    @property
    def decay(self) -> float:
        """What a synapse keeps over one step of the simulation, exp(-dt / tau)."""
        return float(np.exp(-self.dt_ms / self.tau_ms))


def _check_type(value: object, expected: type) -> None:
    if not isinstance(value, expected):
        raise InputError(
            f"a spiking network needs a {expected.__name__}, not {type(value).__name__}; "
            "mend the file."
        )


def _check_memory(number: int, memory: object, layer: object) -> None:
    if not isinstance(layer, LMULayer):
        if memory is not None:
            raise InputError(f"layer {number} has no memory to run on neurons; give None.")
        return
    if not isinstance(memory, SpikingMemory):
        raise InputError(f"layer {number} has a memory and needs a SpikingMemory; mend the file.")
    wanted = (layer.memory.channels, layer.memory.order)
    if memory.scales.shape != wanted:
        raise InputError(
            f"layer {number} has {wanted[0]} channels of order {wanted[1]} and its spiking memory "
            f"{memory.channels} of order {memory.order}; the two must be equal."
        )


SPIKING_CLASSES: tuple[type, ...] = (
    SpikingNetwork,
    SpikingMemory,
    Populations,
    NeuronModel,
    DPICircuit,
    DPISynapse,
    Device,
    Calibration,
    *FLOAT_CLASSES,
)
"""Every class that a file of this representation may hold; for :func:`lmu_deploy.files.load`."""
