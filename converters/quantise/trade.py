"""Trading harm for cost: of a few options for each of many choices, the best of each total cost.

Harms of independent small errors add up, and so do costs. The choices that cost least for the harm
they do, for every price of harm, are those on the lower convex hull of each choice's options
(Lagrange multipliers for discrete options; Everett, Operations Research 11(3), 1963).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, TypeVar

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
