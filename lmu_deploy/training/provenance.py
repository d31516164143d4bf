"""Where a trained network comes from: what stands in its file so that it can be made again."""

from __future__ import annotations

import json
import platform
import shlex
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version

from lmu_deploy.training.config import TrainConfig

_PACKAGES = ("lmu-deploy", "numpy", "torch", "lightning", "scikit-learn")


def describe(
    command: list[str], seed: int, config: TrainConfig, figures: Mapping[str, float], device: str
) -> dict[str, str]:
    """Put together the provenance of a training.

    Parameters
    ----------
    command : list of str
        The command line that repeats it.
    seed : int
    config : TrainConfig
    figures : mapping of str to float
    device : str
        What it ran on, such as "cpu".

    Returns
    -------
    provenance : dict of str to str
        command, seed, date (UTC), settings and figures (JSON), versions (JSON), hardware.
    """
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "command": shlex.join(command),
        "seed": str(seed),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "settings": config.model_dump_json(exclude_none=True),
        "figures": json.dumps(dict(figures)),
        "versions": json.dumps(versions),
        "hardware": f"{device}, {platform.machine()}",
    }
