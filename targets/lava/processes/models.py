"""Fixed-point models of the processes, as docs/reference/integer-semantics.md specifies."""

# mypy: allow-subclassing-any, allow-untyped-decorators

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from lmu_deploy.core.integer.populations import GATE
from targets.lava.neurons import Axon, Dendrite, evaluate, multiply_shift, saturate
from targets.lava.plan import Group
from targets.lava.processes import neurons
from targets.lava.processes.neurons import IN_PORTS, OUT_PORTS, SeriesNeurons
from targets.lava.records import Recorder, played
from targets.lava.schedule import Timetable

_FACTOR_BITS = 24
_FRACTION = GATE.bits - 1
"""Fraction bits of a gate."""


class NeuronsModel(PyLoihiProcessModel):
    """Receives and sends at every chip step, and computes at those of the timetable."""

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        group: Group = proc_params["group"]
        self.timetable: Timetable = proc_params["timetable"]
        self.group, self.slot = group, group.slot
        self.population = cast(Any, group.population)  # of the model's own class
        self.dendrites = [Dendrite(link) for link in group.links]
        self.axons = [Axon(way.outlet.threshold, way.before) for way in group.exits]
        self.bias = np.zeros(getattr(self.population, "drive_size", 0), np.int64)
        if self.population.bias is not None:
            self.bias = self.population.bias.astype(np.int64)
        names = () if group.replays else self.population.counted
        self.places = dict(zip(names, group.places[len(group.places) - len(names) :], strict=True))
        self.silence = self.message = np.zeros(group.neurons, np.int64)
        self.recorder = Recorder(proc_params["folder"], group, self.timetable)
        self.reports: bool = proc_params["reports"]

    def run_spk(self) -> None:
        """Compute one chip step."""
        due, tick = self.receive(), self.time_step - 1
        if (now := self.timetable.at(tick, self.slot.works)) is not None:
            self.work(*now, self.drive(due, first=now[1] == 0))
        message, sending = self.silence, self.timetable.at(tick, self.slot.sends)
        if sending is not None:
            message = self.result()
            self.recorder.frame(*sending, self.recorded(message), message)
            if self.reports:
                self.recorder.finished(*sending)
        for number in range(len(self.axons)):
            self.send(number, message, tick, sending)

    def receive(self) -> list[np.ndarray]:
        """Receive at every in-port; return the sums that are due, for each dendrite."""
        due = []
        for port, dendrite, link in zip(IN_PORTS, self.dendrites, self.group.links, strict=False):
            sent = self.timetable.at(self.time_step - 2, link.line)
            frame = None if sent is None else sent[1]
            due.append(dendrite.receive(getattr(self, port).recv(), frame))
        return due

    def send(
        self, number: int, message: np.ndarray, tick: int, now: tuple[int, int] | None
    ) -> None:
        """Send a message over an axon, and count its events if it is one of the timetable."""
        events = message
        if now is not None:
            events = self.axons[number].events(message, first=now[1] == 0)
            self.recorder.sent(*now, tick, number, events)
        if self.group.exits[number].edges:
            getattr(self, OUT_PORTS[number]).send(events.astype(np.int32))

    def drive(self, due: list[np.ndarray], first: bool, skipped: int = 0) -> np.ndarray:
        """Return the drives of all dendrites but those skipped, and the bias."""
        total = self.bias.copy()
        for dendrite, sums in zip(self.dendrites[skipped:], due[skipped:], strict=True):
            total[dendrite.row] += dendrite.drive(self.accumulate(dendrite, sums, first))
        return total

    def accumulate(self, dendrite: Dendrite, due: np.ndarray, first: bool) -> np.ndarray:
        """Return the saturated accumulators of one edge, and count saturations."""
        accumulators, saturations = dendrite.accumulate(due, first)
        for place, changed in zip(dendrite.places, saturations, strict=True):
            self.recorder.saturated(place, changed)
        return accumulators

    def limit(self, values: np.ndarray, bits: int, name: str) -> np.ndarray:
        """Saturate values, and count saturations at the place of that name."""
        limited, changed = saturate(values, bits)
        self.recorder.saturated(self.places[name], changed)
        return limited

    def work(self, sample: int, frame: int, drive: np.ndarray) -> None:
        """Advance by one frame: set `message`, and the state if there is one."""
        raise NotImplementedError

    def result(self) -> np.ndarray:
        """Return the message of a frame that is sent."""
        return self.message

    def recorded(self, message: np.ndarray) -> np.ndarray:
        """Return what is recorded of a frame."""
        return message


