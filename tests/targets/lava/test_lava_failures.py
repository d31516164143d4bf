"""However a run of Lava ends, it ends as one error, in time, and nothing of it stays behind."""

from __future__ import annotations

import importlib.metadata
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest
from needs import needs

from lmu_deploy.core.errors import InputError, MissingDependencyError, RunError
from lmu_deploy.core.integer.layered import (
    IntegerLayer,
    IntegerMemory,
    IntegerReadout,
    LayeredNetwork,
)
from lmu_deploy.core.integer.parts import Connection, Format
from targets.lava import LavaTarget, records, supervisor
from targets.lava.plan import make_plan
from targets.lava.records import NETWORK

linux = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks into /proc")
LONG = 100_000
pytestmark = needs("lava")


def connection(n_out, n_in, weight=1):
    return Connection(
        np.full((1, n_out, n_in), weight, np.int8),
        np.ones((1, n_out), np.int32),
        np.zeros((1, n_out), np.int32),
    )


def tiny_network(message_bits=8):
    form = Format(message_bits, 1.0)
    memory = IntegerMemory(Format(24, 1.0), form, 0, connection(2, 2), connection(2, 1), None, None)
    readout = IntegerReadout(connection(1, 2), None, Format(16, 1.0))
    return LayeredNetwork(form, (IntegerLayer(memory, None),), readout).graph()


