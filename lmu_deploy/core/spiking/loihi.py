"""LoihiNetwork: the memories of an LMUNetwork on LIF neurons in Loihi's fixed-point arithmetic.

The result is fully specified, spike for spike, by docs/reference/loihi-semantics.md. Each memory
consists of LIF neurons and of relays that represent its state. All widths are those of Loihi and
are validated at construction, so that targets need no overflow checks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.network import FLOAT_CLASSES, LMULayer, LMUNetwork
from lmu_deploy.core.representation import Part, Representation, Summary
from lmu_deploy.core.spiking.chip import Calibration, check_multiple
from lmu_deploy.core.spiking.ensembles import Layered, Synapses, check_memories, check_type
from lmu_deploy.core.validation import (
    check_array,
    check_flag,
    check_integer,
    check_number,
    check_provenance,
    check_text,
    set_fields,
)

ONE = 2**20
"""Value of a relay at x = 1."""
STATE_BITS, MESSAGE_BITS = 24, 16
DECAY_ONE = 4096
STATE_LIMIT = 2 ** (STATE_BITS - 1) - 1
MESSAGE_LIMIT = 2 ** (MESSAGE_BITS - 1) - 1
_MOST_CURRENT = 3 * 2**23
"""Bound of 64 a below which adding or subtracting 2^24 once brings it into 24 bits."""


@dataclass(frozen=True, eq=False, repr=False)
class LoihiNeurons(Part):
    """Populations of LIF neurons and their encoders.

    Attributes
    ----------
    encoders : ndarray, shape (states, neurons), int8
        Weight from the message of a state to each neuron of its population.
    encoder_exponent : int
        0 to 7; sums are divided by 2 to this power.
    bias_mantissas : ndarray, shape (states, neurons), int16
        13-bit integers.
    bias_exponent : int
        0 to 7.
    current_decay, membrane_decay : int
        du and dv, 0 to 4095.
    threshold : int
        vth, 1 to 2^17 - 1.
    """

    encoders: np.ndarray
    encoder_exponent: int
    bias_mantissas: np.ndarray
    bias_exponent: int
    current_decay: int
    membrane_decay: int
    threshold: int

    def __post_init__(self) -> None:
        encoders = check_weights("encoders", self.encoders, (None, None))
        biases = check_array("bias mantissas", self.bias_mantissas, encoders.shape, "i")
        if biases.dtype != np.int16 or np.any(biases < -4096) or np.any(biases > 4095):
            raise InputError(
                "bias mantissas must be int16 of 13 bits, -4096 to 4095; convert again."
            )
        set_fields(
            self,
            encoders=encoders,
            bias_mantissas=biases,
            encoder_exponent=check_integer("encoder exponent", self.encoder_exponent, 0, 7),
            bias_exponent=check_integer("bias exponent", self.bias_exponent, 0, 7),
            current_decay=check_integer("current decay", self.current_decay, 0, DECAY_ONE - 1),
            membrane_decay=check_integer("membrane decay", self.membrane_decay, 0, DECAY_ONE - 1),
            threshold=check_integer("threshold", self.threshold, 1, 2**17 - 1),
        )
        if self.largest_current >= _MOST_CURRENT - 2**23:
            raise InputError(
                f"currents of {self.largest_current} could wrap more than once around 24 bits; "
                "use smaller encoders or a larger exponent."
            )

    @property
    def states(self) -> int:
        """Number of populations."""
        return int(self.encoders.shape[0])

    @property
    def neurons(self) -> int:
        """Number of neurons per population."""
        return int(self.encoders.shape[1])

    @property
    def biases(self) -> np.ndarray:
        """Biases added to the membranes at each step, shape (states, neurons), int32."""
        return self.bias_mantissas.astype(np.int32) << self.bias_exponent

    @property
    def largest_current(self) -> int:
        """Largest magnitude of 64 a over all messages."""
        weight = int(np.abs(self.encoders.astype(np.int64)).max(initial=0))
        return 64 * (-(-weight * MESSAGE_LIMIT >> self.encoder_exponent))


@dataclass(frozen=True, eq=False, repr=False)
class LoihiMemory(Part):
    """The memory of one LMU layer on LIF neurons and relays.

    Attributes
    ----------
    neurons : LoihiNeurons
        Populations of channels * order states, channel by channel.
    decoders : ndarray, shape (channels, order, order * neurons), int8
    decoder_multiplier, decoder_shift : ndarray, shape (states,), int32
        Unsigned 15-bit integers, and 0 to 31.
    input_weights : ndarray, shape (states,), int8
    input_multiplier, input_shift : ndarray, shape (states,), int32
    decay : int
        Decay of a relay per step in 4096ths, 1 to 4095.
    message_shift : int
        Shift from the state of a relay to its message, 0 to 15.
    scales : ndarray, shape (channels, order)
        Value of the state m at x = 1.
    input_scale : ndarray, shape (channels,)
        Input u per unit of its message.
    """

    neurons: LoihiNeurons
    decoders: np.ndarray
    decoder_multiplier: np.ndarray
    decoder_shift: np.ndarray
    input_weights: np.ndarray
    input_multiplier: np.ndarray
    input_shift: np.ndarray
    decay: int
    message_shift: int
    scales: np.ndarray
    input_scale: np.ndarray

    def __post_init__(self) -> None:
        if not isinstance(self.neurons, LoihiNeurons):
            raise InputError(
                f"a Loihi memory needs LoihiNeurons, not {type(self.neurons).__name__}."
            )
        scales = check_array("memory scales", self.scales, (None, None))
        channels, order = scales.shape
        states = channels * order
        if states == 0 or states != self.neurons.states:
            raise InputError(
                f"{self.neurons.states} populations for {channels} channels of order {order}; "
                "there must be one for each state."
            )
        shape = (channels, order, order * self.neurons.neurons)
        set_fields(
            self,
            scales=scales,
            input_scale=check_array("input scale", self.input_scale, (channels,)),
            decoders=check_weights("decoders", self.decoders, shape),
            input_weights=check_weights("input weights", self.input_weights, (states,)),
            decay=check_integer("relay decay", self.decay, 1, DECAY_ONE - 1),
            message_shift=check_integer("message shift", self.message_shift, 0, 15),
        )
        for kind in ("decoder", "input"):
            names = f"{kind}_multiplier", f"{kind}_shift"
            gains = check_gains(kind, getattr(self, names[0]), getattr(self, names[1]), states)
            set_fields(self, **dict(zip(names, gains, strict=True)))
        if np.any(scales <= 0.0) or np.any(self.input_scale <= 0.0):
            raise InputError("scales must be positive throughout.")

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.scales.shape[0])

    @property
    def order(self) -> int:
        """Number of states of a channel."""
        return int(self.scales.shape[1])

    @property
    def states(self) -> int:
        """Number of states, which is the number of relays."""
        return self.channels * self.order

    @property
    def size(self) -> int:
        """Number of neurons of all populations."""
        return self.states * self.neurons.neurons

    @property
    def state_unit(self) -> np.ndarray:
        """Real value of one unit of each relay, shape (states,)."""
        return np.asarray(self.scales.reshape(-1) / ONE)

    @property
    def fan_out(self) -> dict[str, np.ndarray]:
        """Synaptic operations per event of each neuron, relay and input."""
        return {
            "memory": (self.decoders != 0).sum(axis=1).reshape(-1),
            "relay": (self.neurons.encoders != 0).sum(axis=1),
            "input": (self.input_weights.reshape(self.scales.shape) != 0).sum(axis=1),
        }


def check_weights(name: str, value: object, shape: tuple[int | None, ...]) -> np.ndarray:
    """Return `value` if it is an int8 array of the given shape; raise InputError otherwise."""
    weights = check_array(name, value, shape, "i")
    if weights.dtype != np.int8:
        raise InputError(f"{name} are {weights.dtype}, and Loihi weights are int8; convert again.")
    return weights


def check_gains(
    name: str, multiplier: object, shift: object, rows: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return multipliers of 15 bits and shifts up to 31 as int32, one for each row.

    Raises
    ------
    InputError
        When they are of another type or out of range.
    """
    found = []
    for kind, given, most in (("multiplier", multiplier, 2**15 - 1), ("shift", shift, 31)):
        values = check_array(f"{name} {kind}", given, (rows,), "i")
        if values.dtype != np.int32 or np.any(values < 0) or np.any(values > most):
            raise InputError(f"{name} {kind} must be int32 from 0 to {most}; convert again.")
        found.append(values)
    return found[0], found[1]


