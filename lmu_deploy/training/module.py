"""The Lightning module: loss, validation, optimizer and learning-rate schedule of a training.

What keeps a network from learning its examples by heart: hidden units left out, inputs moved.

Both act while training alone; the network that comes out is an ordinary one.

A split of a task as a run of tensor batches; only the batch at hand is made into floats.

The order of an epoch depends on the seed and the epoch's number alone, not on what was drawn
before, so a resumed training sees the same batches as one that was never interrupted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, dropout, mse_loss

from lmu_deploy.core.errors import RunError
from lmu_deploy.nn.model import SequenceModel
from lmu_deploy.tasks.base import Split, Task, TaskData
from lmu_deploy.training.config import TrainConfig

_SMALLEST_NORM = 1e-12  # of a gradient; an input that has none stays where it is


def drop_hidden(model: SequenceModel, share: float) -> None:
    """Blank a random share of what the readout reads, and enlarge the rest to match.

    (Srivastava et al. 2014, "Dropout".) Only in training mode.

    Parameters
    ----------
    model : SequenceModel
    share : float
        From 0 to below 1.
    """

    def blank(readout: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
        return dropout(inputs[0], share, training=readout.training)

    model.readout.register_forward_pre_hook(blank)


def worst_case(loss: Tensor, inputs: Tensor, distance: float) -> Tensor:
    """Move every sequence by `distance` in the direction that raises the loss most.

    (Goodfellow, Shlens, Szegedy 2015, section 5, with a step of fixed Euclidean length.)

    Parameters
    ----------
    loss : Tensor, shape ()
        Of `inputs`; its graph is kept.
    inputs : Tensor, shape (batch, steps, n_in)
        Must require a gradient.
    distance : float
        Euclidean, over all steps and features of a sequence.

    Returns
    -------
    moved : Tensor, shape (batch, steps, n_in)
        Without a gradient.
    """
    (slope,) = torch.autograd.grad(loss, inputs, retain_graph=True)
    norms = torch.linalg.vector_norm(slope, dim=(1, 2), keepdim=True).clamp(min=_SMALLEST_NORM)
    return inputs.detach() + distance * slope / norms


class Batches:
    """Go once through a split.

    Parameters
    ----------
    split : Split
    batch_size : int
        The last batch may be smaller.
    shuffle : tuple of (seed, epoch), optional
        Draws the order; file order when absent.
    """

    def __init__(
        self, split: Split, batch_size: int, shuffle: tuple[int, int] | None = None
    ) -> None:
        self.split = split
        self.batch_size = batch_size
        self.shuffle = shuffle

    def __len__(self) -> int:
        """Count the batches."""
        return -(-len(self.split) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Give inputs (batch, steps, n_in) and targets, as in Split."""
        order = np.arange(len(self.split))
        if self.shuffle is not None:
            np.random.default_rng(self.shuffle).shuffle(order)
        for start in range(0, len(order), self.batch_size):
            inputs, targets = self.split.batch(order[start : start + self.batch_size])
            yield torch.from_numpy(inputs), torch.from_numpy(targets)


_WARM_UP, _START = 0.3, 1.0 / 25.0
_MOST_SKIPPED = 20


