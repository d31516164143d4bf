"""Whether results are good enough to go on: one check for each target and each limit.

In: figures and limits. Out: checks that hold or fail, each with the sentence that says why; a
pipeline stops on those that fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lmu_deploy.core.errors import InputError
from lmu_deploy.fidelity.schema import Fidelity, Fit, TargetFidelity


@dataclass(frozen=True)
class Limits:
    """What a result must keep to; None where nothing is asked.

    Attributes
    ----------
    below : float or None
        Least accuracy, in [0, 1].
    above : float or None
        Largest NRMSE.
    loss : float or None
        Most that may be lost against the float reference on the same samples: accuracy as a share
        of all samples (0.002 is 0.2 points), NRMSE as a share of the reference's.
    fit : bool
        Whether every network must fit the chip that it was made for.

    Raises
    ------
    InputError
        When a limit is out of its range.
    """

    below: float | None = None
    above: float | None = None
    loss: float | None = None
    fit: bool = False

    def __post_init__(self) -> None:
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
        """Whether anything is asked at all."""
        figures = (self.below, self.above, self.loss)
        return self.fit or any(limit is not None for limit in figures)


@dataclass(frozen=True)
class Check:
    """One limit on one target.

    Attributes
    ----------
    target, name : str
        Which target, and what was asked of it.
    held : bool
    sentence : str
        What was found, and against which limit.
    """

    target: str
    name: str
    held: bool
    sentence: str


def check_limits(fidelity: Fidelity, limits: Limits) -> list[Check]:
    """Hold every target, without its variants, to the limits.

    Raises
    ------
    InputError
        When a limit is of another metric than the task's, or networks must fit their chips and none
        is for a chip.
    """
    metric = fidelity.reference.metric.name
    if metric == "nrmse" and limits.below is not None:
        raise InputError("--fail-below is for accuracy, and this task has an NRMSE; --fail-above.")
    if metric == "accuracy" and limits.above is not None:
        raise InputError("--fail-above is for an NRMSE, and this task has accuracy; --fail-below.")
    if limits.fit and all(found.fit is None for found in fidelity.targets.values()):
        raise InputError(
            "--must-fit has nothing to hold: no target of this report runs a network that was made "
            "for a chip; add one, such as integer, or leave it out."
        )
    return [
        check for name, found in fidelity.targets.items() for check in _checks(name, found, limits)
    ]


def _checks(name: str, found: TargetFidelity, limits: Limits) -> Iterator[Check]:
    value = found.metric.value
    if limits.below is not None:
        text = f"{name}: accuracy {value:.4f}, at least {limits.below:g} asked for"
        yield Check(name, "accuracy", value >= limits.below, text)
    if limits.above is not None:
        text = f"{name}: NRMSE {value:.4g}, at most {limits.above:g} asked for"
        yield Check(name, "nrmse", value <= limits.above, text)
    if limits.loss is not None:
        yield _check_loss(name, found, limits.loss)
    if limits.fit and found.fit is not None:
        yield _check_fit(name, found.fit)


def _check_loss(name: str, found: TargetFidelity, limit: float) -> Check:
    against = found.reference
    if against is None:
        return Check(name, "loss", False, f"{name}: no float reference to lose against")
    if found.metric.name == "accuracy":
        lost = -against.difference
        what = f"accuracy {lost:.4f} below float's {against.value:.4f}"
    else:
        lost = against.difference / against.value if against.value else float("inf")
        what = f"NRMSE {100 * lost:.2f} % above float's {against.value:.4g}"
    return Check(name, "loss", lost <= limit, f"{name}: {what}, at most {limit:g} asked for")


def _check_fit(name: str, found: Fit) -> Check:
    chip = f"{found.title} (profile {found.profile})"
    if not found.violations:
        return Check(name, "fit", True, f"{name}: fits {chip}")
    first = found.violations[0].rstrip(".")
    more = len(found.violations) - 1
    others = f", and {more} more" if more else ""
    return Check(name, "fit", False, f"{name}: does not fit {chip}: {first}{others}")
