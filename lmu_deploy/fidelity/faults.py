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

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property

import numpy as np

from lmu_deploy.core.integer.functions import rounded_shift
from lmu_deploy.core.integer.memories import Integrators, Series
from lmu_deploy.core.integer.parts import LARGEST_SHIFT, Connection, Edge, largest
from lmu_deploy.core.integer.populations import Population
from lmu_deploy.fidelity.replay import MOST_NEURONS, Fault, Replay, constant, flipped_bit

_EXPLAINED = 0.02
_NEAR = 3
"""Digits on either side of an estimated weight that are tested: a function limits its accuracy."""


_GRID = np.linspace(-1.0, 1.0, 33)

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
                if wrong <= _EXPLAINED * self.wrong and (best is None or wrong < best.wrong):
                    best = replace(fault, wrong=wrong)
                if not wrong:
                    return [replace(fault, wrong=0)]
        if best is not None:
            return [best]
        counts = (self.recorded != self.predicted).sum(axis=0)
        ranked = sorted(self.neurons, key=lambda i: -counts[i])
        return [self._neuron(i) for i in ranked[:MOST_NEURONS]]

    def _values(self) -> Iterator[Test]:
        """Neurons that do not follow their drive, whatever it is."""
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
            words = f"Values of {place} are {_times(doublings)} the specified ones: a wrong shift."
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
                words = (
                    f"The drive of {at} is {_times(doublings)} the specified one: a wrong shift."
                )
                if (other := _regained(connection, doublings)) is not None:
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
        """Messages of another width, shift or frame."""
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
            x = self.messages(edge).astype(float)
            w = edge.connection.dequantized
            groups, inside = divmod(edge.row, max(self.p.size, 1))
            if self.p.drives == 1 and self.p.drive_size != self.p.size:
                continue
            residual = self.drive_residuals(groups)[:, inside : inside + len(w)]
            if residual.shape[1] != len(w) or not residual.any():
                continue
            joint = x.T @ residual @ w
            sizes = np.einsum("tj,tj->j", x, x) * np.einsum("ij,ij->j", w, w)
            with np.errstate(divide="ignore", invalid="ignore"):
                single = np.nan_to_num(np.diag(joint) ** 2 / sizes)
            for j in np.argsort(-single)[:3]:
                yield from self._column(edge, int(j))
            i, j = self._pair(joint, x, w)
            if i != j:
                exchanged = self.messages(edge)
                exchanged[:, [i, j]] = exchanged[:, [j, i]]
                source = str(edge.source)
                words = f"Messages of neurons {i} and {j} of {source} arrive exchanged."
                part = edge.connection.drive(exchanged)
                fault = Fault("exchanged", source, (i, j), words)
                yield fault, self.predict(self.changed(edge, part))

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

    # One neuron

    def _neuron(self, i: int) -> Fault:
        """Return what explains the wrong integers of one neuron, or name the neuron."""
        recorded, place = self.recorded[:, i], str(self.p.place)
        bad = recorded != self.predicted[:, i]
        count = int(bad.sum())
        best = Fault(
            "neuron", place, (i,), f"Neuron {i} of {place} is wrong {count:,} times.", count
        )
        if (value := constant(recorded)) is not None:
            kind = "stuck" if value else "dead"
            words = f"Neuron {i} of {place} is stuck at {value:,}."
            return Fault(kind, place, (i,), words)
        if count == 1 and (bit := flipped_bit(recorded, self.predicted[:, i])) is not None:
            row = int(np.flatnonzero(bad)[0])
            sample, step = divmod(row, self.replay.recorded[self.p.place].shape[1])
            sample = int(self.replay.numbers[sample])
            words = (
                f"Bit {bit} of neuron {i} of {place} is flipped at step {step} of sample {sample}."
            )
            return Fault("flipped bit", place, (i,), words)
        for fault, predicted in self._rows_of(i):
            wrong = int((predicted[:, i] != recorded).sum())
            if wrong <= max(_EXPLAINED * count, 0) and wrong < best.wrong:
                best = replace(fault, wrong=wrong)
                if not wrong:
                    break
        return best

    def _rows_of(self, i: int) -> Iterator[Test]:
        for group in range(max(self.p.drives, 1)):
            at = group * self.p.size + i
            residual = self.drive_residuals(group)[:, i] if self.p.drive_size > at else None
            if residual is None or not residual.any():
                continue
            used = residual != 0.0
            yield self._bias(i, at, float(np.median(residual[used])))
            mine = [
                (edge, at - edge.row)
                for edge in self.edges
                if 0 <= at - edge.row < edge.connection.n_out
            ]
            for edge, row in mine:
                yield from self._row(edge, row, residual)
            yield from self._several(i, mine, residual)

    def _bias(self, i: int, at: int, offset: float) -> Test:
        """Return the offset of a bias near an estimate that explains most, and its prediction."""
        best, fewest, predicted = offset, self.recorded.size + 1, self.predicted
        for factors in (np.geomspace(0.25, 4.0, 33), *(1.0 + w * _GRID for w in (0.05, 0.004))):
            for tried in best * factors:
                drive = self.drive.copy()
                drive[:, at] += int(np.rint(tried))
                found = self.predict(drive)
                wrong = int((found[:, i] != self.recorded[:, i]).sum())
                if wrong < fewest:
                    best, fewest, predicted = float(tried), wrong, found
        words = f"The bias of neuron {i} of {self.p.place} is off by {int(np.rint(best)):,}."
        return Fault("bias", f"{self.p.entrance}/bias", (i,), words), predicted

    def _row(self, edge: Edge, row: int, residual: np.ndarray) -> Iterator[Test]:
        """Hypotheses on one row of the weights of an edge."""
        at, connection = edge.place, edge.connection
        one = Connection(
            connection.slices[:, row : row + 1],
            connection.multiplier[:, row : row + 1],
            connection.shift[:, row : row + 1],
            connection.weight_bits,
            connection.accumulator_bits,
        )
        x = self.messages(edge)

        def test(kind: str, words: str, part: np.ndarray, *more: int) -> Test:
            fault = Fault(kind, at, (row, *more), words)
            return fault, self.predict(self.changed(edge, part, slice(row, row + 1)))

        own = one.drive(x)
        yield test("row lost", f"Row {row} of {at} is missing.", 0 * own)
        negated = replace(one, slices=-one.slices).drive(x)
        yield test("row sign", f"Row {row} of {at} has the wrong sign.", negated)
        for doublings in (-3, -2, -1, 1, 2, 3):
            words = f"Row {row} of {at} is {_times(doublings)} the specified one: a wrong shift."
            if (other := _regained(one, doublings)) is not None:
                yield test("row gain", words, other.drive(x))
        for k in range(len(one.slices)):
            without = one.slices.copy()
            without[k] = 0
            words = f"Slice {k} of row {row} of {at} is missing."
            yield test("row slice", words, replace(one, slices=without).drive(x))
        others = self.part(edge) - own
        distance = ((others - residual[:, None]) ** 2).sum(axis=0)
        distance[row] = np.inf
        like = int(distance.argmin())
        if np.isfinite(distance[like]):
            words = f"Row {row} of {at} has the weights of row {like}."
            yield test("row exchanged", words, self.part(edge)[:, like : like + 1], like)
        yield from self._weight(edge, row, residual, one, test)

    def _several(
        self, i: int, rows: list[tuple[Edge, int]], residual: np.ndarray
    ) -> Iterator[Test]:
        """Name the row whose messages explain the residuals of a neuron best, if they do."""
        fits = []
        for edge, row in rows:
            x = self.messages(edge).astype(float)
            if len(x) >= 3 * x.shape[1]:
                solution, *_ = np.linalg.lstsq(x, residual, rcond=None)
                fits.append((float(((residual - x @ solution) ** 2).sum()), edge.place, row))
        if fits and min(fits)[0] < 1e-4 * float((residual**2).sum()):
            _, place, row = min(fits)
            predicted = self.predicted.copy()
            predicted[:, i] = self.recorded[:, i]
            words = f"Several weights of row {row} of {place} are wrong."
            yield Fault("row", place, (row,), words), predicted

    def _weight(
        self,
        edge: Edge,
        row: int,
        residual: np.ndarray,
        one: Connection,
        test: Callable[..., Test],
    ) -> Iterator[Test]:
        """Test a change of the one weight that correlates best with the residuals."""
        x = self.messages(edge)
        real = x.astype(float)
        sizes = (real**2).sum(axis=0)
        products = real.T @ residual
        score = np.divide(products**2, sizes, out=np.zeros_like(sizes), where=sizes > 0)
        for j in np.argsort(-score)[:2]:
            if not sizes[j]:
                continue
            change = products[j] / sizes[j]
            for k in range(len(one.slices)):
                old = int(one.slices[k, 0, j])
                digit = int(np.rint(change / one.gains[k, 0]))
                near = range(old + digit - _NEAR, old + digit + _NEAR + 1) if digit else ()
                for value in (v for v in near if -128 < v < 128 and v != old):
                    slices = one.slices.copy()
                    slices[k, 0, j] = value
                    words = (
                        f"The weight in row {row}, column {j} of {edge.place} is {value} in slice "
                        f"{k}, not {old}."
                    )
                    other = replace(one, slices=slices, weight_bits=8)
                    yield test("weight", words, other.drive(x), int(j))


def _rows(values: np.ndarray) -> np.ndarray:
    """Return (samples, frames, values) as (rows, values)."""
    return values.reshape(-1, values.shape[-1])


def _scaled(values: np.ndarray, doublings: int) -> np.ndarray:
    """Return values times a power of two, rounded as a shift does."""
    return values << doublings if doublings > 0 else rounded_shift(values, -doublings)


def _regained(connection: Connection, doublings: int) -> Connection | None:
    """Return a connection with other shifts; None where these cannot be."""
    shift = connection.shift - doublings
    return (
        None if shift.min() < 0 or shift.max() > LARGEST_SHIFT else replace(connection, shift=shift)
    )


def _times(doublings: int) -> str:
    return f"{2**doublings} times" if doublings > 0 else f"1/{2**-doublings} of"


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
