"""How the processes compute, in fixed point, as docs/integer-semantics.md says."""

# mypy: allow-subclassing-any, allow-untyped-decorators

from __future__ import annotations

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from targets.lava.arithmetic import activate, multiply_shift, saturate
from targets.lava.dendrites import Dendrite
from targets.lava.plan import Timetable
from targets.lava.processes.neurons import (
    PORT_NAMES,
    HiddenNeurons,
    InputCounter,
    MemoryNeurons,
    ReadoutNeurons,
    port_name,
)
from targets.lava.records import Recorder


class NeuronsModel(PyLoihiProcessModel):
    """Receives at every chip step, and works when the timetable says so."""

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        group = proc_params["group"]
        self.timetable: Timetable = proc_params["timetable"]
        self.offset = group.offset
        self.neurons = group.neurons
        self.part = group.part
        self.dendrites = [Dendrite(link) for link in group.links]
        bias = self.part.bias
        self.bias = np.zeros(self.neurons, np.int64) if bias is None else bias.astype(np.int64)
        self.recorder = Recorder(proc_params["folder"], group, self.timetable)

    def run_spk(self) -> None:
        """One chip step."""
        due = [
            dendrite.receive(
                [getattr(self, port_name(link, part)).recv() for part in range(dendrite.slices)]
            )
            for link, dendrite in enumerate(self.dendrites)
        ]
        tick = self.time_step - 1
        now = self.timetable.at(tick, self.offset)
        message = np.zeros(self.neurons, np.int64)
        if now is not None:
            message = self.work(*now, self.drive(due))
        self.emit(message, tick, now)

    def drive(self, due: list[np.ndarray]) -> np.ndarray:
        """Sum of what all connections and the bias drive the neurons with."""
        total, place = self.bias, 0
        for dendrite, sums in zip(self.dendrites, due, strict=True):
            driven, saturations = dendrite.drive(sums)
            total = total + driven
            for changed in saturations:
                self.recorder.saturated(place, changed)
                place += 1
        return total

    def limit(self, values: np.ndarray, bits: int, from_last: int) -> np.ndarray:
        """Saturate, counting at one of the neuron's own places: 1 the last, 2 the one before."""
        limited, changed = saturate(values, bits)
        self.recorder.saturated(-from_last, changed)
        return limited

    def work(self, sample: int, step: int, drive: np.ndarray) -> np.ndarray:
        """Advance by one sample step; give the messages."""
        raise NotImplementedError

    def emit(self, message: np.ndarray, tick: int, now: tuple[int, int] | None) -> None:
        """Send the messages of this chip step; a population without an out-port sends none."""


class SendersModel(NeuronsModel):
    """Sends at every chip step, zeros while it waits, and counts what is not zero."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)

    def emit(self, message: np.ndarray, tick: int, now: tuple[int, int] | None) -> None:
        """Count and send."""
        if now is not None:
            self.recorder.sent(*now, tick, message)
        self.s_out.send(message.astype(np.int32))


for _name in PORT_NAMES:
    setattr(NeuronsModel, _name, LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24))


@implements(proc=MemoryNeurons, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class MemoryModel(SendersModel):
    """m <- sat(m + drive); the message is sat(ms(m, 1, shift))."""

    m: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)

    def work(self, sample: int, step: int, drive: np.ndarray) -> np.ndarray:
        """Integrate, from zero at the first step of a sample."""
        before = self.m.astype(np.int64) if step else np.zeros(self.neurons, np.int64)
        state = self.limit(before + drive, self.part.state.bits, 2)
        self.m = state.astype(np.int32)
        self.recorder.state(sample, step, self.m)
        rounded = multiply_shift(state, 1, self.part.message_shift)
        return self.limit(rounded, self.part.message.bits, 1)


@implements(proc=HiddenNeurons, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class HiddenModel(SendersModel):
    """H = f(sat(drive))."""

    def work(self, sample: int, step: int, drive: np.ndarray) -> np.ndarray:
        """Apply the activation to what drives the units."""
        limited = self.limit(drive, self.part.drive.bits, 2)
        message, changed = activate(self.part.activation, limited, self.part.message)
        self.recorder.saturated(-1, changed)
        self.recorder.state(sample, step, message)
        return message


@implements(proc=ReadoutNeurons, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class ReadoutModel(NeuronsModel):
    """y = sat(drive); nothing is sent on."""

    def work(self, sample: int, step: int, drive: np.ndarray) -> np.ndarray:
        """Write the output down."""
        output = self.limit(drive, self.part.output.bits, 1)
        self.recorder.state(sample, step, output)
        self.recorder.finished(sample * self.timetable.steps + step + 1)
        return output


@implements(proc=InputCounter, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class InputCounterModel(PyLoihiProcessModel):
    """Counts what passes."""

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.timetable: Timetable = proc_params["timetable"]
        self.recorder = Recorder(proc_params["folder"], proc_params["group"], self.timetable)

    def run_spk(self) -> None:
        """One chip step."""
        message = self.s_in.recv()
        tick = self.time_step - 1
        now = self.timetable.at(tick, 0)
        if now is not None:
            self.recorder.sent(*now, tick, message)
