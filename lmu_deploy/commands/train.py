"""`train`: a network on a task, one `.safetensors` file out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmu_deploy.training import TrainResult


def train(
    task: str,
    model: str = "lmu",
    *,
    config: Path | str | None = None,
    seed: int = 0,
    epochs: int | None = None,
    out: Path | str | None = None,
    checkpoint: Path | str | None = None,
    device: str = "auto",
) -> TrainResult:
    """Train; see :func:`lmu_deploy.training.train`.

    Raises
    ------
    InputError
        When the task, model or configuration is unknown or wrong, or `out` cannot be written.
    MissingDependencyError
        When torch or lightning is absent.
    """
    from lmu_deploy.training import train as fit

    return fit(
        task,
        model,
        config=None if config is None else Path(config),
        seed=seed,
        epochs=epochs,
        out=None if out is None else Path(out),
        checkpoint=None if checkpoint is None else Path(checkpoint),
        device=device,
    )
