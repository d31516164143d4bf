"""The example plugin, installed as a user would: it is found, it runs, it passes the suite."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = ROOT / "examples" / "plugin"
pytestmark = pytest.mark.xdist_group("packaging")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder into which pip has put the plugin, without network and without its dependencies."""
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
    """Run Python with the plugin installed, in an empty folder."""

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


LMU = "from lmu_deploy.cli import main; main()"


def test_its_target_and_importer_are_found_by_every_command(run, tmp_path):
    lines = run("-c", LMU, "targets").splitlines()
    assert [line.split() for line in lines if line.startswith("halfchip")] == [
        ["halfchip", "LMUNetwork"]
    ]
    digits = ROOT / "examples" / "models" / "digits.safetensors"
    options = ["--target", "halfchip", "--limit", 60, "--json", "r.json"]
    told = run("-c", LMU, "deploy", digits, *options)
    assert told.startswith("halfchip: accuracy")
    assert json.loads((tmp_path / "r.json").read_text())["reference"]["agreement"] == 1.0
    file = {
        "halfchip": 1, "order": 2, "theta": 8.0, "activation": "relu",
        "input_encoders": [[0.1]] * 8, "memory_kernel": [[1.0], [1.0]], "readout": [[1.0] * 10],
    }  # fmt: skip
    (tmp_path / "chip.json").write_text(json.dumps(file))
    run("-c", LMU, "import", "chip.json", "--task", "digits", "--out", "n.safetensors")
    told = run("-c", LMU, "deploy", "n.safetensors", "--target", "reference", "--limit", 5)
    assert told.startswith("reference: accuracy")


def test_it_passes_the_conformance_suite_in_its_own_repository(run, tmp_path):
    shutil.copytree(PLUGIN / "tests", tmp_path / "own")
    told = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", tmp_path / "own")
    assert " passed" in told
    assert "skipped" not in told
    assert "failed" not in told
