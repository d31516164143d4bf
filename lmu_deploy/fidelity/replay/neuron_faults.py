r"""One neuron of a recording with residuals: what is wrong about its bias, its row or a weight.

Candidates come from its residuals r, in units of the drive, and the messages X that it receives: a
weight that is off by :math:`\sum_t r_t X_{tj} / \sum_t X_{tj}^2`, a row with weights of another.
Each is tested as :mod:`lmu_deploy.fidelity.replay.faults` tests those of a population.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lmu_deploy.core.integer.parts import LARGEST_SHIFT, Connection, Edge
from lmu_deploy.fidelity.replay.integers import Fault, constant, flipped_bit

if TYPE_CHECKING:
    from lmu_deploy.fidelity.replay.faults import Suspect

EXPLAINED = 0.02
"""Largest share of wrong integers that a statement leaves unexplained."""
_FITS = 1e-4
_NEAR = 3
"""Digits on either side of an estimated weight that are tested: a function limits its accuracy."""
_GRID = np.linspace(-1.0, 1.0, 33)

NeuronTest = tuple[Fault, np.ndarray]
"""A hypothesis on one neuron, and the sums that enter it, (rows, drives)."""


class NeuronSuspect:
    """One neuron whose recording has residuals."""

    def __init__(self, population: Suspect, i: int) -> None:
        self.of, self.i, self.p = population, i, population.p
        self.recorded, self.predicted = population.recorded[:, i], population.predicted[:, i]
        self.sums = population.drive.reshape(len(population.drive), -1, self.p.size)[..., i]

    def predict(self, sums: np.ndarray) -> np.ndarray:
        """Return what the neuron records with other sums.

        Parameters
        ----------
        sums : ndarray, shape (hypotheses, rows, drives)

        Returns
        -------
        ndarray, shape (hypotheses, rows)
        """
        if not self.p.independent:
            found = []
            for each in sums:
                drive = self.of.drive.copy()
                drive[:, self.i :: self.p.size] = each
                found.append(self.of.predict(drive)[:, self.i])
            return np.array(found)
        replay, count = self.of.replay, len(sums)
        before = replay.before(self.p)
        if before is not None:
            before = np.tile(before, (count, 1, 1))
        drive = sums.reshape(count * replay.samples, -1, sums.shape[2])
        return replay.updated(self.p, drive, before, self.i).reshape(count, -1)

    def explain(self) -> Fault:
        """Return the most complete statement."""
        recorded, place, i = self.recorded, str(self.p.place), self.i
        bad = recorded != self.predicted
        count = int(bad.sum())
        best = Fault(
            "neuron", place, (i,), f"Neuron {i} of {place} is wrong {count:,} times.", count
        )
        if (value := constant(recorded)) is not None:
            kind = "stuck" if value else "dead"
            words = f"Neuron {i} of {place} is stuck at {value:,}."
            return Fault(kind, place, (i,), words)
        if count == 1 and (bit := flipped_bit(recorded, self.predicted)) is not None:
            replay, row = self.of.replay, int(np.flatnonzero(bad)[0])
            sample, step = divmod(row, replay.recorded[self.p.place].shape[1])
            sample = int(replay.numbers[sample])
            words = (
                f"Bit {bit} of neuron {i} of {place} is flipped at step {step} of sample {sample}."
            )
            return Fault("flipped bit", place, (i,), words)
        for fault, sums in self._hypotheses():
            wrong = int((self.predict(sums[None])[0] != recorded).sum())
            if wrong <= max(EXPLAINED * count, 0) and wrong < best.wrong:
                best = replace(fault, wrong=wrong)
                if not wrong:
                    break
        return self._several(best) if best.kind == "neuron" else best

    def _hypotheses(self) -> Iterator[NeuronTest]:
        for group in range(self.sums.shape[1]):
            residual = self.of.drive_residuals(group)[:, self.i]
            if not residual.any():
                continue
            yield self._bias(group, float(np.median(residual[residual != 0.0])))
            for edge, row in self._entering(group):
                yield from self._row(edge, row, group, residual)

    def _entering(self, group: int) -> list[tuple[Edge, int]]:
        """Return the edges that drive the neuron, and the row of each that does."""
        at = group * self.p.size + self.i
        found = ((edge, at - edge.row) for edge in self.of.edges)
        return [(edge, row) for edge, row in found if 0 <= row < edge.connection.n_out]

    def _with(self, group: int, change: np.ndarray) -> np.ndarray:
        """Return the sums with a change of one of them, shape (rows,)."""
        sums = self.sums.copy()
        sums[:, group] += change
        return sums

    def _bias(self, group: int, offset: float) -> NeuronTest:
        """Return the offset of a bias near an estimate that explains most, and its sums."""
        best, fewest, rows = offset, self.recorded.size + 1, len(self.sums)
        for factors in (np.geomspace(0.25, 4.0, 33), *(1.0 + w * _GRID for w in (0.05, 0.004))):
            tried = best * factors
            sums = np.broadcast_to(self.sums, (len(tried), *self.sums.shape)).copy()
            sums[..., group] += np.rint(tried).astype(np.int64)[:, None]
            wrong = (self.predict(sums) != self.recorded).sum(axis=1)
            if wrong.min() < fewest:
                best, fewest = float(tried[wrong.argmin()]), int(wrong.min())
        off = int(np.rint(best))
        words = f"The bias of neuron {self.i} of {self.p.place} is off by {off:,}."
        fault = Fault("bias", f"{self.p.entrance}/bias", (self.i,), words)
        return fault, self._with(group, np.full(rows, off))

    def _row(self, edge: Edge, row: int, group: int, residual: np.ndarray) -> Iterator[NeuronTest]:
        """Hypotheses on one row of the weights of an edge."""
        at, connection = edge.place, edge.connection
        one = Connection(
            connection.slices[:, row : row + 1],
            connection.multiplier[:, row : row + 1],
            connection.shift[:, row : row + 1],
            connection.weight_bits,
            connection.accumulator_bits,
        )
        x = self.of.messages(edge)
        own = one.drive(x)[:, 0]

        def test(kind: str, words: str, part: np.ndarray, *more: int) -> NeuronTest:
            return Fault(kind, at, (row, *more), words), self._with(group, part - own)

        yield test("row lost", f"Row {row} of {at} is missing.", 0 * own)
        negated = replace(one, slices=-one.slices).drive(x)[:, 0]
        yield test("row sign", f"Row {row} of {at} has the wrong sign.", negated)
        for doublings in (-3, -2, -1, 1, 2, 3):
            words = f"Row {row} of {at} is {times(doublings)} the specified one: a wrong shift."
            if (other := regained(one, doublings)) is not None:
                yield test("row gain", words, other.drive(x)[:, 0])
        for k in range(len(one.slices)):
            without = one.slices.copy()
            without[k] = 0
            words = f"Slice {k} of row {row} of {at} is missing."
            yield test("row slice", words, replace(one, slices=without).drive(x)[:, 0])
        parts = self.of.part(edge)
        distance = ((parts - own[:, None] - residual[:, None]) ** 2).sum(axis=0)
        distance[row] = np.inf
        like = int(distance.argmin())
        if np.isfinite(distance[like]):
            words = f"Row {row} of {at} has the weights of row {like}."
            yield test("row exchanged", words, parts[:, like], like)
        for j, k, value, other in self._weights(one, x, residual):
            words = (
                f"The weight in row {row}, column {j} of {at} is {value} in slice {k}, not "
                f"{int(one.slices[k, 0, j])}."
            )
            yield test("weight", words, other.drive(x)[:, 0], j)

    @staticmethod
    def _weights(
        one: Connection, x: np.ndarray, residual: np.ndarray
    ) -> Iterator[tuple[int, int, int, Connection]]:
        """Yield changes of the weights that correlate best with the residuals.

        Each is a column, a slice, a value and the connection of one row that has it.
        """
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
                    yield int(j), k, value, replace(one, slices=slices, weight_bits=8)

    def _several(self, best: Fault) -> Fault:
        """Return the row whose messages explain the residuals, if one does."""
        fits = []
        for group in range(self.sums.shape[1]):
            residual = self.of.drive_residuals(group)[:, self.i]
            for edge, row in self._entering(group):
                x = self.of.messages(edge).astype(float)
                if len(x) >= 3 * x.shape[1]:
                    solution, *_ = np.linalg.lstsq(x, residual, rcond=None)
                    left = float(((residual - x @ solution) ** 2).sum())
                    fits.append((left / max(float((residual**2).sum()), 1e-300), edge.place, row))
        if not fits or min(fits)[0] >= _FITS:
            return best
        _, place, row = min(fits)
        words = f"Several weights of row {row} of {place} are wrong."
        return Fault("row", place, (row,), words)


def regained(connection: Connection, doublings: int) -> Connection | None:
    """Return a connection with other shifts; None where these cannot be."""
    shift = connection.shift - doublings
    return (
        None if shift.min() < 0 or shift.max() > LARGEST_SHIFT else replace(connection, shift=shift)
    )


def times(doublings: int) -> str:
    """Return a power of two in words."""
    return f"{2**doublings} times" if doublings > 0 else f"1/{2**-doublings} of"
