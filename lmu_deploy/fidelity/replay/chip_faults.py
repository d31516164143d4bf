"""What faults of populations and synapses change in the drives of an ensemble, and residuals.

Each hypothesis predicts how the drives at the end of a presentation change; the equations are in
:mod:`lmu_deploy.fidelity.replay.chip_replay`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lmu_deploy.fidelity.replay.integers import Fault
from targets.spiking.forced import Change, Forced, Moved, Source

COPIES = 8
"""Copies of a chip that predict a recording."""
PAIRED = 6
"""Populations and rows of which all pairs are tested."""
_FLOOR = 1e-4
"""Smallest deviation of a drive, in units of its range."""
_NOISES = np.concatenate([[0.0], np.geomspace(0.05, 1e9, 80)])
_ROOM = 1.0 + 1.0 / COPIES
_SHARED = 0.3
"""Correlation that a residual may still have with the noise of the drive that it follows."""
_LEAST = 0.01
"""Smallest variance of a residual without what the one before predicts."""
_ROWS = 20
"""Residuals of the copies, for each value, from which a prediction by those before is fitted."""
_ROUNDING = 1e-6
"""Smallest deviation of a statistic, where drives have no noise."""
_Shapes = dict[int, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Hypothesis:
    """A statement, what it predicts, and where what it does not predict comes from.

    Attributes
    ----------
    fault : Fault
    change : Change
    sources : tuple of Source
    whole : str
        What the statement says if it holds for everything that a sender reaches.
    """

    fault: Fault
    change: Change
    sources: tuple[Source, ...] = ()
    whole: str = ""


class Hypotheses:
    """Changes of the drives of an ensemble that faults predict.

    Parameters
    ----------
    forced : Forced
    moved : Moved
        Of one copy of each sample: what the chip does, or the mean of what copies of it do.
    """

    def __init__(self, forced: Forced, moved: Moved) -> None:
        self.forced, self.moved, self.place = forced, moved, forced.place
        self.order, self.size = forced.order, range(forced.size)
        kept = (1.0 - forced.decay) * forced.decay ** np.arange(forced.parts - 1.0, -1.0, -1.0)
        later = np.arange(forced.parts) / forced.parts
        self.seen = forced.before * (kept * (1.0 - later)).sum() + moved.x * (kept * later).sum()
        """Drives behind the synapse, if they moved evenly during each presentation."""

    @cached_property
    def parts(self) -> dict[Source, Change]:
        """What each population, row and input contributes to the drives.

        Beside populations, rows and features of currents, the part of a current in one value
        ("input"), and in the values of an order of every channel ("order").
        """
        forced, found = self.forced, dict[Source, Change]()
        for n, link in enumerate(forced.links):
            for j in range(len(link.weights)):
                found["column", n, j] = forced.split(self.moved.sent[n][:, :, j], link, j)
            for i in self.size:
                found["row", n, i] = {i // self.order: self.moved.rows[n][:, :, i]}
        for n, current in enumerate(forced.currents):
            push, features = current.push, current.values.shape[2]
            for i in self.size:
                alone = np.zeros((*push.shape[:2], self.order))
                alone[..., i % self.order] = push[..., i]
                found["input", n, i] = forced.after({i // self.order: alone}, current.direct)
            for f in range(0 if current.constant else features):
                reached = forced.split(current.values[..., [f]] * current.weights[:, f])
                reached = {c: each for c, each in reached.items() if forced.reaches(current, f, c)}
                found["channel", n, f] = forced.after(reached, current.direct)
            for k in range(self.order if 1 < forced.channels == features else 0):
                of = [found["input", n, c * self.order + k] for c in range(forced.channels)]
                found["order", n, k] = {c: each for part in of for c, each in part.items()}
        for i in self.size if len(forced.links) > 1 else ():
            total = sum((each[:, :, i] for each in self.moved.rows), np.zeros(()))
            found["rows", 0, i] = {i // self.order: total}
        return found

    def named(self, source: Source) -> tuple[str, tuple[int, ...], str]:
        """Return place, index and words of a part of the drives."""
        (kind, n, i), place = source, self.place
        if kind == "column":
            link = self.forced.links[n]
            words = f"population {i} of {link.source}"
            words = words if link.whole else f"what {words} sends to {place}"
            return link.source, (i,), words
        if kind in ("row", "rows"):
            words, sender = f"row {i} of the weights of {place}", self.forced.links[n].source
            if kind == "row" and len(self.forced.links) > 1:
                words = f"row {i} of the weights from {sender} to {place}"
                if sender == place:
                    words = f"row {i} of the recurrent weights of {place}"
            return f"{place}/row", (i,), words
        current = self.forced.currents[n]
        if kind == "channel":
            return f"{place}/channel", (i,), f"{current.of} {i} of the {current.name} of {place}"
        entry = f"{place}/{'bias' if current.constant else 'input'}"
        if kind == "input":
            return entry, (i,), f"the {current.name} of {self.forced.noun} {i} of {place}"
        index = tuple(c * self.order + i for c in self.parts[source])
        return entry, index, f"the {current.name} of order {i} of every channel of {place}"

    def multiplied(self) -> Iterator[Hypothesis]:
        """Yield parts that count by another factor than 1."""
        dead = "does not contribute: it is dead, or its column of weights is missing"
        for source, part in self.parts.items():
            (kind, _, i), (place, index, what) = source, self.named(source)
            sources: tuple[Source, ...] = (source,)
            whole = f"population {i} of {place}" if kind == "column" else ""
            if kind in ("input", "order", "rows"):
                sources = tuple(("row", 0, each) for each in index)
            for factor, name, words in (
                (0.0, "lost", "is missing"),
                (-1.0, "sign", "has the wrong sign"),
                (0.5, "gain", "counts half"),
                (2.0, "gain", "counts twice"),
            ):
                of_all = dead if kind == "column" and not factor else words
                words = of_all if what == whole else words
                fault = Fault(f"{kind} {name}", place, index, _sentence(f"{what} {words}"))
                change = {c: (factor - 1.0) * each for c, each in part.items()}
                yield Hypothesis(fault, change, sources, whole and _sentence(f"{whole} {of_all}"))

    def other(self) -> Iterator[Hypothesis]:
        """Yield populations, rows and inputs that do something else, whatever it is."""
        place, links = self.place, self.forced.links
        for n, link in enumerate(links):
            for j in range(len(link.weights)):
                what = f"Population {j} of {link.source} sends something else{{}}: noise, or other "
                what += "curves."
                words = what.format("" if link.whole else f" to {place}")
                fault = Fault("population", link.source, (j,), words)
                yield Hypothesis(fault, {}, (("column", n, j),), what.format(""))
        for i in self.size:
            words = f"The synapses of {self.forced.noun} {i} of {place} receive something else."
            yield Hypothesis(Fault("row", f"{place}/row", (i,), words), {}, (("row", 0, i),))
        for n, current in enumerate(self.forced.currents):
            for f in range(0 if current.constant else current.values.shape[2]):
                words = f"{current.of} {f} of the {current.name} of {place} receives something else"
                fault = Fault("channel", f"{place}/channel", (f,), _sentence(words))
                yield Hypothesis(fault, {}, (("channel", n, f),))

    def stuck(self) -> Iterator[Hypothesis]:
        """Yield populations whose neurons fire as fast as they can, whatever the drive."""
        forced, network = self.forced, self.forced.network
        steps = max(network.neuron.refractory_ms / network.dt_ms, 1.0)
        for n, link in enumerate(forced.links):
            for j, weights in enumerate(link.weights):
                what = f"opulation {j} of {link.source}"
                seen = "state" if link.source == self.place else "drive"
                words = f"P{what} is stuck: it fires whatever its {seen} is."
                alone = f"What p{what} sends to {self.place} is that of stuck neurons."
                fault = Fault("stuck", link.source, (j,), words if link.whole else alone)
                part = self.parts["column", n, j]
                for fastest in (1.0 / steps, 1.0 / (steps + 1.0)):
                    sent = forced.after(forced.split(weights.sum(axis=0) * fastest, link, j))
                    change = {c: sent[c] - each for c, each in part.items()}
                    yield Hypothesis(fault, change, (("column", n, j),), words)

    def exchanged(self, n: int, among: list[int]) -> Iterator[Hypothesis]:
        """Yield exchanges of what two populations of a link encode, and of what they send."""
        link = self.forced.links[n]
        for j, k in pairs(among):
            words = f"Populations {j} and {k} of {link.source} are exchanged."
            fault = Fault("exchanged", link.source, (j, k), words)
            own = link.source == self.place and self.forced.ideal.any()
            for found in (self._encoding, self._sending) if own else (self._sending,):
                change = dict(found(n, j, k))
                for channel, values in found(n, k, j).items():
                    change[channel] = change.get(channel, 0.0) + values
                sources = ("column", n, j), ("column", n, k)
                yield Hypothesis(fault, change, sources, words)

    def exchanged_rows(self, among: list[int]) -> Iterator[Hypothesis]:
        """Yield exchanges of two rows of weights of one channel."""
        for j, k in pairs(among):
            channel, held = j // self.order, self.forced.held[j // self.order]
            if k // self.order != channel:
                continue
            rows = [j % self.order, k % self.order]
            for n, moved in enumerate(self.moved.rows):
                drives = [
                    moved[:, :, at, row] / held[row, row]
                    for at, row in zip((j, k), rows, strict=True)
                ]
                off = (drives[1] - drives[0])[..., None]
                what = self.named(("row", n, j))[2].removeprefix(f"row {j} ")
                words = f"Rows {j} and {k} {what} are exchanged."
                fault = Fault("rows exchanged", f"{self.place}/row", (j, k), words)
                change = {channel: off * (held[:, rows[0]] - held[:, rows[1]])}
                yield Hypothesis(fault, change, (("row", n, j), ("row", n, k)))

    def exchanged_inputs(self) -> Iterator[Hypothesis]:
        """Yield inputs of two channels that are exchanged, and inputs that come a step late."""
        place, forced = f"{self.place}/channel", self.forced
        for n, current in enumerate(forced.currents):
            if current.constant:
                continue
            values, weights = current.values, current.weights
            for a, b in pairs(list(range(values.shape[2]))):
                off = values[:, :, [b]] - values[:, :, [a]]
                words = f"{current.of}s {a} and {b} of the {current.name} of {self.place} are "
                fault = Fault("exchanged", place, (a, b), _sentence(f"{words}exchanged"))
                change = forced.split(off * (weights[:, a] - weights[:, b]))
                reached = {c for c in change for f in (a, b) if forced.reaches(current, f, c)}
                change = {c: each for c, each in change.items() if c in reached}
                sources = ("channel", n, a), ("channel", n, b)
                yield Hypothesis(fault, forced.after(change, current.direct), sources)
            late = np.diff(values, axis=1, prepend=0.0) @ weights.T
            words = f"The {current.name} of {self.place} comes one step late."
            change = forced.after(forced.split(-late), current.direct)
            all_of_it = tuple(("channel", n, f) for f in range(values.shape[2]))
            yield Hypothesis(Fault("late", place, (), words), change, all_of_it)

    def exchanged_records(self, among: list[int]) -> Iterator[Hypothesis]:
        """Yield drives that are exchanged in the recording, from which the next follow."""
        for j, k in pairs(among):
            scales = self.forced.scales[[j, k]]
            swapped = self.forced.before.copy()
            swapped[:, :, [j, k]] = swapped[:, :, [k, j]] * scales[::-1] / scales
            (c, at), (d, there) = (divmod(i, self.order) for i in (j, k))
            after = {each: self._linear(swapped, each) for each in {c, d}}
            right = {each: self._linear(self.forced.before, each) for each in {c, d}}
            one, two = after[c][..., at].copy(), after[d][..., there].copy()
            ratio = float(scales[1] / scales[0])
            after[c][..., at], after[d][..., there] = two * ratio, one / ratio
            sources = ("row", 0, j), ("row", 0, k)
            change = {each: after[each] - right[each] for each in {c, d}}
            yield Hypothesis(self.misread(j, k), change, sources)

    def misread(self, j: int, k: int) -> Fault:
        """Return the statement that two drives are exchanged in the recording."""
        words = f"The recorded {self.forced.noun}s {j} and {k} of {self.place} are exchanged."
        return Fault("read exchanged", self.place, (j, k), words)

    def _linear(self, before: np.ndarray, channel: int) -> np.ndarray:
        """Return what an ideal ensemble has after a presentation."""
        forced, own = self.forced, slice(channel * self.order, (channel + 1) * self.order)
        kept = np.linalg.matrix_power(forced.step[channel], forced.parts)
        found = before[:, :, own] @ kept.T + forced.direct[:, :, own]
        found = found + forced.entering[:, :, own] @ forced.held[channel].T
        for n, link in enumerate(forced.links):
            if link.source != self.place:
                found = found + self.moved.rows[n][:, :, own].sum(axis=2)
        return np.asarray(found)

    def _encoding(self, n: int, j: int, k: int) -> Change:
        """Return the change if population j encodes drive k of its own ensemble."""
        channel, at = divmod(j, self.order)
        off = self.seen[:, :, k] - self.seen[:, :, j]
        return {channel: off[..., None] * self.forced.ideal[channel][:, at]}

    def _sending(self, n: int, j: int, k: int) -> Change:
        """Return the change if the spikes of population k arrive as those of population j."""
        link, filtered = self.forced.links[n], self.moved.filtered[n]
        off = filtered[:, :, k] - filtered[:, :, j]
        return self.forced.split(off @ link.weights[j], link, j)


class Residuals:
    """Standardized residuals of the drives of one ensemble, of the recording and of copies."""

    def __init__(self, forced: Forced, moved: Moved, unbiased: bool) -> None:
        samples, steps, _ = forced.x.shape
        self.forced, self._shapes = forced, dict[tuple[Source, ...], _Shapes]()
        shape = samples, steps, forced.channels, forced.order
        x = moved.x.reshape(COPIES, *shape)
        mean = x.mean(axis=0)
        left = (x - mean).transpose(3, 0, 1, 2, 4).reshape(forced.channels, -1, forced.order)
        covariance = left.swapaxes(1, 2) @ left / ((COPIES - 1) * samples * steps)
        covariance += _FLOOR**2 * np.eye(forced.order)
        self.whitening = np.linalg.inv(np.linalg.cholesky(covariance))
        self.deviation = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)).reshape(-1)
        self.off, self.lag = forced.x.reshape(shape) - mean, np.zeros_like(self.whitening)
        self.unbiased, rows = unbiased, (COPIES - 1) * samples * steps
        fitted = forced.order
        if unbiased and (COPIES - 1) * samples * (steps - 1) >= _ROWS * forced.order:
            self._follow(self._whitened(x - mean) * (COPIES / (COPIES - 1)) ** 0.5)
            fitted *= 2
        # What is fitted to the copies makes their residuals smaller, and those of others larger.
        smaller = (max(rows - fitted, 1) / (rows + fitted)) ** 0.5 if unbiased else 1.0
        self.z = self._whitened(self.off) / _ROOM**0.5 * smaller
        self.copies = self._whitened(x - mean) * (COPIES / (COPIES - 1)) ** 0.5
        self.sent = [each.reshape(COPIES, samples, *each.shape[1:]) for each in moved.sent]
        self.of = Hypotheses(forced, moved.mean(COPIES))
        self.by_copy = [Hypotheses(forced, moved.of(k, samples)) for k in range(COPIES)]

    def _follow(self, copies: np.ndarray) -> None:
        """Take from each residual what the one before predicts.

        Neurons that have spiked early spike late next. The recorded drives from which the next are
        predicted hold this noise, and so does what populations send in answer to them.
        """
        for c in range(self.forced.channels):
            now, before = (
                copies[:, :, steps, c].reshape(-1, self.forced.order)
                for steps in (slice(1, None), slice(None, -1))
            )
            fitted = np.linalg.lstsq(before, now)[0]
            left = now - before @ fitted
            covariance = left.T @ left / len(left) + _LEAST * np.eye(self.forced.order)
            root = np.linalg.cholesky(covariance)
            self.lag[c] = np.linalg.solve(root, fitted.T @ root)
            self.whitening[c] = np.linalg.solve(root, self.whitening[c])

    def _whitened(self, values: np.ndarray) -> np.ndarray:
        """Return drives (..., steps, channels, order) as residuals of unit covariance."""
        found = np.einsum("cik,...ck->...ci", self.whitening, values)
        if self.lag.any():
            late = np.einsum("cik,...ck->...ci", self.lag, found[..., :-1, :, :])
            found[..., 1:, :, :] -= late
        return found

    def change(self, change: Change) -> Change:
        """Return a change of the drives as one of the standardized residuals."""
        found = dict[int, np.ndarray]()
        for c, values in change.items():
            found[c] = values @ self.whitening[c].T / _ROOM**0.5
            if self.lag.any():
                found[c][..., 1:, :] -= found[c][..., :-1, :] @ self.lag[c].T
        return found

    @property
    def wandering(self) -> np.ndarray:
        """Deviation of each drive that is expected, relative to its size, shape (size,)."""
        return np.asarray(self.deviation / (np.sqrt((self.forced.x**2).mean(axis=(0, 1))) + _FLOOR))

    def scores(self, wandering: Mapping[str, np.ndarray]) -> list[float]:
        """Return projections and powers of the residuals, in deviations of the copies.

        Parameters
        ----------
        wandering : mapping of place to ndarray
            Of all ensembles; what residuals share with these is allowed for.
        """
        found, both = list[float](), (self.z, self.copies)
        grown = _SHARED * float(np.prod(self.z.shape[:2])) ** 0.5 * self.unbiased
        for source, part in self.of.parts.items():
            (mine, copies), square = (self._shared(source), np.zeros(())), 0.0
            for channel, change in self.change(part).items():
                square += float((change**2).sum())
                mine, copies = (
                    total + (z[..., channel, :] * change).sum(axis=(-2, -1))
                    for total, z in zip((mine, copies), both, strict=True)
                )
            (kind, n, i), of = source, self.forced.place
            of = self.forced.links[n].source if kind == "column" else of
            drives = wandering.get(of) if kind in ("column", "row", "rows") else None
            allowed = 0.0 if drives is None else grown * min(float(drives[i]), 1.0)
            score = standardized(mine, copies, _ROUNDING * square**0.5)
            found.append(max(score - allowed, 0.0))
        for source in self.of.parts:
            if source[0] != "column" and (source[0] != "row" or source[1]):
                continue
            for channel, (values, vectors) in self.shape((source,)).items():
                squares = [(z[..., channel, :] @ vectors) ** 2 @ values for z in both]
                # The cube root of a mean of squares is nearly normal (Wilson, Hilferty 1931).
                mine, copies = (np.cbrt(z.mean(axis=-1)) for z in squares)
                found.append(standardized(mine, copies, _ROUNDING))
        return found

    def _shared(self, source: Source) -> np.ndarray:
        """Return what the projection on a part lacks on average, for each sample.

        The prediction and the part are means over the same copies, whose noise they share.
        """
        found = np.zeros(len(self.z))
        if self.unbiased and source[0] in ("column", "row", "rows"):
            for copy, of in zip(self.copies, self.by_copy, strict=True):
                for channel, change in self.change(of.parts[source]).items():
                    found += (copy[..., channel, :] * change).sum(axis=(-2, -1))
        return found / (COPIES * (COPIES - 1)) * ((COPIES - 1) / COPIES / _ROOM) ** 0.5

    def shape(self, sources: tuple[Source, ...]) -> _Shapes:
        """Return eigenvalues, at most 1, and eigenvectors of the noise of sources, by channel."""
        if sources not in self._shapes:
            total = dict[int, np.ndarray]()
            for source in sources:
                for channel, noise in self.forced.noise(source).items():
                    white = self.whitening[channel] @ noise @ self.whitening[channel].T
                    white /= max(float(np.trace(white)), 1e-300)
                    total[channel] = total.get(channel, 0.0) + white
            found = {}
            for channel, noise in total.items():
                values, vectors = np.linalg.eigh(noise)
                found[channel] = np.maximum(values / values.max(), 0.0), vectors
            self._shapes[sources] = found
        return self._shapes[sources]

    def noisier(self, noisy: Moved) -> dict[tuple[str, int], np.ndarray]:
        """Return how other noise of populations shows in the drives, by place and number.

        The largest expected statistic, and the share by which a drive's variance grows.
        """
        found = dict[tuple[str, int], np.ndarray]()
        for n, link in enumerate(self.forced.links):
            sent = noisy.sent[n].reshape(self.sent[n].shape)
            for j in range(len(link.weights)):
                given, plain = (
                    self.change(self.forced.split(each[:, :, :, j], link, j))
                    for each in (sent, self.sent[n])
                )
                for channel, shape in self.shape((("column", n, j),)).items():
                    part = self.change(self.of.parts["column", n, j])[channel]
                    pair = given[channel], plain[channel]
                    own = self._expected(channel, shape, pair, part)
                    found[link.source, j] = np.maximum(found.get((link.source, j), 0.0), own)
        return found

    def _expected(
        self,
        channel: int,
        shape: tuple[np.ndarray, np.ndarray],
        pair: tuple[np.ndarray, np.ndarray],
        part: np.ndarray,
    ) -> tuple[float, float]:
        """Return both of a population that sends the first of two."""
        values, vectors = shape
        shift = pair[0].mean(axis=0) - pair[1].mean(axis=0)
        added = [
            (((each - each.mean(axis=0)) @ vectors) ** 2 @ values).sum(axis=0) / (COPIES - 1)
            for each in pair
        ]
        squares = (self.copies[..., channel, :] @ vectors) ** 2 @ values
        powers = squares.mean(axis=-1)
        more = np.maximum((added[0] - added[1]).mean(axis=-1), 0.0)
        growth = more / np.maximum(powers.mean(axis=0), 1e-300)
        grown = standardized(np.cbrt(powers).mean(axis=0) * np.cbrt(1.0 + growth), np.cbrt(powers))
        own = (self.copies[..., channel, :] * part).sum(axis=(-2, -1))
        moved = standardized((shift * part).sum(axis=(-2, -1)) + own.mean(axis=0), own)
        return max(grown, moved), float(growth.mean())

    @property
    def excess(self) -> float:
        """Log likelihood that the size of all residuals gains, by channel."""
        sizes = np.maximum((self.z**2).mean(axis=(0, 1, 3)), 1.0)
        return float(0.5 * np.log(sizes).sum() * self.z.size / len(sizes))

    def gain(self, change: Change, sources: tuple[Source, ...]) -> float:
        """Return the log likelihood that a hypothesis gains, with its best amount of noise."""
        gained, change = 0.0, self.change(change)
        for channel, (values, vectors) in self.shape(sources).items():
            z = self.z[:, :, channel]
            left = z - change[channel] if channel in change else z
            rotated = left.reshape(-1, len(values)) @ vectors
            sizes = 1.0 + _NOISES[:, None] * values
            scaled = (rotated**2).mean(axis=0) / sizes
            rest = np.maximum(scaled.mean(axis=1), 1.0)
            each = np.log(sizes).sum(axis=1) + len(values) * (
                np.log(rest) + scaled.mean(axis=1) / rest
            )
            plain = max(float((z**2).mean()), 1.0)
            before = len(values) * (np.log(plain) + float((z**2).mean()) / plain)
            gained += 0.5 * len(rotated) * (before - float(each.min()))
        return gained


def standardized(mine: np.ndarray, copies: np.ndarray, least: float = 0.0) -> float:
    """Return a sum over samples, standardized by that of the copies, of a least deviation."""
    size = np.sqrt(copies.var(axis=0).sum() * COPIES / (COPIES - 1))
    return abs(float((mine - copies.mean(axis=0)).sum())) / max(float(size), least, 1e-12)


def pairs(among: list[int]) -> Iterator[tuple[int, int]]:
    """Yield all pairs, the smaller number first."""
    for n, j in enumerate(among):
        for k in among[:n]:
            yield min(j, k), max(j, k)


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."
