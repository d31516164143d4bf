"""Lava processes beyond LIF and Dense, relays and hosts, and their models.

A memory of a chain has a host that computes its next inputs from its states. In a stage of a graph
the host's messages are known before, and each sender of a relay has gains of its own.

The models compute what docs/reference/loihi-semantics.md specifies. Samples run side by side, as
separate copies of the network; every port carries sample after sample.
"""

# mypy: allow-subclassing-any, allow-untyped-decorators

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.process.variable import Var
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from targets.host import HostLayer
from targets.lava.neurons import multiply_shift, saturate
from targets.lava_lif import target
from targets.lava_lif.target import StagePart
from targets.spiking.layers import Job, Tally


class Relays(AbstractProcess):
    """Leaky integrators that send their state, rounded to the chip and in full to the host.

    Parameters
    ----------
    job : Job
    folder : Path
        Folder of the records.
    """

    def __init__(self, job: Job, folder: Path) -> None:
        super().__init__(job=job, folder=folder, name="relays")
        shape = (job.samples * job.memory.states,)
        self.x = Var(shape=shape, init=0)
        self.decoded_in = InPort(shape=shape)
        self.driven_in = InPort(shape=shape)
        self.message_out = OutPort(shape=shape)
        self.state_out = OutPort(shape=shape)


class Host(AbstractProcess):
    """Receives the states once per presentation, sends the next input, and counts all events.

    Parameters
    ----------
    job : Job
    folder : Path
    """

    def __init__(self, job: Job, folder: Path) -> None:
        super().__init__(job=job, folder=folder, name="host")
        memory, samples = job.memory, job.samples
        self.state_in = InPort(shape=(samples * memory.states,))
        self.message_in = InPort(shape=(samples * memory.states,))
        self.spikes_in = InPort(shape=(samples * memory.size,))
        self.input_out = OutPort(shape=(samples * memory.channels,))


IN_PORTS: list[str] = []
"""Names of the ports of all relays of graphs; see :func:`offer_ports`."""
SLOW, FAST, DIRECT = "slow", "fast", "direct"


@dataclass(frozen=True)
class Arriving:
    """What arrives at relays from one sender: the register it enters, and gains of its rows."""

    register: str
    multiplier: np.ndarray
    shift: np.ndarray


class GraphRelays(AbstractProcess):
    """The relays of an ensemble of a graph, with a port for each of their senders.

    Parameters
    ----------
    part : StagePart
        What they are part of, and where their records are.
    arriving : sequence of Arriving
        In the order of the ports.
    """

    def __init__(self, part: StagePart, arriving: Sequence[Arriving]) -> None:
        super().__init__(part=part, arriving=arriving)
        for name in IN_PORTS:
            setattr(self, name, InPort(shape=(part.samples * part.size,)))
        self.message_out = OutPort(shape=(part.samples * part.size,))


class Counter(AbstractProcess):
    """Counts spikes.

    Parameters
    ----------
    part : StagePart
    """

    def __init__(self, part: StagePart) -> None:
        super().__init__(part=part)
        self.events_in = InPort(shape=(part.samples * part.size,))


class Player(AbstractProcess):
    """Sends the host's messages of a source, the same at every step of a presentation.

    Parameters
    ----------
    part : StagePart
    messages : ndarray, shape (samples, presentations, features), int64
    """

    def __init__(self, part: StagePart, messages: np.ndarray) -> None:
        super().__init__(part=part, messages=messages)
        self.message_out = OutPort(shape=(part.samples * part.size,))


def _in_port() -> LavaPyType:
    return LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)


def _out_port() -> LavaPyType:
    return LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)


