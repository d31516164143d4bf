"""Run a reader in a subprocess, within limits, and collect its result.

In: a file and the name of its reader. Out: arrays by name, and a JSON header.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from lmu_deploy.core import files
from lmu_deploy.core.errors import InputError, LmuDeployError, MissingDependencyError

FILE_BYTES = 512 * 2**20
"""Largest file that is opened."""

ARRAY_BYTES = 128 * 2**20
"""Largest sum of the sizes of all arrays in one file: 32 million weights of 4 bytes."""

JSON_BYTES = 4 * 2**20
"""Longest JSON text that is parsed."""

OBJECTS = 10_000
"""Largest number of groups, arrays and attributes in one file."""

DEPTH = 32
"""Deepest nesting of groups."""

MEMORY_BYTES = 1000 * 2**20
"""Most memory that the reading process may allocate."""

SECONDS = 120
"""Longest wall-clock time for reading a file."""

CPU_SECONDS = 5
"""Most CPU time for reading a file: damaged HDF5 files can make the library loop forever."""


HEADER = "contents"
ORDER = "order"
RESULT = "result.safetensors"


@dataclass(frozen=True)
class FileContents:
    """Contents of a file.

    Attributes
    ----------
    arrays : dict of str to ndarray
        Floating-point or integer arrays by their path in the file, in the order of the file.
    header : dict
        Everything else that the reader found, as JSON values.
    """

    arrays: dict[str, np.ndarray]
    header: dict[str, Any]


def read_in_sandbox(reader: str, path: Path | str) -> FileContents:
    """Read a file in a subprocess with limits on memory and time.

    Parameters
    ----------
    reader : {"hdf5", "nir", "pytorch"}
    path : path

    Raises
    ------
    InputError
        When there is no such file, or it is too large, of another kind, damaged, or needs something
        that is not allowed.
    MissingDependencyError
        When the reader's library is not installed.
    """
    path = check_file(path)
    with tempfile.TemporaryDirectory(prefix="lmu-deploy-import-") as folder:
        result = Path(folder) / RESULT
        try:
            code, messages = launch(reader, path, result)
        except subprocess.TimeoutExpired as error:
            raise InputError(
                f"{path} could not be read within {SECONDS} s; it is damaged, save it again."
            ) from error
        raise_failure(path, code, messages)
        return read_result(path, result)


def launch(reader: str, path: Path, result: Path) -> tuple[int, bytes]:
    """Run the subprocess; return its exit code and what it wrote to standard error."""
    command = [sys.executable, "-m", "converters.sandbox.child", reader, str(path), str(result)]
    done = subprocess.run(
        command,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=SECONDS,
        check=False,
    )
    return done.returncode, done.stderr


def check_file(path: Path | str) -> Path:
    """Return the absolute path of a file.

    Raises
    ------
    InputError
        When there is no such file, or it is too large to be imported.
    """
    path = Path(path).absolute()
    files.check_file(path)
    if (size := path.stat().st_size) > FILE_BYTES:
        raise InputError(
            f"{path} has {size} bytes, more than the {FILE_BYTES} that an import reads; "
            "save the weights without the optimizer."
        )
    return path


def raise_failure(path: Path, code: int, messages: bytes) -> None:
    """Raise the error that a subprocess reported, or that it crashed."""
    if code == 0:
        return
    words = messages.decode("utf-8", "replace").strip().splitlines()
    kind, _, text = (words[-1] if words else "").partition("\t")
    known: dict[str, type[LmuDeployError]] = {
        "input": InputError,
        "missing": MissingDependencyError,
    }
    if kind in known and text:
        raise known[kind](f"{path}: {text}" if kind == "input" else text)
    raise InputError(
        f"{path} cannot be read: the library that reads it crashed (exit code {code}); "
        "the file is damaged, save it again."
    )


def read_result(path: Path, result: Path) -> FileContents:
    """Read the arrays and the header that the subprocess wrote."""
    try:
        with safe_open(result, framework="numpy") as file:
            header = json.loads((file.metadata() or {})[HEADER])
            arrays = {key: file.get_tensor(key) for key in header[ORDER]}
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}); save it again."
        ) from error
    return FileContents(arrays, header)


def _environment() -> dict[str, str]:
    """Return the subprocess's environment: one thread per library, since threads take memory."""
    here = str(Path(__file__).resolve().parents[2])
    python_path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**os.environ, **threads, "PYTHONPATH": python_path, "HDF5_USE_FILE_LOCKING": "FALSE"}
