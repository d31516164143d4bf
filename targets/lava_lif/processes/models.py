"""Lava processes beyond LIF and Dense, the relays and the host, and their models.

The models compute what docs/reference/loihi-semantics.md specifies. Samples run side by side, as
separate copies of the network; every port carries sample after sample.
"""

# mypy: allow-subclassing-any, allow-untyped-decorators

from __future__ import annotations

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
        self.keep, self.message_shift = 4096 - memory.decay, memory.message_shift
        decoded = (memory.decoder_multiplier, memory.decoder_shift)
        driven = (memory.input_multiplier, memory.input_shift)
        self.gains = [np.tile(gain, job.samples) for gain in (*decoded, *driven)]
        self.limited = self.limited_messages = 0

    def run_spk(self) -> None:
        """Compute one chip step."""
        multiplier, shift, input_multiplier, input_shift = self.gains
        decoded = multiply_shift(self.decoded_in.recv().astype(np.int64), multiplier, shift)
        driven = self.driven_in.recv().astype(np.int64)
        kept = self.x.astype(np.int64) * self.keep
        kept = np.sign(kept) * (np.abs(kept) >> 12)
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