@implements(proc=Relays, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class RelaysModel(PyLoihiProcessModel):
    """X <- sat(tz(X (4096 - decay) / 4096) + decoded + driven); the message is sat(ms(X))."""

    x: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)
    decoded_in: PyInPort = _in_port()
    driven_in: PyInPort = _in_port()
    message_out: PyOutPort = _out_port()
    state_out: PyOutPort = _out_port()

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        job, self.folder = proc_params["job"], proc_params["folder"]
        memory, self.last = job.memory, job.chip_steps
        self.decay, self.message_shift = memory.decay, memory.message_shift
        decoded = (memory.decoder_multiplier, memory.decoder_shift)
        driven = (memory.input_multiplier, memory.input_shift)
        self.gains = [np.tile(gain, job.samples) for gain in (*decoded, *driven)]
        self.limited = self.limited_messages = 0

    def run_spk(self) -> None:
        """Compute one chip step."""
        multiplier, shift, input_multiplier, input_shift = self.gains
        decoded = multiply_shift(self.decoded_in.recv().astype(np.int64), multiplier, shift)
        driven = self.driven_in.recv().astype(np.int64)
        kept = decayed(self.x.astype(np.int64), self.decay)
        x, changed = saturate(
            kept + decoded + multiply_shift(driven, input_multiplier, input_shift), 24
        )
        self.limited += changed
        self.x = x.astype(np.int32)
        message, changed = saturate(multiply_shift(x, 1, self.message_shift), 16)
        self.limited_messages += changed
        self.message_out.send(message.astype(np.int32))
        self.state_out.send(self.x)
        if self.time_step == self.last:
            target.write_saturations(
                self.folder,
                {"relay/state": self.limited, "relay/message": self.limited_messages},
            )


