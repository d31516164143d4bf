"""Checks of data, and of data against a network, before work begins.

Each finding is one sentence with its remedy. Nothing here changes data or refuses them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.graph.transforms import input_scaling
from lmu_deploy.core.representation import counted
from lmu_deploy.tasks.base import Split, Task, TaskData
from lmu_deploy.tasks.selection import CALIBRATION_SAMPLES, limited

_LOG = logging.getLogger(__name__)

SMALLEST_VALIDATION = 30
"""Validation samples below which an accuracy has a standard error of up to 9 points or more."""

LARGEST_RATIO, LARGEST_OFFSET = 100.0, 10.0
_COMPARED_BYTES = 2**28
_NAMED = 5
_HIGH_SHARE = 0.9
_WIDE = 4


@dataclass(frozen=True)
class Finding:
    """A finding, and its remedy."""

    text: str
    remedy: str

    def __str__(self) -> str:
        """Return both as one sentence."""
        return f"{self.text}; {self.remedy}."


@dataclass(frozen=True)
class Baseline:
    """A prediction without a network, evaluated on the test part.

    Attributes
    ----------
    words : str
    value : float
        Its accuracy or NRMSE.
    """

    words: str
    value: float


def preflight(task: Task, network: Network | None = None, *, scales: bool = True) -> list[Finding]:
    """Return findings about data, and about a network for them.

    Parameters
    ----------
    task : Task
    network : Network, optional
        A float network. One that scales its input makes the scales of channels irrelevant.
    scales : bool
        Whether the scales and offsets of channels matter.
    """
    data = task.load()
    few = limited(data.train, CALIBRATION_SAMPLES)
    scales = scales and (network is None or input_scaling(network) is None)
    channels = _channels(few, scales)
    found = [*_sizes(task, data), *_classes(task, data, few), *channels, *_leaks(data)]
    return found if network is None else [*found, *_windows(network, few)]


def warn_of(task: Task, network: Network | None = None, *, scales: bool = True) -> None:
    """Log what :func:`preflight` finds in the user's data, each finding once in a process."""
    if not task.is_own:
        return
    for finding in preflight(task, network, scales=scales):
        if (task.identity, str(finding)) not in _TOLD:
            _TOLD.add((task.identity, str(finding)))
            _LOG.warning("%s: %s", task.name, finding)


_TOLD: set[tuple[str, str]] = set()


def _sizes(task: Task, data: TaskData) -> Iterator[Finding]:
    samples, judges = len(data.train), len(data.validation)
    if not judges:
        yield Finding(
            f"{counted(samples, 'training sample')} of {task.name} "
            f"{'leaves' if samples == 1 else 'leave'} none to validate",
            "give ten or more, give x_val and y_val, or cut the series into windows",
        )
    elif judges < SMALLEST_VALIDATION:
        yield Finding(
            f"{counted(judges, 'validation sample')} cannot choose between epochs or settings",
            f"give {SMALLEST_VALIDATION} or more; until then all epochs are trained",
        )
    if len(task.frame) == 1 and _looks_transposed(task, data.train):
        yield Finding(
            f"sequences have {counted(task.steps, 'step')} of {counted(task.n_in, 'feature')}",
            "if the arrays are (samples, features, steps), give x.transpose(0, 2, 1)",
        )


def _looks_transposed(task: Task, train: Split) -> bool:
    """Return whether the features of a step look like a signal over time.

    They are many more than the steps, or more and change less from one to the next than a feature
    does from step to step, relative to their range.
    """
    if task.n_in <= task.steps or task.n_in >= _WIDE * task.steps:
        return task.n_in > task.steps
    x = limited(train, CALIBRATION_SAMPLES).inputs.astype(np.float64)
    if x.shape[1] < 2:
        return False
    return bool(2 * _roughness(x, 2) < _roughness(x, 1))


