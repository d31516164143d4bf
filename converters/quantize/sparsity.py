"""Choose thresholds of sigma-delta connections, to reduce the number of messages.

Thresholds are useful where an error does not last. The recurrent loop of a memory accumulates
errors for a whole window, so its messages are always sent in full. A threshold of 1, which is
exact, is used wherever it saves events.

:func:`make_ladder` tries thresholds on one connection at a time and orders the settings of all
connections by how much they save. Harms of independent small errors add up, and so do costs. The
settings of least cost for their harm are those on the lower convex hull of each connection's
options (Lagrange multipliers for discrete options; Everett, Operations Research 11(3), 1963).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, Protocol, TypeVar

import numpy as np

from lmu_deploy.core.integer.graph import sources, with_thresholds
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.parts import Edge
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.validation import check_number

Value = TypeVar("Value")


@dataclass(frozen=True)
class Option(Generic[Value]):
    """One option of a choice.

    Attributes
    ----------
    value : Value
        The value to choose.
    cost, harm : float
    """

    value: Value
    cost: float
    harm: float


def ladder(choices: Mapping[str, Sequence[Option[Value]]]) -> list[dict[str, Option[Value]]]:
    """Return settings of all choices, from the least harm to the least cost.

    Parameters
    ----------
    choices : mapping of name to options
        At least one option each.

    Returns
    -------
    rungs : list of dict of name to Option
        The first does the least harm; each following one changes one choice, the one that saves
        most for the harm that it adds.
    """
    hulls = {name: _hull(options) for name, options in choices.items()}
    moves = [
        (_price(before, after), name, after)
        for name, hull in hulls.items()
        for before, after in pairwise(hull)
    ]
    rung = {name: hull[0] for name, hull in hulls.items()}
    rungs = [rung]
    for _, name, after in sorted(moves, key=lambda move: move[:2]):
        rung = {**rung, name: after}
        rungs.append(rung)
    return rungs


def _price(before: Option[Value], after: Option[Value]) -> float:
    """Return the added harm per unit of saved cost."""
    return (after.harm - before.harm) / (before.cost - after.cost)


def _hull(options: Sequence[Option[Value]]) -> list[Option[Value]]:
    """Return the options on the lower convex hull, from the least harm to the least cost."""
    hull: list[Option[Value]] = []
    for option in sorted(options, key=lambda o: (o.harm, o.cost)):
        if hull and option.cost >= hull[-1].cost:
            continue
        while len(hull) > 1 and _price(hull[-2], hull[-1]) >= _price(hull[-1], option):
            hull.pop()
        hull.append(option)
    return hull


Thresholds = dict[str, int]

TOO_MUCH = 0.05
"""Relative mean squared change of the outputs beyond which no larger threshold is tried."""


class Answers(Protocol):
    """Result of a run, such as :class:`targets.base.Run`."""

    @property
    def outputs(self) -> np.ndarray:
        """Real outputs."""

    @property
    def carried(self) -> Mapping[str, int]:
        """Number of events of each connection."""


Runner = Callable[[IntegerNetwork, np.ndarray], Answers]
"""Runs a network on inputs (samples, steps, n_in)."""


def eligible(network: IntegerNetwork) -> list[Edge]:
    """Return the connections that may have a threshold: all but those of a memory's own loop."""
    own = {p.place for p in network.memories}
    return [e for e in network.edges if not (e.source in own and e.recurrent)]


def with_fraction(network: IntegerNetwork, fraction: float) -> IntegerNetwork:
    """Set the threshold of every eligible connection to a fraction of its messages' range.

    Parameters
    ----------
    network : IntegerNetwork
    fraction : float
        0 to 1; 0 sends every change.

    Raises
    ------
    InputError
        When the fraction is out of range.
    """
    fraction = check_number("sparsity threshold", fraction, 0.0, 1.0)
    limits = {place: source.message.limit for place, source in sources(network).items()}
    return with_thresholds(
        network,
        {w.place: max(1, round(fraction * limits[w.source])) for w in eligible(network)},
    )


def silent_shares(
    network: IntegerNetwork, carried: Mapping[str, int], sample_steps: int
) -> dict[str, float]:
    """Return the share of messages that each connection did not carry, and ``total`` of all.

    Parameters
    ----------
    network : IntegerNetwork
    carried : mapping of place to int
        Number of events in a run.
    sample_steps : int
        Samples times steps of that run. The loop of a series, which sends several times per step,
        is not counted.
    """
    neurons = {place: source.neurons for place, source in sources(network).items()}
    possible = {edge.place: sample_steps * neurons[edge.source] for edge in network.edges}
    shares = {place: 1.0 - carried[place] / most for place, most in possible.items()}
    shares["total"] = 1.0 - sum(carried[place] for place in possible) / sum(possible.values())
    return shares