@implements(proc=Host, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class HostModel(PyLoihiProcessModel):
    """Float64 computations of the host: from states to messages of the next presentation."""

    state_in: PyInPort = _in_port()
    message_in: PyInPort = _in_port()
    spikes_in: PyInPort = _in_port()
    input_out: PyOutPort = _out_port()

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.job, self.folder = proc_params["job"], proc_params["folder"]
        self.host = HostLayer(self.job.layer, self.job.signal)
        self.done = target.opened(self.folder)
        self.tallies = {kind: Tally(self.done, kind) for kind in self.done.counts}
        self.message = np.zeros((self.job.samples, self.job.memory.channels), np.int32)
        self.limited = 0

    def run_spk(self) -> None:
        """Compute one chip step."""
        job, step = self.job, self.time_step - 1
        states = self.state_in.recv().reshape(job.samples, -1)
        relayed, spikes = self.message_in.recv(), self.spikes_in.recv()
        presentation, phase = divmod(step, job.presentation_steps)
        if phase == 0:
            self.exchange(presentation, states)
        self.input_out.send(self.message.reshape(-1))
        if presentation == job.presentations:
            return
        events = {"memory": spikes != 0, "relay": relayed != 0, "input": self.message != 0}
        for kind, tally in self.tallies.items():
            tally.add(events[kind], presentation, step)
            if phase == job.presentation_steps - 1:
                tally.flush(presentation)

    def exchange(self, presentation: int, states: np.ndarray) -> None:
        """Receive the states after the previous presentation; compute the next messages."""
        job = self.job
        if presentation:
            self.done.states[:, presentation - 1] = states
            self.host.observe(presentation - 1, states * job.memory.state_unit)
            target.note_progress(self.folder, presentation * job.samples)
        if presentation == job.presentations:
            target.write_saturations(self.folder, {"input": self.limited})
            self.message[:] = 0
            return
        units = np.rint(self.host.channels(presentation) / job.memory.input_scale)
        top = 2**15 - 1
        limited = np.minimum(np.maximum(units, -top), top)
        self.limited += int(np.count_nonzero(limited != units))
        self.message = limited.astype(np.int32)


class Counts:
    """The records of one sender, which a process writes.

    Parameters
    ----------
    part : StagePart
    """

    def __init__(self, part: StagePart) -> None:
        self.part = part
        names = ("counts", "by-neuron", "raster")
        self.counts, self.by_neuron, self.raster = (part.opened(name) for name in names)

    def add(self, fired: np.ndarray, step: int) -> None:
        """Count the events of one chip step, bool; those of the last are not counted."""
        presentation = step // self.part.presentation_steps
        if presentation == self.part.presentations:
            return
        fired = fired.reshape(self.part.samples, -1)
        self.counts[:, presentation] += fired.sum(axis=1)
        self.by_neuron += fired.sum(axis=0)
        if self.raster is not None:
            self.raster[step] = fired[0]


@implements(proc=GraphRelays, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class GraphRelaysModel(PyLoihiProcessModel):
    """X and R decay and take what arrives; the message is that of sat(X + R + direct)."""

    message_out: PyOutPort = _out_port()

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.part, self.arriving = proc_params["part"], proc_params["arriving"]
        shape = self.part.samples * self.part.size
        self.x, self.r = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self.limited = self.limited_messages = 0
        self.drives = self.part.opened("drives")
        self.counts = Counts(self.part) if self.part.sends else None

    def run_spk(self) -> None:
        """Compute one chip step."""
        part, step = self.part, self.time_step - 1
        sums = {
            SLOW: decayed(self.x, part.decay),
            FAST: decayed(self.r, part.fast_decay),
            DIRECT: np.zeros_like(self.x),
        }
        for name, each in zip(IN_PORTS, self.arriving, strict=False):
            given = getattr(self, name).recv().astype(np.int64)
            sums[each.register] += multiply_shift(given, each.multiplier, each.shift)
        self.x, self.r = self.saturated(sums[SLOW]), self.saturated(sums[FAST])
        z = self.saturated(self.x + self.r + sums[DIRECT])
        if self.counts is not None:
            message, changed = saturate(multiply_shift(z, 1, part.message_shift), 16)
            self.limited_messages += changed
            self.message_out.send(message.astype(np.int32))
            self.counts.add(message != 0, step)
        presentation, phase = divmod(step, part.presentation_steps)
        if phase == 0 and presentation:
            self.drives[:, presentation - 1] = z.reshape(part.samples, -1)
            if part.reports:
                target.note_progress(part.folder, presentation * part.samples)
        if presentation == part.presentations:
            part.write_saturations(self.limited, self.limited_messages)

    def saturated(self, values: np.ndarray) -> np.ndarray:
        """Return values of 24 bits, and count those that were changed."""
        found, changed = saturate(values, 24)
        self.limited += changed
        return found


def decayed(register: np.ndarray, decay: int) -> np.ndarray:
    """Return a register times (4096 - decay) / 4096, rounded toward zero."""
    kept = register * (4096 - decay)
    return np.asarray(np.sign(kept) * (np.abs(kept) >> 12))


def offer_ports(number: int) -> None:
    """Give all relays of graphs from now on at least that many ports."""
    for port in range(len(IN_PORTS), number):
        IN_PORTS.append(f"sums_in_{port}")
        setattr(GraphRelaysModel, IN_PORTS[-1], _in_port())


@implements(proc=Counter, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class CounterModel(PyLoihiProcessModel):
    """Adds up spikes by presentation and by neuron."""

    events_in: PyInPort = _in_port()

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.counts = Counts(proc_params["part"])

    def run_spk(self) -> None:
        """Count the spikes of one chip step."""
        self.counts.add(self.events_in.recv() != 0, self.time_step - 1)


@implements(proc=Player, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PlayerModel(PyLoihiProcessModel):
    """Sends messages that are known before."""

    message_out: PyOutPort = _out_port()

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.part, self.messages = proc_params["part"], proc_params["messages"]
        self.counts = Counts(self.part)

    def run_spk(self) -> None:
        """Send the messages of one chip step; zeros in the last."""
        step, part = self.time_step - 1, self.part
        sent = np.zeros(part.samples * part.size, np.int32)
        if (presentation := step // part.presentation_steps) < part.presentations:
            sent[:] = self.messages[:, presentation].reshape(-1)
        self.message_out.send(sent)
        self.counts.add(sent != 0, step)
