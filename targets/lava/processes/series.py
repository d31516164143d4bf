"""Fixed-point model of a series: one application of its matrix of signs per chip step."""

# mypy: allow-subclassing-any, allow-untyped-decorators

from __future__ import annotations

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.ports import PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from lmu_deploy.core.integer.layers import SeriesMemory
from targets.lava.neurons import Axon, Dendrite, multiply_shift
from targets.lava.plan import Group
from targets.lava.processes.models import SendingModel, send
from targets.lava.processes.neurons import SeriesNeurons
from targets.lava.records import Recorder


@implements(proc=SeriesNeurons, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class SeriesModel(SendingModel):
    """Sends V_0 at its offset; then receives S V_k, adds a term and sends the next at each step.

    With the last term the step's m and M are complete: M is sent to all others, and is the next
    V_0.
    """

    m: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)
    v_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        memory: Group = proc_params["memory"]
        assert isinstance(self.part, SeriesMemory)
        self.series = self.part
        self.axons = [Axon(outlet) for outlet in memory.outlets]
        self.memory_name, self.name = memory.name, self.group.name
        self.memory_recorder = Recorder(proc_params["folder"], memory, self.timetable)
        self.multiplier = np.tile(self.series.multiplier.astype(np.int64), self.series.channels)
        self.shift = np.tile(self.series.shift.astype(np.int64), self.series.channels)
        self.working: tuple[int, int] | None = None
        self.applied = 0
        self.c = self.message = self.silence

    def run_spk(self) -> None:
        """Compute one chip step: the current application, then the start of a new sample step."""
        due = self.receive()
        tick = self.time_step - 1
        vector, complete, done = self.silence, self.silence, None
        if self.working is not None:
            vector = self.apply(due, self.working[1])
            if self.applied == self.series.applications:
                done, complete = self.working, vector
                self.finish(*done, complete)
                vector, self.working = self.silence, None
        started = self.timetable.at(tick, self.group.offset)
        if started is not None:
            vector = self.begin(started)
        if self.working is not None:
            self.recorder.sent(*self.working, tick, 0, vector)
        self.v_out.send(vector.astype(np.int32))
        send(self, self.axons, self.memory_recorder, complete, tick, done)

    def begin(self, step: tuple[int, int]) -> np.ndarray:
        """Start a sample step, from zero states at the first of a sample; return V_0."""
        self.working, self.applied = step, 0
        if step[1] == 0:
            self.m, self.message = np.zeros_like(self.m), self.silence
        return self.message

    def apply(self, due: list[tuple[Dendrite, np.ndarray]], step: int) -> np.ndarray:
        """Add a term to m; return the vector of the next application."""
        series, name = self.series, self.name
        (dendrite, signed), *others = due
        if self.applied == 0:
            drive = self.drive(others, first=step == 0)
            self.c = self.limit(drive, series.state.bits, f"{name}/drive")
        k = self.applied % series.terms
        self.applied += 1
        sums = self.accumulate(dendrite, signed, first=True)[0]
        term = multiply_shift(sums, self.multiplier[k], self.shift[k]) + (0 if k else self.c)
        term = self.limit(term, series.state.bits, f"{name}/term")
        state = self.m.astype(np.int64) + term
        state = self.limit(state, series.state.bits, f"{self.memory_name}/state")
        self.m = state.astype(np.int32)
        if k + 1 < series.terms:
            vector = multiply_shift(term, 1, int(series.term_shift[k]))
            return self.limit(vector, series.message.bits, f"{name}/message")
        vector = multiply_shift(state, 1, series.message_shift)
        return self.limit(vector, series.message.bits, f"{self.memory_name}/message")

    def finish(self, sample: int, step: int, message: np.ndarray) -> None:
        """Record the result of a sample step."""
        self.message = message
        self.memory_recorder.state(sample, step, self.m)
