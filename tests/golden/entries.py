"""What is kept of a result, and how two results are compared.

Integers are kept as a SHA-256 of their bytes, type and shape. Of real numbers there is a summary
too, because processors and libraries of mathematics round sums otherwise: where those are the ones
of the record, the hashes must be equal; elsewhere the summaries must agree to `TOLERANCE`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Entry = dict[str, Any]

TOLERANCE = {"float64": 1e-6, "float32": 1e-5, "float16": 1e-2}
"""Of a summary, relative to the size of what it sums up."""

DIGITS = 32
"""Hexadecimal digits of a SHA-256 that are stored: 128 bits."""

LOOSE = "loose"
"""Mark of an entry that sums in another order upset, as of a spike that comes or does not: it is
compared only where the record was made."""


def describe(value: Any, split: Any = None) -> Entry:
    """Return the entry of a result.

    Parameters
    ----------
    value : ndarray, list of ndarray, str, or a representation
        An array counts with the order of its entries; a list of arrays, or a representation, as an
        unordered collection; a text only where the record was made.
    split : callable
        Gives the arrays, whole numbers and real numbers of a representation.
    """
    if isinstance(value, str):
        return {"text": value[:DIGITS]}
    if isinstance(value, np.ndarray):
        return _of_array(value)
    if isinstance(value, list):
        return _of_arrays(value)
    arrays, integers, reals = split(value)
    scalars = [np.array(sorted(integers), np.int64), np.array(sorted(reals), np.float64)]
    return _of_arrays([*arrays, *scalars])


def differences(
    found: Mapping[str, Entry], recorded: Mapping[str, Entry], same_environment: bool
) -> list[str]:
    """List what differs between the entries of a case and the recorded ones, a line each."""
    lines = [f"{name}: not given any more" for name in recorded if name not in found]
    lines += [f"{name}: not in the record" for name in found if name not in recorded]
    for name, entry in recorded.items():
        if name in found and (reason := _difference(found[name], entry, same_environment)):
            lines.append(f"{name}: {reason}")
    return lines


def _difference(found: Entry, recorded: Entry, same_environment: bool) -> str:
    """Say how two entries differ; nothing when they do not."""
    if not same_environment and LOOSE in recorded:
        return ""
    if _shapes(found) != _shapes(recorded):
        return f"{_shapes(found)} instead of {_shapes(recorded)}"
    exact = ("integers", "reals", "text") if same_environment else ("integers",)
    for kind in exact:
        if found.get(kind) != recorded.get(kind):
            far = _apart(found, recorded)
            return f"other {kind}" + (f" ({far})" if far else "")
    return "" if same_environment else _apart(found, recorded)


def _shapes(entry: Entry) -> list[str]:
    return [*entry.get("shapes", ()), *(f"{key} x{s[0]}" for key, s in _summaries(entry))]


def _summaries(entry: Entry) -> list[tuple[str, Sequence[float]]]:
    return sorted(entry.get("summary", {}).items())


def _apart(found: Entry, recorded: Entry) -> str:
    """Say which summary is further from the recorded one than its tolerance; else nothing."""
    for (key, ours), (_, theirs) in zip(_summaries(found), _summaries(recorded), strict=True):
        tolerance = TOLERANCE[key.split()[0]]
        number, _, squares, low, high = theirs
        largest = max(abs(low), abs(high))
        # A sum's own size says nothing where its terms cancel.
        count = number * max(1, math.prod(int(n) for n in key.split()[1].split("x") if n))
        scales = (0.0, math.sqrt(max(squares * count, 0.0)), squares, largest, largest)
        for part, a, b, scale in zip(_PARTS, ours, theirs, scales, strict=True):
            if not (abs(a - b) <= tolerance * scale or a == b or (a != a and b != b)):
                return f"{part} of {key} is {a!r} instead of {b!r}"
    return ""


_PARTS = ("number", "sum", "sum of squares", "least", "largest")


def _is_real(array: np.ndarray) -> bool:
    return array.dtype.kind == "f"


def _shape(array: np.ndarray) -> str:
    return f"{array.dtype.name} {'x'.join(map(str, array.shape)) or '1'}"


def _sha(array: np.ndarray) -> str:
    text = f"{array.dtype.newbyteorder('<').str} {array.shape} "
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return hashlib.sha256(text.encode() + little.tobytes()).hexdigest()


def _of_array(array: np.ndarray) -> Entry:
    if not _is_real(array):
        return {"shapes": [_shape(array)], "integers": _sha(array)[:DIGITS]}
    return {"reals": _sha(array)[:DIGITS], "summary": _summary([array])}


def _of_arrays(values: Sequence[np.ndarray]) -> Entry:
    """Describe arrays in whatever order, those of integers and of real numbers apart."""
    arrays = [np.asarray(value) for value in values]
    whole = [array for array in arrays if not _is_real(array)]
    real = [array for array in arrays if _is_real(array)]
    return {
        "shapes": sorted(_shape(array) for array in whole),
        "integers": _joined(whole),
        "reals": _joined(real),
        "summary": _summary(real),
    }


def _joined(arrays: Sequence[np.ndarray]) -> str:
    return hashlib.sha256("".join(sorted(map(_sha, arrays))).encode()).hexdigest()[:DIGITS]


def _summary(arrays: Sequence[np.ndarray]) -> dict[str, list[float]]:
    """Return number, sum, sum of squares, least and largest entry of the arrays of each shape."""
    found: dict[str, list[float]] = {}
    for array in arrays:
        wide = array.astype(np.float64).ravel()
        low, high = (float(wide.min()), float(wide.max())) if wide.size else (0.0, 0.0)
        n, total, squares, lowest, highest = found.get(_shape(array), (0, 0.0, 0.0, low, high))
        found[_shape(array)] = [
            n + 1,
            total + math.fsum(wide),
            squares + math.fsum(wide * wide),
            min(lowest, low),
            max(highest, high),
        ]
    return {shape: [float(f"{part:.9g}") for part in parts] for shape, parts in found.items()}