class Traces:
    """Processes, shared memory and files that name a folder, looked for while a run lasts."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.segments: set[str] = set()
        self.most_processes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look_often)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()

    def processes(self) -> list[int]:
        """Ids of processes that were started for this folder, without zombies."""
        numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return [number for number in numbers if self._ours(number)]

    def members(self, word: bytes) -> list[int]:
        """Those of them whose command line has that word."""
        return [p for p in self.processes() if word in Path(f"/proc/{p}/cmdline").read_bytes()]

    def check_clean(self) -> None:
        assert self.most_processes > 3, "the run never began"
        assert self.segments, "no shared memory was seen"
        assert self.processes() == []
        assert [s for s in self.segments if Path(s).exists()] == []

    def _ours(self, pid: int) -> bool:
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            return f"TMPDIR={self.folder}".encode() in environment
        except OSError:
            return False

    def _look_often(self) -> None:
        while not self._done.wait(0.05):
            processes = self.processes()
            self.most_processes = max(self.most_processes, len(processes))
            for pid in processes:
                try:
                    maps = Path(f"/proc/{pid}/maps").read_text()
                except OSError:
                    continue
                self.segments.update(re.findall(r"/dev/shm/psm_\w+", maps))


@pytest.fixture
def place(tmp_path_factory, monkeypatch):
    """A short folder for temporary files, in which every run makes its own."""
    folder = tempfile.mkdtemp(prefix="lt")
    monkeypatch.setattr(tempfile, "tempdir", folder)
    yield Path(folder)
    assert list(Path(folder).iterdir()) == []
    Path(folder).rmdir()


def in_background(action):
    thread = threading.Thread(target=action)
    thread.start()
    return thread


def wait_for_progress(place: Path) -> None:
    limit = time.monotonic() + 60
    while not any(records.progress(folder) for folder in place.glob("lmu-lava-*")):
        assert time.monotonic() < limit, "the run never began"
        time.sleep(0.05)


def wait_for_worker(traces: Traces) -> None:
    limit = time.monotonic() + 60
    while not traces.members(b"targets.lava.worker"):
        assert time.monotonic() < limit, "the worker never began"


@linux
def test_a_run_that_hangs_is_ended_at_its_time_limit(place, monkeypatch):
    """However slow the machine: the clock jumps to the limit once a process has been stopped."""
    passed = [0.0]
    clock = types.SimpleNamespace(monotonic=lambda: time.monotonic() + passed[0])
    monkeypatch.setattr(supervisor, "time", clock)

    def stop():
        wait_for_progress(place)
        os.kill(max(traces.members(b"targets.lava.worker")), signal.SIGSTOP)
        passed[0] = 5000.0

    with Traces(place) as traces:
        thread = in_background(stop)
        with pytest.raises(RunError, match="not done after 5000 s"):
            LavaTarget(time_limit=5000).run(tiny_network(), np.ones((1, LONG, 1)))
        thread.join()
    traces.check_clean()


@linux
def test_a_child_killed_while_lava_starts_ends_the_run_at_once(place):
    killed = []

    def kill():
        limit = time.monotonic() + 60
        while len(members := traces.members(b"targets.lava.worker")) < 4:
            assert time.monotonic() < limit, "the run never began"
        os.kill(max(members), signal.SIGKILL)
        killed.append([records.progress(folder) for folder in place.glob("lmu-lava-*")])

    with Traces(place) as traces:
        thread = in_background(kill)
        with pytest.raises(RunError, match="killed by SIGKILL"):
            LavaTarget(time_limit=1000).run(tiny_network(), np.ones((1, LONG, 1)))
        thread.join()
    assert killed == [[0]], "killed when Lava had started"
    assert traces.processes() == []
    assert [s for s in traces.segments if Path(s).exists()] == []


@linux
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_child_ends_the_run(place, number):
    def kill():
        wait_for_progress(place)
        os.kill(max(traces.members(b"targets.lava.worker")), number)

    with Traces(place) as traces:
        thread = in_background(kill)
        with pytest.raises(RunError, match=f"a process of Lava was killed by {number.name}"):
            LavaTarget(time_limit=100).run(tiny_network(), np.ones((1, LONG, 1)))
        thread.join()
    traces.check_clean()


@linux
def test_a_killed_worker_ends_the_run(place):
    def kill():
        wait_for_progress(place)
        os.kill(min(traces.members(b"targets.lava.worker")), signal.SIGKILL)

    with Traces(place) as traces:
        thread = in_background(kill)
        with pytest.raises(RunError, match="died: killed by SIGKILL"):
            LavaTarget(time_limit=100).run(tiny_network(), np.ones((1, LONG, 1)))
        thread.join()
    traces.check_clean()


@linux
def test_an_exception_in_a_process_model_is_shown(place, monkeypatch):
    def prepare_badly(case, network, plan, *others):
        sound(case, network, plan, *others)
        number = [str(group.place) for group in plan.groups].index("layer0/memory")
        np.save(case / f"{number:04}.states.npy", np.zeros((1, 5, 2), np.int32))

    sound = supervisor.prepare
    monkeypatch.setattr(supervisor, "prepare", prepare_badly)
    with Traces(place) as traces, pytest.raises(RunError) as caught:
        LavaTarget(time_limit=100).run(tiny_network(), np.ones((1, LONG, 1)), record=True)
    assert "IndexError: index 5 is out of bounds" in str(caught.value)
    assert "in IntegratorModel" in str(caught.value)
    traces.check_clean()


@linux
@pytest.mark.parametrize("begun", [True, False], ids=["running", "before Lava is imported"])
def test_the_run_ends_when_its_parent_is_killed(place, begun):
    script = (
        "import sys, tempfile, numpy as np; tempfile.tempdir = sys.argv[1]\n"
        "from lmu_deploy.core.files import load\n"
        "from lmu_deploy.core.integer.network import INTEGER_CLASSES\n"
        "from targets.lava import LavaTarget\n"
        "network = load(sys.argv[2], INTEGER_CLASSES)\n"
        f"LavaTarget().run(network, np.ones((1, {LONG}, 1)))\n"
    )
    with tempfile.TemporaryDirectory(dir="/tmp") as other:
        model = Path(other) / "n.safetensors"
        supervisor.save(tiny_network(), model)
        with Traces(place) as traces:
            parent = subprocess.Popen([sys.executable, "-c", script, str(place), str(model)])
            if begun:
                wait_for_progress(place)
            else:
                wait_for_worker(traces)
            parent.kill()
            parent.wait()
            limit = time.monotonic() + 20
            while (traces.processes() or any(place.iterdir())) and time.monotonic() < limit:
                time.sleep(0.1)
    if begun:
        traces.check_clean()
    assert traces.processes() == []
    assert list(place.iterdir()) == []


def test_an_error_before_lava_starts_is_shown(place):
    network = tiny_network()
    played = {network.input.place: np.ones((1, 4, 3), np.int64)}
    with supervisor.temporary_folder() as folder:
        case = records.case_folder(folder, 0)
        supervisor.prepare(case, network, make_plan(network, 1, 4), 0, played, set())
        (case / NETWORK).write_bytes(b"damaged")
        with pytest.raises(RunError, match=r"the Lava run failed: .*InputError"):
            supervisor.supervise(folder, 60)


def test_missing_lava_is_named_with_the_remedy(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("targets.lava.compat.version", absent)
    with pytest.raises(MissingDependencyError, match="lmu-deploy doctor --fix"):
        LavaTarget().run(tiny_network(), np.ones((1, 4, 1)))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.full((1, 4, 1), np.nan), "NaN"),
        (np.ones((1, 4, 2)), "shape"),
        (np.ones((0, 4, 1)), "at least one"),
    ],
)
def test_bad_inputs_are_refused(inputs, message):
    with pytest.raises(InputError, match=message):
        LavaTarget().run(tiny_network(), inputs)


def test_sums_beyond_32_bits_are_refused():
    assert LavaTarget().unsupported(tiny_network(28)) == []
    reasons = LavaTarget().unsupported(tiny_network(31))
    assert any("sums of layer0/memory/recurrent can reach" in reason for reason in reasons)


def test_a_long_name_for_temporary_files_is_avoided(monkeypatch, tmp_path):
    long = tmp_path / ("x" * 80)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with supervisor.temporary_folder() as folder:
        assert len(str(folder)) <= 70
    assert not folder.exists()
