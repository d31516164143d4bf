"""Yields and lifetimes on the workers of a cluster: same results, dead workers, killed studies."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import lmu_deploy as ld
from converters.options import SpikeOptions
from lmu_deploy.core.errors import InputError, RunError
from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.graph.transforms import as_layers
from lmu_deploy.core.loading import load
from lmu_deploy.studies.chip_yield import _Study, load_yield
from lmu_deploy.studies.workers import Call, Cluster, Failure, Spread
from lmu_deploy.tasks.base import get_task
from lmu_deploy.tasks.dataset import find_task
from lmu_deploy.tasks.selection import task_for
from tests.converters.spiking.test_spiking_graph import QUICK, two_blocks

distributed = pytest.importorskip("distributed", reason="the extra [sweep] is not installed")
pytestmark = pytest.mark.xdist_group("sweep")

DIGITS = Path(__file__).parents[2] / "examples" / "models" / "digits.safetensors"
OPTIONS = {"neurons_per_state": 2, "mismatch": 0.3, "calibration_samples": 10, "limit": 5}
SECONDS = 270


@pytest.fixture(scope="module")
def address():
    """A running scheduler with two workers in this process, reached by TCP as one elsewhere."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, protocol="tcp://",
        dashboard_address="localhost:0",
    ) as cluster:  # fmt: skip
        yield cluster.scheduler_address


def test_a_yield_on_workers_equals_one_in_this_process(address, tmp_path):
    out = tmp_path / "yield.json"
    there = ld.chip_yield(DIGITS, chips=3, out=out, scheduler=address, **OPTIONS)
    assert there == ld.chip_yield(DIGITS, chips=3, **OPTIONS) == load_yield(out)
    # Nothing is left to do, so no scheduler is asked for.
    away = "tcp://127.0.0.1:9"
    assert ld.chip_yield(DIGITS, chips=2, out=out, scheduler=away, **OPTIONS) == there


def test_a_graph_of_neurons_on_workers_equals_one_in_this_process(address):
    network = two_blocks()
    inputs = np.random.default_rng(1).normal(size=(50, 6, 3)) * 0.7
    outputs = run(network, inputs)
    data = ld.Dataset(inputs[:40], outputs[:40], inputs[40:], outputs[40:])
    options = {**QUICK, "units": "chip", "mismatch": 0.3, "neurons_per_state": 4}
    there = ld.chip_yield(network, data, chips=2, scheduler=address, **options)
    assert there == ld.chip_yield(network, data, chips=2, **options)


@pytest.mark.parametrize("name", ["digits", "mackey-glass", "delay"])
def test_tasks_go_to_workers(name):
    assert pickle.loads(pickle.dumps(get_task(name))) is get_task(name)


def test_own_data_go_to_workers():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 5, 2)), np.arange(40) % 2
    task = find_task(ld.Dataset(x, y, x[:6] + 1.0, y[:6]))
    again = pickle.loads(pickle.dumps(task))
    assert (again.identity, again.kind, again.labels) == (task.identity, task.kind, task.labels)
    np.testing.assert_array_equal(again.load().train.inputs, task.load().train.inputs)


def test_lifetimes_on_workers_equal_those_in_this_process(address, tmp_path, monkeypatch):
    monkeypatch.setattr("lmu_deploy.studies.lifetime.INTERVALS", (7,))
    out = tmp_path / "life.json"
    asked = {"ages": ["9d"], "temperatures": [25.0, 60.0], "keep": 0.0, **OPTIONS}
    there = ld.chip_lifetime(DIGITS, chips=3, scheduler=address, out=out, **asked)
    here = ld.chip_lifetime(DIGITS, chips=3, **asked)
    assert there.chips == (0, 1, 2) and there.kept_by == here.kept_by
    for name in ("new", "points", "recalibrations"):
        assert getattr(there, name) == getattr(here, name)
    assert {str(chip) for chip in there.chips} == set(there.trial(0))
    with pytest.raises(InputError, match=r"another network, data, options, ages or schedule"):
        ld.chip_lifetime(DIGITS, chips=3, out=out, recalibrate="7d", **asked)


