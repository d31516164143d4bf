"""Whatever a damaged graph makes of NIR's library, NumPy and our own reading, as one InputError.

Only what data can lead to is taken for damage: a name that does not exist, or a library that
cannot be imported, is a fault of the program and is shown as one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lmu_deploy.errors import InputError

_OF_DATA = (
    ArithmeticError,
    AssertionError,  # with which the library checks
    AttributeError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
)


@contextmanager
def damage_refused() -> Iterator[None]:
    """Turn what data can lead to into an InputError; others are left as they are."""
    try:
        yield
    except _OF_DATA as error:
        raise InputError(
            f"the NIR graph is damaged ({type(error).__name__}); export it again."
        ) from error
