"""Lightning module of a training: loss, validation, optimizer, learning rate, data, regularization.

Regularization: augmentation, dropout, adversarial input perturbation, and behind a direct path
noise of the level of each sequence. They act during training only. The noise of a chip
(:class:`ChipNoise`) acts in validations too, so that the weights that are kept are those that
tolerate it best.

Batches are converted to floats one at a time. The order of an epoch depends only on the seed and
the number of the epoch, so that a resumed training uses the same batches as an uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, dropout, mse_loss

from lmu_deploy.core.errors import RunError
from lmu_deploy.core.metrics import NO_CLASS
from lmu_deploy.nn.graph.module import GraphModule, make_stack
from lmu_deploy.nn.memory import StateNoise
from lmu_deploy.nn.model import SequenceModel
from lmu_deploy.tasks.base import Split, Task, TaskData
from lmu_deploy.training.config import TrainConfig
from lmu_deploy.training.scaling import Scaling

_SMALLEST_NORM = 1e-12  # of a gradient; inputs with a zero gradient are not perturbed


Model = SequenceModel | GraphModule


def make_model(config: TrainConfig, task: Task) -> Model:
    """Return the network of a training, with weights from torch's generator."""
    if config.stack is not None:
        return make_stack(config.stack_for(task), config.dropout)
    return SequenceModel(config.network_for(task))