@dataclass(frozen=True, eq=False, repr=False)
class LoihiConnection(Synapses):
    """Synapses from the neurons of one ensemble to the relays of another, or of its own.

    Attributes
    ----------
    source : str
        Ensemble that spikes.
    weights : ndarray, shape (blocks, rows, columns), int8
        As of :class:`SpikeConnection`.
    multiplier, shift : ndarray, shape (blocks * rows,), int32
        Gain of each row.
    fast : bool
        Whether they enter the register R of a relay, or X.
    """

    source: str
    weights: np.ndarray
    multiplier: np.ndarray
    shift: np.ndarray
    fast: bool

    def __post_init__(self) -> None:
        source = check_text("connection source", self.source, 200)
        weights = check_weights("connection weights", self.weights, (None, None, None))
        rows = int(weights.shape[0] * weights.shape[1])
        multiplier, shift = check_gains("connection", self.multiplier, self.shift, rows)
        fast = check_flag("connection fast", self.fast)
        set_fields(
            self, source=source, weights=weights, multiplier=multiplier, shift=shift, fast=fast
        )


@dataclass(frozen=True, eq=False, repr=False)
class LoihiCurrent(Part):
    """Synapses from messages of the host to relays.

    Attributes
    ----------
    source : str
        What the host sends; see :class:`LoihiInput`.
    weights : ndarray, shape (size, features), int8
    multiplier, shift : ndarray, shape (size,), int32
    direct : bool
        Whether they are added to what a relay sends, or enter its register X.
    """

    source: str
    weights: np.ndarray
    multiplier: np.ndarray
    shift: np.ndarray
    direct: bool

    def __post_init__(self) -> None:
        source = check_text("current source", self.source, 200)
        weights = check_weights("current weights", self.weights, (None, None))
        multiplier, shift = check_gains("current", self.multiplier, self.shift, len(weights))
        direct = check_flag("current direct", self.direct)
        set_fields(
            self, source=source, weights=weights, multiplier=multiplier, shift=shift, direct=direct
        )


