"""The example plugin, installed as a user would: it is found, it runs, it passes the suite."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "examples" / "plugin"
DIGITS = ROOT / "examples" / "models" / "digits.safetensors"
pytestmark = pytest.mark.xdist_group("packaging")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return a folder into which pip has installed the plugin, offline and without dependencies."""
    pytest.importorskip("setuptools", reason="the extra [dev] is not installed")
    source = tmp_path_factory.mktemp("source") / "plugin"
    shutil.copytree(PLUGIN, source, ignore=shutil.ignore_patterns("__pycache__"))
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation"]
    offline = ["--no-index", "--disable-pip-version-check", "--quiet", "--target", str(folder)]
    subprocess.run([*pip, *offline, str(source)], check=True, timeout=240)
    return folder


@pytest.fixture
def run(installed, tmp_path):
    """Return a function that runs Python with the plugin installed, in an empty folder."""

    def call(*arguments: object) -> str:
        path = os.pathsep.join([str(installed), str(ROOT), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return call


SCRIPT = """
import sys
import lmu_deploy

digits = sys.argv[1]
print(*(f"{info.name}:{info.runs}" for info in lmu_deploy.targets()))
print(lmu_deploy.run(digits, target="halfchip", limit=60).summary()["reference"]["agreement"])
network = lmu_deploy.import_network("chip.json", task="digits", out="n.safetensors")
print(lmu_deploy.run("n.safetensors", target="halfchip", limit=5).summary()["n_samples"])
"""


def test_its_target_and_importer_are_found(run, tmp_path):
    file = {
        "halfchip": 1, "order": 2, "theta": 8.0, "activation": "relu",
        "input_encoders": [[0.1]] * 8, "memory_kernel": [[1.0], [1.0]], "readout": [[1.0] * 10],
    }  # fmt: skip
    (tmp_path / "chip.json").write_text(json.dumps(file))
    found, agreement, samples = run("-c", SCRIPT, DIGITS).splitlines()
    assert "halfchip:LMUNetwork" in found.split()
    assert "reference:Network" in found.split()
    assert (agreement, samples) == ("1.0", "5")


def test_it_passes_the_conformance_suite_in_its_own_repository(run, tmp_path):
    shutil.copytree(PLUGIN / "tests", tmp_path / "own")
    told = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", tmp_path / "own")
    assert " passed" in told
    assert "skipped" not in told
    assert "failed" not in told
