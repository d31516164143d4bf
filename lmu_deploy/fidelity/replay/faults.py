r"""What explains the residuals of a replay: a row, a column, a neuron, a pair, a width or a shift.

A hypothesis says what a target does differently from the specification, such as "the messages of
neuron 7 do not arrive". It predicts other integers, and it is tested by counting how many recorded
integers these do not explain. Candidates for a single row or column are found first by correlating
the residuals, in units of the drive, with the messages X and weights W of an edge:

.. math:: \text{score}_j = \frac{(\sum_{ti} r_{ti} W_{ij} X_{tj})^2}
          {\sum_{ti} r_{ti}^2 \; \sum_i W_{ij}^2 \; \sum_t X_{tj}^2}.

Only hypotheses that explain at least 98 % of the wrong integers of a population become statements.
Otherwise the neurons with wrong integers are named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from itertools import combinations

import numpy as np

from lmu_deploy.core.integer.functions import rounded_shift
from lmu_deploy.core.integer.memories import Integrators, Series
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.parts import Edge, Place, largest
from lmu_deploy.core.integer.populations import Population
from lmu_deploy.fidelity.replay.integers import MOST_NEURONS, Fault, Replay, constant
from lmu_deploy.fidelity.replay.neuron_faults import EXPLAINED, NeuronSuspect, regained, times

_SCREENED, _FRAMES, _PAIRED, _CHAINED = 4, 32, 6, 8
"""Samples and frames in which the response to a missing column is computed; columns of pairs;
samples that are replayed as one."""

Test = tuple[Fault, np.ndarray]
"""A hypothesis, and the integers that it predicts, (rows, neurons)."""


class Suspect:
    """One population whose recording has residuals, with all that its update depends on.

    Rows are frames of samples, one below the other.
    """

    def __init__(self, replay: Replay, population: Population) -> None:
        self.replay, self.p = replay, population
        self.network = replay.network
        self.recorded = _rows(replay.recorded[population.place])
        self.predicted = _rows(replay.predicted[population.place])
        self.frames = slice(0, replay.taken(population))
        self.edges = self.network.entering(population.entrance)
        self.drive = _rows(replay.drive(population, self.frames))
        wrong = self.recorded != self.predicted
        self.wrong = int(wrong.sum())
        self.neurons = [int(i) for i in np.flatnonzero(wrong.any(axis=0))]

    def predict(self, drive: np.ndarray) -> np.ndarray:
        """Return what the population records with another drive."""
        return _rows(
            self.replay.updated(self.p, drive.reshape(self.replay.samples, -1, drive.shape[1]))
        )

    def messages(self, edge: Edge) -> np.ndarray:
        """Return what an edge delivers; shape (rows, columns)."""
        return _rows(self.replay.delivered(edge, self.frames))

    def changed(self, edge: Edge, part: np.ndarray, columns: slice = slice(None)) -> np.ndarray:
        """Return the drive with another part of one edge, in some of its rows."""
        drive = self.drive.copy()
        at = np.arange(edge.row, edge.row + edge.connection.n_out)[columns]
        drive[:, at] += part - self.part(edge)[:, columns]
        return drive

    def part(self, edge: Edge) -> np.ndarray:
        """Return the drive of one edge."""
        if edge.place not in self._parts:
            self._parts[edge.place] = edge.connection.drive(self.messages(edge))
        return self._parts[edge.place]

    @cached_property
    def _parts(self) -> dict[str, np.ndarray]:
        return {}

    def drive_residuals(self, group: int = 0) -> np.ndarray:
        """Return residuals in units of the drive, by the slope of the update; (rows, neurons)."""
        if group not in self._residuals:
            self._residuals[group] = self._in_drive(group)
        return self._residuals[group]

    @cached_property
    def _residuals(self) -> dict[int, np.ndarray]:
        return {}

    def _in_drive(self, group: int) -> np.ndarray:
        size = self.p.drive_size // max(self.p.drives, 1)
        columns = slice(group * size, (group + 1) * size)
        delta = max(1, int(np.sqrt((self.drive[:, columns].astype(float) ** 2).mean())) // 8)
        up, down = self.drive.copy(), self.drive.copy()
        up[:, columns] += delta
        down[:, columns] -= delta
        slope = (self.predict(up) - self.predict(down)) / (2.0 * delta)
        residual = (self.recorded - self.predicted).astype(float)
        return np.divide(residual, slope, out=np.zeros_like(residual), where=np.abs(slope) > 1e-9)

    # Hypotheses

    def explain(self) -> list[Fault]:
        """Return the statements that explain the residuals, the most complete first."""
        best: Fault | None = None
        for hypotheses in (self._values, self._whole_edges, self._columns):
            for fault, predicted in hypotheses():
                wrong = int((predicted != self.recorded).sum())
                if wrong <= EXPLAINED * self.wrong and (best is None or wrong < best.wrong):
                    best = replace(fault, wrong=wrong)
                if not wrong:
                    return [replace(fault, wrong=0)]
        if best is not None:
            return [best]
        counts = (self.recorded != self.predicted).sum(axis=0)
        ranked = sorted(self.neurons, key=lambda i: -counts[i])
        return [self._neuron(i) for i in ranked[:MOST_NEURONS]]

    def _values(self) -> Iterator[Test]:
        """Yield neurons that do not follow their drive."""
        place = str(self.p.place)
        fixed = [i for i in self.neurons if constant(self.recorded[:, i]) is not None]
        if fixed and len(fixed) <= MOST_NEURONS:
            predicted = self.predicted.copy()
            predicted[:, fixed] = self.recorded[:, fixed]
            values = [constant(self.recorded[:, i]) for i in fixed]
            which = " and ".join(str(i) for i in fixed)
            dead = not any(values)
            what = "never changes from 0: dead" if dead else f"is stuck at {values[0]:,}"
            kind = "dead" if dead else "stuck"
            yield Fault(kind, place, tuple(fixed), f"Neuron {which} of {place} {what}."), predicted
        if len(self.neurons) == 2:
            i, j = self.neurons
            drive = self.drive.copy()
            drive[:, [i, j]] = drive[:, [j, i]]
            words = f"Neurons {i} and {j} of {place} are exchanged."
            if self.p.drives == 1:
                yield Fault("exchanged", place, (i, j), words), self.predict(drive)
            predicted = self.predicted.copy()
            predicted[:, [i, j]] = predicted[:, [j, i]]
            yield Fault("exchanged", place, (i, j), words), predicted
        for bits in range(self.p.stored.bits - 1, 2, -1):
            limit = largest(bits)
            if np.abs(self.recorded).max() > 2 * limit:
                break
            words = f"Values of {place} saturate at {bits} bits."
            yield Fault("width", place, (bits,), words), np.clip(self.predicted, -limit, limit)
            span = 1 << bits
            wrapped = (self.predicted + span // 2) % span - span // 2
            words = f"Values of {place} wrap around at {bits} bits."
            yield Fault("width", place, (bits,), words), wrapped
        for doublings in (-2, -1, 1, 2):
            shifted = _scaled(self.predicted, doublings)
            words = f"Values of {place} are {times(doublings)} the specified ones: a wrong shift."
            yield Fault("shift", place, (doublings,), words), shifted

    def _whole_edges(self) -> Iterator[Test]:
        """Hypotheses on all messages, all gains or one slice of an edge."""
        for edge in self.edges:
            at, connection = edge.place, edge.connection
            for k in range(len(connection.slices) if len(connection.slices) > 1 else 0):
                without = connection.slices.copy()
                without[k] = 0
                words = f"Slice {k} of the weights of {at} is missing."
                yield self._weights(Fault("slice lost", at, (k,), words), edge, without)
            yield self._weights(
                Fault("edge lost", at, (), f"{at} delivers nothing."), edge, 0 * connection.slices
            )
            negated = Fault("sign", at, (), f"All weights of {at} have the wrong sign.")
            yield self._weights(negated, edge, -connection.slices)
            for doublings in (-2, -1, 1, 2):
                words = f"The drive of {at} is {times(doublings)} the specified one: a wrong shift."
                if (other := regained(connection, doublings)) is not None:
                    part = other.drive(self.messages(edge))
                    fault = Fault("gain", at, (doublings,), words)
                    yield fault, self.predict(self.changed(edge, part))
            for fault, messages in self._other_messages(edge):
                part = connection.drive(messages)
                yield fault, self.predict(self.changed(edge, part))
            for bits in range(connection.accumulator_bits - 1, 7, -1):
                narrow = replace(connection, accumulator_bits=bits)
                part = narrow.drive(self.messages(edge))
                if (part != self.part(edge)).any():
                    words = f"Sums of {at} saturate at {bits} bits."
                    fault = Fault("accumulator", at, (bits,), words)
                    yield fault, self.predict(self.changed(edge, part))

    def _weights(self, fault: Fault, edge: Edge, slices: np.ndarray) -> Test:
        part = replace(edge.connection, slices=slices).drive(self.messages(edge))
        return fault, self.predict(self.changed(edge, part))

    def _other_messages(self, edge: Edge) -> Iterator[tuple[Fault, np.ndarray]]:
        """Yield messages of another width, shift or frame."""
        x, source, at = self.messages(edge), str(edge.source), edge.place
        for frames, when in ((1, "late"), (-1, "early")):
            cube = x.reshape(self.replay.samples, -1, x.shape[1])
            moved = np.zeros_like(cube)
            if frames > 0:
                moved[:, 1:] = cube[:, :-1]
            else:
                moved[:, :-1] = cube[:, 1:]
            words = f"{at} reads the messages of {source} one step {when}."
            yield Fault("delay", at, (frames,), words), _rows(moved)
        sender = self.network[edge.source]
        if isinstance(sender, Integrators | Series) and edge.connection.threshold == 0:
            for change in (-2, -1, 1, 2):
                shift = sender.message_shift + change
                if 0 <= shift <= 31:
                    other = replace(sender, message_shift=shift)
                    found = self.replay.delivered(edge, self.frames, other)
                    words = (
                        f"Messages of {source} are shifted by {shift} bits, not by "
                        f"{sender.message_shift}."
                    )
                    yield Fault("message shift", source, (shift,), words), _rows(found)
        message = sender.message
        for bits in range(message.bits - 1, 2, -1) if message is not None else ():
            limited = np.clip(x, -largest(bits), largest(bits))
            if (limited != x).any():
                words = f"Messages of {source} saturate at {bits} bits."
                yield Fault("message width", source, (bits,), words), limited
        if edge.connection.threshold:
            free = replace(edge, connection=replace(edge.connection, threshold=0))
            words = f"{at} ignores its threshold of {edge.connection.threshold}."
            yield Fault("threshold", at, (), words), _rows(self.replay.delivered(free, self.frames))

    def _columns(self) -> Iterator[Test]:
        """Hypotheses on one sender, or on two that are exchanged."""
        for edge in self.edges:
            local = self.p.drive_size == self.p.size and edge.connection.n_out <= self.p.size
            local = local and (self.p.resumable or self.p.stateless)
            single, pairs = self._correlated(edge) if local else self._responding(edge)
            for j in single:
                yield from self._column(edge, j)
            for i, j in pairs:
                exchanged = self.messages(edge)
                exchanged[:, [i, j]] = exchanged[:, [j, i]]
                source = str(edge.source)
                words = f"Messages of neurons {i} and {j} of {source} arrive exchanged."
                part = edge.connection.drive(exchanged)
                fault = Fault("exchanged", source, (i, j), words)
                yield fault, self.predict(self.changed(edge, part))

    def _correlated(self, edge: Edge) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the columns, and the pair, whose part in the drive correlates with residuals."""
        x, w = self.messages(edge).astype(float), edge.connection.dequantized
        residual = self.drive_residuals()[:, edge.row : edge.row + len(w)]
        if not residual.any():
            return [], []
        joint = x.T @ residual @ w
        sizes = np.einsum("tj,tj->j", x, x) * np.einsum("ij,ij->j", w, w)
        with np.errstate(divide="ignore", invalid="ignore"):
            single = np.nan_to_num(np.diag(joint) ** 2 / sizes)
        i, j = self._pair(joint, x, w)
        return [int(j) for j in np.argsort(-single)[:3]], [(i, j)] if i != j else []

    def _responding(self, edge: Edge) -> tuple[list[int], list[tuple[int, int]]]:
        """Return columns, and pairs, without which the population would record such residuals.

        This needs no slope: it serves neurons with several drives, or with states of their own.
        """
        samples = self.replay.samples
        wrong = (self.recorded != self.predicted).reshape(samples, -1, self.p.size)
        some = np.argsort(-wrong.sum(axis=(1, 2)), kind="stable")[:_SCREENED]
        frames = self.frames.stop
        if wrong.shape[1] == frames:  # not the single frame of a reduction
            first = int(np.flatnonzero(wrong[some].any(axis=(0, 2)))[0])
            frames = min(frames, first + _FRAMES)
        drive, before = _cube(self.drive, samples)[some, :frames], self.replay.before(self.p)
        before = None if before is None else before[some, :frames]
        recorded = _cube(self.recorded, samples)[some, :frames].astype(float)
        residual = recorded - self.replay.updated(self.p, drive, before)
        x, w = _cube(self.messages(edge), samples)[some, :frames], edge.connection.dequantized
        scores = np.zeros(x.shape[2])
        for j in np.flatnonzero(x.any(axis=(0, 1)) & w.any(axis=0)):
            less = drive.copy()
            part = np.rint(x[..., j, None] * w[:, j]).astype(np.int64)
            less[..., edge.row : edge.row + len(w)] -= part
            change = self.replay.updated(self.p, less, before) - (recorded - residual)
            size = float((change**2).sum())
            scores[j] = float((change * residual).sum()) ** 2 / size if size else 0.0
        ranked = [int(j) for j in np.argsort(-scores, kind="stable")[:_PAIRED] if scores[j]]
        return ranked[:3], [(min(i, j), max(i, j)) for i, j in combinations(ranked, 2)]

    def _column(self, edge: Edge, j: int) -> Iterator[Test]:
        source = str(edge.source)
        of = f"neuron {j % edge.n_source} of {source}"
        for factor, what, kind in (
            (0, f"Messages of {of} do not arrive at {edge.target}.", "column lost"),
            (-1, f"Messages of {of} arrive at {edge.target} with the wrong sign.", "column sign"),
            (2, f"Messages of {of} arrive at {edge.target} twice as large.", "column gain"),
        ):
            x = self.messages(edge)
            x[:, j] *= factor
            part = edge.connection.drive(x)
            fault = Fault(kind, source, (j % edge.n_source,), what)
            yield fault, self.predict(self.changed(edge, part))

    @staticmethod
    def _pair(joint: np.ndarray, x: np.ndarray, w: np.ndarray) -> tuple[int, int]:
        """Return the two columns whose exchange correlates best with the residuals."""
        diagonal = np.diag(joint)
        inner = joint + joint.T - diagonal[:, None] - diagonal[None, :]

        def distances(gram: np.ndarray) -> np.ndarray:
            own = np.diag(gram)
            return np.asarray(own[:, None] + own[None, :] - 2.0 * gram)

        size = distances(x.T @ x) * distances(w.T @ w)
        score = np.divide(inner**2, size, out=np.zeros_like(size), where=size > 1e-9)
        i, j = np.unravel_index(int(score.argmax()), score.shape)
        return min(int(i), int(j)), max(int(i), int(j))

    def _neuron(self, i: int) -> Fault:
        """Return what explains the wrong integers of one neuron, or name the neuron."""
        return NeuronSuspect(self, i).explain()


