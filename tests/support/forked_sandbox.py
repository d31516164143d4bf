"""Read untrusted files in forks of one server process that has loaded the readers' libraries."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from converters.sandbox import process

LIBRARIES = ["converters.sandbox.child", "h5py", "torch"]


def launch(reader: str, path: Path, result: Path) -> tuple[int, bytes]:
    """Do what :func:`converters.sandbox.process.launch` does, without a new interpreter.

    The entry point, its limits and its messages are the same; only the imports are done before.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)  # those that are absent are left out
    with tempfile.TemporaryDirectory() as folder:
        messages = Path(folder) / "messages"
        child = context.Process(target=_read, args=([reader, str(path), str(result)], messages))
        child.start()
        child.join(process.SECONDS)
        if child.is_alive():
            child.kill()
            child.join()
            raise subprocess.TimeoutExpired(reader, process.SECONDS)
        code = child.exitcode
        child.close()
        assert code is not None
        return code, messages.read_bytes() if messages.exists() else b""


def _read(arguments: list[str], messages: Path) -> None:
    """Run the entry point of the sandbox with its standard error in a file."""
    from converters.sandbox import child

    os.dup2(os.open(messages, os.O_WRONLY | os.O_CREAT), 2)
    sys.exit(child.main(arguments))
