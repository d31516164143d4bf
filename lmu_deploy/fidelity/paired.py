"""Two runs of the same samples, compared sample by sample: less may be a clear change then."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmu_deploy.fidelity.agreement import ClassAgreement
from lmu_deploy.fidelity.answers import error_sums, right_answers
from lmu_deploy.fidelity.intervals import Interval, bootstrap_nrmse_difference
from lmu_deploy.fidelity.schema import Answers

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Paired:
    """How a metric changed on the same samples.

    Attributes
    ----------
    ci95 : pair of float, or None
        Of after minus before: Agresti and Min 2005 for classes, the bootstrap on the same drawn
        sequences for an NRMSE; None with too few samples.
    clear : bool
        Whether McNemar's exact test is below 0.05, or the interval leaves out zero.
    lost, gained : int or None
        Answers that were right before alone, and that are right now alone; None for an NRMSE.
    p_value : float or None
        McNemar's exact test; None for an NRMSE.
    """

    ci95: Interval | None
    clear: bool
    lost: int | None = None
    gained: int | None = None
    p_value: float | None = None


def pair(before: Answers | None, after: Answers | None, seed: int = 0) -> Paired | None:
    """Compare what came of each of the same samples; None where that is not known of both.

    Parameters
    ----------
    before, after : Answers or None
        Of the same first samples of the same data, if there are as many.
    seed : int
        Of the bootstrap.

    Raises
    ------
    InputError
        When one of them is damaged.
    """
    if before is None or after is None or before.count != after.count:
        return None
    was, now = right_answers(before), right_answers(after)
    if was is not None and now is not None:
        return _classes(was, now)
    earlier, later = error_sums(before), error_sums(after)
    if earlier is None or later is None:
        return None
    ci95 = bootstrap_nrmse_difference(later[0], earlier[0], later[1], seed)
    return Paired(ci95, ci95 is not None and not ci95[0] <= 0.0 <= ci95[1])


def _classes(was: np.ndarray, now: np.ndarray) -> Paired:
    lost, gained = int((was & ~now).sum()), int((now & ~was).sum())
    found = ClassAgreement(len(was), lost + gained, lost, gained)
    clear = found.p_value < SIGNIFICANT
    return Paired(found.difference_ci95, clear, lost, gained, found.p_value)
