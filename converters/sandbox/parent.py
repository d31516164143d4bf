"""Start the process that reads, and take over what it found.

In: a file and the name of its reader. Out: arrays by name, and what the reader says about them.
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

from converters.sandbox import limits
from lmu_deploy.core.errors import InputError, LmuDeployError, MissingDependencyError

HEADER = "contents"
ORDER = "order"
ANSWER = "answer.safetensors"


@dataclass(frozen=True)
class Contents:
    """What a file holds.

    Attributes
    ----------
    arrays : dict of str to ndarray
        Floating or integer arrays by their path in the file, in the order of the file.
    header : dict
        What else the reader found; JSON values.
    """

    arrays: dict[str, np.ndarray]
    header: dict[str, Any]


def read_contained(reader: str, path: Path | str) -> Contents:
    """Read a file with a reader of this package, in a process with limits of memory and time.

    Parameters
    ----------
    reader : {"hdf5", "nir", "pytorch"}
    path : path

    Raises
    ------
    InputError
        When there is no such file, it is too large, not of that kind, damaged, or asks for what
        is not allowed.
    MissingDependencyError
        When the reader's library is absent.
    """
    path = check_file(path)
    with tempfile.TemporaryDirectory(prefix="lmu-deploy-import-") as folder:
        answer = Path(folder) / ANSWER
        try:
            code, messages = launch(reader, path, answer)
        except subprocess.TimeoutExpired as error:
            raise InputError(
                f"{path} could not be read within {limits.SECONDS} s; it is damaged, save it again."
            ) from error
        raise_failure(path, code, messages)
        return take_answer(path, answer)


def launch(reader: str, path: Path, answer: Path) -> tuple[int, bytes]:
    """Run the process; give its exit code and what it wrote on standard error."""
    command = [sys.executable, "-m", "converters.sandbox.child", reader, str(path), str(answer)]
    done = subprocess.run(
        command,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=limits.SECONDS,
        check=False,
    )
    return done.returncode, done.stderr


def check_file(path: Path | str) -> Path:
    """Return `path`, whole; raises InputError when it is no file or too large to be opened."""
    path = Path(path).absolute()
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the name.")
    if (size := path.stat().st_size) > limits.FILE_BYTES:
        raise InputError(
            f"{path} has {size} bytes, more than the {limits.FILE_BYTES} that an import reads; "
            "save the weights without the optimizer."
        )
    return path


def raise_failure(path: Path, code: int, messages: bytes) -> None:
    """Turn what a process said, or that it died without a word, into one error."""
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
        f"{path} cannot be read: the library that reads it broke down over it (exit code {code}); "
        "it is damaged, save it again."
    )


def take_answer(path: Path, answer: Path) -> Contents:
    """Read the arrays and the header that the process left."""
    try:
        with safe_open(answer, framework="numpy") as file:
            header = json.loads((file.metadata() or {})[HEADER])
            arrays = {key: file.get_tensor(key) for key in header[ORDER]}
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}); save it again."
        ) from error
    return Contents(arrays, header)


def _environment() -> dict[str, str]:
    """One thread for each library: threads take memory, and there is nothing to compute."""
    here = str(Path(__file__).resolve().parents[2])
    python_path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**os.environ, **threads, "PYTHONPATH": python_path, "HDF5_USE_FILE_LOCKING": "FALSE"}
