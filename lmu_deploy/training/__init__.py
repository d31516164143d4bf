"""Training with Lightning: from the name of a task to an LMUNetwork with metrics and provenance.

Torch and Lightning are imported when training starts.
"""

from __future__ import annotations

from lmu_deploy.training.config import TrainConfig
from lmu_deploy.training.run import TrainResult, train

__all__ = ["TrainConfig", "TrainResult", "train"]
