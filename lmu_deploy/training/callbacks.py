"""What watches a training: the best weights so far, the history, and the file to resume from."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint

from lmu_deploy.atomic import written_whole
from lmu_deploy.errors import InputError
from lmu_deploy.training.module import TrainingModule


class KeepBest(Callback):
    """Keeps the weights of the best validation, and stops when none gets better for too long.

    Parameters
    ----------
    lower_is_better : bool
    watched : {"loss", "metric"}
    patience : int or None

    Attributes
    ----------
    best : dict
        epoch, loss, metric and weights; empty before the first validation.
    """

    def __init__(self, watched: str, lower_is_better: bool, patience: int | None) -> None:
        self.watched = watched
        self.lower_is_better = lower_is_better
        self.patience = patience
        self.best: dict[str, Any] = {}
        self._epoch = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep a training that had stopped early stopped when it is resumed."""
        trainer.should_stop = self._is_out_of_patience()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare this epoch's validation with the best."""
        assert isinstance(pl_module, TrainingModule)
        self._epoch = trainer.current_epoch + 1
        value = pl_module.validation[self.watched]
        sign = 1.0 if self.lower_is_better else -1.0
        if not self.best or sign * value < sign * self.best[self.watched]:
            weights = {k: v.detach().cpu().clone() for k, v in pl_module.model.state_dict().items()}
            self.best = {"epoch": self._epoch, **pl_module.validation, "weights": weights}
        trainer.should_stop = trainer.should_stop or self._is_out_of_patience()

    def _is_out_of_patience(self) -> bool:
        if self.patience is None or not self.best:
            return False
        return bool(self._epoch - self.best["epoch"] >= self.patience)

    def state_dict(self) -> dict[str, Any]:
        """Give what a checkpoint has to hold."""
        return {"best": self.best, "epoch": self._epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what a checkpoint held."""
        self.best, self._epoch = state_dict["best"], state_dict["epoch"]


class History(Callback):
    """Notes the losses and the metric of every epoch in `rows`."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add a row."""
        assert isinstance(pl_module, TrainingModule)
        row = {"epoch": float(trainer.current_epoch + 1), "train_loss": pl_module.train_loss}
        row |= {f"validation_{k}": v for k, v in pl_module.validation.items()}
        self.rows.append({**row, "skipped": float(pl_module.skipped)})

    def state_dict(self) -> dict[str, Any]:
        """Give what a checkpoint has to hold."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what a checkpoint held."""
        self.rows = state_dict["rows"]


class SaveLast(Checkpoint):
    """Writes the whole state of the training to one file after every epoch, whole or not at all.

    Lightning calls it after all other callbacks, so that theirs is part of it.

    Parameters
    ----------
    path : Path
    about : str
        What is trained; a file is only resumed from by the same.
    """

    def __init__(self, path: Path, about: str) -> None:
        self.path = path
        self.about = about

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the file."""
        with written_whole(self.path) as temporary:
            trainer.save_checkpoint(temporary)

    def state_dict(self) -> dict[str, Any]:
        """Give what the file says of itself."""
        return {"about": self.about}


def check_resumable(path: Path, about: str) -> None:
    """Refuse a checkpoint that another training wrote, or that is none.

    Raises
    ------
    InputError
        When it is damaged, no checkpoint, or of other settings, task or seed.
    """
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        known = stored["callbacks"][SaveLast.__qualname__]["about"]
    except (UnpicklingError, RuntimeError, EOFError, LookupError, TypeError, OSError) as error:
        raise InputError(f"{path} is no checkpoint of a training; name another file.") from error
    if known != about:
        raise InputError(
            f"{path} holds a training with another task, seed or settings; name another file or "
            "remove it."
        )
