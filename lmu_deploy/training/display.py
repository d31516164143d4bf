"""How far a training has come, on standard error: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from lmu_deploy.training.module import TrainingModule

_SECONDS_BETWEEN_LINES = 5.0
_SECONDS_BETWEEN_LINES_WITHIN = 30.0
_BAR_WIDTH = 12  # leaves room for the figures on a terminal of 80 columns


class ShowProgress(Callback):
    """Shows the epoch, the loss and the validation's metric."""

    def __init__(self, task: str, epochs: int) -> None:
        self.task = task
        self.epochs = epochs
        self._bar: Progress | None = None
        self._job: Any = None
        self._last_line = self._start = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar, if this is a terminal."""
        self._last_line = self._start = time.monotonic()
        if not sys.stderr.isatty():
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=_BAR_WIDTH),
            TextColumn("{task.fields[told]}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=Console(stderr=True))
        total = self.epochs * int(trainer.num_training_batches)
        done = trainer.current_epoch * int(trainer.num_training_batches)
        self._job = self._bar.add_task(self.task, total=total, completed=done, told="")
        self._bar.start()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Move the bar; without one, tell of long epochs before they end."""
        if self._bar:
            self._bar.advance(self._job)
        elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES_WITHIN:
            assert isinstance(pl_module, TrainingModule)
            done, total = batch_idx + 1, int(trainer.num_training_batches)
            if done == total:
                return  # the line of the epoch itself follows
            self._say(
                f"epoch {trainer.current_epoch + 1} of {self.epochs}, batch {done} of {total}, "
                f"loss {pl_module.loss_so_far:.4g}"
            )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell the epoch's figures; on a terminal always, elsewhere every few seconds."""
        assert isinstance(pl_module, TrainingModule)
        epoch = trainer.current_epoch + 1
        loss, metric = pl_module.train_loss, pl_module.validation["metric"]
        name = pl_module.task.metric
        if self._bar:
            told = f"epoch {epoch}/{self.epochs}, loss {loss:.3g}, {name} {metric:.4f}"
            self._bar.update(self._job, told=told)
            return
        told = f"epoch {epoch} of {self.epochs}, loss {loss:.4g}, validation {name} {metric:.4f}"
        last = trainer.should_stop or epoch == self.epochs
        if last or time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._say(told)

    def _say(self, told: str) -> None:
        self._last_line = time.monotonic()
        spent = self._last_line - self._start
        print(f"training {self.task}: {told}, {spent:.0f} s", file=sys.stderr, flush=True)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Close the bar, so that the error is told below it."""
        self._close()

    def _close(self) -> None:
        if self._bar:
            self._bar.stop()
            self._bar = None
