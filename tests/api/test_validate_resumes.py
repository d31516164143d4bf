"""A stopped validation goes on with what is missing, and its folder can be read at any moment."""

import logging
import os
import signal
import subprocess
import sys
import time

import pytest

import lmu_deploy as ld
from lmu_deploy.api.fidelity import FidelityReport
from lmu_deploy.fidelity import store
from lmu_deploy.fidelity.store import PARTS, hash_of
from targets.integer.run import IntegerTarget

pytest.importorskip("sklearn", reason="scikit-learn bundles the digits")
pytest.importorskip("onnxruntime", reason="the second target")

NETWORK = "examples/models/digits.safetensors"
SETTINGS = {"limit": 30, "attribution": 0, "attribution_budget": 0.0}
STOPS_AT_THE_SECOND = """
import sys, time
import lmu_deploy as ld
from targets.onnxruntime import OnnxRuntimeTarget
OnnxRuntimeTarget.run = lambda *_, **__: time.sleep(600)
ld.validate(sys.argv[1], targets="integer,onnxruntime", out=sys.argv[2], limit=30,
            attribution=0, attribution_budget=0.0)
"""


def validate(folder, **more):
    return ld.validate(NETWORK, targets="integer,onnxruntime", out=folder, **{**SETTINGS, **more})


def figures(report):
    """What a validation measured, without times."""
    return {
        name: (target.metric.value, target.reference.value, target.saturations)
        for name, target in report.targets.items()
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return validate(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def runs(monkeypatch):
    """How often the simulator ran."""
    calls, run = [], IntegerTarget.run
    monkeypatch.setattr(IntegerTarget, "run", lambda *a, **k: (calls.append(1), run(*a, **k))[1])
    return calls


def test_validation_goes_on_after_sigkill(tmp_path, whole, caplog):
    command = [sys.executable, "-c", STOPS_AT_THE_SECOND, NETWORK, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "fidelity.json").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    so_far = FidelityReport.load(tmp_path)
    assert list(so_far.targets) == ["integer"]
    assert so_far["integer"].metric.value == whole["integer"].metric.value
    assert (tmp_path / PARTS).is_dir()
    with caplog.at_level(logging.INFO, "lmu_deploy"):
        found = validate(tmp_path)
    assert figures(found) == figures(whole)
    assert not (tmp_path / PARTS).exists()
    kept = [line for line in caplog.messages if line.startswith("kept from an earlier start: ")]
    kinds = sorted(line.split(": ")[1].split("-")[0] for line in kept)
    assert kinds == ["network", "run", "run"]  # the integers, and the runs of them and of float


def test_interruption_at_every_write_loses_one_part_at_most(tmp_path, whole, monkeypatch):
    written, save = [], store.save

    def interrupted(instance, path):
        if len(written) == stop:
            raise KeyboardInterrupt
        written.append(path)
        save(instance, path)

    monkeypatch.setattr(store, "save", interrupted)
    for stop in range(4):
        written.clear()
        with pytest.raises(KeyboardInterrupt):
            validate(tmp_path)
        assert len(list((tmp_path / PARTS).glob("*.safetensors"))) == sum(range(stop + 1))
        if sum(range(stop + 2)) > 3:
            break
    monkeypatch.setattr(store, "save", save)
    assert figures(validate(tmp_path)) == figures(whole)


def test_parts_of_other_inputs_are_not_taken(tmp_path, runs, monkeypatch):
    monkeypatch.setattr(store.Parts, "remove", lambda self: None)
    first = validate(tmp_path, limit=20)
    before = len(runs)
    again = validate(tmp_path, limit=20)
    kept = len(runs) - before
    other = validate(tmp_path, limit=30)
    assert len(runs) - before - kept > kept
    assert (first["integer"].samples, other["integer"].samples) == (20, 30)
    assert figures(first) == figures(again)
    for part in (tmp_path / PARTS).iterdir():
        part.write_bytes(b"damaged")
    assert figures(validate(tmp_path, limit=20)) == figures(first)


def test_hash_tells_arrays_and_settings_apart():
    import numpy as np

    one = np.arange(6)
    assert hash_of("run", one) == hash_of("run", one.copy())
    others = [("run", one.reshape(2, 3)), ("run", one.astype(float)), ("net", one), ("run", one, 1)]
    assert len({hash_of(*each) for each in others} | {hash_of("run", one)}) == 5
