r"""Comparison of two validations: changes of the metric with intervals, of figures and settings.

Results are paired when both runs used the same samples and recorded the result of each. Otherwise
the two metrics count as independent, and the interval of their difference follows from both
intervals by square-and-add: with :math:`[l_1, u_1]` around :math:`p_1` and :math:`[l_2, u_2]`
around :math:`p_2`,

.. math::
   p_1 - p_2 - \sqrt{(p_1 - l_1)^2 + (u_2 - p_2)^2} \quad \ldots \quad
   p_1 - p_2 + \sqrt{(u_1 - p_1)^2 + (p_2 - l_2)^2}

For Wilson's intervals this is method 10 of Newcombe 1998, "Interval estimation for the difference
between independent proportions", Statistics in Medicine 17, 873-890. Zou and Donner 2008,
Statistics in Medicine 27, 1693-1702, extend it to other intervals.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.fidelity.measures.agreement import ClassAgreement
from lmu_deploy.fidelity.measures.metric import error_sums, right_answers
from lmu_deploy.fidelity.measures.statistics import Interval, bootstrap_nrmse_difference
from lmu_deploy.fidelity.schema import Answers, Fidelity, Metric, Reference, TargetFidelity

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Paired:
    """Change of a metric on the same samples.

    Attributes
    ----------
    ci95 : pair of float, or None
        95 % interval of after minus before: Agresti and Min 2005 for classes, the bootstrap on the
        same resampled sequences for an NRMSE; None with too few samples.
    clear : bool
        Whether the p-value of McNemar's exact test is below 0.05, or the interval excludes zero.
    lost, gained : int or None
        Predictions that are correct only before, and only after; None for an NRMSE.
    p_value : float or None
        Of McNemar's exact test; None for an NRMSE.
    """

    ci95: Interval | None
    clear: bool
    lost: int | None = None
    gained: int | None = None
    p_value: float | None = None


def pair(before: Answers | None, after: Answers | None, seed: int = 0) -> Paired | None:
    """Compare the results of the same samples; return None when they are not recorded in both.

    Parameters
    ----------
    before, after : Answers or None
        Results of the same first samples of the same data.
    seed : int
        Of the bootstrap.

    Raises
    ------
    InputError
        When one of them is corrupt.
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


Judged = TargetFidelity | Reference
Outcome = Literal["better", "worse", "no clear change"]
Range = tuple[float, float]


@dataclass(frozen=True)
class MetricChange:
    """Change of a metric.

    Attributes
    ----------
    before, after : Metric
    difference : float
        After minus before.
    ci95 : pair of float, or None
        None when one of the two has no interval.
    outcome : {"better", "worse", "no clear change"}
        A change is clear when the interval excludes zero or, for paired predictions, when the
        p-value of McNemar's test is below 0.05.
    paired : Paired or None
        Paired comparison, if both ran the same samples.
    """

    before: Metric
    after: Metric
    difference: float
    ci95: Range | None
    outcome: Outcome
    paired: Paired | None = None


@dataclass(frozen=True)
class Pair:
    """One target that is in both validations."""

    name: str
    before: TargetFidelity
    after: TargetFidelity
    metric: MetricChange
    settings: Mapping[str, tuple[str | None, str | None]]


@dataclass(frozen=True)
class Comparison:
    """Two validations of one task.

    Attributes
    ----------
    before, after : Fidelity
    reference : MetricChange
        Change of the float networks.
    pairs : tuple of Pair
        Targets in both, each followed by the variants in both.
    only_before, only_after : tuple of str
        Targets in only one of them.
    provenance : mapping of name to (before, after)
        Command, seed, versions and hashes that differ; None for a missing entry.
    """

    before: Fidelity
    after: Fidelity
    reference: MetricChange
    pairs: tuple[Pair, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    provenance: Mapping[str, tuple[str | None, str | None]]

    @property
    def same_samples(self) -> bool:
        """Whether both used the same inputs and desired outputs."""
        return not {"hash of inputs", "hash of targets"} & set(self.provenance)


def compare_runs(before: Fidelity, after: Fidelity) -> Comparison:
    """Compare two validations of the same task.

    Raises
    ------
    InputError
        When they belong to different tasks.
    """
    if before.task.name != after.task.name:
        raise InputError(
            f"one report is of task {after.task.name} and the other of {before.task.name}; "
            "compare two reports of one task."
        )
    old, new = dict(_named(before)), dict(_named(after))
    same = all(before.hashes.get(name) == after.hashes.get(name) for name in ("inputs", "targets"))
    return Comparison(
        before=before,
        after=after,
        reference=_change(before.reference, after.reference, same, after.seed),
        pairs=tuple(_pair(n, old[n], new[n], same, after.seed) for n in new if n in old),
        only_before=tuple(name for name in old if name not in new),
        only_after=tuple(name for name in new if name not in old),
        provenance=differences(_provenance(before), _provenance(after)),
    )


def metric_change(before: Metric, after: Metric, paired: Paired | None = None) -> MetricChange:
    """Return the difference of two metrics of one name, with its interval.

    Parameters
    ----------
    before, after : Metric
    paired : Paired, optional
        Paired comparison; by default the metrics count as independent.
    """
    difference = after.value - before.value
    interval = difference_interval(after, before) if paired is None else paired.ci95
    clear = interval is not None and not interval[0] <= 0.0 <= interval[1]
    if paired is not None:
        clear = paired.clear
    outcome: Outcome = "no clear change"
    if clear and difference:
        outcome = "better" if (difference > 0) == (after.name == "accuracy") else "worse"
    return MetricChange(before, after, difference, interval, outcome, paired)


def difference_interval(one: Metric, other: Metric) -> Range | None:
    """Return the 95 % interval of `one` minus an independent `other`; None without intervals."""
    if one.ci95 is None or other.ci95 is None:
        return None
    difference = one.value - other.value
    (low, high), (other_low, other_high) = one.ci95, other.ci95
    return (
        difference - math.hypot(one.value - low, other_high - other.value),
        difference + math.hypot(high - one.value, other.value - other_low),
    )


def differences(
    before: Mapping[str, Any], after: Mapping[str, Any]
) -> dict[str, tuple[str | None, str | None]]:
    """Return the entries that differ, as texts; None for a missing entry."""
    found = {}
    for name in dict.fromkeys([*before, *after]):
        old, new = (str(m[name]) if name in m else None for m in (before, after))
        if old != new:
            found[name] = (old, new)
    return found


def _pair(name: str, before: TargetFidelity, after: TargetFidelity, same: bool, seed: int) -> Pair:
    change = _change(before, after, same, seed)
    return Pair(name, before, after, change, differences(before.settings, after.settings))


def _change(before: Judged, after: Judged, same: bool, seed: int) -> MetricChange:
    """Compare metrics, paired if both ran the same samples."""
    paired = pair(before.answers, after.answers, seed) if same else None
    return metric_change(before.metric, after.metric, paired)


def _named(fidelity: Fidelity) -> Iterator[tuple[str, TargetFidelity]]:
    for name, found in fidelity.targets.items():
        yield name, found
        for variant, other in found.variants.items():
            yield f"{name} · {variant}", other


def _provenance(fidelity: Fidelity) -> dict[str, Any]:
    return {
        "command": fidelity.command,
        "seed": fidelity.seed,
        **{f"version of {name}": text for name, text in fidelity.versions.items()},
        **{f"hash of {name}": text for name, text in fidelity.hashes.items()},
        **{f"network's {name}": text for name, text in fidelity.network.provenance.items()},
    }