@dataclass(frozen=True, eq=False)
class RelayGroup:
    """Relays with their neurons and synapses, for pre-flight rules, placement and sizes.

    Attributes
    ----------
    relays, place : str
        Names of the relays and of the neurons in a run.
    size : int
        Number of relays.
    neurons : LoihiNeurons or None
        None for relays that only the host reads.
    reaching : tuple of (str, ndarray)
        What sends to the relays, by its name in a run, and the weights of its connection:
        diagonal blocks, shape (blocks, rows, columns), int8.
    spiking : frozenset of str
        Those of them that are neurons and not the host.
    registers : int
        Sums that a relay keeps: X, and R behind fast synapses.
    """

    relays: str
    place: str
    size: int
    neurons: LoihiNeurons | None
    reaching: tuple[tuple[str, np.ndarray], ...]
    spiking: frozenset[str]
    registers: int = 1

    @property
    def senders(self) -> tuple[str, ...]:
        """Names, in a run, of what sends events: relays and neurons."""
        return () if self.neurons is None else (self.relays, self.place)

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """All weights: those that reach the relays, and the encoders of the neurons."""
        own = () if self.neurons is None else (self.neurons.encoders,)
        return (*(weights for _, weights in self.reaching), *own)

    @property
    def size_of_neurons(self) -> int:
        """Number of neurons."""
        return 0 if self.neurons is None else self.size * self.neurons.neurons

    @property
    def accumulator_bits(self) -> int:
        """Width, sign included, of the largest sum over the spikes of one connection in a step."""
        largest = 0
        for source, weights in self.reaching:
            if source in self.spiking:
                signed = weights.astype(np.int64)
                for sign in (1, -1):
                    sums = np.maximum(sign * signed, 0).sum(axis=2)
                    largest = max(largest, int(sums.max(initial=0)))
        return largest.bit_length() + 1


