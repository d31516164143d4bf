"""Verdicts on targets, and acceptance limits: one check for each target and limit, for pipelines.

A target has a tick only if the 90 % interval of its paired difference from float lies within a
margin (two one-sided tests at 5 %), every integer that it recorded is the specification's, and an
analog chip follows its network file from state to state.
Few samples can show that a target differs, and that its integers are right, but not that its
accuracy is: such a verdict is undecided, with the number of samples that would decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.representation import counted
from lmu_deploy.fidelity.measures.metric import MARGINS
from lmu_deploy.fidelity.measures.statistics import MOST_NEEDED, score_difference
from lmu_deploy.fidelity.schema import (
    AgainstReference,
    Fidelity,
    Fit,
    Specification,
    TargetFidelity,
)

Tone = Literal["same", "better", "worse", "unknown"]
_KINDS = {"accuracy": "classification", "nrmse": "regression"}


def margin_of(found: TargetFidelity) -> float:
    """Return the margin of equivalence of a target; files of earlier versions have the default."""
    against = found.reference
    if against is not None and against.margin is not None:
        return against.margin
    return MARGINS[_KINDS[found.metric.name]]


def in_words(margin: float, metric: str) -> str:
    """Format a margin: 1 point, or 2 % of float's NRMSE."""
    if metric != "accuracy":
        return f"{100 * margin:g} % of float's NRMSE"
    return f"{100 * margin:g} point{'' if margin == 0.01 else 's'}"


def against_float(found: TargetFidelity, margin: float) -> tuple[Tone, str]:
    """Compare a target with float: equivalent, better, worse or undecided, and in words."""
    against = found.reference
    if against is None:
        return "unknown", "no float reference"
    within = in_words(margin, found.metric.name)
    accuracy = found.metric.name == "accuracy"
    interval = _interval(against, found.samples)
    if interval is not None:
        low, high = interval
        limit = margin if accuracy else margin * against.value
        if -limit < low and high < limit:
            return "same", f"equivalent to float within {within}"
        if low > limit or high < -limit:
            better = (low > limit) == accuracy
            word = "better" if better else "worse"
            return "better" if better else "worse", f"{word} than float by more than {within}"
    few = f"undecided within {within}"
    if margin == against.margin:
        enough = f"needs {counted(against.needed, 'sample')} or more" if against.needed else None
        near = f"the difference is at the margin, which not even {MOST_NEEDED:,} samples decide"
        few += f": {enough or (near if interval is not None else 'no interval')}"
    return "unknown", few


def _interval(against: AgainstReference, samples: int) -> tuple[float, float] | None:
    """Return the 90 % interval of the difference; in earlier files from what they have."""
    if against.difference_ci90 is not None or against.margin is not None:
        return against.difference_ci90
    if against.lost is not None and against.gained is not None:
        return score_difference(against.lost, against.gained, samples)
    return against.difference_ci95


def judged(found: TargetFidelity) -> tuple[Tone, str]:
    """Return the verdict on a target, without its fit to a chip."""
    tone, words = against_float(found, margin_of(found))
    specified = found.specification
    if specified is not None and not specified.equal:
        return "worse", f"differs from the specification; {words}"
    if found.damage:
        return "worse", f"its file is damaged; {words}"
    if specified is not None and specified.blind and tone != "worse":
        return "unknown", f"undecided whether it follows its network file; {words}"
    if specified is not None and tone == "unknown":
        verb = "equals" if specified.false_alarms is None else "follows"
        return tone, f"{verb} the specification; {words}"
    return tone, words


@dataclass(frozen=True)
class Limits:
    """Acceptance limits; None means no limit.

    Attributes
    ----------
    below : float or None
        Smallest accuracy, in [0, 1].
    above : float or None
        Largest NRMSE.
    loss : float or None
        Largest loss against the float reference on the same samples: for accuracy a share of all
        samples (0.002 is 0.2 points), for NRMSE a share of the NRMSE of the reference.
    fit : bool
        Whether every network must fit its chip.
    equal : bool
        Whether every integer that a target recorded must be that of the specification, and every
        recorded analog chip must follow its network file.
    margin : float or None
        Margin within which every target must be equivalent to float, or better: a share of all
        samples for accuracy, of the NRMSE of the reference for NRMSE.

    Raises
    ------
    InputError
        When a limit is out of its range.
    """

    below: float | None = None
    above: float | None = None
    loss: float | None = None
    fit: bool = False
    equal: bool = False
    margin: float | None = None

    def __post_init__(self) -> None:
        if self.margin is not None and not 0.0 < self.margin <= 1.0:
            raise InputError(
                f"--margin is {self.margin:g}; it must be above 0 and at most 1, such as 0.01."
            )
        for name, value, top in (
            ("--fail-below", self.below, 1.0),
            ("--fail-above", self.above, float("inf")),
            ("--max-loss", self.loss, float("inf")),
        ):
            if value is not None and not 0.0 <= value <= top:
                span = f"0 to {top:g}" if top < float("inf") else "0 or more"
                raise InputError(f"{name} is {value:g}; it must be {span}.")

    @property
    def asked(self) -> bool:
        """Whether there is any limit."""
        figures = (self.below, self.above, self.loss, self.margin)
        return self.fit or self.equal or any(limit is not None for limit in figures)


@dataclass(frozen=True)
class Check:
    """One limit on one target.

    Attributes
    ----------
    target, name : str
        The target, and the name of the limit.
    passed : bool
    sentence : str
        The value and the limit, in words.
    """

    target: str
    name: str
    passed: bool
    sentence: str


