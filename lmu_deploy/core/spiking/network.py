r"""SpikingNetwork: the memories of an LMUNetwork on spiking neurons, the other parts on the host.

The state x of a memory, scaled to +-1, is represented by first-order synapses (Principle 3 of the
Neural Engineering Framework in discrete time; Voelker, Eliasmith 2018, "Improving spiking dynamical
networks", section 3). With :math:`a = e^{-dt/\tau}`, every step of the simulation computes

.. math::
   J_{ij} &= g_{ij}\, e_{ij}\, x_i + b_{ij}         && \text{(current of neuron j of state i)} \\
   s_{ij} &= \text{spikes of the neuron model}(J_{ij}) && \text{(0 or 1)} \\
   x      &\leftarrow a\, x + (1 - a)\,(W s / dt + S^{-1} B' u)

where W is fitted so that :math:`W s / dt \approx S^{-1} A' S x`, with
:math:`A' = (\bar A - a I)/(1 - a)`, :math:`B' = \bar B/(1 - a)` and :math:`\bar A, \bar B` the
memory for one step of the simulation. The input u of a task step is presented for
`presentation_ms`; the hidden layer on the host receives the state at the end of the presentation,
:math:`m = S x`. Channels of a memory are not connected on the chip, so W has one block per channel.
With DPI synapses the last line is that of :class:`lmu_deploy.core.spiking.chip.DPISynapse`.

A SpikingNetwork and a LoihiNetwork differ in their memories only. `host` is the float network: its
encoders, hidden units, LSTM layers and readout run on the host, and its memory is the reference for
the memory on neurons.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import LATER
from lmu_deploy.core.network import FLOAT_CLASSES, LMULayer, LMUNetwork
from lmu_deploy.core.representation import Part, Representation, Summary, counted
from lmu_deploy.core.spiking.chip import (
    NOISY_KINDS,
    Calibration,
    Device,
    DPICircuit,
    DPISynapse,
    NeuronModel,
    Populations,
    check_multiple,
    check_rates,
)
from lmu_deploy.core.spiking.units import SpikingUnits, check_units
from lmu_deploy.core.validation import check_array, check_number, check_provenance, set_fields

if TYPE_CHECKING:
    from lmu_deploy.core.graph.network import Network


class Hosted:
    """Base class of networks with memories on neurons and the other parts on a host."""

    host: LMUNetwork | Network
    dt_ms: float
    presentation_ms: float

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
        """Whether the output is y at every step, or y at the last step only."""
        return self.host.return_sequences

    @property
    def task(self) -> str | None:
        """Name of the task on which it was trained."""
        return self.host.task

    def facts(self, neurons: int, profile: str) -> list[str]:
        """Return short statements about the network, for its summary."""
        return [
            counted(self.n_in, "input"),
            counted(self.n_out, "output"),
            counted(neurons, "neuron"),
            f"profile {profile}",
            *([] if self.task is None else [f"task {self.task}"]),
        ]

    @property
    def steps_per_presentation(self) -> int:
        """Number of chip steps per step of the task."""
        return round(self.presentation_ms / self.dt_ms)


def check_type(value: object, expected: type) -> None:
    """Raise InputError unless a part of a network is an instance of `expected`."""
    if not isinstance(value, expected):
        raise InputError(
            f"a spiking network needs a {expected.__name__}, not {type(value).__name__}."
        )


def check_memories(memories: Any, host: LMUNetwork, kind: type) -> tuple[Any, ...]:
    """Return memories as a tuple if they match the layers of the host.

    Parameters
    ----------
    memories : sequence
        For each layer a memory with `scales` of shape (channels, order), or None.
    host : LMUNetwork
    kind : type
        Class of the memories.

    Raises
    ------
    InputError
        When their number, class or size does not match.
    """
    found = tuple(memories)
    if len(found) != len(host.layers):
        raise InputError(
            f"{len(found)} memories for {len(host.layers)} layers; give one for each, None for a "
            "layer without a memory."
        )
    for number, (memory, layer) in enumerate(zip(found, host.layers, strict=True)):
        if not isinstance(layer, LMULayer):
            if memory is not None:
                raise InputError(f"layer {number} has no memory to run on neurons; give None.")
            continue
        if not isinstance(memory, kind):
            raise InputError(
                f"layer {number} has a memory and needs a {kind.__name__}, not "
                f"{type(memory).__name__}."
            )
        wanted, given = (layer.memory.channels, layer.memory.order), memory.scales.shape  # type: ignore[attr-defined]
        if given != wanted:
            raise InputError(
                f"layer {number} has {wanted[0]} channels of order {wanted[1]} and its memory on "
                f"neurons {given[0]} of order {given[1]}; the two must be equal."
            )
    return found


def check_noise(neuron: NeuronModel, device: Device) -> None:
    """Raise InputError when a chip has noise that is not defined for its neuron model."""
    for name in ("membrane_noise", "threshold_noise"):
        if (size := getattr(device, name)) and neuron.kind not in NOISY_KINDS:
            raise InputError(
                f"{name} is {size:g}, and it is defined for the neuron models "
                f"{' and '.join(NOISY_KINDS)}, not {neuron.kind}; give 0."
            )


@dataclass(frozen=True, eq=False)
class NeuronGroup:
    """Sizes of equal populations, for pre-flight rules and tables.

    Attributes
    ----------
    place : str
    neurons : int
        Neurons of a population; 0 where the host reads the synapses.
    fan_in : ndarray, shape (populations,)
        Number of synapses onto each neuron of a population, or onto what the host reads.
    weights : tuple of ndarray
        What the chip stores for them, once for each population; of a memory, W first.
    memory : bool
        Whether they are the states of a memory.
    """

    place: str
    neurons: int
    fan_in: np.ndarray
    weights: tuple[np.ndarray, ...]
    memory: bool = False

    @property
    def copies(self) -> int:
        """Number of receivers of each stored weight."""
        return max(self.neurons, 1)

    @property
    def factored(self) -> int:
        """Number of weights of a memory that decodes each population once, before A'."""
        blocks, rows, columns = self.weights[0].shape
        return int(blocks * (columns + rows**2))