def _roughness(x: np.ndarray, axis: int) -> float:
    """Return the mean change along an axis relative to the deviation along it; 0 for constants."""
    spread = float(x.std(axis=axis).mean())
    return float(np.abs(np.diff(x, axis=axis)).mean()) / spread if spread else 0.0


def _classes(task: Task, data: TaskData, few: Split) -> Iterator[Finding]:
    for name, part in data.parts.items() if task.kind == "regression" else ():
        if len(part) and not np.nan_to_num(part.targets).any():
            yield Finding(
                f"the answers of the {name} samples are zero throughout, which no error can be "
                "relative to",
                "give samples with other answers",
            )
    if task.kind != "classification" or not task.labels:
        return
    if len(task.labels) == 1:
        yield Finding(
            f"all answers are the class {task.class_name(0)}",
            "give samples of another class, or real numbers with kind='regression'",
        )
    parts = {**data.parts, "calibration": few}
    for name, part in parts.items():
        if not len(part):
            continue
        present = set(np.unique(part.targets).tolist())
        missing = [task.class_name(k) for k in range(len(task.labels)) if k not in present]
        if missing:
            shown = ", ".join(missing[:_NAMED]) + (", ..." if len(missing) > _NAMED else "")
            yield Finding(
                f"the {name} samples lack {len(missing)} of {len(task.labels)} classes ({shown})",
                "give samples of each class in each part",
            )


def _channels(few: Split, scales: bool) -> Iterator[Finding]:
    """Find channels that say nothing, and scales that differ, where they matter."""
    values = _valid_frames(few)
    low, high = values.min(axis=0), values.max(axis=0)
    constant = np.flatnonzero(low == high)
    if len(constant):
        one = len(constant) == 1
        verb, it = ("never changes", "it") if one else ("never change", "them")
        yield Finding(f"{_named(constant)} {verb}", f"leave {it} out")
    varied = np.flatnonzero(low != high)
    copies: dict[bytes, list[int]] = {}
    for channel in varied:
        copies.setdefault(values[:, channel].tobytes(), []).append(int(channel))
    for same in copies.values():
        if len(same) > 1:
            yield Finding(f"{_named(np.array(same))} are the same", "keep one of them")
    if not len(varied) or not scales:
        return
    spread = values[:, varied].std(axis=0)
    ratio = spread.max() / spread.min()
    if ratio > LARGEST_RATIO:
        yield Finding(
            f"channel {varied[spread.argmax()]} is {ratio:,.0f} times larger than channel "
            f"{varied[spread.argmin()]}",
            "divide each channel by its standard deviation, or train with --scaling standard",
        )
    offset = np.abs(values[:, varied].mean(axis=0)) / spread
    if offset.max() > LARGEST_OFFSET:
        channel = varied[offset.argmax()]
        yield Finding(
            f"the mean of channel {channel} is {offset.max():,.0f} of its standard deviations",
            "subtract the mean of each channel, or train with --scaling standard",
        )


def _named(channels: np.ndarray) -> str:
    shown = ", ".join(map(str, channels[:_NAMED])) + (", ..." if len(channels) > _NAMED else "")
    return f"channel{'' if len(channels) == 1 else 's'} {shown}"


def _valid_frames(split: Split) -> np.ndarray:
    """Return all frames without padding, shape (frames, features), float64."""
    inputs = _flat(split).astype(np.float64)
    if split.lengths is None:
        return inputs.reshape(-1, inputs.shape[-1])
    return inputs[np.arange(inputs.shape[1]) < split.lengths[:, None]]


def _flat(split: Split) -> np.ndarray:
    """Return inputs whose frames are vectors."""
    return split.inputs.reshape(*split.inputs.shape[:2], -1)