def _rows(values: np.ndarray) -> np.ndarray:
    """Return (samples, frames, values) as (rows, values)."""
    return values.reshape(-1, values.shape[-1])


def _cube(rows: np.ndarray, samples: int) -> np.ndarray:
    """Return (rows, values) as (samples, frames, values)."""
    return rows.reshape(samples, -1, rows.shape[-1])


def _scaled(values: np.ndarray, doublings: int) -> np.ndarray:
    """Return values times a power of two, rounded as a shift does."""
    return values << doublings if doublings > 0 else rounded_shift(values, -doublings)


def of_samples(
    network: IntegerNetwork,
    inputs: np.ndarray,
    recorded: Mapping[Place, np.ndarray],
    truth: Mapping[Place, np.ndarray],
) -> list[Fault]:
    """Return statements on whole samples: of another sample, not reset, or stopped at a step.

    Parameters
    ----------
    network : IntegerNetwork
    inputs : ndarray, shape (samples, steps, n_in)
    recorded : mapping of Place to ndarray, shape (samples, frames, neurons)
        Of populations on the chip.
    truth : mapping of Place to ndarray, shape (samples, frames, neurons)
        What the specification computes of the same samples.
    """
    places, samples = list(recorded), range(len(inputs))

    def whole(of: Mapping[Place, np.ndarray], s: int) -> bytes:
        return b"".join(np.ascontiguousarray(of[place][s]).tobytes() for place in places)

    mine, right = ([whole(of, s) for s in samples] for of in (recorded, truth))
    known = {values: s for s, values in reversed(list(enumerate(right)))}
    wrong = [s for s in samples if mine[s] != right[s]]
    if wrong and all(mine[s] in known for s in wrong):
        pairs = [f"{s} is that of {known[mine[s]]}" for s in wrong]
        more = len(pairs) - MOST_NEURONS
        words = f"Whole samples are those of others: sample {', '.join(pairs[:MOST_NEURONS])}"
        words += f", and {more:,} more." if more > 0 else "."
        return [Fault("samples", "", tuple(wrong[:MOST_NEURONS]), words)]
    steps = {_still_from(recorded, truth, s) for s in wrong}
    if len(steps) == 1 and (step := steps.pop()) is not None:
        words = f"All populations keep their values from step {step} on: the target stopped."
        return [Fault("stopped", "", (step,), words)]
    return _not_reset(network, inputs, recorded)


