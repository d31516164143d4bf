"""Acceptance limits on results: one check for each target and each limit, for pipelines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lmu_deploy.core.errors import InputError
from lmu_deploy.fidelity.schema import Fidelity, Fit, TargetFidelity


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
        """Whether there is any limit."""
        figures = (self.below, self.above, self.loss)
        return self.fit or any(limit is not None for limit in figures)


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
    return [
        check for name, found in fidelity.targets.items() for check in _checks(name, found, limits)
    ]


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