def _leaks(data: TaskData) -> Iterator[Finding]:
    """Find samples of the test part that were trained on."""
    train, test = data.train, data.test
    if train.batch(slice(0, 1))[0].nbytes * (len(train) + len(test)) > _COMPARED_BYTES:
        return
    known = {sample.tobytes() for sample in train.inputs}
    same = sum(sample.tobytes() in known for sample in test.inputs)
    if same:
        also = "is also a training sample" if same == 1 else "are also training samples"
        yield Finding(
            f"{same:,} of {counted(len(test), 'test sample')} {also}",
            "leave them out of one part",
        )


def _windows(network: Network, few: Split) -> Iterator[Finding]:
    """Compare the windows of a network's memories with the length and spectrum of the data."""
    steps = few.inputs.shape[1]
    memories = {
        node.name: memory
        for node in network.nodes
        if (memory := getattr(node.operator, "memory", None)) is not None
    }
    for name, memory in memories.items():
        if memory.theta > _WIDE * steps:
            yield Finding(
                f"the window of {name} is {memory.theta:g} steps, and sequences have {steps}",
                f"choose theta near {steps}",
            )
    if not memories:
        return
    first, memory = next(iter(memories.items()))
    x = _flat(few).astype(np.float64)
    power = np.abs(np.fft.rfft(x - x.mean(axis=1, keepdims=True), axis=1)) ** 2
    total = power.sum(axis=(0, 2)).cumsum()
    if total[-1] > 0:
        high = int(np.searchsorted(total, _HIGH_SHARE * total[-1])) / steps
        waves = 2 * high * min(memory.theta, steps)
        if waves > memory.order:
            yield Finding(
                f"the data have up to {waves:.0f} half-waves in the window of {first}, and order "
                f"{memory.order} can hold {memory.order}",
                "raise the order or shorten theta",
            )


def baseline(task: Task) -> Baseline:
    """Return the best prediction that needs no network: majority class, mean, or last value."""
    data = task.load()
    train, test = data.train.targets, data.test.targets
    if task.kind == "classification":
        counts = np.bincount(train[train >= 0], minlength=task.n_out)
        value = float(np.mean(test[test >= 0] == counts.argmax()))
        return Baseline(f"always answering {task.class_name(int(counts.argmax()))!r}", value)
    mean = np.nanmean(train, axis=tuple(range(train.ndim - 1)))
    outputs = {"the mean of the training answers": np.broadcast_to(mean, test.shape)}
    inputs = _flat(data.test)
    if task.n_in == task.n_out or (not task.every_step and task.n_in == 1):
        last = inputs
        if not task.every_step:
            ends = -1 if data.test.lengths is None else data.test.lengths - 1
            last = inputs[np.arange(len(inputs)), ends]
        outputs["repeating the last value"] = np.broadcast_to(last, test.shape)
    scores = {words: task.score(found, test) for words, found in outputs.items()}
    words = min(scores, key=lambda each: scores[each])
    return Baseline(words, scores[words])


def not_better(task: Task, value: float, samples: int) -> str | None:
    """Return a sentence if a result is at the level of the trivial baseline, else None.

    An accuracy is above it by more than 1.64 standard errors of the baseline's share (a one-sided
    test at 5 %), an NRMSE below it by more than 2 %.

    Parameters
    ----------
    task : Task
    value : float
        Accuracy or NRMSE on test samples.
    samples : int
        Number of answers that were judged.
    """
    if task.kind == "regression" and not np.nan_to_num(task.load().test.targets).any():
        return None  # relative to zero no error is defined
    trivial = baseline(task)
    if task.kind == "classification":
        error = np.sqrt(max(trivial.value * (1 - trivial.value), 1e-12) / max(1, samples))
        fails = value <= min(trivial.value + 1.64 * error, 1.0 - 1e-12)
    else:
        fails = value >= 0.98 * trivial.value
    if not fails:
        return None
    return (
        f"{task.metric} {value:.4f} on {counted(samples, 'answer')} is no better than "
        f"{trivial.words} ({trivial.value:.4f}); the network has learned nothing that helps"
    )
