"""The package: a quick import, every file in the wheel, a wheel from the source archive."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.xdist_group("packaging")
PACKAGES = ("lmu_deploy", "converters", "targets")
HEAVY = {
    "numpy", "scipy", "torch", "lightning", "lava", "brian2", "onnx", "onnxruntime", "matplotlib",
    "sklearn", "pydantic", "typer", "h5py", "safetensors",
}  # fmt: skip
SECONDS = 0.3


def python(source: str, folder: Path = ROOT) -> str:
    """Run source in a fresh interpreter that looks for packages in `folder` first."""
    done = subprocess.run(
        [sys.executable, "-c", source],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_is_quick():
    source = (
        "import time; start = time.perf_counter()\n"
        "import lmu_deploy; print(time.perf_counter() - start)"
    )
    # The least of three: what else runs on this machine takes time too.
    assert min(float(python(source)) for _ in range(3)) < SECONDS


@pytest.mark.parametrize("module", ["lmu_deploy", "targets.base", "lmu_deploy.cli"])
def test_import_loads_nothing_heavy(module):
    allowed = {"targets.base": {"numpy"}, "lmu_deploy.cli": {"typer"}}.get(module, set())
    source = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    assert set(python(source).split()) & HEAVY <= allowed


def source_files() -> set[str]:
    """Return every file that a wheel must contain."""
    found = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                found.add(str(path.relative_to(ROOT)))
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build a source archive from a copy of the tree, and a wheel from that archive."""
    pytest.importorskip("build", reason="the extra [dev] is not installed")
    copy, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    for package in PACKAGES:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, copy / package, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(copy)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (archive,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return archive, wheel


def test_the_wheel_contains_every_file_and_no_other(built):
    _, wheel = built
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == source_files()
    assert {f"{package}/py.typed" for package in PACKAGES} <= names


def test_the_source_archive_contains_every_file_of_a_wheel(built):
    archive, _ = built
    with tarfile.open(archive) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    assert source_files() | {"pyproject.toml", "README.md", "LICENSE"} <= names


def test_metadata_of_the_wheel(built):
    _, wheel = built
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
        entries = archive.read(name.replace("METADATA", "entry_points.txt")).decode()
    assert metadata["Name"] == "lmu-deploy"
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "lmu-deploy = lmu_deploy.cli:main" in entries
    assert "integer = targets.integer:IntegerTarget" in entries


def test_the_installed_wheel_runs(built, tmp_path):
    _, wheel = built
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    source = (
        "import lmu_deploy, lmu_deploy.cli, sys\n"
        "from lmu_deploy.hardware.profile import profile_names\n"
        "from lmu_deploy.core.legendre import discretize\n"
        "print(lmu_deploy.__file__, *profile_names(), discretize(2, 4.0)[0].shape)"
    )
    where, *rest = python(source, tmp_path).split()
    assert Path(where).is_relative_to(tmp_path)
    assert "loihi2" in rest
