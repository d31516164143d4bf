"""One sweep at a time in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lmu_deploy.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Hold the folder; whatever ends this process lets it go. Systems without flock go unguarded.

    Raises
    ------
    InputError
        When another sweep holds it, or it cannot be written.
    """
    try:
        file = (folder / LOCK).open("w")
    except OSError as error:
        raise InputError(
            f"cannot write into {folder}: {error.strerror}; choose another folder."
        ) from error
    with file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(
                    f"another sweep is running in {folder}; wait for it or choose another folder."
                ) from error
        yield
