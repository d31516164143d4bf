"""Arrays, lists and data frames of users as sequences with lengths, and their answers.

Sequences of different lengths are padded with their own last step, so that padding never leaves
the range of the data. Answers to padding are -1 (classes) or NaN (real numbers), which metrics and
losses skip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.metrics import NO_CLASS
from lmu_deploy.core.representation import counted
from lmu_deploy.tasks.base import Split
from lmu_deploy.tasks.reading import Rounding, as_array, listed

_CHECKED_BYTES = 2**26
_REAL, _LABELS = "biuf", "biuUS"
_MOST_FLOAT_CLASSES = 100
_MOST_AXES = 6

Label = int | str | bool


@dataclass(frozen=True)
class Sequences:
    """Inputs of one part.

    Attributes
    ----------
    values : ndarray, shape (samples, steps, *frame)
        float32 in memory, or any real type in a file.
    lengths : ndarray of int64, shape (samples,), or None
        Steps of each sequence, where they differ.
    """

    values: np.ndarray
    lengths: np.ndarray | None = None

    def split(self, targets: np.ndarray, rows: np.ndarray | None = None) -> Split:
        """Return some of the samples with their answers; by default all, in their order."""
        rows = np.arange(len(self.values)) if rows is None else rows
        lengths = None if self.lengths is None else self.lengths[rows]
        if isinstance(self.values, np.memmap):
            return StoredSplit(self.values, targets[rows], lengths, rows)
        whole = len(rows) == len(self.values)
        return Split(self.values if whole else self.values[rows], targets[rows], lengths)


class StoredSplit(Split):
    """Samples of a memory-mapped file; a batch is read and converted when it is asked for.

    Parameters
    ----------
    stored : memmap, shape (all samples, steps, *frame)
    targets : ndarray
        Answers to `rows`.
    lengths : ndarray of int64, shape (samples,), or None
    rows : ndarray of int, shape (samples,)
    """

    stored: np.memmap[Any, Any]

    def __init__(
        self,
        stored: np.memmap[Any, Any],
        targets: np.ndarray,
        lengths: np.ndarray | None,
        rows: np.ndarray,
    ) -> None:
        object.__setattr__(self, "stored", stored)
        object.__setattr__(self, "targets", targets)
        object.__setattr__(self, "lengths", lengths)
        object.__setattr__(self, "_rows", rows)

    @property
    def inputs(self) -> np.ndarray:
        """All inputs, float32; read at every access."""
        return self.batch(slice(None))[0]

    def framed(self, frame: tuple[int, ...]) -> Split:
        """Return the same samples with frames of another shape; nothing is read."""
        return self.changed(stored=self.stored.reshape(*self.stored.shape[:2], *frame))

    def batch(self, index: np.ndarray | slice) -> tuple[np.ndarray, np.ndarray]:
        """Return inputs, float32, and targets of some samples."""
        rows: np.ndarray = self._rows  # type: ignore[attr-defined]
        return np.asarray(self.stored[rows[index]], np.float32), self.targets[index]


def read_sequences(name: str, value: Any, lengths: Any = None) -> Sequences:
    """Return what a user gave as inputs.

    Parameters
    ----------
    name : str
        Of the array, for messages.
    value : array, list or data frame
        Shape (samples, steps, features), or (samples, steps) with one feature; frames of several
        axes, such as (samples, steps, height, width, channels); a list of arrays (steps, features)
        of different lengths; or a data frame of one row per sample, or of one row per step with a
        MultiIndex (sample, step).
    lengths : array_like of int, shape (samples,), optional
        Steps of each sequence of a padded array.

    Raises
    ------
    InputError
        When they have another shape or type, are empty, or hold NaN or infinity.
    """
    value = listed(name, value)
    if isinstance(value, list):
        value, own = _padded(name, value)
        lengths = own if lengths is None else lengths
    if value.ndim == 2:
        value = value[:, :, None]
    if not 3 <= value.ndim <= _MOST_AXES:
        raise InputError(
            f"{name} has shape {value.shape}; give (samples, steps, features), (samples, steps), "
            "or a list of arrays (steps, features)."
        )
    if 0 in value.shape:
        empty = ("samples", "steps", "features")[min(value.shape.index(0), 2)]
        raise InputError(f"{name} has shape {value.shape}, without {empty}; give at least one.")
    if value.dtype.kind not in _REAL:
        raise InputError(f"{name} has type {value.dtype}; give real numbers.")
    return _checked(name, value, _lengths(name, lengths, value.shape))


def _padded(name: str, items: list[Any]) -> tuple[np.ndarray, np.ndarray | None]:
    """Return a list as one array; sequences that differ in length are padded."""
    try:
        arrays = [as_array(item) for item in items]
        arrays = [a.astype(np.float64) if a.dtype.kind == "O" else a for a in arrays]
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} holds what is no array of numbers ({error}).") from error
    shapes = {array.shape for array in arrays}
    if len(shapes) < 2:
        return np.asarray(arrays), None
    if {array.ndim for array in arrays} == {1}:
        arrays = [array[:, None] for array in arrays]
    kinds = {array.ndim for array in arrays}
    if len(kinds) > 1 or min(kinds) < 2:
        raise InputError(f"{name} mixes arrays of different kinds; give each as (steps, features).")
    frames = {array.shape[1:] for array in arrays}
    if len(frames) > 1 and max(kinds) > 2:
        one, other = sorted(frames)[:2]
        raise InputError(
            f"the sequences of {name} have frames of shape {one} and {other}; all need the same."
        )
    if len(frames) > 1:
        features = sorted(frame[0] for frame in frames)
        first = sorted({array.shape[0] for array in arrays})
        hint = f"; if they are (features, steps), give [s.T for s in {name}]"
        raise InputError(
            f"the sequences of {name} have {features[0]} to {features[-1]} features; all need as "
            f"many{hint if len(first) == 1 else ''}."
        )
    lengths = np.array([len(array) for array in arrays])
    if not lengths.min():
        raise InputError(f"sample {int(lengths.argmin())} of {name} has no steps; leave it out.")
    (frame,) = frames
    whole = np.empty(
        (len(arrays), lengths.max(), *frame), np.result_type(*{a.dtype for a in arrays})
    )
    for row, array in zip(whole, arrays, strict=True):
        row[: len(array)] = array
        row[len(array) :] = array[-1]
    return whole, lengths


def _lengths(name: str, lengths: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    if lengths is None:
        return None
    found = np.asarray(lengths)
    if found.shape != shape[:1] or found.dtype.kind not in "iu":
        raise InputError(f"the lengths of {name} must be {shape[0]} whole numbers, one per sample.")
    if found.min() < 1 or found.max() > shape[1]:
        raise InputError(
            f"the lengths of {name} go from {found.min()} to {found.max()}; each must be from 1 to "
            f"{shape[1]}."
        )
    return None if (found == shape[1]).all() else found.astype(np.int64)


def _checked(name: str, value: np.ndarray, lengths: np.ndarray | None) -> Sequences:
    """Return sequences whose numbers are finite in float32; a file is read in blocks.

    Raises
    ------
    InputError
        When a number is not finite, or a feature changes so little relative to its magnitude (as a
        time in nanoseconds does) that float32 does not represent the change.
    """
    rounding = Rounding(name)
    stored = isinstance(value, np.memmap)
    found = value if stored else np.empty(value.shape, np.float32)
    inside = None if lengths is None else np.arange(value.shape[1]) < lengths[:, None]
    block = max(1, _CHECKED_BYTES // max(1, value[0].nbytes))
    for start in range(0, len(value), block):
        given = value[start : start + block]
        with np.errstate(over="ignore"):
            part = given.astype(np.float32)
        if lengths is not None and not stored:
            ends = lengths[start : start + block] - 1
            last = part[np.arange(len(part)), ends][:, None]
            rows = inside[start : start + block]  # type: ignore[index]
            part = np.where(rows.reshape(*rows.shape, *[1] * (part.ndim - 2)), part, last)
        if bad := int(part.size - np.isfinite(part).sum()):
            sample, _, *where = np.argwhere(~np.isfinite(part))[0]
            feature = ", ".join(map(str, where))
            raise InputError(
                f"{name} has {counted(bad, 'number')} not finite in float32, the first in sample "
                f"{start + sample}, feature {feature}; replace them, or give shorter sequences as "
                "a list."
            )
        rounding.take(given, part)
        if not stored:
            found[start : start + block] = part
    rounding.check()
    return Sequences(found, lengths)


@dataclass(frozen=True)
class Answers:
    """Answers of one part as they were given, with their form.

    Attributes
    ----------
    values : ndarray
        Labels, shape (samples,) or (samples, steps); or float32, shape (samples, n_out) or
        (samples, steps, n_out) with NaN where there is none.
    classes : bool
    every_step : bool
    missing : ndarray of bool or None
        Where a label belongs to padding.
    """

    values: np.ndarray
    classes: bool
    every_step: bool
    missing: np.ndarray | None = None

    @property
    def form(self) -> str:
        """The form in words."""
        return f"{'a class' if self.classes else 'real numbers'} for each {self.place}"

    @property
    def place(self) -> str:
        """Name of the unit that has one answer."""
        return "step" if self.every_step else "sample"

    def labels(self) -> set[Label]:
        """Return the labels that occur."""
        present = self.values if self.missing is None else self.values[~self.missing]
        return set(np.unique(present).tolist())

    def targets(self, labels: Sequence[Label]) -> np.ndarray:
        """Return what a Split holds: the number of each label, or the real numbers."""
        if not self.classes:
            return self.values
        number = {label: i for i, label in enumerate(labels)}
        present, inverse = np.unique(self.values, return_inverse=True)
        numbers = np.array([number.get(label, NO_CLASS) for label in present.tolist()], np.int64)
        found = numbers[inverse.reshape(self.values.shape)]
        return found if self.missing is None else np.where(self.missing, NO_CLASS, found)


def read_answers(
    name: str, value: Any, x: Sequences, kind: str | None = None, place: str | None = None
) -> Answers:
    """Return what a user gave as answers.

    Parameters
    ----------
    name : str
        Of the array, for messages.
    value : array, list or series
        Labels (samples,) or (samples, steps): whole numbers, strings or booleans. Real numbers
        (samples,), (samples, n_out) or (samples, steps, n_out). A list of arrays where sequences
        differ in length.
    x : Sequences
    kind : {"classification", "regression"}, optional
        By default real numbers of shape (samples,) are classes if they are whole and few differ.
    place : {"sample", "step"}, optional
        What has one answer; needed only where the shape does not say it.

    Raises
    ------
    InputError
        When shape or type fit no form; the message says what to give.
    """
    samples, steps = x.values.shape[:2]
    value = listed(name, value)
    missing = None
    if isinstance(value, list):
        value, missing = _joined(name, value, x)
    if value.ndim and len(value) != samples:
        raise InputError(
            f"{name} has {counted(len(value), 'answer')}, and there are "
            f"{counted(samples, 'sample')}; give one for each."
        )
    if value.dtype.kind not in "biufUS":
        raise InputError(f"{name} has type {value.dtype}; give numbers, strings or booleans.")
    value = _without_last_axis(name, value, steps, kind, place)
    whole = value.dtype.kind in _LABELS or _holds_classes(value, kind)
    every_step = _every_step(name, value, whole, (samples, steps), kind, place)
    if place == "step" and not every_step:
        raise InputError(
            f"{name} has shape {value.shape}, one answer for each sample; give one for each step, "
            "or leave out place."
        )
    labels = whole and kind != "regression" and value.ndim == 1 + every_step
    if labels:
        return Answers(_as_labels(name, value), True, every_step, _padding(missing, x, every_step))
    if kind == "classification" or value.dtype.kind in "US":
        raise InputError(
            f"{name} has shape {value.shape} and type {value.dtype}, which is no class for each "
            f"{'step' if every_step else 'sample'}; give labels of shape ({samples},) or "
            f"({samples}, {steps})."
        )
    return Answers(_as_reals(name, value, x, every_step, missing), False, every_step)


def _joined(name: str, items: list[Any], x: Sequences) -> tuple[np.ndarray, np.ndarray | None]:
    """Return a list of answers as one array; those of different lengths are padded."""
    if missing := sum(map(_is_missing, items)):
        raise InputError(
            f"{name} lacks {counted(missing, 'answer')} (None or NaN); leave those samples out."
        )
    arrays = [as_array(item) for item in items]
    if len({array.shape for array in arrays}) < 2:
        try:
            return np.asarray(items if arrays and not arrays[0].ndim else arrays), None
        except ValueError as error:
            raise InputError(f"{name} is no array ({error}).") from error
    lengths = x.lengths
    fits = lengths is not None and len(arrays) == len(lengths)
    if not fits or any(len(a) != n for a, n in zip(arrays, lengths, strict=True) if a.ndim):  # type: ignore[arg-type]
        raise InputError(
            f"{name} holds answers of different lengths, which are not those of the sequences; "
            "give one answer for each step, or one for each sample."
        )
    steps = x.values.shape[1]
    padded = [np.concatenate([a, np.repeat(a[-1:], steps - len(a), axis=0)]) for a in arrays]
    return np.asarray(padded), np.arange(steps) >= lengths[:, None]  # type: ignore[index]


def _is_missing(item: Any) -> bool:
    """Return whether an answer is None, NaN or a missing value of pandas."""
    if np.ndim(item):
        return False
    try:
        return item is None or bool(item != item)
    except TypeError:
        return True


def _without_last_axis(
    name: str, value: np.ndarray, steps: int, kind: str | None, place: str | None
) -> np.ndarray:
    """Return labels of shape (..., 1) without that axis, and amounts as they are."""
    if value.ndim not in (2, 3) or value.shape[-1] != 1 or kind == "regression":
        return value
    if value.ndim == 2 and (place == "step" or (steps == 1 and value.dtype.kind == "f")):
        return value
    inner = value[..., 0]
    few = _holds_classes(inner.reshape(-1), kind)
    if value.ndim == 3 and kind is None and value.dtype.kind in "iu" and few:
        raise InputError(
            f"{name} has whole numbers of shape {value.shape}; give kind='classification' if they "
            "are classes, or kind='regression' if they are amounts."
        )
    if value.ndim == 3 and kind is None and value.dtype.kind in "iuf":
        return value
    return inner if few or value.dtype.kind in _LABELS else value


def _padding(missing: np.ndarray | None, x: Sequences, every_step: bool) -> np.ndarray | None:
    if not every_step or x.lengths is None:
        return None
    return np.arange(x.values.shape[1]) >= x.lengths[:, None] if missing is None else missing


def _holds_classes(value: np.ndarray, kind: str | None) -> bool:
    """Return whether floating numbers are labels: whole, and few differ."""
    if kind == "regression" or value.ndim != 1 or value.dtype.kind not in "biuf":
        return False
    if not np.isfinite(value).all():
        return False
    if not (value == np.rint(value)).all():
        return False
    most = max(2, min(_MOST_FLOAT_CLASSES, len(value) // 3))
    return kind == "classification" or len(np.unique(value)) <= most


def _every_step(
    name: str,
    value: np.ndarray,
    whole: bool,
    shape: tuple[int, int],
    kind: str | None,
    place: str | None,
) -> bool:
    """Return whether there is an answer at every step, from the shape of the answers."""
    samples, steps = shape
    if value.ndim == 1:
        return False
    if value.ndim == 2:
        if value.shape[1] != steps or place is not None:
            if _is_one_hot(value) and kind != "regression":
                raise InputError(
                    f"{name} has shape {value.shape} and looks one-hot; give {name}.argmax(axis=1),"
                    " or kind='regression'."
                )
            return place == "step"
        if kind != "regression" and _is_one_hot(value):
            raise InputError(
                f"{name} has shape {value.shape}, and may be one-hot or one label for each of "
                f"{steps} steps; give {name}.argmax(axis=1), or place='step'."
            )
        if value.dtype.kind in _LABELS and kind != "regression":
            return True
        raise InputError(
            f"{name} has shape {value.shape}, and sequences have {steps} steps: one number for "
            f"each step is {name}[:, :, None], and for a vector of {steps} numbers for each sample "
            "give place='sample'."
        )
    if value.ndim == 3 and value.shape[1] == steps:
        return True
    raise InputError(
        f"{name} has shape {value.shape}, and x ({samples}, {steps}, ...); give ({samples},) or "
        f"({samples}, {steps}) labels, ({samples}, outputs) or ({samples}, {steps}, outputs) real "
        "numbers."
    )


def _is_one_hot(value: np.ndarray) -> bool:
    if value.dtype.kind in "US" or value.shape[1] < 2:
        return False
    return bool(np.isin(value, (0, 1)).all() and (value.sum(axis=1) == 1).all())


def _as_labels(name: str, value: np.ndarray) -> np.ndarray:
    if value.dtype.kind == "f":
        return value.astype(np.int64)
    if value.dtype.kind == "u" and value.size and int(value.max()) > np.iinfo(np.int64).max:
        raise InputError(f"{name} has labels beyond 64 bits; give them as strings.")
    return (
        value.astype(np.int64)
        if value.dtype.kind in "iu"
        else value.astype(bool if value.dtype.kind == "b" else str)
    )


def _as_reals(
    name: str, value: np.ndarray, x: Sequences, every_step: bool, missing: np.ndarray | None
) -> np.ndarray:
    with np.errstate(over="ignore"):
        found = value.astype(np.float32)
    if found.ndim == 1 + every_step:
        found = found[..., None]
    missing = _padding(missing, x, every_step)
    inside = found if missing is None else found[~missing]
    if not np.isfinite(inside).all():
        raise InputError(
            f"{name} holds NaN, infinity or numbers beyond float32; replace them, or leave those "
            "samples out."
        )
    if missing is not None:
        found = np.where(missing[..., None], np.float32(np.nan), found)
    return found
