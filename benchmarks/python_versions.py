"""Test every extra with every Python: each in a separate, empty environment, by a task.

    python benchmarks/python_versions.py --python python3.10 --python python3.12 --out table.json

For each Python and extra: a new virtual environment, the last commit's wheel with that extra and
`constraints.txt`, then a short task that needs what the extra brings. `--installer uv` installs
faster than pip where uv is there. What has been tried already is taken from `--out`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import results

ROOT = Path(__file__).resolve().parents[1]
KERAS = "keras3-stack.h5"
SECONDS = 1800
WORKS = "works"

PREPARE = """
import numpy as np
rng = np.random.default_rng(0)
x = rng.normal(size=(40, 8, 8))
y = np.arange(40) % 10
np.savez("own.npz", x_train=x, y_train=y, x_test=x, y_test=y)
import lmu_deploy
def run(target, network="digits.safetensors", limit=4):
    found = lmu_deploy.run(network, "own.npz", target=target, limit=limit)
    return found.summary()["reference"]
"""
"""Data that needs no library beyond the core's, and a way to run a network on it."""

GUARD = 'if __name__ == "__main__":\n'
"""Workers of a sweep import the script, and are not to run it."""

TASKS = {
    "(none)": """
assert run("reference")["agreement"] == 1.0
lmu_deploy.quantize("digits.safetensors", data="own.npz", out="int.safetensors")
assert run("integer", "int.safetensors")["deviation"] < 0.05
""",
    "train": """
result = lmu_deploy.train("digits", epochs=1, out="trained.safetensors")
assert lmu_deploy.run(result.network, target="reference", limit=9).summary()["n_samples"] == 9
""",
    "fast": """
from targets.integer import IntegerTarget
network = lmu_deploy.quantize("digits.safetensors", data="own.npz")
quick, plain = (IntegerTarget(engine).run(network, x, record=True) for engine in ("numba", "numpy"))
assert quick.settings["engine"] == "numba"
for name in "mhy":
    assert np.array_equal(getattr(quick.states, name), getattr(plain.states, name)), name
""",
    "onnx": """
lmu_deploy.quantize("digits.safetensors", data="own.npz", out="int.safetensors")
assert run("onnxruntime")["deviation"] < 1e-4
assert run("onnxruntime", "int.safetensors") == run("integer", "int.safetensors")
lmu_deploy.export("digits.safetensors", to="onnx", out="n.onnx")
lmu_deploy.import_network("n.onnx", out="again.safetensors")
assert run("reference", "again.safetensors")["agreement"] == 1.0
""",
    "nir": """
lmu_deploy.export("digits.safetensors", to="nir", out="n.nir")
assert lmu_deploy.import_network("n.nir").layers[0].memory.order == 4
""",
    "import": """
assert lmu_deploy.import_network("keras.h5").n_in > 0
""",
    "brian2": """
lmu_deploy.spike("digits.safetensors", data="own.npz", neurons_per_state=20, out="lif.safetensors")
assert run("brian2", "lif.safetensors", 1)["deviation"] < 2.0
""",
    "lava": """
lmu_deploy.quantize("digits.safetensors", data="own.npz", out="int.safetensors")
assert run("lava", "int.safetensors", 1) == run("integer", "int.safetensors", 1)
""",
    "report": """
lmu_deploy.validate("digits.safetensors", targets="integer", data="own.npz", limit=4, out="r")
""",
    "sweep": """
spec = {"network": "digits.safetensors", "task": "own.npz", "search": {"trials": 3, "fields":
        {"quantize.message_bits": {"low": 4, "high": 12}}}}
result = lmu_deploy.sweep(spec, out="s", workers=1)
assert result.done == len(result.rows) > 0, result.rows
""",
}
"""By extra, what a task of it does."""


@dataclass(frozen=True)
class Tried:
    """Result of one extra with one Python."""

    python: str
    extra: str
    result: str
    versions: str


