"""Reproducible training with Lightning: best weights, history, checkpoints and progress.

The same seed gives the same weights on the same machine.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.utilities.seed import isolate_rng
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import atomic_write
from lmu_deploy.core.progress import notebook_display
from lmu_deploy.core.representation import counted
from lmu_deploy.core.validation import check_choice, check_integer
from lmu_deploy.nn.model import SequenceModel
from lmu_deploy.tasks.base import Task, TaskData
from lmu_deploy.training.config import TrainConfig
from lmu_deploy.training.module import ChipNoise, Model, TrainingModule, make_model
from lmu_deploy.training.scaling import Scaling

_LOG = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 5.0

_SECONDS_BETWEEN_LINES_WITHIN = 30.0

PRECISIONS = ("32", "bf16-mixed")
_LIGHTNING: dict[str, Any] = {"32": "32-true", "bf16-mixed": "bf16-mixed"}

_BAR_WIDTH = 12  # leaves room for the figures on a terminal of 80 columns


@dataclass(frozen=True)
class Fitted:
    """A trained model with the weights of its best validation.

    Attributes
    ----------
    model : SequenceModel or GraphModule
    best_epoch : int
    validation_loss, validation_metric : float
        Loss and metric of that epoch; NaN without validation samples.
    reason : str
        Why the training ended, in words.
    scaling : Scaling
        Of the inputs and outputs of the model.
    history : list of dict
        Losses and metric of each epoch.
    device : str
        Device of the training and of the model: cpu, cuda or mps.
    """

    model: Model
    best_epoch: int
    validation_loss: float
    validation_metric: float
    history: list[dict[str, float]]
    device: str
    reason: str
    scaling: Scaling


def fit(
    task: Task,
    data: TaskData,
    config: TrainConfig,
    seed: int,
    *,
    show: bool = True,
    checkpoint: Path | None = None,
    device: str = "auto",
    devices: int = 1,
    precision: str = "32",
    model: Model | None = None,
    scaling: Scaling | None = None,
    noise: Callable[[SequenceModel, Scaling], ChipNoise] | None = None,
) -> Fitted:
    """Train a network on a task.

    Parameters
    ----------
    task : Task
    data : TaskData
    config : TrainConfig
    seed : int
        Seed of the initial weights and of the order of the training data.
    show : bool
        Show progress on standard error.
    checkpoint : path, optional
        Written after every epoch. If it exists, training resumes from it, with the same result as
        without the interruption.
    device : {"auto", "cpu", "cuda", "mps"}
    devices : int
        Processes that train together (distributed data parallel), each on a device of its own, or
        on the processor. Each has a share of every batch. The command is started once for each, so
        that only the first returns from this function.
    precision : {"32", "bf16-mixed"}
        With bf16-mixed, products outside LMU memories are computed in bfloat16.
    model : SequenceModel or GraphModule, optional
        The initial network; by default made from the settings.
    scaling : Scaling, optional
        By default fitted to the training data as the settings say.
    noise : callable, optional
        Measures the noise of a chip with the initial network.

    Raises
    ------
    InputError
        When `checkpoint` is of another training, or the device is not available.
    RunError
        When the loss is NaN or infinite.
    """
    _check_device(device, devices)
    check_choice("precision", precision, PRECISIONS)
    matters = {"epochs": config.schedule != "constant", "stack": bool(config.stack)}
    matters |= {name: bool(getattr(config, name)) for name in ("augment", "chip", "level_noise")}
    matters["direct"] = config.direct != "none"
    left_out = {name for name, counts in matters.items() if not counts}
    about = config.model_dump_json(exclude=left_out)
    about = f"{task.identity} {seed} {about}"
    about += "" if precision == PRECISIONS[0] else f" {precision}"
    resume = checkpoint is not None and checkpoint.exists()
    if checkpoint is not None and resume:
        check_resumable(checkpoint, about)
    with _repeatable(seed), _quiet(), tempfile.TemporaryDirectory() as scratch:
        model = model or make_model(config, task)
        scaling = scaling or Scaling.fit(task, data.train, config.scaling, config.direct)
        disturbed: AbstractContextManager[None] = nullcontext()
        if noise is not None:
            assert isinstance(model, SequenceModel)
            with isolate_rng():
                disturbed = noise(model, scaling).attached(model)
        module = TrainingModule(model, task, data, config, seed, scaling)
        lower_is_better = config.choose_by == "loss" or task.metric == "nrmse"
        validates = len(data.validation) > 0
        best = KeepBest(config.choose_by if validates else "last", lower_is_better, config.patience)
        history = History()
        callbacks: list[pl.Callback] = [best, history]
        if show and not is_further_process():
            callbacks.append(ShowProgress(task.name, config.epochs))
        if checkpoint is not None:
            callbacks.append(SaveLast(checkpoint, about))
        trainer = pl.Trainer(
            max_epochs=config.epochs,
            accelerator=device,
            devices=devices,
            strategy="ddp" if devices > 1 else "auto",
            precision=_LIGHTNING[precision],
            deterministic=True,
            gradient_clip_val=config.clip_norm,
            reload_dataloaders_every_n_epochs=1,
            callbacks=callbacks,
            enable_checkpointing=checkpoint is not None,
            default_root_dir=scratch,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=1.0 if validates else 0,
        )
        with disturbed:
            trainer.fit(module, ckpt_path=checkpoint if resume else None, weights_only=True)
        if trainer.global_rank:
            raise SystemExit(0)  # the first process writes the results
        model.load_state_dict(best.best["weights"])
    used = trainer.strategy.root_device.type
    found = best.best
    model = model.to(used).eval()
    epochs = len(history.rows)
    return Fitted(
        model,
        found["epoch"],
        found["loss"],
        found["metric"],
        history.rows,
        used,
        _reason(best, epochs, config, len(data.validation)),
        scaling,
    )


def _reason(best: KeepBest, epochs: int, config: TrainConfig, samples: int) -> str:
    """Return why a training ended and which weights are kept."""
    if not samples:
        return f"all {epochs} epochs; no validation samples, so the weights are the last"
    judges = counted(samples, "validation sample")
    why = f"all {epochs} epochs"
    if best.out_of_patience:
        why = (
            f"stopped at epoch {epochs}: no improvement on {judges} for "
            f"{counted(config.patience or 0, 'epoch')}"
        )
    if config.choose_by == "last":
        return f"{why}; the weights are the last, because {judges} cannot choose between epochs"
    return f"{why}; the weights are those of epoch {best.best['epoch']}, the best on {judges}"


class KeepBest(Callback):
    """Keep the weights of the best validation and stop after `patience` epochs without a better.

    Parameters
    ----------
    watched : {"loss", "metric", "last"}
        What is compared; with last, the weights of the last epoch are kept, and the loss decides
        when to stop.
    lower_is_better : bool
    patience : int or None

    Attributes
    ----------
    best : dict
        epoch, loss, metric and weights; empty before the first epoch has ended.
    """

    def __init__(self, watched: str, lower_is_better: bool, patience: int | None) -> None:
        self.watched = watched
        self.lower_is_better = lower_is_better
        self.patience = patience
        self.best: dict[str, Any] = {}
        self._epoch = 0
        self._improved: tuple[int, float] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Do not resume training that had stopped early."""
        trainer.should_stop = self.out_of_patience

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare the validation of this epoch with the best."""
        assert isinstance(pl_module, TrainingModule)
        pl_module.close_epoch()
        self._epoch = trainer.current_epoch + 1
        found = pl_module.validation or {"loss": math.nan, "metric": math.nan}
        watched = "loss" if self.watched == "last" else self.watched
        value = found[watched]
        sign = 1.0 if self.lower_is_better or self.watched == "last" else -1.0
        improved = self._improved is None or sign * value < sign * self._improved[1]
        if improved and pl_module.validation:
            self._improved = self._epoch, value
        if improved or self.watched == "last":
            weights = {k: v.detach().cpu().clone() for k, v in pl_module.model.state_dict().items()}
            self.best = {"epoch": self._epoch, **found, "weights": weights}
        trainer.should_stop = trainer.should_stop or self.out_of_patience

    @property
    def out_of_patience(self) -> bool:
        """Whether `patience` epochs have passed without a better validation."""
        if self.patience is None or self._improved is None:
            return False
        return self._epoch - self._improved[0] >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"best": self.best, "epoch": self._epoch, "improved": self._improved}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self.best, self._epoch = state_dict["best"], state_dict["epoch"]
        before = (self.best["epoch"], self.best.get(self.watched, math.nan)) if self.best else None
        self._improved = state_dict.get("improved", before)


class History(Callback):
    """Record the losses and the metric of every epoch in `rows`."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add a row."""
        assert isinstance(pl_module, TrainingModule)
        row = {"epoch": float(trainer.current_epoch + 1), "train_loss": pl_module.train_loss}
        row |= {f"validation_{k}": v for k, v in pl_module.validation.items()}
        self.rows.append({**row, "skipped": float(pl_module.skipped)})

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self.rows = state_dict["rows"]


