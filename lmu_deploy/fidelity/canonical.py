"""JSON that people read and that compares line by line: one order, lists of numbers on one line."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

_NUMBERS = re.compile(r"\[\n[-+.,eE\d\snul]+\]")


def plain(value: Any) -> Any:
    """Turn what a target may put into its settings into what JSON can hold.

    NumPy's numbers and arrays become Python's, numbers that are not finite None, and anything else
    its text.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def canonical_json(value: Any) -> str:
    """Write plain values as JSON, in their own order, with a newline at the end.

    Raises
    ------
    ValueError
        When a number is not finite.
    """
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    return _NUMBERS.sub(_on_one_line, text) + "\n"


def _on_one_line(found: re.Match[str]) -> str:
    """Join the lines of a list of numbers; no text holds a bare newline, so none is matched."""
    return " ".join(found.group().split()).replace("[ ", "[").replace(" ]", "]")