def main() -> None:
    """Try everything that has not been tried, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", action="append", required=True, help="an interpreter")
    parser.add_argument("--extra", action="append", choices=list(TASKS), help="only this one")
    parser.add_argument("--installer", choices=("pip", "uv"), default="pip")
    parser.add_argument("--out", type=Path, required=True, help="results, as JSON")
    results.add_options(parser)
    options = parser.parse_args()
    known = json.loads(options.out.read_text()) if options.out.exists() else []
    tried = [Tried(**row) for row in known]
    with tempfile.TemporaryDirectory() as scratch:
        wheel = build_wheel(Path(scratch))
        for python in options.python:
            version = output([python, "-c", "import platform; print(platform.python_version())"])
            for extra in options.extra or TASKS:
                if (version, extra) in {(t.python, t.extra) for t in tried}:
                    continue
                found = attempt(python, version, extra, wheel, options.installer)
                tried.append(found)
                print(found.python, found.extra, found.result, file=sys.stderr, flush=True)
                options.out.write_text(json.dumps([asdict(t) for t in tried], indent=1) + "\n")
    results.publish(*table(tried), options)


def attempt(python: str, version: str, extra: str, wheel: Path, installer: str) -> Tried:
    """Install one extra into an empty environment and do its task."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        inside = folder / "env" / "bin" / "python"
        try:
            bare = ["--without-pip"] if installer == "uv" else []
            output([python, "-m", "venv", *bare, folder / "env"])
            for arguments in installations(extra, wheel, version):
                install(inside, arguments, installer)
            prepare_files(folder)
            script = folder / "task.py"
            script.write_text(GUARD + textwrap.indent(PREPARE + TASKS[extra], "    "))
            output([inside, script], folder)
            result = WORKS
        except subprocess.TimeoutExpired:
            result = f"no end within {SECONDS} s"
        except subprocess.CalledProcessError as error:
            lines = [line for line in (error.stderr or "").splitlines() if line.strip()]
            result = lines[-1] if lines else f"exit code {error.returncode}"
        versions = ""
        if inside.exists():
            listing = "from importlib.metadata import distributions as d\n"
            listing += "print(', '.join(sorted(f'{x.name} {x.version}' for x in d())))"
            versions = output([inside, "-c", listing])
        return Tried(version, extra, result, versions)


def installations(extra: str, wheel: Path, version: str) -> list[list[str]]:
    """Return what is installed: the wheel with the extra, and Lava apart where it must be."""
    bare = extra == "(none)"
    steps = [[str(wheel) if bare else f"lmu-deploy[{extra}] @ {wheel.as_uri()}"]]
    if extra == "lava" and not version.startswith("3.10."):
        steps.append(["--no-deps", "lava-nc==0.10.0"])
    return steps


def install(python: Path, arguments: Sequence[str], installer: str) -> None:
    """Install with pip or uv; what does not say that it fits this Python goes by pip alone."""
    pinned = [] if "--no-deps" in arguments else ["-c", str(ROOT / "constraints.txt")]
    apart = "--no-deps" in arguments
    if installer == "pip" or apart:
        if installer == "uv":
            output(["uv", "pip", "install", "-q", "--python", python, "pip"])
        ignoring = ["--ignore-requires-python"] if apart else []
        output([python, "-m", "pip", "install", "-q", *ignoring, *arguments, *pinned])
    else:
        output(["uv", "pip", "install", "-q", "--python", python, *arguments, *pinned])


def prepare_files(folder: Path) -> None:
    """Put the files that the tasks use beside them."""
    shutil.copy(ROOT / "examples" / "models" / "digits.safetensors", folder)
    fixture = ROOT / "tests" / "fixtures" / "keras_lmu" / KERAS
    shutil.copy(fixture, folder / "keras.h5")


def build_wheel(folder: Path) -> Path:
    """Build the wheel of the last commit, whatever else lies in this checkout."""
    archive, source = folder / "source.tar", folder / "source"
    output(["git", "archive", "--output", archive, "HEAD"], ROOT)
    with tarfile.open(archive) as files:
        files.extractall(source, filter="data")
    output([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source])
    (wheel,) = folder.glob("*.whl")
    return wheel


def output(command: Sequence[object], folder: Path | None = None) -> str:
    """Run a command without this environment's packages; give what it prints."""
    own = ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME")
    environment = {name: value for name, value in os.environ.items() if name not in own}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**environment, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    return done.stdout.strip()


def table(tried: Sequence[Tried]) -> tuple[results.Columns, list[list[results.Cell]]]:
    """Return columns and rows: a row for each extra and a column for each Python."""
    pythons = sorted({t.python for t in tried}, key=lambda v: [int(p) for p in v.split(".")])
    found = {(t.python, t.extra): t.result for t in tried}
    rows: list[list[results.Cell]] = [
        [f"`{extra}`", *(found.get((python, extra), "not tried") for python in pythons)]
        for extra in TASKS
    ]
    return [("extra", "{}"), *((python, "{}") for python in pythons)], rows


if __name__ == "__main__":
    main()