@dataclass(frozen=True, eq=False, repr=False)
class SpikingMemory(Part):
    """The memory of one LMU layer on neurons; states are ordered channel by channel.

    Attributes
    ----------
    populations : Populations, one for each of channels * order states
    recurrent : ndarray, shape (order, order)
        A' of Principle 3 for one step of the simulation, for unscaled states.
    input : ndarray, shape (order,)
        B' of Principle 3 for one step of the simulation, for unscaled states.
    scales : ndarray, shape (channels, order)
        S, the value of the state at x = 1.
    weights : ndarray, shape (channels, order, order * neurons)
        W as implemented by the chip, in seconds: contribution of a spike rate in hertz to the
        scaled states of the same channel. Neurons are ordered state by state.
    """

    populations: Populations
    recurrent: np.ndarray
    input: np.ndarray
    scales: np.ndarray
    weights: np.ndarray

    def __post_init__(self) -> None:
        if not isinstance(self.populations, Populations):
            raise InputError(
                f"a spiking memory needs Populations, not {type(self.populations).__name__}."
            )
        recurrent = check_array("memory recurrent", self.recurrent, (None, None))
        order = recurrent.shape[0]
        if order == 0 or self.populations.states % order:
            raise InputError(
                f"{self.populations.states} populations cannot be channels of order {order}; "
                "there must be one for each state."
            )
        channels = self.populations.states // order
        shape = (channels, order, order * self.populations.neurons)
        set_fields(
            self,
            recurrent=check_array("memory recurrent", recurrent, (order, order)),
            input=check_array("memory input", self.input, (order,)),
            scales=check_array("memory scales", self.scales, (channels, order)),
            weights=check_array("memory weights", self.weights, shape),
        )
        if not np.all(self.scales > 0.0):
            raise InputError("memory scales must be positive throughout.")

    @property
    def order(self) -> int:
        """Number of states per channel."""
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
        """B' for scaled states, shape (channels, order)."""
        return np.asarray(self.input / self.scales)

    @property
    def fan_in(self) -> np.ndarray:
        """Number of synapses onto each neuron of a population, shape (states,)."""
        return np.asarray((self.weights != 0.0).sum(axis=2).reshape(-1), dtype=np.int64)

    @property
    def synapses(self) -> np.ndarray:
        """Number of outgoing synapses of each neuron, shape (neurons,); W targets populations."""
        reached = (self.weights != 0.0).sum(axis=1).reshape(-1)
        return np.asarray(reached * self.populations.neurons, dtype=np.int64)