class StatefulModel(NeuronsModel):
    """Neurons that keep a state."""

    state: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)

    def before(self, frame: int) -> np.ndarray:
        """Return the state before a frame: that of the frame before, at first the initial one."""
        if frame:
            return self.state.astype(np.int64)
        initial = getattr(self.population, "initial", None)
        return self.silence if initial is None else initial[self.group.neurons :].astype(np.int64)


def offer_ports(links: int, outlets: int) -> None:
    """Give all models and processes from now on at least that many in-ports and out-ports."""
    for names, text, kind, most in (
        (IN_PORTS, "a_in", PyInPort.VEC_DENSE, links),
        (OUT_PORTS, "s_out", PyOutPort.VEC_DENSE, outlets),
    ):
        for number in range(len(names), most):
            names.append(f"{text}_{number}")
            setattr(NeuronsModel, names[-1], LavaPyType(kind, np.int32, precision=24))


def fixed_point(process: type) -> Callable[[type], type]:
    """Return the decorator of a fixed-point model of a process."""

    def decorate(model: type) -> type:
        tagged = requires(CPU)(tag("fixed_pt")(model))
        found: type = implements(proc=process, protocol=LoihiProtocol)(tagged)
        return found

    return decorate


@fixed_point(neurons.PlayerNeurons)
class PlayerModel(NeuronsModel):
    """Sends messages of the folder."""

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.messages = played(proc_params["folder"], self.group)

    def work(self, sample: int, frame: int, drive: np.ndarray) -> None:
        """Take the messages of a frame."""
        self.message = self.messages[sample, frame].astype(np.int64)


@fixed_point(neurons.IntegratorNeurons)
class IntegratorModel(StatefulModel):
    """m <- sat(m + drive); the message is sat(ms(m, 1, shift))."""

    def work(self, sample: int, frame: int, drive: np.ndarray) -> None:
        """Integrate, from zero at the first frame of a sample."""
        m = self.limit(self.before(frame) + drive, self.population.state.bits, "state")
        self.state = m.astype(np.int32)
        rounded = multiply_shift(m, 1, self.population.message_shift)
        self.message = self.limit(rounded, self.population.message.bits, "message")

    def recorded(self, message: np.ndarray) -> np.ndarray:
        """Return m."""
        return self.state


@fixed_point(neurons.PointwiseNeurons)
class PointwiseModel(NeuronsModel):
    """H = sat(f(sat(drive)))."""

    def work(self, sample: int, frame: int, drive: np.ndarray) -> None:
        """Apply the function to the drive of the units."""
        z = self.limit(drive, self.population.drive.bits, "drive")
        value = evaluate(self.population.function, z)
        self.message = self.limit(value, self.population.message.bits, "message")


@fixed_point(neurons.ProductNeurons)
class ProductModel(NeuronsModel):
    """H = sat(ms(f(z1), g(z2), shift))."""

    def work(self, sample: int, frame: int, drive: np.ndarray) -> None:
        """Multiply the two drives of each neuron."""
        own, n = self.population, self.group.neurons
        z1 = self.limit(drive[:n], own.first_drive.bits, "drive")
        z2 = self.limit(drive[n:], own.second_drive.bits, "drive")
        a = self.limit(z1 if own.first is None else evaluate(own.first, z1), _FACTOR_BITS, "factor")
        b = self.limit(z2 if own.second is None else evaluate(own.second, z2), GATE.bits, "factor")
        self.message = self.limit(multiply_shift(a, b, own.shift), own.message.bits, "message")