def add_dropout(model: SequenceModel, share: float) -> None:
    """Apply dropout to the inputs of the readout in training mode (Srivastava et al. 2014).

    Parameters
    ----------
    model : SequenceModel
    share : float
        Dropout probability, at least 0 and below 1.
    """

    def drop(readout: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
        return dropout(inputs[0], share, training=readout.training)

    model.readout.register_forward_pre_hook(drop)


@dataclass(frozen=True)
class ChipNoise:
    """Noise of a chip: of the states of each memory, and of the hidden units of the last layer.

    Attributes
    ----------
    memories : tuple of StateNoise or None
        One for each layer; None without a memory.
    units : float
        Standard deviation of the noise of each hidden unit, relative to the root mean square of all
        of them; 0 where they are on the host.
    """

    memories: tuple[StateNoise | None, ...]
    units: float = 0.0

    @contextmanager
    def attached(self, model: SequenceModel) -> Iterator[None]:
        """Add this noise in all evaluations of a model."""

        def disturb(readout: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
            scale = inputs[0].detach().square().mean().sqrt()
            return inputs[0] + self.units * scale * torch.randn_like(inputs[0])

        hook = model.readout.register_forward_pre_hook(disturb) if self.units else None
        pairs = list(zip(model.layers, self.memories, strict=True))
        for layer, noise in pairs:
            if noise is not None:
                cast(Any, layer).noise = noise
        try:
            yield
        finally:
            if hook is not None:
                hook.remove()
            for layer, noise in pairs:
                if noise is not None:
                    cast(Any, layer).noise = None


def perturb_inputs(loss: Tensor, inputs: Tensor, distance: float) -> Tensor:
    """Return inputs perturbed by `distance` in the direction that increases the loss most.

    (Goodfellow, Shlens, Szegedy 2015, section 5, with a perturbation of fixed Euclidean norm.)

    Parameters
    ----------
    loss : Tensor, shape ()
        Loss of `inputs`; its graph is retained.
    inputs : Tensor, shape (batch, steps, n_in)
        Must require a gradient.
    distance : float
        Euclidean norm over all steps and features of a sequence.

    Returns
    -------
    perturbed : Tensor, shape (batch, steps, n_in)
        Detached from the graph.
    """
    (slope,) = torch.autograd.grad(loss, inputs, retain_graph=True)
    norms = torch.linalg.vector_norm(slope, dim=(1, 2), keepdim=True).clamp(min=_SMALLEST_NORM)
    return inputs.detach() + distance * slope / norms


class Batches:
    """Iterate once over a split in batches of tensors.

    Parameters
    ----------
    split : Split
    batch_size : int
        The last batch may be smaller.
    shuffle : tuple of (seed, epoch), optional
        Seed of a random order, in which batches are cut to their longest sequence; by default the
        order of the split.
    share : tuple of (rank, processes)
        Every process takes its share of each batch. Where the last batch has none for a process,
        it takes a sample without an answer.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        shuffle: tuple[int, int] | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.split = split
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.share = share

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-len(self.split) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """Yield inputs (batch, steps, n_in), targets as in Split, and lengths if they differ."""
        order = np.arange(len(self.split))
        if self.shuffle is not None:
            np.random.default_rng(self.shuffle).shuffle(order)
        for start in range(0, len(order), self.batch_size):
            whole = order[start : start + self.batch_size]
            index = whole[self.share[0] :: self.share[1]]
            answered = len(index) > 0
            index = index if answered else whole[:1]
            if self.split.lengths is None:
                inputs, targets = self.split.batch(index)
                targets = targets if answered else _unanswered(targets)
                yield torch.from_numpy(inputs), torch.from_numpy(targets), None
                continue
            batch = self.split.taken(index)
            if not answered:
                batch = batch.changed(targets=_unanswered(batch.targets))
            if self.shuffle is not None:
                batch = batch.cut(int(self.split.lengths[whole].max()))
            lengths = torch.from_numpy(batch.lengths)
            yield torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets), lengths


def _unanswered(targets: np.ndarray) -> np.ndarray:
    """Return targets of the same shape that no loss counts."""
    return np.full_like(targets, np.nan if targets.dtype.kind == "f" else NO_CLASS)


Batch = tuple[Tensor, Tensor, Tensor | None]
"""Inputs, targets, and lengths where they differ."""


def apply(model: Model, inputs: Tensor, lengths: Tensor | None) -> Tensor:
    """Return the outputs of a network for sequences of one length or of different lengths."""
    found: Tensor = model(inputs) if lengths is None else model(inputs, lengths)
    return found


_WARM_UP, _START = 0.3, 1.0 / 25.0
_MOST_SKIPPED = 20


class TrainingModule(pl.LightningModule):
    """A network and the task on which it is trained.

    Parameters
    ----------
    model : SequenceModel or GraphModule
    task : Task
    data : TaskData
    config : TrainConfig
    seed : int
    scaling : Scaling, optional
        Of inputs and outputs; the model computes on scaled ones.

    Attributes
    ----------
    train_loss : float
        Mean loss of the last complete epoch.
    validation : dict
        The entries "loss" and "metric" of the last validation; empty without validation samples.
    skipped : int
        Number of batches of this epoch that were skipped because their gradient overflowed.
    """

    def __init__(
        self,
        model: Model,
        task: Task,
        data: TaskData,
        config: TrainConfig,
        seed: int,
        scaling: Scaling | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.scaling = scaling or Scaling()
        self.task = task
        self.data = data
        self.config = config
        self.seed = seed
        self.train_loss = math.nan
        self.validation: dict[str, float] = {}
        self.skipped = 0
        self._losses: list[Tensor] = []
        self._outputs: list[Tensor] = []
        self._bases: list[Tensor] = []
        if config.dropout and isinstance(model, SequenceModel):
            add_dropout(model, config.dropout)

    @property
    def _share(self) -> tuple[int, int]:
        """Rank of this process, and the number of processes that train together."""
        trainer = self._trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)

    @property
    def loss_so_far(self) -> float:
        """Mean loss of the current epoch; NaN before its first batch."""
        return torch.stack(self._losses).mean().item() if self._losses else math.nan

    def train_dataloader(self) -> Batches:
        """Return the batches of this epoch; Lightning calls it for every epoch."""
        order = (self.seed, self.current_epoch)
        return Batches(self.data.train, self.config.batch_size, order, self._share)

    def val_dataloader(self) -> Batches:
        """Return the validation batches."""
        return Batches(self.data.validation, self.config.batch_size)

    def on_train_epoch_start(self) -> None:
        """Seed torch from the number of the epoch, so that a resumed epoch repeats."""
        self.skipped = 0
        rank = self._share[0]
        seeds = (self.seed, self.current_epoch, *([rank] if rank else []))
        state = np.random.SeedSequence(seeds).generate_state(1)
        torch.manual_seed(int(state[0]))

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Return the loss of a batch; raise RunError if it is NaN or infinite."""
        inputs, targets, lengths = batch
        distance = self.config.adversary
        if self.config.augment is not None:
            inputs = self.config.augment.apply(inputs, lengths, self.task.front_end)
        targets = self.scaling.targets(targets, self.scaling.base(inputs, lengths))
        inputs = self.scaling.scale(inputs)
        if self.scaling.direct is not None and self.config.level_noise:
            levels = torch.randn((len(inputs), 1, inputs.shape[2]), device=inputs.device)
            inputs = inputs + self.config.level_noise * levels
        inputs.requires_grad_(distance > 0)
        loss = self._loss(inputs, targets, lengths)
        if distance:
            perturbed = perturb_inputs(loss, inputs, distance)
            again = self._loss(perturbed, targets, lengths)
            loss = (loss + again) / 2
        if not torch.isfinite(loss):
            raise RunError(
                f"training on {self.task.name} diverged in epoch {self.current_epoch + 1}: the "
                f"loss is {loss.item()}; lower learning_rate, now {self.config.learning_rate:g}, "
                "or set clip_norm."
            )
        self._losses.append(loss.detach())
        return loss

    def _loss(self, inputs: Tensor, targets: Tensor, lengths: Tensor | None) -> Tensor:
        """Return the loss of a batch, or of the share of it that this process has.

        Gradients are averaged over processes, so each share is weighted by its number of answers:
        the average is the gradient of the loss of the whole batch.
        """
        outputs, processes = apply(self.model, inputs, lengths), self._share[1]
        if processes == 1:
            return task_loss(self.task, outputs, targets)
        count = answers_in(self.task, targets)
        whole = count.clone()
        torch.distributed.all_reduce(whole)
        loss = task_loss(self.task, outputs, targets) if count else 0.0 * outputs.sum()
        return loss * (count * processes / whole)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Skip a batch whose gradient is not finite, before gradients are clipped.

        After hundreds of steps with feedback a gradient can overflow in single precision although
        the loss is small; clipping would then set every weight to NaN.
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

    def validation_step(self, batch: Batch, index: int) -> None:
        """Collect the outputs of a batch."""
        inputs, _, lengths = batch
        found = apply(self.model, self.scaling.scale(inputs), lengths)
        self._outputs.append(found.float().cpu())
        base = self.scaling.base(inputs, lengths)
        if base is not None:
            self._bases.append(base.cpu())

    def on_validation_epoch_end(self) -> None:
        """Evaluate all validation outputs at once."""
        outputs = torch.cat(self._outputs)
        base = torch.cat(self._bases) if self._bases else None
        targets = self.data.validation.targets
        scaled = self.scaling.targets(torch.from_numpy(targets), base)
        loss = task_loss(self.task, outputs, scaled).item()
        metric = self.task.score(self.scaling.unscale(outputs, base).numpy(), targets)
        self.validation = {"loss": loss, "metric": metric}
        self._outputs.clear()
        self._bases.clear()

    def close_epoch(self) -> None:
        """Average the training loss of the epoch, also over processes."""
        if self._share[1] > 1:
            losses = torch.stack(self._losses)
            torch.distributed.all_reduce(losses)
            self._losses = [losses.mean() / self._share[1]]
        self.train_loss = self.loss_so_far
        self._losses.clear()

    def configure_optimizers(self) -> Any:
        """Return AdamW with a learning rate that is a function of the step."""
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
    """Return the learning rate relative to its maximum, for `progress` from 0 to 1."""
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
    """Return the cross-entropy for classes, the mean square error for signals, after washout.

    Parameters
    ----------
    task : Task
    outputs : Tensor, shape (samples, n_out), or (samples, steps, n_out) if ``task.every_step``
    targets : Tensor, as in Split
    """
    if task.every_step:
        outputs, targets = outputs[:, task.washout :], targets[:, task.washout :]
    if task.kind == "regression":
        if torch.isnan(targets).any():
            outputs, targets = outputs[~torch.isnan(targets)], targets[~torch.isnan(targets)]
        return mse_loss(outputs, targets)
    return cross_entropy(outputs.flatten(0, -2), targets.flatten(), ignore_index=NO_CLASS)


def answers_in(task: Task, targets: Tensor) -> Tensor:
    """Return how many answers of a batch count in its loss, a tensor of shape ()."""
    if task.every_step:
        targets = targets[:, task.washout :]
    missing = torch.isnan(targets) if task.kind == "regression" else targets == NO_CLASS
    return (~missing).sum().float()


def predict(
    model: Model, split: Split, batch_size: int, scaling: Scaling | None = None
) -> np.ndarray:
    """Return the outputs of a network for a split, in the units of the data.

    Returns
    -------
    outputs : ndarray, shape (samples, n_out), or (samples, steps, n_out)
    """
    device = next(model.parameters()).device
    scaling = scaling or Scaling()
    parts = []
    with torch.inference_mode():
        for inputs, _, lengths in Batches(split, batch_size):
            inputs = inputs.to(device)
            outputs = apply(model, scaling.scale(inputs), lengths)
            parts.append(scaling.unscale(outputs, scaling.base(inputs, lengths)).cpu())
    return torch.cat(parts).numpy()
