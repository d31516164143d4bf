"""LoihiNetwork: the memories of an LMUNetwork on LIF neurons in Loihi's fixed-point arithmetic.

The result is fully specified, spike for spike, by docs/reference/loihi-semantics.md. Each memory
consists of LIF neurons and of relays that represent its state. All widths are those of Loihi and
are validated at construction, so that targets need no overflow checks.

There are two implementations of the neurons with identical results. :class:`LifNeurons` follows the
specification operation by operation in 64 bits and serves any network. :class:`FastLifNeurons`
works in place in 32 bits. It requires that the current decays within one step (du = 4095) and that
the membrane decay is a multiple of 16, because v (4096 - dv) / 4096 = v (256 - dv / 16) / 256 then
fits 32 bits; it wraps and clips where the specification does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.network import FLOAT_CLASSES, LMULayer, LMUNetwork
from lmu_deploy.core.representation import Part, Representation, Summary
from lmu_deploy.core.spiking.chip import Calibration, check_multiple
from lmu_deploy.core.spiking.network import Hosted, check_memories, check_type
from lmu_deploy.core.validation import (
    check_array,
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
                "there "
                "must be one for each state."
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
        for name, most in (("multiplier", 2**15 - 1), ("shift", 31)):
            for kind in ("decoder", "input"):
                _check_range(self, f"{kind}_{name}", states, most)
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


def _check_range(memory: LoihiMemory, name: str, states: int, most: int) -> None:
    values = check_array(name.replace("_", " "), getattr(memory, name), (states,), "i")
    if values.dtype != np.int32 or np.any(values < 0) or np.any(values > most):
        raise InputError(f"{name.replace('_', ' ')} must be int32 from 0 to {most}; convert again.")
    set_fields(memory, **{name: values})


@dataclass(frozen=True, eq=False, repr=False)
class LoihiNetwork(Hosted, Representation):
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

    def summary(self) -> Summary:
        """Return the populations of the network with their states and neurons, as a table."""
        rows = [("input", "", f"{self.n_in:,}", "0")]
        for number, (layer, memory) in enumerate(zip(self.host.layers, self.memories, strict=True)):
            name = f"layer{number}"
            if memory is None:
                rows.append((name, f"{layer}, on the host", f"{layer.n_out:,}", "0"))
                continue
            kind = "LIF neurons and relays"
            rows.append((f"{name}/memory", kind, f"{memory.states:,}", f"{memory.size:,}"))
            if isinstance(layer, LMULayer) and layer.hidden is not None:
                rows.append((f"{name}/hidden", "on the host", f"{layer.hidden.units:,}", "0"))
        rows.append(("readout", "on the host", f"{self.n_out:,}", "0"))
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


_AROUND = 2**24
_INPUT_SHIFT = 6
_FINE = 16


class LifNeurons:
    """The neurons of a memory for a batch of samples, with states initially zero.

    Parameters
    ----------
    neurons : LoihiNeurons
    samples : int
    """

    def __init__(self, neurons: LoihiNeurons, samples: int) -> None:
        self._neurons = neurons
        self._encoders = neurons.encoders.astype(np.int64)
        self._biases = neurons.biases.astype(np.int64)
        shape = (samples, *neurons.encoders.shape)
        self.u = np.zeros(shape, np.int64)
        self.v = np.zeros(shape, np.int64)

    def step(self, messages: np.ndarray) -> np.ndarray:
        """Advance by one chip step.

        Parameters
        ----------
        messages : ndarray, shape (samples, states), int64
            Messages that the relays sent in the previous step.

        Returns
        -------
        spikes : ndarray, shape (samples, states, neurons), bool
        """
        neurons = self._neurons
        arriving = (self._encoders * messages[:, :, None]) >> neurons.encoder_exponent
        kept = _toward_zero(self.u * (DECAY_ONE - 1 - neurons.current_decay))
        self.u = _wrapped_once(kept + (arriving << _INPUT_SHIFT))
        kept = _toward_zero(self.v * (DECAY_ONE - neurons.membrane_decay))
        self.v = np.clip(kept + self.u + self._biases, -STATE_LIMIT, STATE_LIMIT)
        spikes: np.ndarray = self.v > neurons.threshold << _INPUT_SHIFT
        self.v[spikes] = 0
        return spikes


def _toward_zero(product: np.ndarray) -> np.ndarray:
    """Return ``product / 4096``, rounded toward zero."""
    return (product + np.where(product < 0, DECAY_ONE - 1, 0)) >> 12


def _wrapped_once(current: np.ndarray) -> np.ndarray:
    """Return a current wrapped into (-2^23, 2^23]."""
    over, under = current > _AROUND // 2, current <= -_AROUND // 2
    wrapped: np.ndarray = current - _AROUND * over + _AROUND * under
    return wrapped


class FastLifNeurons:
    """The neurons of a memory in 32-bit arithmetic; see the module docstring.

    Parameters
    ----------
    neurons : LoihiNeurons
        Must satisfy :func:`is_fast`.
    samples : int
    """

    def __init__(self, neurons: LoihiNeurons, samples: int) -> None:
        self._encoders = neurons.encoders.astype(np.int32)
        self._biases = neurons.biases
        self._exponent = neurons.encoder_exponent
        self._kept = np.int32((DECAY_ONE - neurons.membrane_decay) // _FINE)
        self._threshold = np.int32(neurons.threshold << _INPUT_SHIFT)
        self._clips = False
        self._unclipped = _largest_unclipped(neurons)
        self._unwrapped = _largest_unwrapped(neurons)
        shape = (samples, *neurons.encoders.shape)
        self.v = np.zeros(shape, np.int32)
        self._drive = np.empty(shape, np.int32)
        self._spikes = np.empty(shape, bool)

    def step(self, messages: np.ndarray) -> np.ndarray:
        """Advance by one chip step; see :meth:`LifNeurons.step`. The result is reused."""
        largest = int(np.abs(messages).max(initial=0))
        self._clips |= largest > self._unclipped
        drive, v = self._drive, self.v
        np.multiply(self._encoders, messages[:, :, None].astype(np.int32), out=drive)
        _floor_to_64ths(drive, self._exponent)
        if largest > self._unwrapped:
            np.copyto(drive, _wrapped_once(drive))
        drive += self._biases

        # To round toward zero, add 255 to negative values before the division by 256.
        upward = v.view(np.uint32) >> np.uint32(24)
        np.multiply(v, self._kept, out=v)
        v += upward.view(np.int32)
        v >>= 8
        v += drive
        if self._clips:
            np.clip(v, -STATE_LIMIT, STATE_LIMIT, out=v)
        np.greater(v, self._threshold, out=self._spikes)
        np.putmask(v, self._spikes, 0)
        return self._spikes


def _floor_to_64ths(drive: np.ndarray, exponent: int) -> None:
    """Replace each entry with 64 floor(entry / 2^exponent), in place."""
    if exponent > _INPUT_SHIFT:
        drive >>= exponent - _INPUT_SHIFT
    elif exponent < _INPUT_SHIFT:
        drive <<= _INPUT_SHIFT - exponent
    if exponent:
        drive &= -(1 << _INPUT_SHIFT)


def is_fast(neurons: LoihiNeurons) -> bool:
    """Return whether 32-bit arithmetic is exact for these neurons."""
    decays = neurons.current_decay == DECAY_ONE - 1
    return decays and neurons.membrane_decay % _FINE == 0 and neurons.membrane_decay > 0


def make_neurons(neurons: LoihiNeurons, samples: int) -> LifNeurons | FastLifNeurons:
    """Return the fastest exact implementation of these neurons."""
    return (FastLifNeurons if is_fast(neurons) else LifNeurons)(neurons, samples)


def _largest_unclipped(neurons: LoihiNeurons) -> int:
    """Return the largest message that can never drive a membrane to its limit.

    A constant drive u moves a membrane to at most u 4096 / dv below zero, and above zero to at most
    one drive beyond the threshold.
    """
    share = neurons.membrane_decay / DECAY_ONE
    room = np.minimum(
        STATE_LIMIT * share + neurons.biases,
        STATE_LIMIT - (neurons.threshold << _INPUT_SHIFT) - neurons.biases,
    )
    return _largest_message(neurons, room - 2 * (1 << _INPUT_SHIFT))


def _largest_unwrapped(neurons: LoihiNeurons) -> int:
    """Return the largest message whose currents stay within 24 bits."""
    return _largest_message(neurons, np.full(neurons.encoders.shape, float(STATE_LIMIT)))


def _largest_message(neurons: LoihiNeurons, room: np.ndarray) -> int:
    """Return the largest message whose currents stay below `room` everywhere; -1 if none."""
    gains = np.abs(neurons.encoders.astype(np.float64)) * 2.0 ** (
        _INPUT_SHIFT - neurons.encoder_exponent
    )
    if np.any(room <= 0.0):
        return -1
    return int(min(np.min(room / np.maximum(gains, 1e-9)), MESSAGE_LIMIT))
