"""Target brian2-cpp when its compiler is missing, fails or hangs: what is said and what is left."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("brian2", reason="target brian2-cpp needs Brian2")

from converters.spiking import spike
from lmu_deploy.core.errors import MissingDependencyError, RunError
from lmu_deploy.core.network import LMULayer, LMUNetwork, Memory, Readout
from targets import workers
from targets.brian2.standalone import Brian2CppTarget, process, target

linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")


@pytest.fixture(scope="module")
def case():
    layer = LMULayer(np.ones((1, 1)), None, None, None, Memory.legendre(2, 12.0), None)
    network = LMUNetwork((layer,), Readout(np.ones((2, 1)), None))
    inputs = np.random.default_rng(0).uniform(-1, 1, (5, 6, 1))
    return spike(
        network, inputs, neurons_per_state=4, presentation_ms=10, calibration="none"
    ), inputs


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where temporary folders are made; nothing may be left there."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert not list(tmp_path.glob("lmu-brian2-*"))


def compiler(folder: Path, script: str) -> str:
    path = folder / "compiler"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("missing", ["g++", "make"])
def test_without_a_compiler_the_command_to_install_it_is_named(case, place, monkeypatch, missing):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(process.shutil, "which", lambda name: None if name == missing else name)
    name = missing.replace("+", ".")
    message = rf"{name} is not installed; install .* apt-get install g\+\+ make .*\.$"
    with pytest.raises(MissingDependencyError, match=message):
        Brian2CppTarget().run(*case)


def test_an_absent_compiler_of_the_environment_is_named(case, place, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler -O1")
    with pytest.raises(MissingDependencyError, match="no-such-compiler is not installed"):
        Brian2CppTarget().run(*case)


@linux
def test_errors_of_the_compiler_are_reported(case, place, monkeypatch):
    monkeypatch.setenv("CXX", compiler(place, "echo 'error: disk on fire' >&2; exit 1"))
    with pytest.raises(RunError, match=r"compilation failed.*error: disk on fire.*\.$") as caught:
        Brian2CppTarget().run(*case)
    assert "\n" not in str(caught.value)


@linux
def test_an_interruption_ends_the_compiler_too(case, place, monkeypatch):
    """The compiler says that it has begun, and then sleeps; no sign of it is left afterwards."""
    begun = place / "begun"
    monkeypatch.setenv("CXX", compiler(place, f"echo $$ >> {begun}; exec sleep 120"))

    def interrupt() -> None:
        limit = time.monotonic() + 60
        while not begun.exists() and time.monotonic() < limit:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            thread.start()
            Brian2CppTarget().run(*case)
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)
    for number in begun.read_text().split():
        assert _ended(int(number))


@linux
@pytest.mark.parametrize("seconds", [0.0, 0.001, 2.0])
def test_an_orphaned_worker_whose_job_fails_removes_the_folder_and_ends(place, seconds):
    """The parent is dead from the start; its folder has no job, so that the job fails at once.

    The job fails before, while or after the worker checks for its parent.
    """
    folder = place / "lmu-brian2-orphan"
    folder.mkdir()
    code = (
        "import sys, time, types; from pathlib import Path\n"
        "from targets.brian2.standalone import worker\n"
        "model = types.ModuleType('model'); model.simulate = None\n"  # spares Brian2's import
        "sys.modules['targets.brian2.standalone.model'] = model\n"
        "def fail(folder):\n"
        f"    time.sleep({seconds})\n"
        "    raise FileNotFoundError('job.npz')\n"
        "worker.process.read_job = fail\n"
        "sys.exit(worker.main(Path(sys.argv[1]), 1))\n"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert worker.wait(60) != 0
    assert not folder.exists()


@linux
def test_a_worker_whose_parent_is_killed_ends_the_compiler_and_removes_the_folder(case, place):
    """The parent is killed once the compiler has begun, which then sleeps."""
    begun = place / "begun"
    script = compiler(place, f"echo $$ >> {begun}; exec sleep 120")
    job = target.Job(case[0], 0, np.zeros((1, 6, 1)), np.zeros((1, 8)), 0, False, False)
    folder = place / "lmu-brian2-orphan"
    folder.mkdir()
    process.write_job(job, folder)
    code = (
        "import os, sys; from pathlib import Path; from targets.brian2.standalone import process\n"
        "def progress(share):\n"
        "    if Path(sys.argv[2]).exists(): os.kill(os.getpid(), 9)\n"
        "process._work(Path(sys.argv[1]), progress)\n"
    )
    environment = {**os.environ, "CXX": script}
    subprocess.run([sys.executable, "-c", code, folder, begun], env=environment, timeout=60)
    limit = time.monotonic() + 30
    while folder.exists() and time.monotonic() < limit:
        time.sleep(0.05)
    assert not folder.exists()
    for number in begun.read_text().split():
        assert _ended(int(number))


def test_a_job_that_cannot_be_read_is_a_failure_with_its_cause(place):
    """A child that dies of an exception leaves its last line, whatever it was."""
    with tempfile.TemporaryDirectory(prefix="lmu-brian2-") as name:
        folder = Path(name)
        with pytest.raises(RunError, match=r"the compiled run failed: FileNotFoundError.*\.$"):
            process._work(folder, None)
        kind, message = workers.read_failure(folder)
        assert (kind, "job.npz" in message) == ("run", True)


def _ended(number: int) -> bool:
    """Whether a process is gone, or a zombie that its parent has not waited for."""
    limit = time.monotonic() + 10
    while time.monotonic() < limit:
        try:
            if Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False
