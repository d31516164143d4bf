"""A killed sweep resumes: no finished trial runs twice, and none is lost."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest

from lmu_deploy.core.files import save
from lmu_deploy.core.network import LMULayer, LMUNetwork, Memory, Readout

pytest.importorskip("distributed", reason="the extra [sweep] is not installed")
parquet = pytest.importorskip("pyarrow.parquet", reason="the extra [sweep] is not installed")
pytestmark = pytest.mark.xdist_group("sweep")

TRIALS, BEFORE = 40, 15
SECONDS = 150

# Writes down every start of a trial. After BEFORE starts it waits for a file called `go`, so that
# the kill meets two trials that run and many that have not begun, however slow the machine is.
TARGET = f"""
import dataclasses, os, time
from pathlib import Path
from targets.reference import ReferenceTarget

FOLDER = Path(os.environ["COUNTING_FOLDER"])

class CountingTarget(ReferenceTarget):
    name = "counting"

    def run(self, network, inputs, *, record=False, seed=0, progress=None):
        with (FOLDER / "starts").open("a") as log:
            log.write(f"{{seed}}\\n")
        place = (FOLDER / "starts").read_text().split().index(str(seed))
        while place >= {BEFORE} and not (FOLDER / "go").exists():
            time.sleep(0.02)
        run = super().run(network, inputs, record=record, seed=seed, progress=progress)
        return dataclasses.replace(run, target=self.name)
"""


@pytest.fixture
def folder(tmp_path):
    """A network, own data, a spec of 40 trials, and a plugin with the counting target."""
    rng = np.random.default_rng(0)
    layer = LMULayer(rng.normal(size=(2, 1)), None, None, None, Memory.legendre(3, 5.0), None)
    save(LMUNetwork((layer,), Readout(rng.normal(size=(3, 3)), None)), tmp_path / "n.safetensors")
    arrays = {f"x_{part}": rng.normal(size=(20, 5, 2)) for part in ("train", "test")}
    np.savez(tmp_path / "own.npz", y_train=np.arange(20) % 3, y_test=np.arange(20) % 3, **arrays)
    (tmp_path / "spec.toml").write_text(
        f'task = "own.npz"\nnetwork = "n.safetensors"\ntarget = "counting"\n'
        f'objectives = ["metric", "synops_per_sample"]\n[grid]\nseed = {list(range(TRIALS))}\n'
    )
    plugin = tmp_path / "plugin"
    plugin.mkdir()
    (plugin / "counting_target.py").write_text(TARGET)
    metadata = plugin / "counting_target-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: counting-target\nVersion: 1.0\n"
    )
    (metadata / "entry_points.txt").write_text(
        "[lmu_deploy.targets]\ncounting = counting_target:CountingTarget\n"
    )
    return tmp_path


def start(folder):
    """Start the sweep in a process group of its own, which its workers belong to."""
    source = "from lmu_deploy.cli import main\nif __name__ == '__main__':\n    main()\n"
    script = folder / "run.py"
    script.write_text(source)
    path = os.pathsep.join(filter(None, (str(folder / "plugin"), os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [sys.executable, str(script), "sweep", str(folder / "spec.toml"), "--out",
         str(folder / "out"), "--workers", "2"],
        env={**os.environ, "PYTHONPATH": path, "COUNTING_FOLDER": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )  # fmt: skip


def kill_group(process):
    """Kill a sweep with its scheduler and workers; a process that is left is an error."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("processes of the killed sweep are still there")


def wait_for(happens, process):
    deadline = time.monotonic() + SECONDS
    while not happens():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the sweep does not get on"
        time.sleep(0.02)


def records(folder):
    return {
        path.name: path.read_bytes()
        for path in (folder / "out" / "trials").glob("*.json")
        if not path.name.startswith(".")
    }


def starts(folder):
    log = folder / "starts"
    return Counter(map(int, log.read_text().split())) if log.exists() else Counter()


def test_a_killed_sweep_resumes(folder):
    first = start(folder)
    try:
        wait_for(lambda: len(records(folder)) == BEFORE, first)
        wait_for(lambda: starts(folder).total() == BEFORE + 2, first)
    finally:
        kill_group(first)
    kept = records(folder)
    finished = {json.loads(text)["inputs"]["seed"] for text in kept.values()}
    assert len(finished) == BEFORE
    assert not (folder / "out" / "results.csv").exists()

    (folder / "go").touch()
    second = start(folder)
    out, err = second.communicate(timeout=SECONDS)
    assert second.returncode == 0, err
    counted = starts(folder)
    assert set(counted) == set(range(TRIALS))
    assert all(counted[seed] == 1 for seed in finished), "a finished trial ran twice"
    assert counted.total() == TRIALS + 2, "only the two that were running began again"
    after = records(folder)
    assert len(after) == TRIALS
    assert all(after[name] == text for name, text in kept.items()), "a finished trial was lost"

    with (folder / "out" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["seed"]) for row in rows] == list(range(TRIALS))
    assert {row["status"] for row in rows} == {"done"}
    table = parquet.read_table(folder / "out" / "results.parquet").to_pydict()
    assert table["seed"] == list(range(TRIALS))
    assert [repr(v) for v in table["metric"]] == [row["metric"] for row in rows]
    assert (folder / "out" / "pareto.svg").is_file()
    assert f"{TRIALS} trials: {TRIALS} done, {BEFORE} of them earlier" in out
