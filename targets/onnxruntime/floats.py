"""A float network in float32; its states are not sent as events, so none are counted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from lmu_deploy.errors import InputError
from lmu_deploy.network import LMUNetwork
from targets.base import States
from targets.reference import float_populations


def narrowed(inputs: np.ndarray) -> np.ndarray:
    """Give the inputs in float32.

    Raises
    ------
    InputError
        When an entry is beyond it.
    """
    with np.errstate(over="ignore"):
        narrow = inputs.astype(np.float32)
    if not np.isfinite(narrow).all():
        raise InputError("input has entries beyond float32 (3.4e38); scale it.")
    return narrow


def collect_floats(
    network: LMUNetwork, steps: int, batches: Iterable[dict[str, np.ndarray]], record: bool
) -> dict[str, Any]:
    """Give what a Run says of a float network; `batches` are the outputs of the sequence model."""
    parts = list(batches)
    results = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {
        "outputs": results["output"].astype(np.float64),
        "neurons": float_populations(network),
        "events": {},
        "synops": 0,
        "saturations": {},
        "states": _states(results, steps) if record else None,
    }


def _states(results: dict[str, np.ndarray], steps: int) -> States:
    """Give the recorded states; a kind that no layer has is left out of the model."""
    none = np.empty((len(results["y"]), steps, 0), dtype=np.float32)
    m, h = results.get("m", none), results.get("h", none)
    return States(m, h, results["y"], np.ones(m.shape[2]), np.ones(h.shape[2]))
