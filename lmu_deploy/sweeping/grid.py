"""Every combination of the values of a grid, the last setting changing fastest."""

from __future__ import annotations

import itertools

from lmu_deploy.sweeping.spec import Spec, Trial


def grid_trials(spec: Spec) -> list[Trial]:
    """List the trials of a grid, all checked.

    Raises
    ------
    InputError
        When a name is unknown or a value out of range; nothing has run by then.
    """
    axes = spec.grid or {}
    combinations = itertools.product(*axes.values())
    return [spec.trial(dict(zip(axes, values, strict=True))) for values in combinations]