def check_limits(fidelity: Fidelity, limits: Limits) -> list[Check]:
    """Check every target, without its variants, against the limits.

    Raises
    ------
    InputError
        When a limit belongs to another metric than that of the task, or networks must fit their
        chips and no network is for a chip.
    """
    metric = fidelity.reference.metric.name
    if metric == "nrmse" and limits.below is not None:
        raise InputError(
            "--fail-below limits an accuracy, but this task has an NRMSE; use --fail-above."
        )
    if metric == "accuracy" and limits.above is not None:
        raise InputError(
            "--fail-above limits an NRMSE, but this task has an accuracy; use --fail-below."
        )
    if limits.fit and all(found.fit is None for found in fidelity.targets.values()):
        raise InputError(
            "--must-fit has nothing to check: no target of this report runs a network for a chip; "
            "add such a target, for example integer, or remove the option."
        )
    if limits.equal and all(found.specification is None for found in fidelity.targets.values()):
        raise InputError(
            "--must-equal has nothing to check: no target of this report recorded the integers of "
            "an integer network or of Loihi's neurons, or the states of an analog chip; add such a "
            "target, for example lava:8, or remove the option."
        )
    checks = [
        check for name, found in fidelity.targets.items() for check in _checks(name, found, limits)
    ]
    if limits.margin is None:
        return checks
    return checks + [_check_margin(fidelity, name, limits.margin) for name in fidelity.targets]


def _checks(name: str, found: TargetFidelity, limits: Limits) -> Iterator[Check]:
    value = found.metric.value
    if limits.below is not None:
        text = f"{name}: accuracy {value:.4f}, at least {limits.below:g} required"
        yield Check(name, "accuracy", value >= limits.below, text)
    if limits.above is not None:
        text = f"{name}: NRMSE {value:.4g}, at most {limits.above:g} allowed"
        yield Check(name, "nrmse", value <= limits.above, text)
    if limits.loss is not None:
        yield _check_loss(name, found, limits.loss)
    if limits.fit and found.fit is not None:
        yield _check_fit(name, found.fit)
    if limits.equal and found.specification is not None:
        yield _check_equal(name, found.specification)
    elif limits.equal and found.sizes is not None:
        what = _NOT_COMPARED.get(found.sizes.representation)
        if what is not None:
            yield Check(name, "equal", False, f"{name}: {what}")


_INTEGERS = "recorded none of the integers of its network, so none were compared"
_CHIP = (
    "was not compared with its network file, because it recorded no states, or the file does not "
    "determine them"
)
_NOT_COMPARED = {
    "IntegerNetwork": _INTEGERS,
    "LoihiNetwork": _INTEGERS,
    "LoihiGraph": _INTEGERS,
    "SpikingNetwork": _CHIP,
    "SpikingGraph": _CHIP,
}
"""What a target has not shown, by the network that it ran."""


def _check_equal(name: str, found: Specification) -> Check:
    if found.false_alarms is not None:
        verb = "follows" if found.equal else "deviates from"
        what = f"{verb} its network file in a replay of {counted(found.replayed, 'sample')}"
        if found.equal and found.blind:
            what = f"undecided whether it follows its network file: {found.blind[0]}"
        return Check(name, "equal", found.equal and not found.blind, f"{name}: {what}")
    integers = f"{found.values:,} recorded integers"
    if found.equal:
        return Check(name, "equal", True, f"{name}: all {integers} are those of the specification")
    wrong = found.different or found.residuals
    return Check(
        name,
        "equal",
        False,
        f"{name}: {wrong:,} of {integers} differ from those of the specification",
    )


def _check_margin(fidelity: Fidelity, name: str, margin: float) -> Check:
    tone, words = against_float_here(fidelity, name, margin)
    return Check(name, "margin", tone in ("same", "better"), f"{name}: {words}")


def against_float_here(fidelity: Fidelity, name: str, margin: float) -> tuple[Tone, str]:
    """Judge a target by its own samples, or by those of a target to which it is bit-identical.

    Returns
    -------
    tone, words : str
        As of :func:`against_float`.
    """
    found = fidelity.targets[name]
    tone, words = against_float(found, margin)
    peer = found.equal_to
    if tone == "unknown" and peer is not None and peer.equal and peer.target in fidelity.targets:
        tone, theirs = against_float(fidelity.targets[peer.target], margin)
        words = f"bit-identical to {peer.target}, which is {theirs}"
    return tone, words


def _check_loss(name: str, found: TargetFidelity, limit: float) -> Check:
    against = found.reference
    if against is None:
        return Check(name, "loss", False, f"{name}: no float reference to compare with")
    if found.metric.name == "accuracy":
        lost = -against.difference
        what = f"accuracy {lost:.4f} below float ({against.value:.4f})"
    else:
        lost = against.difference / against.value if against.value else float("inf")
        what = f"NRMSE {100 * lost:.2f} % above float ({against.value:.4g})"
    return Check(name, "loss", lost <= limit, f"{name}: {what}, at most {limit:g} allowed")


def _check_fit(name: str, found: Fit) -> Check:
    chip = f"{found.title} (profile {found.profile})"
    if not found.violations:
        return Check(name, "fit", True, f"{name}: fits {chip}")
    first = found.violations[0].rstrip(".")
    more = len(found.violations) - 1
    others = f", and {more} more" if more else ""
    return Check(name, "fit", False, f"{name}: does not fit {chip}: {first}{others}")
