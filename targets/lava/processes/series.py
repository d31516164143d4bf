"""Fixed-point model of a series: one application of its matrix of signs per chip step."""

# mypy: allow-subclassing-any

from __future__ import annotations

from typing import Any

import numpy as np

from targets.lava.neurons import multiply_shift, saturate
from targets.lava.processes.models import StatefulModel, fixed_point
from targets.lava.processes.neurons import SeriesNeurons


@fixed_point(SeriesNeurons)
class SeriesModel(StatefulModel):
    """Sends V_0 at its offset; then receives S V_k, adds a term and sends the next at each step.

    With the last term the frame's m and M are complete: M is sent to all others, and is the next
    V_0.
    """

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        series = self.population
        self.multiplier = np.tile(series.multiplier.astype(np.int64), series.channels)
        self.shift = np.tile(series.shift.astype(np.int64), series.channels)
        places = series.saturation_places
        self.state_place, self.message_place, self.drive_place, self.term_place = places[:4]
        self.vector_place = places[4]
        self.working: tuple[int, int] | None = None
        self.applied = 0
        self.c = self.silence

    def run_spk(self) -> None:
        """Compute one chip step: the current application, then the start of a new frame."""
        due, tick = self.receive(), self.time_step - 1
        vector, complete, done = self.silence, self.silence, None
        if self.working is not None:
            vector = self.apply(due, first=self.working[1] == 0)
            if self.applied == self.population.applications:
                done, complete = self.working, vector
                self.message, self.working = complete, None
                self.recorder.frame(*done, self.state, complete)
                if self.reports:
                    self.recorder.finished(*done)
                vector = self.silence
        started = self.timetable.at(tick, self.slot.works)
        if started is not None:
            vector = self.begin(started)
        self.send(0, vector, tick, self.working)
        for number in range(1, len(self.axons)):
            self.send(number, complete, tick, done)

    def begin(self, frame: tuple[int, int]) -> np.ndarray:
        """Start a frame, from zero states at the first of a sample; return V_0."""
        self.working, self.applied = frame, 0
        if frame[1] == 0:
            self.state, self.message = np.zeros_like(self.state), self.silence
        return self.message

    def apply(self, due: list[np.ndarray], first: bool) -> np.ndarray:
        """Add a term to m; return the vector of the next application."""
        series, bits = self.population, self.population.state.bits
        if self.applied == 0:
            self.c = self.saturate_at(self.drive_place, self.drive(due, first, skipped=1), bits)
        k = self.applied % series.terms
        self.applied += 1
        sums = self.accumulate(self.dendrites[0], due[0], first=False)[0]
        term = multiply_shift(sums, self.multiplier[k], self.shift[k]) + (0 if k else self.c)
        term = self.saturate_at(self.term_place, term, bits)
        m = self.saturate_at(self.state_place, self.state.astype(np.int64) + term, bits)
        self.state = m.astype(np.int32)
        if k + 1 < series.terms:
            vector = multiply_shift(term, 1, int(series.term_shift[k]))
            return self.saturate_at(self.vector_place, vector, series.message.bits)
        vector = multiply_shift(m, 1, series.message_shift)
        return self.saturate_at(self.message_place, vector, series.message.bits)

    def saturate_at(self, place: str, values: np.ndarray, bits: int) -> np.ndarray:
        """Saturate values, and count saturations at a place."""
        limited, changed = saturate(values, bits)
        self.recorder.saturated(place, changed)
        return limited