def fan_outs(groups: Iterable[RelayGroup]) -> dict[str, np.ndarray]:
    """Return what sends events, with the number of synapses that each sender reaches."""
    found: dict[str, np.ndarray] = {}

    def reach(name: str, synapses: np.ndarray) -> None:
        found[name] = found.get(name, 0) + synapses.reshape(-1)

    for group in groups:
        for source, weights in group.reaching:
            reach(source, (weights != 0).sum(axis=1))
        if group.neurons is not None:
            reach(group.relays, (group.neurons.encoders != 0).sum(axis=1))
            reach(group.place, np.zeros(group.size_of_neurons, np.int64))
    return found


@dataclass(frozen=True, eq=False, repr=False)
class LoihiNetwork(Layered, Representation):
    """A network with memories on LIF neurons of Loihi and all other parts on the host.

    Attributes
    ----------
    memories : tuple of LoihiMemory or None
        One entry per layer of `host`; None for layers without a memory (LSTM).
    host : LMUNetwork
        See :mod:`lmu_deploy.core.spiking.network`.
    profile : str
        Name of the hardware profile.
    calibration : Calibration
    dt_ms, tau_ms, presentation_ms : float
        Duration of a chip step, time constant of the relays, and presentation time of an input, a
        whole multiple of the first; milliseconds.
    provenance : mapping of str to str

    Raises
    ------
    InputError
        At construction, when a shape, type or value is invalid.
    """

    memories: tuple[LoihiMemory | None, ...]
    host: LMUNetwork
    profile: str
    calibration: Calibration
    dt_ms: float
    tau_ms: float
    presentation_ms: float
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_type(self.host, LMUNetwork)
        check_type(self.calibration, Calibration)
        dt = check_number("dt_ms", self.dt_ms, 1e-3, 1e3)
        set_fields(
            self,
            memories=check_memories(self.memories, self.host, LoihiMemory),
            profile=check_text("profile", self.profile, 200),
            dt_ms=dt,
            tau_ms=check_number("tau_ms", self.tau_ms, dt, 1e9),
            presentation_ms=check_multiple("presentation_ms", self.presentation_ms, dt),
            provenance=check_provenance(self.provenance),
        )

    @property
    def neurons(self) -> int:
        """Number of neurons of all memories."""
        return sum(memory.size for memory in self.memories if memory is not None)

    def groups(self) -> Iterator[RelayGroup]:
        """Yield the relays and neurons of each memory with their synapses."""
        for number, memory in enumerate(self.memories):
            if memory is not None:
                kinds = ("relay", "memory", "input")
                places = {kind: str(self.place(number, kind)) for kind in kinds}
                inputs = memory.input_weights.reshape(*memory.scales.shape, 1)
                yield RelayGroup(
                    places["relay"],
                    places["memory"],
                    memory.states,
                    memory.neurons,
                    ((places["input"], inputs), (places["memory"], memory.decoders)),
                    frozenset({places["memory"]}),
                )

    def summary(self) -> Summary:
        """Return the populations of the network with their states and neurons, as a table."""
        rows = [("input", "", f"{self.n_in:,}", "0")]
        for number, (layer, memory) in enumerate(zip(self.host.layers, self.memories, strict=True)):
            if memory is None:
                name = self.host.node_names[number]
                rows.append((name, f"{layer}, on the host", f"{layer.n_out:,}", "0"))
                continue
            kind = "LIF neurons and relays"
            place = str(self.place(number, "memory"))
            rows.append((place, kind, f"{memory.states:,}", f"{memory.size:,}"))
            if isinstance(layer, LMULayer) and layer.hidden is not None:
                place = str(self.place(number, "hidden"))
                rows.append((place, "on the host", f"{layer.hidden.units:,}", "0"))
        rows.append((self.host.node_names[-1], "on the host", f"{self.n_out:,}", "0"))
        facts = self.facts(self.neurons, self.profile)
        return Summary(facts, ("population", "kind", "states", "neurons"), rows)


LOIHI_CLASSES: tuple[type, ...] = (
    LoihiNetwork,
    LoihiMemory,
    LoihiNeurons,
    Calibration,
    *FLOAT_CLASSES,
)
"""Classes that may occur in a file of this representation, for `core.files.load`."""
