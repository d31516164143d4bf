"""Validation of values: every function returns a checked value or raises :class:`InputError`.

Model files are untrusted. Every field of every representation passes through one of these
functions at construction, so that later code can rely on shapes and values.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from lmu_deploy.core.errors import InputError

INPUT = "input"
"""Name of a network's own input, which no node can have."""


def set_fields(instance: object, **values: object) -> None:
    """Assign fields of a frozen dataclass; for use in ``__post_init__`` only."""
    for name, value in values.items():
        object.__setattr__(instance, name, value)


def check_integer(name: str, value: Any, low: int, high: int) -> int:
    """Return `value` as an int in [low, high].

    Raises
    ------
    InputError
        When `value` is not an integer or lies outside the range.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InputError(
            f"{name} is {_short(value)}, not an integer; give one from {low} to {high}."
        )
    if not low <= value <= high:
        raise InputError(f"{name} is {value}, outside {low} to {high}; give a value inside.")
    return int(value)


def check_number(name: str, value: Any, low: float, high: float) -> float:
    """Return `value` as a finite float in [low, high]; raise InputError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating | np.integer):
        raise InputError(
            f"{name} is {_short(value)}, not a number; give one from {low:g} to {high:g}."
        )
    try:
        number = float(value)
    except OverflowError:  # an integer beyond the range of a float
        number = math.inf
    if not math.isfinite(number) or not low <= number <= high:
        raise InputError(f"{name} is {number:g}, outside {low:g} to {high:g}; give a value inside.")
    return number


def check_flag(name: str, value: Any) -> bool:
    """Return `value` if it is True or False; raise InputError otherwise."""
    if not isinstance(value, bool):
        raise InputError(f"{name} is {_short(value)}; give true or false.")
    return value


def check_choice(name: str, value: Any, choices: Iterable[str]) -> str:
    """Return `value` if it is one of `choices`; raise InputError that lists them otherwise."""
    valid = sorted(choices)
    if not isinstance(value, str) or value not in valid:
        raise InputError(f"{name} is {_short(value)}; choose one of {', '.join(valid)}.")
    return value


def check_text(name: str, value: Any, longest: int = 10_000) -> str:
    """Return `value` if it is a string of at most `longest` characters; else raise InputError."""
    if not isinstance(value, str) or len(value) > longest:
        raise InputError(f"{name} must be a string of at most {longest} characters.")
    return value


def check_node_name(value: Any) -> str:
    """Return the name of a node of a network; raise InputError for one that it cannot have."""
    name = check_text("node name", value, 200)
    if not name or name == INPUT or not name.isprintable():
        raise InputError(f"a node cannot have the name {name!r}; choose another.")
    return name


def check_provenance(value: Any) -> dict[str, str]:
    """Return provenance as a dict of str to str; raise InputError otherwise."""
    if not isinstance(value, Mapping):
        raise InputError("provenance must map names to strings.")
    return {
        check_text("provenance key", key, 200): check_text(f"provenance {key}", text)
        for key, text in value.items()
    }


def check_array(
    name: str, value: Any, shape: tuple[int | None, ...], kinds: str = "f"
) -> np.ndarray:
    """Return `value` as a read-only array of the given shape with finite entries.

    Parameters
    ----------
    name : str
        Name of the array in error messages.
    value : array_like
        The array.
    shape : tuple of int or None
        Expected shape; None for any size.
    kinds : str
        Allowed ``dtype.kind`` letters: ``f`` floating, ``i`` signed integer.

    Raises
    ------
    InputError
        When the type or shape differs, or an entry is NaN or infinite.
    """
    if not isinstance(value, np.ndarray):
        raise InputError(f"{name} is {type(value).__name__}, not an array; give a NumPy array.")
    if value.dtype.kind not in kinds:
        wanted = " or ".join({"f": "floating", "i": "signed integer"}[k] for k in kinds)
        raise InputError(f"{name} has type {value.dtype}; give a {wanted} type.")
    fits = value.ndim == len(shape) and all(
        want is None or have == want for have, want in zip(value.shape, shape, strict=True)
    )
    if not fits:
        wanted = "(" + ", ".join("any" if s is None else str(s) for s in shape) + ")"
        raise InputError(
            f"{name} has shape {value.shape}, expected {wanted}; give an array of that shape."
        )
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        bad = int(value.size - np.isfinite(value).sum())
        raise InputError(
            f"{name} has {bad} entries that are NaN or infinite; all entries must be finite."
        )
    frozen = value.view()
    frozen.flags.writeable = False
    return frozen


def check_inputs(inputs: Any, n_in: int) -> np.ndarray:
    """Return `inputs` as finite float64 of shape (samples, steps, n_in); else raise InputError.

    There must be at least one sample of at least one step, because targets differ in what they do
    with empty arrays.
    """
    try:
        array = np.asarray(inputs)
    except ValueError as error:
        raise InputError(f"input is not an array of one shape: {error}") from error
    if array.dtype.kind in "iub":
        array = array.astype(np.float64)
    checked = check_array("input", array, (None, None, n_in))
    if checked.shape[0] == 0:
        raise InputError("input has no samples; give at least one sample.")
    if checked.shape[1] == 0:
        raise InputError("input has sequences without steps; give at least one step.")
    return checked.astype(np.float64)


def _short(value: object) -> str:
    """Return the repr of a value, at most 200 characters; it may come from a corrupt file."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."
