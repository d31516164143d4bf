"""Run subprocesses of the product as forks of one server process that has loaded their libraries.

Their entry points, limits and messages are the same as in a new interpreter; only the imports are
done before, once for all tests of a worker of pytest-xdist.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

from converters.sandbox import process


@cache
def _context() -> Any:
    """Return the context of multiprocessing whose server runs, with this process's paths."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["forked_libraries"])
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path))):
        forkserver.ensure_running()
    return context


def launch(reader: str, path: Path, result: Path) -> tuple[int, bytes]:
    """Do what :func:`converters.sandbox.process.launch` does, without a new interpreter."""
    with tempfile.TemporaryDirectory() as folder:
        messages = Path(folder) / "messages"
        child = _context().Process(target=_read, args=([reader, str(path), str(result)], messages))
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


class ForkedWorker:
    """A worker of Lava with the interface of `subprocess.Popen` that its supervisor uses."""

    def __init__(
        self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str], **_options: Any
    ) -> None:
        module, folder = command[2:]
        receive, send = _context().Pipe(duplex=False)
        self._process = _context().Process(target=_work, args=(module, folder, dict(env), send))
        self._process.start()
        send.close()
        self.stdout = receive
        self.pid: int = self._process.pid
        self.returncode: int | None = None
        self._output = b""

    def poll(self) -> int | None:
        """Return the exit code, or None while the worker runs."""
        self.returncode = self._process.exitcode
        return self.returncode

    def communicate(self, timeout: float) -> tuple[bytes, None]:
        """Wait until no process has the output open; return it."""
        deadline = time.monotonic() + timeout
        while True:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self.stdout.fileno()], [], [], left)[0]:
                raise subprocess.TimeoutExpired("worker", timeout, output=self._output)
            if not (read := os.read(self.stdout.fileno(), 2**16)):
                break
            self._output += read
        self.stdout.close()
        self._process.join()
        self.poll()
        return self._output, None


def _work(module: str, folder: str, environment: Mapping[str, str], output: Connection) -> None:
    """Run the main function of a worker in a process group of its own."""
    from targets.lava.supervisor import PARENT, work_in_folder

    multiprocessing.set_start_method("fork", force=True)  # as Lava does when it is imported
    os.setsid()
    for number in (1, 2):
        os.dup2(output.fileno(), number)
    output.close()
    os.chdir(folder)
    os.environ.update({**environment, PARENT: str(os.getppid())})
    tempfile.tempdir = None
    sys.argv = [module, folder]
    work_in_folder(importlib.import_module(module).run)
