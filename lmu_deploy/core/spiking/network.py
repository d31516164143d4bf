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

Hidden units and readout of the last layer may be on neurons too (:class:`SpikingUnits`). The drive
:math:`z_k` of a unit, scaled to about +-1 by :math:`\zeta_k`, is represented by synapses with the
time constant of the memory's, which receive the spikes s and the input u of the memory. With
:math:`V = Z^{-1} K^T S W` and :math:`C = Z^{-1} K^T B'` (K the memory kernel, Z the diagonal matrix
of the scales) it equals :math:`Z^{-1} K^T S x` at all times, without additional lag. Every step of
the simulation computes

.. math::
   J_{kj} &= g_{kj}\, e_{kj}\, (z_k + i_k) + b_{kj}   && \text{(current of neuron j of unit k)} \\
   s'_{kj} &= \text{spikes of the neuron model}(J_{kj}) \\
   z      &\leftarrow a\, z + (1 - a)\,(V s / dt + C u) \\
   y      &\leftarrow a_r\, y + (1 - a_r)\, D s' / dt,\qquad a_r = e^{-dt/\tau_r}

where :math:`i = Z^{-1}(W_x^T x_t + b)`, the contribution of input and bias to the drives, is a
constant current during the presentation of an input. D is fitted so that
:math:`D s' / dt \approx W_y^T f(Z(z + i))`, for any f; the host adds the bias of the readout to
y at the end of a presentation.

A SpikingNetwork and a LoihiNetwork differ in their memories only. `host` is the float network: its
encoders, hidden units, LSTM layers and readout run on the host, and its memory is the reference for
the memory on neurons.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import LATER
from lmu_deploy.core.network import FLOAT_CLASSES, LMULayer, LMUNetwork, Readout
from lmu_deploy.core.representation import Part, Representation, Summary
from lmu_deploy.core.spiking.chip import (
    Calibration,
    Device,
    DPICircuit,
    DPISynapse,
    NeuronModel,
    Populations,
    check_multiple,
    check_rates,
)
from lmu_deploy.core.spiking.ensembles import (
    Layered,
    NeuronGroup,
    check_memories,
    check_noise,
    check_type,
)
from lmu_deploy.core.validation import check_array, check_number, check_provenance, set_fields


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


ACTIVATIONS = ("relu", "tanh")
"""Activations that populations can approximate."""


@dataclass(frozen=True, eq=False, repr=False)
class SpikingUnits(Part):
    """Hidden units of the last layer and the readout on neurons.

    Attributes
    ----------
    populations : Populations, one for each unit
    drive : ndarray, shape (units, memory's neurons)
        V as implemented by the chip, in seconds: contribution of a spike rate in hertz of the
        memory to the scaled drives. The neurons of the memory are ordered state by state, channel
        by channel.
    input : ndarray, shape (units, channels)
        Weights C of the input of the memory.
    scales : ndarray, shape (units,)
        Value of the drive at z = 1.
    decoders : ndarray, shape (n_out, units * neurons)
        D as implemented by the chip, in seconds: contribution of a spike rate in hertz to the
        outputs. Neurons are ordered unit by unit.
    tau_ms : float
        Time constant of the synapses of the readout, milliseconds.
    """

    populations: Populations
    drive: np.ndarray
    input: np.ndarray
    scales: np.ndarray
    decoders: np.ndarray
    tau_ms: float

    def __post_init__(self) -> None:
        if not isinstance(self.populations, Populations):
            raise InputError(
                f"spiking units need Populations, not {type(self.populations).__name__}."
            )
        units = self.populations.states
        set_fields(
            self,
            drive=check_array("units drive", self.drive, (units, None)),
            input=check_array("units input", self.input, (units, None)),
            scales=check_array("units scales", self.scales, (units,)),
            decoders=check_array("units decoders", self.decoders, (None, self.neurons)),
            tau_ms=check_number("units tau_ms", self.tau_ms, 1e-3, 1e5),
        )
        if not np.all(self.scales > 0.0):
            raise InputError("units scales must be positive throughout.")

    @property
    def units(self) -> int:
        """Number of hidden units."""
        return self.populations.states

    @property
    def neurons(self) -> int:
        """Number of neurons of all populations."""
        return self.populations.states * self.populations.neurons

    @property
    def fan_in(self) -> np.ndarray:
        """Number of synapses onto each neuron of a unit, shape (units,)."""
        return np.asarray((self.drive != 0.0).sum(axis=1), dtype=np.int64)

    @property
    def synapses_of_memory(self) -> np.ndarray:
        """Number of synapses from each neuron of the memory to units, shape (memory neurons,)."""
        reached = (self.drive != 0.0).sum(axis=0) * self.populations.neurons
        return np.asarray(reached, dtype=np.int64)

    @property
    def synapses(self) -> np.ndarray:
        """Number of outgoing synapses of each neuron of the units, shape (neurons,)."""
        return np.asarray((self.decoders != 0.0).sum(axis=0), dtype=np.int64)

    def injected(self, layer: LMULayer, x: np.ndarray) -> np.ndarray:
        """Return i, the contribution of input x (samples, n_in) and bias to the scaled drives."""
        hidden = layer.hidden
        assert hidden is not None
        total = np.zeros((len(x), self.units))
        if hidden.input_kernel is not None:
            # Sample by sample, as in targets/host.py, because batches are summed in another order.
            total += (x[:, None, :] @ hidden.input_kernel.astype(np.float64))[:, 0]
        if hidden.bias is not None:
            total += hidden.bias
        return total / self.scales


