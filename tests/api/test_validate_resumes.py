"""A stopped validation resumes with what is missing, and its folder can be read at any moment."""

import json
import logging
import os
import signal
import subprocess
import sys
import time

import pytest

import lmu_deploy as ld
from lmu_deploy.api.report import FidelityReport
from lmu_deploy.fidelity import store
from lmu_deploy.fidelity.attribution.measure import Errors
from lmu_deploy.fidelity.store import PARTS, hash_of
from lmu_deploy.report import write
from targets.integer.run import IntegerTarget

pytest.importorskip("sklearn", reason="scikit-learn bundles the digits")
pytest.importorskip("onnxruntime", reason="the second target")

NETWORK = "examples/models/digits.safetensors"
SETTINGS = {"limit": 30, "attribution": 0, "attribution_budget": 0.0}
STOPS_AT_THE_SECOND = """
import sys, time
import lmu_deploy as ld
from lmu_deploy.report import write
from targets.onnxruntime import OnnxRuntimeTarget
write.make_html = lambda *_, **__: "drawn"
OnnxRuntimeTarget.run = lambda *_, **__: time.sleep(600)
ld.validate(sys.argv[1], targets="integer,onnxruntime", out=sys.argv[2], limit=30,
            attribution=0, attribution_budget=0.0)
"""

KILLED_AT_RANDOM = """
import json, os, shutil, signal, sys, time
from pathlib import Path
import numpy as np
import lmu_deploy as ld
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, Memory, Readout
TARGETS = "integer,onnxruntime," + ("c" if shutil.which("cc") else "onnxruntime/integer")
import onnx, onnxruntime, torch, targets.integer, targets.onnxruntime  # before each fork
from lmu_deploy.report import write

write.make_html = lambda *_, **__: "drawn"  # drawing takes most of the time

rng, folder = np.random.default_rng(4), Path(sys.argv[1])
hidden = Hidden(rng.normal(size=(3, 4)), rng.normal(size=(2, 4)), None, None, "tanh")
layer = LMULayer(rng.normal(size=(2, 1)), None, None, None, Memory.legendre(3, 6.0, 1), hidden)
network = Network.from_layers(LMUNetwork((layer,), Readout(rng.normal(size=(4, 2)), None)))
x = rng.normal(size=(120, 6, 2))
data = ld.Dataset(x[:60], np.arange(60) % 2, x[60:90], np.arange(30) % 2)

def validate(out):
    ld.validate(network, data, targets=TARGETS, out=out, attribution=4, attribution_budget=0.0)

def started(out):
    child = os.fork()
    if not child:
        validate(out)
        os._exit(0)
    return child

start = time.monotonic()
assert os.waitpid(started(folder / "whole"), 0)[1] == 0
whole, kept, unfinished = time.monotonic() - start, 0, 0
for moment in np.random.default_rng(11).uniform(0.0, whole, 10):
    child = started(folder / "killed")
    time.sleep(moment)
    os.kill(child, signal.SIGKILL)
    unfinished += os.waitpid(child, 0)[1] != 0
    kept += len(list((folder / "killed").glob("parts/*.safetensors")))
assert os.waitpid(started(folder / "killed"), 0)[1] == 0
print(json.dumps({"kept": kept, "unfinished": unfinished}))
"""
TIMES = ("date", "wall_seconds", "seconds")


@pytest.fixture(scope="module", autouse=True)
def undrawn():
    """Write pages without drawings, which take most of the time and are not compared here."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(write, "make_html", lambda *_, **__: "drawn")
        yield


def without_times(value):
    """What fidelity.json holds, without times of day and of work."""
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def test_a_validation_killed_at_ten_random_moments_ends_with_the_same_report(
    tmp_path, tmp_path_factory
):
    scratch = tmp_path_factory.mktemp("scratch")  # for what killed processes leave
    done = subprocess.run(
        [sys.executable, "-c", KILLED_AT_RANDOM, tmp_path],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout.splitlines()[-1])
    assert counts["unfinished"] >= 5
    assert counts["kept"] >= counts["unfinished"]
    whole, killed = ({path.name for path in (tmp_path / n).iterdir()} for n in ("whole", "killed"))
    assert killed == whole
    assert "fidelity.json" in whole
    assert not any(name.startswith(".") or name == PARTS for name in whole)
    one, other = (
        without_times(json.loads((tmp_path / n / "fidelity.json").read_bytes()))
        for n in ("whole", "killed")
    )
    one.pop("command", None), other.pop("command", None)
    assert one == other


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


def test_validation_resumes_after_sigkill(tmp_path, whole, caplog):
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


def test_parts_of_this_run_are_not_reported_as_kept_from_an_earlier_one(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "lmu_deploy"):
        parts = store.Parts(tmp_path)
        made = Errors(0.5, 0.25, 0.125)
        assert parts.errors(lambda: made, "same") == parts.errors(lambda: made, "same") == made
        assert "kept from an earlier start" not in caplog.text
        assert store.Parts(tmp_path).errors(lambda: None, "same") == made
    assert "kept from an earlier start: errors-" in caplog.text


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


def test_hash_depends_on_arrays_and_settings():
    import numpy as np

    one = np.arange(6)
    assert hash_of("run", one) == hash_of("run", one.copy())
    others = [("run", one.reshape(2, 3)), ("run", one.astype(float)), ("net", one), ("run", one, 1)]
    assert len({hash_of(*each) for each in others} | {hash_of("run", one)}) == 5