def _still_from(
    recorded: Mapping[Place, np.ndarray], truth: Mapping[Place, np.ndarray], s: int
) -> int | None:
    """Return the step from which nothing changes in a sample, although it should."""
    last, frames = 0, max(values.shape[1] for values in recorded.values())
    for values in recorded.values():
        if values.shape[1] == frames and frames > 1:
            moves = (values[s, 1:] != values[s, :-1]).any(axis=1)
            last = max(last, int(np.flatnonzero(moves)[-1]) + 1 if moves.any() else 0)
    right = all((v[s, : last + 1] == truth[p][s, : last + 1]).all() for p, v in recorded.items())
    return last if right and last < frames - 1 else None


def _not_reset(
    network: IntegerNetwork, inputs: np.ndarray, recorded: Mapping[Place, np.ndarray]
) -> list[Fault]:
    """Return whether all samples follow from the states in which the sample before ended."""
    steps, count = inputs.shape[1], min(len(inputs), _CHAINED)
    if count < 2 or any(values.shape[1] != steps for values in recorded.values()):
        return []
    shape = 1, count * steps, -1
    parts = {place: values[:count].reshape(shape) for place, values in recorded.items()}
    if Replay(network, inputs[:count].reshape(shape), parts).first is not None:
        return []
    words = "States are not reset between samples: each begins where the sample before it ended."
    return [Fault("not reset", "", (), words)]


def explain(replay: Replay) -> list[Fault]:
    """Return the statements that explain the residuals of a replay, in the order of computation.

    Statements on the same senders, found at several receivers, become one.
    """
    found: dict[tuple[str, str, tuple[int, ...]], Fault] = {}
    for place, residuals in replay.residuals.items():
        population = replay.network[place]
        if residuals.any() and isinstance(population, Population):
            for fault in Suspect(replay, population).explain():
                found.setdefault((fault.kind, fault.place, fault.index), fault)
    return sorted(found.values(), key=lambda fault: fault.kind == "neuron")
