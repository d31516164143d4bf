"""Training on Lightning: a task's name in, an LMUNetwork with its figures and provenance out.

Torch and Lightning are imported when a training starts, not before.
"""

from __future__ import annotations

from lmu_deploy.training.config import TrainConfig
from lmu_deploy.training.run import TrainResult, train

__all__ = ["TrainConfig", "TrainResult", "train"]