class SaveLast(Checkpoint):
    """Write the state of the training to a file, atomically, after every epoch.

    Lightning calls it after all other callbacks, so that the file includes their state.

    Parameters
    ----------
    path : Path
    about : str
        Identifies the task, seed and settings; only the same training can resume from the file.
    """

    def __init__(self, path: Path, about: str) -> None:
        self.path = path
        self.about = about

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the file, in the first process; all processes take part in collecting the state."""
        if trainer.global_rank:
            trainer.save_checkpoint(self.path)
            return
        with atomic_write(self.path) as temporary:
            trainer.save_checkpoint(temporary)

    def state_dict(self) -> dict[str, Any]:
        """Return the identification for the file."""
        return {"about": self.about}


def check_resumable(path: Path, about: str) -> None:
    """Raise InputError unless `path` is a checkpoint of the same training.

    Raises
    ------
    InputError
        When it is corrupt, not a checkpoint, or of other data, another seed or other settings.
    """
    try:
        with warnings.catch_warnings():  # torch warns of other pickle protocols and then refuses
            warnings.simplefilter("ignore")
            stored = torch.load(path, map_location="cpu", weights_only=True)
        known = stored["callbacks"][SaveLast.__qualname__]["about"]
    except (UnpicklingError, RuntimeError, EOFError, LookupError, TypeError, OSError) as error:
        raise InputError(f"{path} is not a checkpoint of a training; give another file.") from error
    if known.replace('"start":', '"init":') != about:  # the name before version 0.2
        raise InputError(
            f"{path} is from a training with other data, seed or settings; give another file or "
            "remove it."
        )


class ShowProgress(Callback):
    """Show the epoch, the loss and the metric of the validation."""

    def __init__(self, task: str, epochs: int) -> None:
        self.task = task
        self.epochs = epochs
        self._bar: Progress | None = None
        self._show: Callable[[str], None] | None = None
        self._job: Any = None
        self._last_line = self._start = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar on a terminal."""
        self._last_line = self._start = time.monotonic()
        self._show = notebook_display()
        if self._show or not sys.stderr.isatty():
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=_BAR_WIDTH),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=Console(stderr=True))
        total = self.epochs * int(trainer.num_training_batches)
        done = trainer.current_epoch * int(trainer.num_training_batches)
        self._job = self._bar.add_task(self.task, total=total, completed=done, figures="")
        self._bar.start()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Advance the bar; without a bar, report on long epochs before they end."""
        if self._bar:
            self._bar.advance(self._job)
        elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES_WITHIN:
            assert isinstance(pl_module, TrainingModule)
            done, total = batch_idx + 1, int(trainer.num_training_batches)
            if done == total:
                return  # the line of the epoch itself follows
            self._log(
                f"epoch {trainer.current_epoch + 1} of {self.epochs}, batch {done} of {total}, "
                f"loss {pl_module.loss_so_far:.4g}"
            )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the epoch; always on a terminal, else every few seconds."""
        assert isinstance(pl_module, TrainingModule)
        epoch = trainer.current_epoch + 1
        loss, found = pl_module.train_loss, pl_module.validation.get("metric")
        name = pl_module.task.metric
        judged = "" if found is None else f", validation {name} {found:.4f}"
        if self._show:
            self._show(
                f"training {self.task}: epoch {epoch} of {self.epochs}, loss {loss:.4g}{judged}"
            )
        if self._bar:
            short = "" if found is None else f", {name} {found:.4f}"
            figures = f"epoch {epoch}/{self.epochs}, loss {loss:.3g}{short}"
            self._bar.update(self._job, figures=figures)
            return
        figures = f"epoch {epoch} of {self.epochs}, loss {loss:.4g}{judged}"
        last = trainer.should_stop or epoch == self.epochs
        if last or time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._log(figures)

    def _log(self, figures: str) -> None:
        self._last_line = time.monotonic()
        spent = self._last_line - self._start
        _LOG.info("training %s: %s, %.0f s", self.task, figures, spent)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Close the bar, so that the error is printed below it."""
        self._close()

    def _close(self) -> None:
        if self._bar:
            self._bar.stop()
            self._bar = None


def _check_device(device: str, devices: int) -> None:
    check_choice("device", device, ("auto", "cpu", "cuda", "mps"))
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device is 'cuda', and torch finds none; choose cpu or auto.")
    if device == "mps" and not torch.backends.mps.is_available():
        raise InputError("device is 'mps', and torch finds none; choose cpu or auto.")
    present = torch.cuda.device_count()
    if check_integer("devices", devices, 1, 1024) == 1:
        return
    if device != "cpu" and present and devices > present:
        raise InputError(f"devices is {devices}, and torch finds {present}; choose at most these.")
    if notebook_display() is not None:
        raise InputError(
            f"devices is {devices}, and processes of a notebook cannot train together; run "
            "lmu-deploy train on a command line."
        )


def is_further_process() -> bool:
    """Return whether this process was started by the first of several that train together."""
    return os.environ.get("LOCAL_RANK", "0") != "0"


@contextmanager
def _repeatable(seed: int) -> Iterator[None]:
    """Seed all generators and make torch deterministic; restore the state afterwards."""
    before = torch.are_deterministic_algorithms_enabled()
    # cuBLAS is deterministic only with a fixed workspace, which is read when CUDA starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with isolate_rng():
        pl.seed_everything(seed, verbose=False)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)
            os.environ.pop("PL_GLOBAL_SEED", None)
            os.environ.pop("PL_SEED_WORKERS", None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress messages and warnings of Lightning; problems are raised as errors."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