def why_on_host(network: LMUNetwork) -> str | None:
    """Return why the units of the last layer cannot be on neurons; None if they can."""
    last = network.layers[-1]
    if not isinstance(last, LMULayer):
        return "the last layer is an LSTM"
    if last.hidden is None:
        return "the last layer has no hidden units"
    if last.hidden.recurrent_kernel is not None:
        return "its hidden units are recurrent"
    if last.hidden_encoders is not None:
        return "its hidden units feed back into the memory"
    if last.hidden.activation not in ACTIVATIONS:
        return f"its activation is {last.hidden.activation}, not {' or '.join(ACTIVATIONS)}"
    return None


def check_units(units: Any, host: LMUNetwork, memory: Any) -> None:
    """Raise InputError unless units match a host and the memory of its last layer.

    Parameters
    ----------
    units : SpikingUnits
    host : LMUNetwork
    memory : SpikingMemory
        Memory of the last layer.
    """
    if not isinstance(units, SpikingUnits):
        raise InputError(
            f"the units of a spiking network must be SpikingUnits, not {type(units).__name__}."
        )
    if (reason := why_on_host(host)) is not None:
        raise InputError(f"the units cannot be on neurons because {reason}; run them on the host.")
    last, readout = host.layers[-1], host.readout
    assert isinstance(last, LMULayer) and last.hidden is not None and isinstance(readout, Readout)
    for name, found, wanted in (
        ("units", units.units, last.hidden.units),
        ("memory neurons as inputs", units.drive.shape[1], memory.neurons),
        ("channels as inputs", units.input.shape[1], memory.channels),
        ("outputs", units.decoders.shape[0], host.n_out),
    ):
        if found != wanted:
            raise InputError(
                f"the units on neurons have {found} {name}, and the network has {wanted}; the two "
                "must be equal."
            )


@dataclass(frozen=True, eq=False, repr=False)
class SpikingNetwork(Layered, Representation):
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
                    "the host."
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
                neurons, place = memory.populations.neurons, str(self.place(number, "memory"))
                yield NeuronGroup(place, neurons, memory.fan_in, (memory.weights,), memory=True)
        if (units := self.units) is not None:
            place = str(self.place(len(self.memories) - 1, "hidden"))
            yield NeuronGroup(place, units.populations.neurons, units.fan_in, (units.drive,))
            read = (units.decoders != 0.0).sum(axis=1)
            yield NeuronGroup(self.host.node_names[-1], 0, read, (units.decoders,))

    def summary(self) -> Summary:
        """Return the populations of the network with their states and neurons, as a table."""
        rows = [("input", "", f"{self.n_in:,}", "0")]
        for number, (layer, memory) in enumerate(zip(self.host.layers, self.memories, strict=True)):
            if memory is None:
                name = self.host.node_names[number]
                rows.append((name, f"{layer}, on the host", f"{layer.n_out:,}", "0"))
                continue
            states = memory.populations.states
            kind = f"{self.neuron.kind} neurons"
            place = str(self.place(number, "memory"))
            rows.append((place, kind, f"{states:,}", f"{memory.neurons:,}"))
            if isinstance(layer, LMULayer) and layer.hidden is not None:
                on_chip = self.units is not None and number == len(self.memories) - 1
                neurons = self.units.neurons if on_chip and self.units is not None else 0
                kind = kind if on_chip else "on the host"
                place = str(self.place(number, "hidden"))
                rows.append((place, kind, f"{layer.hidden.units:,}", f"{neurons:,}"))
        where = "on the host" if self.units is None else "synapses on the chip"
        rows.append((self.host.node_names[-1], where, f"{self.n_out:,}", "0"))
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
