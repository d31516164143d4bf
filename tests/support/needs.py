"""Marks of tests that need a library, and the engines of the integer target."""

from __future__ import annotations

from importlib.util import find_spec

import pytest


def needs(library: str) -> pytest.MarkDecorator:
    """Return a mark that skips a test where a library is not installed."""
    return pytest.mark.skipif(
        find_spec(library) is None,
        reason=f"{library} is not installed; run lmu-deploy doctor --fix",
    )


ENGINES = ["numpy", "torch", pytest.param("numba", marks=needs("numba"))]