def test_lifetimes_resume_after_every_batch(tmp_path, monkeypatch):
    from lmu_deploy.studies import lifetime

    monkeypatch.setattr(lifetime, "INTERVALS", (7,))
    monkeypatch.setattr(lifetime, "_CHIPS_AT_ONCE", 1)
    asked = {"ages": ["9d"], "keep": 0.0, "chips": 2, **OPTIONS}
    whole = ld.chip_lifetime(DIGITS, **asked)
    ran, out = [], tmp_path / "life.json"
    for method in ("lives_of", "spaced"):
        run = getattr(lifetime.LifetimeStudy, method)

        def counted(study, seeds, *others, run=run, method=method):
            ran.append((method, seeds, *others))
            if len(ran) in (2, 5):
                raise KeyboardInterrupt
            return run(study, seeds, *others)

        monkeypatch.setattr(lifetime.LifetimeStudy, method, counted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            ld.chip_lifetime(DIGITS, out=out, **asked)
    assert ld.chip_lifetime(DIGITS, out=out, **asked) == whole
    assert ran[0] == ("lives_of", (0,)) and ran[1] == ran[2] == ("lives_of", (1,))
    assert ran[3] == ("spaced", (0,), 0) and ran[4] == ran[5] == ("spaced", (1,), 0)
    assert len(ran) == 2 + 1 + 2 + 1 + 2 * (len(whole.kept_by["tried"]) - 1)
    read = json.loads(out.read_text())
    out.write_text(json.dumps({**read, "new": read["new"][:1]}))
    with pytest.raises(InputError, match="no record of lifetimes"):
        ld.chip_lifetime(DIGITS, out=out, **asked)


DYING = """
import os, signal
from lmu_deploy.studies.chip_yield import _Study

class Dying(_Study):
    '''A study whose worker is killed in the middle of a batch, once.'''

    def __init__(self, flag, *arguments):
        super().__init__(*arguments)
        self.flag = flag

    def run_chips(self, chips):
        if 1 in chips and not self.flag.exists():
            self.flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().run_chips(chips)
"""


def test_a_killed_worker_is_replaced(tmp_path, monkeypatch):
    (tmp_path / "dying_study.py").write_text(DYING)
    monkeypatch.syspath_prepend(tmp_path)  # the workers start with this path too
    dying = import_module("dying_study").Dying
    network = load(DIGITS)
    options = SpikeOptions(neurons_per_state=2, mismatch=0.3, calibration_samples=10)
    task = task_for(network, None)
    given = (as_layers(network, "test"), task, "generic-analog", 5, None, options)
    calls = [Call("run_chips", ((chip,),)) for chip in (0, 1)]
    with Cluster(None, 1) as cluster:
        there = dict(Spread(partial(dying, tmp_path / "flag", *given), cluster).run(calls))
    assert (tmp_path / "flag").exists()
    assert there == dict(Spread(partial(_Study, *given)).run(calls))


class DyingCluster:
    """A cluster whose workers die at every attempt at the second call."""

    size = 1

    def submit(self, function, *arguments, key):
        return key, function, arguments

    def as_completed(self, futures):
        for number, (future, call) in enumerate(futures.items()):
            study, inputs, _ = future[2]
            if number == 1:
                yield call, Failure("its worker died at every attempt.", RuntimeError())
            else:
                yield call, future[1](study[1](), inputs, call)


class Doubling:
    inputs = "i"

    def double(self, number):
        return 2 * number


def test_what_workers_cannot_run_is_an_error_after_everything_else():
    found = Spread(Doubling, DyingCluster()).run([Call("double", (n,)) for n in range(3)])
    assert [next(found)[1], next(found)[1]] == [0, 4]
    with pytest.raises(RunError, match=r"double of 1: its worker died .* finished is kept\."):
        next(found)


def test_workers_with_other_data_are_refused(address):
    network = load(DIGITS)
    task = task_for(network, None)
    given = (as_layers(network, "test"), task, "generic-analog", 5, None)
    with Cluster(address, None) as cluster:
        spread = Spread(partial(_Study, *given, SpikeOptions(neurons_per_state=2)), cluster)
        spread.study.inputs = "of another version"
        with pytest.raises(RunError, match="install the same everywhere"):
            list(spread.run([Call("run_chips", ((0,),))]))


def test_a_killed_study_resumes(tmp_path):
    out = tmp_path / "yield.json"
    source = "from lmu_deploy.cli import main; main()"
    command = f"yield {DIGITS} --chips 75 --neurons-per-state 1 --mismatch 0.3 --limit 2"
    more = f"--calibration-samples 4 --workers 1 --out {out}"
    process = subprocess.Popen(
        [sys.executable, "-c", source, *command.split(), *more.split()],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + SECONDS
        while not out.exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    kept = load_yield(out)
    asked = {"neurons_per_state": 1, "mismatch": 0.3, "calibration_samples": 4, "limit": 2}
    assert len(kept.chips) in (25, 50)  # batches end in any order
    whole = ld.chip_yield(DIGITS, chips=75, out=out, **asked)
    assert whole.chips == list(range(75))
    places = [whole.chips.index(chip) for chip in kept.chips]
    for name, values in kept.values.items():
        assert [whole.values[name][place] for place in places] == values
    last = ld.chip_yield(DIGITS, chips=1, first_chip=74, **asked)
    assert [values[-1:] for values in whole.values.values()] == list(last.values.values())


def test_wrong_clusters_are_refused():
    with pytest.raises(InputError, match=r"workers is 2, and the cluster at tcp://h:1 has its own"):
        ld.chip_yield(DIGITS, scheduler="tcp://h:1", workers=2)
    with pytest.raises(InputError, match="workers is 0; give at least 1"):
        ld.chip_yield(DIGITS, workers=0)
