"""How many of a batch of virtual chips would do, in numbers and in words."""

from __future__ import annotations

from math import ceil

import numpy as np

from lmu_deploy.fidelity.intervals import wilson
from lmu_deploy.fidelity.schema import TargetFidelity
from lmu_deploy.reporting.robustness_file import CALIBRATED, UNCALIBRATED, Robustness, YieldStudy
from lmu_deploy.reporting.wording import SPACE, plural

ACCURACY_LOSS = 0.01
NRMSE_GROWTH = 1.1
"""What a chip may lose: a point of accuracy against float, or a tenth of a perfect chip's error."""

METHODS = {UNCALIBRATED: "before calibration", CALIBRATED: "after calibration"}


def on_many_chips(found: Robustness, name: str, target: TargetFidelity) -> list[str]:
    """Say beside a target how many chips of its profile would do."""
    if target.fit is None or name != "brian2":
        return []
    return [
        good(study, CALIBRATED) for study in found.yields if study.profile == target.fit.profile
    ]


def reached_by(study: YieldStudy, method: str, share: float) -> float:
    """Give the metric that at least this share of the chips reaches or betters."""
    ordered = sorted(study.values[method], reverse=study.metric == "accuracy")
    return ordered[max(ceil(round(share * len(ordered), 9)), 1) - 1]


def good_chips(study: YieldStudy, method: str) -> int:
    """Count the chips that lose no more than is allowed."""
    values = np.asarray(study.values[method])
    if study.metric == "accuracy":
        # Accuracies are multiples of a sample: rounding in the last digit must decide nothing.
        return int((values >= study.reference - ACCURACY_LOSS - 1e-9).sum())
    return int((values <= NRMSE_GROWTH * study.ideal).sum())


def good(study: YieldStudy, method: str) -> str:
    """Say in a sentence how many chips would do, and what that says of all such chips."""
    enough, chips = good_chips(study, method), len(study.values[method])
    low, high = wilson(enough, chips)
    allowed = "are at most 1 point below float"
    if study.metric == "nrmse":
        allowed = f"have at most {NRMSE_GROWTH:g} times the error of a perfect chip"
    return (
        f"{enough:,} of {plural(chips, 'virtual chip')} {allowed} {METHODS[method]} "
        f"(95{SPACE}% interval of such chips {100 * low:.1f} to {100 * high:.1f}{SPACE}%)."
    )