@dataclass(frozen=True, eq=False, repr=False)
class SpikingNetwork(Hosted, Representation):
    """A network with memories on spiking neurons and all other parts on the host.

    The hidden units of the last layer and the readout may be on neurons too.

    Attributes
    ----------
    memories : tuple of SpikingMemory or None
        One entry per layer of `host`; None for layers without a memory (LSTM).
    host : LMUNetwork
        See :mod:`lmu_deploy.core.spiking.network`.
    neuron : NeuronModel
    device : Device
    calibration : Calibration
    dt_ms, tau_ms, presentation_ms : float
        Step of the simulation, time constant of the synapses, and presentation time of an input, a
        whole multiple of the first; milliseconds.
    provenance : mapping of str to str
    synapse : DPISynapse, optional
        Parameters of DPI synapses; None for linear synapses.
    maximum_rates : (float, float), optional
        Range of the firing rates at the end of the range of a state, hertz; None in older files.
    units : SpikingUnits, optional
        Hidden units of the last layer and readout on neurons; None if they run on the host.

    Raises
    ------
    InputError
        At construction, when a shape, type or value is invalid.
    """

    memories: tuple[SpikingMemory | None, ...]
    host: LMUNetwork
    neuron: NeuronModel
    device: Device
    calibration: Calibration
    dt_ms: float
    tau_ms: float
    presentation_ms: float
    provenance: Mapping[str, str] = field(default_factory=dict)
    synapse: DPISynapse | None = None
    maximum_rates: tuple[float, float] | None = field(default=None, metadata=LATER)
    units: SpikingUnits | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        for name, expected in _PARTS.items():
            check_type(getattr(self, name), expected)
        if self.synapse is not None:
            check_type(self.synapse, DPISynapse)
        dt = check_number("dt_ms", self.dt_ms, 1e-3, 1e3)
        set_fields(
            self,
            memories=check_memories(self.memories, self.host, SpikingMemory),
            dt_ms=dt,
            tau_ms=check_multiple("tau_ms", self.tau_ms, dt),
            presentation_ms=check_multiple("presentation_ms", self.presentation_ms, dt),
            provenance=check_provenance(self.provenance),
        )
        if self.maximum_rates is not None:
            set_fields(self, maximum_rates=check_rates(self.maximum_rates, self.neuron))
        check_multiple("refractory_ms", self.neuron.refractory_ms, dt, least=0)
        if self.units is not None:
            check_units(self.units, self.host, self.memories[-1])
            check_multiple("readout_tau_ms", self.units.tau_ms, dt)
            if self.synapse is not None:
                raise InputError(
                    "units on neurons need linear synapses, not pairs of DPIs; run the units on "
                    "the "
                    "host."
                )
        check_noise(self.neuron, self.device)

    @property
    def neurons(self) -> int:
        """Number of neurons of all memories and units."""
        of_memories = sum(memory.neurons for memory in self.memories if memory is not None)
        return of_memories + (0 if self.units is None else self.units.neurons)

    def groups(self) -> Iterator[NeuronGroup]:
        """Yield memories, units and readout with their numbers of synapses."""
        for number, memory in enumerate(self.memories):
            if memory is not None:
                neurons, place = memory.populations.neurons, f"layer{number}/memory"
                yield NeuronGroup(place, neurons, memory.fan_in, (memory.weights,), memory=True)
        if (units := self.units) is not None:
            place, neurons = f"layer{len(self.memories) - 1}/hidden", units.populations.neurons
            yield NeuronGroup(place, neurons, units.fan_in, (units.drive,))
            read = (units.decoders != 0.0).sum(axis=1)
            yield NeuronGroup("readout", 0, read, (units.decoders,))

    def summary(self) -> Summary:
        """Return the populations of the network with their states and neurons, as a table."""
        rows = [("input", "", f"{self.n_in:,}", "0")]
        for number, (layer, memory) in enumerate(zip(self.host.layers, self.memories, strict=True)):
            name = f"layer{number}"
            if memory is None:
                rows.append((name, f"{layer}, on the host", f"{layer.n_out:,}", "0"))
                continue
            states = memory.populations.states
            kind = f"{self.neuron.kind} neurons"
            rows.append((f"{name}/memory", kind, f"{states:,}", f"{memory.neurons:,}"))
            if isinstance(layer, LMULayer) and layer.hidden is not None:
                on_chip = self.units is not None and number == len(self.memories) - 1
                neurons = self.units.neurons if on_chip and self.units is not None else 0
                kind = kind if on_chip else "on the host"
                rows.append((f"{name}/hidden", kind, f"{layer.hidden.units:,}", f"{neurons:,}"))
        where = "on the host" if self.units is None else "synapses on the chip"
        rows.append(("readout", where, f"{self.n_out:,}", "0"))
        facts = self.facts(self.neurons, self.device.profile)
        return Summary(facts, ("population", "kind", "states", "neurons"), rows)

    @property
    def decay(self) -> float:
        """Decay factor of a synapse per step of the simulation, exp(-dt / tau)."""
        return float(np.exp(-self.dt_ms / self.tau_ms))


_PARTS = {
    "host": LMUNetwork,
    "neuron": NeuronModel,
    "device": Device,
    "calibration": Calibration,
}


SPIKING_CLASSES: tuple[type, ...] = (
    SpikingNetwork,
    SpikingMemory,
    SpikingUnits,
    Populations,
    NeuronModel,
    DPICircuit,
    DPISynapse,
    Device,
    Calibration,
    *FLOAT_CLASSES,
)
"""Classes that may occur in a file of this representation, for `core.files.load`."""