@dataclass(frozen=True)
class Ladder:
    """A network with increasing thresholds.

    Attributes
    ----------
    network : IntegerNetwork
    rungs : tuple of dict of place to threshold
        From thresholds that change no output to those that save most.
    """

    network: IntegerNetwork
    rungs: tuple[Thresholds, ...]

    def at(self, rung: int) -> IntegerNetwork:
        """Return the network with the thresholds of one rung."""
        return with_thresholds(self.network, self.rungs[rung])


def make_ladder(
    network: IntegerNetwork, inputs: np.ndarray, run: Runner, progress: Progress | None = None
) -> Ladder:
    """Try thresholds on one connection at a time, and order their settings by what they save.

    Parameters
    ----------
    network : IntegerNetwork
        Its own thresholds are ignored.
    inputs : ndarray, shape (samples, steps, n_in)
        A few samples of the training or validation data, never of the test data.
    run : Runner
    progress : callable, optional
        Called with (runs done, largest number of runs).
    """
    limits = {place: source.message.limit for place, source in sources(network).items()}
    tried = {w.place: _doubled(limits[w.source]) for w in eligible(network)}
    done, total = 0, 2 + sum(len(thresholds) for thresholds in tried.values())

    def count(runs: int) -> None:
        nonlocal done
        done += runs
        if progress:
            progress(done, total)

    plain = with_thresholds(network, {w.place: 0 for w in _settable(network)})
    truth = run(plain, inputs)
    count(1)
    exact = run(with_thresholds(plain, {w.place: 1 for w in _settable(network)}), inputs)
    count(1)
    size = float(np.mean(np.square(truth.outputs))) or 1.0
    start: Thresholds = {}
    options: dict[str, list[Option[int]]] = {}
    for edge in _settable(network):
        place = edge.place
        start[place] = int(exact.carried[place] < truth.carried[place])
        events = min(exact.carried[place], truth.carried[place])
        options[place] = [Option(start[place], _operations(edge, events), 0.0)]
    for edge in eligible(network):
        for number, threshold in enumerate(tried[edge.place]):
            answers = run(with_thresholds(plain, {**start, edge.place: threshold}), inputs)
            harm = float(np.mean(np.square(answers.outputs - truth.outputs))) / size
            cost = _operations(edge, answers.carried[edge.place])
            options[edge.place].append(Option(threshold, cost, harm))
            last = harm > TOO_MUCH or number + 1 == len(tried[edge.place])
            count(len(tried[edge.place]) - number if last else 1)
            if last:
                break
    found = [{place: o.value for place, o in rung.items()} for rung in ladder(options)]
    # A threshold that did no harm on these few samples need not be exact.
    rungs = found if found[0] == start else [start, *found]
    return Ladder(plain, tuple(rungs))


def highest_rung(
    rungs: int, loss: Callable[[int], float], allowed: float, progress: Progress | None = None
) -> int:
    """Find the highest rung whose loss is allowed, by bisection: losses grow along a ladder.

    Parameters
    ----------
    rungs : int
    loss : callable
        Returns the loss of a rung; it is not called for rung 0, which is exact.
    allowed : float
    progress : callable, optional
        Called with (runs done, total runs).
    """
    low, high, done = 0, rungs, 0
    total = max(1, (rungs - 1).bit_length())
    while high - low > 1:
        middle = (low + high) // 2
        if loss(middle) <= allowed:
            low = middle
        else:
            high = middle
        done += 1
        if progress:
            progress(min(done, total), total)
    if progress:
        progress(total, total)
    return low


def expected_loss(outputs: np.ndarray, before: np.ndarray, classes: np.ndarray) -> float:
    """Estimate the share of answers that were right before and become wrong.

    Counting them among n samples has a resolution of 1 / n, and a search would find settings that
    are good by chance. So every change of a margin (of the right class over the best other) is
    applied to every sample: n^2 pairs. Wrong answers that become right are not subtracted.

    Parameters
    ----------
    outputs, before : ndarray, shape (..., n_out)
    classes : ndarray of int, shape (...)

    Returns
    -------
    loss : float
        From 0 to 1.
    """
    margins = _margins(before, classes)
    changes = np.sort(_margins(outputs, classes) - margins)
    right = margins[margins > 0.0]
    turned = np.searchsorted(changes, -right, side="right") / len(changes)
    return float(turned.sum() / len(margins))


def _margins(outputs: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the output of the right class minus the best other, for each answer."""
    rows = outputs.reshape(-1, outputs.shape[-1]).astype(np.float64)
    own = classes.reshape(-1, 1)
    right = np.take_along_axis(rows, own, axis=1)[:, 0]
    np.put_along_axis(rows, own, -np.inf, axis=1)
    return np.asarray(right - rows.max(axis=1))


def _settable(network: IntegerNetwork) -> list[Edge]:
    """Return the connections that can have a threshold at all."""
    return list(network.edges)


def _doubled(limit: int) -> Sequence[int]:
    """Return the powers of two from 2 up to half the range."""
    return [2**k for k in range(1, 31) if 2**k <= limit // 2]


def _operations(edge: Edge, events: int) -> float:
    """Return the synaptic operations of a number of events, spread evenly over the neurons."""
    return events * float(edge.connection.fan_out.mean())
