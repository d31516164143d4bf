"""Fixed-point models of the processes, as docs/reference/integer-semantics.md specifies."""

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

from targets.lava.neurons import Axon, Dendrite, activate, multiply_shift, saturate
from targets.lava.plan import Group, Timetable
from targets.lava.processes.neurons import (
    IN_PORTS,
    OUT_PORTS,
    HiddenNeurons,
    InputNeurons,
    MemoryNeurons,
    ReadoutNeurons,
)
from targets.lava.records import Recorder, input_messages


class NeuronsModel(PyLoihiProcessModel):
    """Receives at every chip step, and computes at those of the timetable."""

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        group: Group = proc_params["group"]
        self.timetable: Timetable = proc_params["timetable"]
        self.group = group
        self.part: Any = group.part  # of the class for which assembly.py chooses this model
        self.dendrites = [Dendrite(link) for link in group.links]
        bias = None if self.part is None else self.part.bias
        self.silence = np.zeros(group.neurons, np.int64)
        self.bias = self.silence if bias is None else bias.astype(np.int64)
        self.recorder = Recorder(proc_params["folder"], group, self.timetable)

    def run_spk(self) -> None:
        """Compute one chip step."""
        due = self.receive()
        tick = self.time_step - 1
        now = self.timetable.at(tick, self.group.offset)
        message = self.silence
        if now is not None:
            message = self.work(*now, self.drive(due, first=now[1] == 0))
        self.emit(message, tick, now)

    def receive(self) -> list[tuple[Dendrite, np.ndarray]]:
        """Receive at every in-port; return each dendrite with the sums that are due."""
        ports = zip(IN_PORTS, self.dendrites, strict=False)
        return [
            (dendrite, dendrite.receive(getattr(self, port).recv())) for port, dendrite in ports
        ]

    def drive(self, due: list[tuple[Dendrite, np.ndarray]], first: bool) -> np.ndarray:
        """Return the total drive of these connections and the bias."""
        total = self.bias
        for dendrite, sums in due:
            total = total + dendrite.drive(self.accumulate(dendrite, sums, first))
        return total

    def accumulate(self, dendrite: Dendrite, due: np.ndarray, first: bool) -> np.ndarray:
        """Return the saturated accumulators of one connection, and count saturations."""
        accumulators, saturations = dendrite.accumulate(due, first)
        for place, changed in zip(dendrite.places, saturations, strict=True):
            self.recorder.saturated(place, changed)
        return accumulators

    def limit(self, values: np.ndarray, bits: int, place: str) -> np.ndarray:
        """Saturate `values`, and count saturations at a place."""
        limited, changed = saturate(values, bits)
        self.recorder.saturated(place, changed)
        return limited

    def work(self, sample: int, step: int, drive: np.ndarray) -> np.ndarray:
        """Advance by one sample step; return the messages."""
        raise NotImplementedError

    def emit(self, message: np.ndarray, tick: int, now: tuple[int, int] | None) -> None:
        """Send the messages of this chip step; a population without an out-port sends none."""


class SendingModel(NeuronsModel):
    """Sends at every chip step, zeros outside the timetable, and counts events."""

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.axons = [Axon(outlet) for outlet in self.group.outlets]

    def emit(self, message: np.ndarray, tick: int, now: tuple[int, int] | None) -> None:
        """Count events and send them."""
        send(self, self.axons, self.recorder, message, tick, now)


def send(
    model: Any,
    axons: list[Axon],
    recorder: Recorder,
    message: np.ndarray,
    tick: int,
    now: tuple[int, int] | None,
) -> None:
    """Send a message over every axon, and count the events of the timetable."""
    for number, axon in enumerate(axons):
        events = message
        if now is not None:
            events = axon.events(message, first=now[1] == 0)
            recorder.sent(*now, tick, number, events)
        getattr(model, OUT_PORTS[number]).send(events.astype(np.int32))


for _name in IN_PORTS:
    setattr(NeuronsModel, _name, LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24))
for _name in OUT_PORTS:
    setattr(SendingModel, _name, LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24))


@implements(proc=InputNeurons, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class InputModel(SendingModel):
    """Sends the input messages of each step."""

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.messages = input_messages(proc_params["folder"])

    def work(self, sample: int, step: int, drive: np.ndarray) -> np.ndarray:
        """Return the messages of a step."""
        return self.messages[sample, step].astype(np.int64)


@implements(proc=MemoryNeurons, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class MemoryModel(SendingModel):
    """m <- sat(m + drive); the message is sat(ms(m, 1, shift))."""

    m: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)

    def work(self, sample: int, step: int, drive: np.ndarray) -> np.ndarray:
        """Integrate, from zero at the first step of a sample."""
        before = self.m.astype(np.int64) if step else self.silence
        name = self.group.name
        state = self.limit(before + drive, self.part.state.bits, f"{name}/state")
        self.m = state.astype(np.int32)
        self.recorder.state(sample, step, self.m)
        rounded = multiply_shift(state, 1, self.part.message_shift)
        return self.limit(rounded, self.part.message.bits, f"{name}/message")


@implements(proc=HiddenNeurons, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class HiddenModel(SendingModel):
    """H = f(sat(drive))."""

    def work(self, sample: int, step: int, drive: np.ndarray) -> np.ndarray:
        """Apply the activation to the drive of the units."""
        name = self.group.name
        limited = self.limit(drive, self.part.drive.bits, f"{name}/drive")
        message, changed = activate(self.part.activation, limited, self.part.message)
        self.recorder.saturated(f"{name}/message", changed)
        self.recorder.state(sample, step, message)
        return message


@implements(proc=ReadoutNeurons, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class ReadoutModel(NeuronsModel):
    """y = sat(drive); nothing is sent on."""

    def work(self, sample: int, step: int, drive: np.ndarray) -> np.ndarray:
        """Record the output."""
        output = self.limit(drive, self.part.output.bits, "readout/output")
        self.recorder.state(sample, step, output)
        self.recorder.finished(sample * self.timetable.steps + step + 1)
        return output
