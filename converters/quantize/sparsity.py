"""Fewer messages: thresholds for sigma-delta connections, given or tuned to an allowed loss.

Thresholds belong where an error does not last. What goes round a memory's own loop is added up
there for a whole window, so its messages are sent in full; a threshold of 1, which is exact, is
taken wherever it saves events.

Trading harm for cost: of a few options for each of many choices, the best of each total cost.

Harms of independent small errors add up, and so do costs. The choices that cost least for the harm
they do, for every price of harm, are those on the lower convex hull of each choice's options
(Lagrange multipliers for discrete options; Everett, Operations Research 11(3), 1963).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, Protocol, TypeVar

import numpy as np

from lmu_deploy.core.integer.graph import Edge, edges, populations, with_thresholds
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.validation import check_number

Value = TypeVar("Value")


@dataclass(frozen=True)
class Option(Generic[Value]):
    """One way to make a choice.

    Attributes
    ----------
    value : Value
        What would be chosen.
    cost, harm : float
    """

    value: Value
    cost: float
    harm: float


def ladder(choices: Mapping[str, Sequence[Option[Value]]]) -> list[dict[str, Option[Value]]]:
    """Give settings of all choices from the least harm to the least cost.

    Parameters
    ----------
    choices : mapping of name to options
        At least one option each.

    Returns
    -------
    rungs : list of dict of name to Option
        The first does the least harm; each next one changes one choice, the one that saves most
        for the harm it adds.
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
    """Harm added for each unit of cost that is saved."""
    return (after.harm - before.harm) / (before.cost - after.cost)


def _hull(options: Sequence[Option[Value]]) -> list[Option[Value]]:
    """Options of the lower convex hull, from the least harm to the least cost."""
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
"""Mean square change of the answers, as a share of theirs, at which larger thresholds end."""

_OWN_LOOP = ("/memory/recurrent", "/series/recurrent", "/series/feedback")


class Answers(Protocol):
    """What is asked of a run; :class:`targets.base.Run` has it."""

    @property
    def outputs(self) -> np.ndarray:
        """Real answers."""

    @property
    def carried(self) -> Mapping[str, int]:
        """Events of each connection."""


Runner = Callable[[IntegerNetwork, np.ndarray], Answers]
"""Runs a network on inputs (samples, steps, n_in)."""


def eligible(network: IntegerNetwork) -> list[Edge]:
    """Give the connections that a threshold does not ruin: all but a memory's own loop."""
    return [edge for edge in edges(network) if not edge.place.endswith(_OWN_LOOP)]


def with_fraction(network: IntegerNetwork, fraction: float) -> IntegerNetwork:
    """Let every eligible connection send what has changed by a fraction of its messages' range.

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
    limits = {name: p.message.limit for name, p in populations(network).items()}
    return with_thresholds(
        network,
        {w.place: max(1, round(fraction * limits[w.source])) for w in eligible(network)},
    )


def silent_shares(
    network: IntegerNetwork, carried: Mapping[str, int], sample_steps: int
) -> dict[str, float]:
    """Share of the messages that each connection did not carry, and of all as ``total``.

    Parameters
    ----------
    network : IntegerNetwork
    carried : mapping of place to int
        Events in a run.
    sample_steps : int
        Samples times steps of that run. A series sends several times a step to itself, and is left
        out.
    """
    neurons = {name: p.neurons for name, p in populations(network).items()}
    possible = {
        edge.place: sample_steps * neurons[edge.source]
        for edge in edges(network)
        if not edge.source.endswith("/series")
    }
    shares = {place: 1.0 - carried[place] / most for place, most in possible.items()}
    shares["total"] = 1.0 - sum(carried[place] for place in possible) / sum(possible.values())
    return shares


@dataclass(frozen=True)
class Ladder:
    """A network with ever larger thresholds.

    Attributes
    ----------
    network : IntegerNetwork
    rungs : tuple of dict of place to threshold
        From thresholds that change no answer to those that save most.
    """

    network: IntegerNetwork
    rungs: tuple[Thresholds, ...]

    def at(self, rung: int) -> IntegerNetwork:
        """Give the network of one rung."""
        return with_thresholds(self.network, self.rungs[rung])


def make_ladder(
    network: IntegerNetwork, inputs: np.ndarray, run: Runner, progress: Progress | None = None
) -> Ladder:
    """Try thresholds on one connection at a time, and put them in the order of what they save.

    Parameters
    ----------
    network : IntegerNetwork
        With whatever thresholds; they are replaced.
    inputs : ndarray, shape (samples, steps, n_in)
        A few samples of the training or validation data, never of the test.
    run : Runner
    progress : callable, optional
        Called with (runs done, runs at most).
    """
    limits = {name: p.message.limit for name, p in populations(network).items()}
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
    # A threshold that did no harm to these few samples is not exact for all that.
    rungs = found if found[0] == start else [start, *found]
    return Ladder(plain, tuple(rungs))


def highest_rung(
    rungs: int, loss: Callable[[int], float], allowed: float, progress: Progress | None = None
) -> int:
    """Find the highest rung whose loss is allowed, by halving: losses grow along a ladder.

    Parameters
    ----------
    rungs : int
    loss : callable
        Gives the loss of a rung; that of rung 0, which is exact, is not asked for.
    allowed : float
    progress : callable, optional
        Called with (runs done, runs in all).
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
    """Share of answers that were right before and that changes of this size turn wrong.

    Counting them among n samples tells nothing finer than 1 / n, and a search would find settings
    that were lucky. So every change of a margin (of the right class over the best other) is tried
    on every sample: n^2 pairs. Nothing is taken off for wrong answers that turn right.

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
    """Output of the right class less the best other, of each answer; shape (answers,)."""
    rows = outputs.reshape(-1, outputs.shape[-1]).astype(np.float64)
    own = classes.reshape(-1, 1)
    right = np.take_along_axis(rows, own, axis=1)[:, 0]
    np.put_along_axis(rows, own, -np.inf, axis=1)
    return np.asarray(right - rows.max(axis=1))


def _settable(network: IntegerNetwork) -> list[Edge]:
    """Give the connections that can have a threshold at all."""
    return [edge for edge in edges(network) if not edge.source.endswith("/series")]


def _doubled(limit: int) -> Sequence[int]:
    """Thresholds from 2 on, up to half the range."""
    return [2**k for k in range(1, 31) if 2**k <= limit // 2]


def _operations(edge: Edge, events: int) -> float:
    """Synaptic operations that so many events cost, spread evenly over the neurons."""
    return events * float(edge.connection.fan_out.mean())