@fixed_point(neurons.LSTMNeurons)
class LSTMModel(StatefulModel):
    """c <- sat(ms(c, F, 15) + ms(G, I, ..)); the message is sat(ms(b(c), O, ..))."""

    def work(self, sample: int, frame: int, drive: np.ndarray) -> None:
        """Compute the gates, the cell and its output."""
        own, n = self.population, self.group.neurons
        z = self.limit(drive, own.drive.bits, "drive")
        i, f, o = (self._gate(own.gate, z[at * n : (at + 1) * n]) for at in (0, 1, 3))
        g = self._gate(own.activation, z[2 * n : 3 * n])
        kept = multiply_shift(self.before(frame), f, _FRACTION)
        c = self.limit(kept + multiply_shift(g, i, own.cell_shift), own.state.bits, "state")
        self.state = c.astype(np.int32)
        shown = multiply_shift(self._gate(own.output, c), o, own.message_shift)
        self.message = self.limit(shown, own.message.bits, "message")

    def _gate(self, function: Any, z: np.ndarray) -> np.ndarray:
        return self.limit(evaluate(function, z), GATE.bits, "gate")


@fixed_point(neurons.GRUNeurons)
class GRUModel(StatefulModel):
    """h <- sat(h + ms(sat(2^p N - h), gate(-z_z), 15)); the message is sat(ms(h, 1, shift))."""

    def work(self, sample: int, frame: int, drive: np.ndarray) -> None:
        """Compute the gates, the candidate and the state."""
        own, n = self.population, self.group.neurons
        z = self.limit(drive, own.drive.bits, "drive")
        for_reset, for_update, candidate, own_part = (z[at * n : (at + 1) * n] for at in range(4))
        if own.resets:
            reset = self.limit(evaluate(own.gate, for_reset), GATE.bits, "gate")
            candidate = candidate + multiply_shift(own_part, reset, _FRACTION)
            candidate = self.limit(candidate, own.drive.bits, "drive")
        opened = self.limit(evaluate(own.gate, -for_update), GATE.bits, "gate")
        new = self.limit(evaluate(own.activation, candidate), GATE.bits, "candidate")
        h = self.before(frame)
        change = self.limit(new * 2**own.candidate_shift - h, own.state.bits, "candidate")
        h = self.limit(h + multiply_shift(change, opened, _FRACTION), own.state.bits, "state")
        self.state = h.astype(np.int32)
        rounded = multiply_shift(h, 1, own.message_shift)
        self.message = self.limit(rounded, own.message.bits, "message")


@fixed_point(neurons.MaximumNeurons)
class MaximumModel(NeuronsModel):
    """H = sat(the greatest drive of each neuron)."""

    def work(self, sample: int, frame: int, drive: np.ndarray) -> None:
        """Take the greatest of all choices."""
        greatest = np.maximum.reduce(drive.reshape(self.population.choices, -1))
        self.message = self.limit(greatest, self.population.message.bits, "message")


@fixed_point(neurons.ReductionNeurons)
class ReductionModel(StatefulModel):
    """s <- sat(s + drive), max(s, sat(drive)) or sat(drive), sent once, at the end."""

    def work(self, sample: int, frame: int, drive: np.ndarray) -> None:
        """Take a frame."""
        kind, bits = self.population.kind, self.population.state.bits
        if kind in ("sum", "mean"):
            drive = self.before(frame) + drive
        s = self.limit(drive, bits, "state")
        if kind == "max" and frame:
            s = np.maximum(s, self.before(frame))
        self.state = s.astype(np.int32)

    def result(self) -> np.ndarray:
        """Return the message at the end; the division of a mean is one of the host."""
        frames = self.slot.works.frames
        s = self.before(frames)
        if self.population.kind == "mean":
            s = np.floor_divide(2 * s + frames, 2 * max(frames, 1))
        return self.limit(s, self.population.message.bits, "message")


@fixed_point(neurons.OutputNeurons)
class OutputModel(NeuronsModel):
    """y = sat(drive); nothing is sent on."""

    def work(self, sample: int, frame: int, drive: np.ndarray) -> None:
        """Limit the sums."""
        self.message = self.limit(drive, self.population.message.bits, "output")


# mypy: allow-subclassing-any


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