class TrainingModule(pl.LightningModule):
    """A network with the task it learns.

    Parameters
    ----------
    model : SequenceModel
    task : Task
    data : TaskData
    config : TrainConfig
    seed : int

    Attributes
    ----------
    train_loss : float
        Mean loss of the epoch that ended last.
    validation : dict
        Loss and metric of the validation that ended last, by the names "loss" and "metric".
    skipped : int
        Batches of this epoch whose gradient overflowed, and which changed nothing therefore.
    """

    def __init__(
        self, model: SequenceModel, task: Task, data: TaskData, config: TrainConfig, seed: int
    ) -> None:
        super().__init__()
        self.model = model
        self.task = task
        self.data = data
        self.config = config
        self.seed = seed
        self.train_loss = math.nan
        self.validation: dict[str, float] = {}
        self.skipped = 0
        self._losses: list[Tensor] = []
        self._answers: list[Tensor] = []
        if config.dropout:
            drop_hidden(model, config.dropout)

    @property
    def loss_so_far(self) -> float:
        """Mean loss of the epoch under way; NaN before its first batch."""
        return torch.stack(self._losses).mean().item() if self._losses else math.nan

    def train_dataloader(self) -> Batches:
        """Give this epoch's batches; Lightning asks anew for each epoch."""
        order = (self.seed, self.current_epoch)
        return Batches(self.data.train, self.config.batch_size, order)

    def val_dataloader(self) -> Batches:
        """Give the validation batches."""
        return Batches(self.data.validation, self.config.batch_size)

    def on_train_epoch_start(self) -> None:
        """Draw what is random within an epoch from its number, so that a resumed one repeats."""
        self.skipped = 0
        drawn = np.random.SeedSequence((self.seed, self.current_epoch)).generate_state(1)
        torch.manual_seed(int(drawn[0]))

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """Give the loss of a batch; a training whose loss is no number ends with a RunError."""
        inputs, targets = batch
        distance = self.config.adversary
        inputs = inputs.requires_grad_(distance > 0)
        loss = task_loss(self.task, self.model(inputs), targets)
        if distance:
            moved = worst_case(loss, inputs, distance)
            loss = (loss + task_loss(self.task, self.model(moved), targets)) / 2
        if not torch.isfinite(loss):
            raise RunError(
                f"training on {self.task.name} diverged in epoch {self.current_epoch + 1}: the "
                f"loss is {loss.item()}; lower learning_rate, now {self.config.learning_rate:g}, "
                "or set clip_norm."
            )
        self._losses.append(loss.detach())
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Leave out a batch whose gradient is no number, before it is clipped and does harm.

        Through hundreds of steps with feedback a gradient may overflow in single precision although
        the loss is small; clipping would make every weight NaN of it.
        """
        gradients = [w.grad for w in self.parameters() if w.grad is not None]
        if torch.isfinite(torch.nn.utils.get_total_norm(gradients)):
            return
        self.skipped += 1
        if self.skipped > _MOST_SKIPPED:
            raise RunError(
                f"training on {self.task.name} diverged in epoch {self.current_epoch + 1}: the "
                f"gradients of {self.skipped} batches overflowed; lower learning_rate, now "
                f"{self.config.learning_rate:g}, or set clip_norm."
            )
        for weight in self.parameters():
            weight.grad = None

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Keep the answers until all are there."""
        self._answers.append(self.model(batch[0]).cpu())

    def on_validation_epoch_end(self) -> None:
        """Judge the whole validation part at once, and sum up the epoch's training."""
        answers = torch.cat(self._answers)
        targets = self.data.validation.targets
        loss = task_loss(self.task, answers, torch.from_numpy(targets)).item()
        metric = self.task.score(answers.numpy(), targets)
        self.validation = {"loss": loss, "metric": metric}
        self._answers.clear()
        if self._losses:
            self.train_loss = self.loss_so_far
            self._losses.clear()

    def configure_optimizers(self) -> Any:
        """Give AdamW, with a learning rate that is a plain function of the step's number."""
        trained = [weight for weight in self.parameters() if weight.requires_grad]
        config = self.config
        optimizer = torch.optim.AdamW(
            trained, config.learning_rate, weight_decay=config.weight_decay
        )
        steps = config.epochs * len(self.train_dataloader())
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: rate_at(config.schedule, step / steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def rate_at(schedule: str, progress: float) -> float:
    """Give the learning rate relative to its largest, `progress` going from 0 to 1."""
    progress = min(progress, 1.0)
    if schedule == "constant":
        return 1.0
    if schedule == "cosine":
        return _fall(progress)
    if progress < _WARM_UP:
        return 1.0 - (1.0 - _START) * _fall(progress / _WARM_UP)
    return _fall((progress - _WARM_UP) / (1.0 - _WARM_UP))


def _fall(progress: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def task_loss(task: Task, outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy for classes, mean square error for signals, without the washout.

    Parameters
    ----------
    task : Task
    outputs : Tensor, shape (samples, n_out), or (samples, steps, n_out) if ``task.every_step``
    targets : Tensor, as in Split
    """
    if task.every_step:
        outputs, targets = outputs[:, task.washout :], targets[:, task.washout :]
    if task.kind == "regression":
        return mse_loss(outputs, targets)
    return cross_entropy(outputs.flatten(0, -2), targets.flatten())


def answer(model: SequenceModel, split: Split, batch_size: int) -> np.ndarray:
    """Run a network over a split.

    Returns
    -------
    outputs : ndarray, shape (samples, n_out), or (samples, steps, n_out)
    """
    device = next(model.parameters()).device
    with torch.inference_mode():
        parts = [model(inputs.to(device)).cpu() for inputs, _ in Batches(split, batch_size)]
    return torch.cat(parts).numpy()
