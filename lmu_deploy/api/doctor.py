"""`doctor`: which libraries work here, and how to repair those that do not.

Every library is imported in an interpreter of its own, because some imports change the interpreter
(Lava sets how processes start), some crash, and all of them together are slow.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from lmu_deploy.core.errors import InputError, RunError
from lmu_deploy.core.progress import progress_bar

LAVA = "lava-nc"
Command = tuple[str, ...]


def commands_for(name: str) -> tuple[Command, ...]:
    """Return the commands that install a library, by the name that pip has for it."""
    return _lava_commands() if name == LAVA else (_pip(requirement(name)),)


def requirement(name: str) -> str:
    """Return the version that this package requires, such as ``onnx>=1.16``, or the bare name.

    Environment markers are left out, because the result is for the running interpreter.
    """
    try:
        lines = metadata.requires("lmu-deploy") or []
    except metadata.PackageNotFoundError:
        lines = []
    for line in lines:
        found = re.match(r"([A-Za-z0-9._-]+)\s*([^;\[]*)", line)
        if found and found[1].lower() == name.lower():
            return f"{name}{found[2].replace(' ', '')}"
    return name


def as_typed(commands: Iterable[Command]) -> str:
    """Return commands as they are typed in a shell, one after the other."""
    return " && ".join(
        shlex.join(["python" if part == sys.executable else part for part in command])
        for command in commands
    )


def run_commands(commands: Iterable[Command]) -> None:
    """Run commands one after the other, each once.

    Raises
    ------
    RunError
        When one failed.
    """
    for command in dict.fromkeys(commands):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise RunError(
                f"`{as_typed([command])}` failed with exit code {done.returncode}; "
                "its own messages above say why."
            )


def _lava_commands() -> tuple[Command, ...]:
    """Return commands that install lava-nc without its limit to Python <3.11."""
    if sys.version_info < (3, 11):
        return (_pip(f"{LAVA}==0.10.0"),)
    needs = map(requirement, ("asteval", "networkx", "scikit-learn", "scipy"))
    return (
        _pip("--no-deps", "--ignore-requires-python", f"{LAVA}==0.10.0"),
        _pip(*needs),
    )


def _pip(*arguments: str) -> Command:
    """Return a pip command, with the exact versions of a checkout if this is one."""
    constraints = Path(__file__).resolve().parents[2] / "constraints.txt"
    pinned = ("-c", str(constraints)) if constraints.is_file() else ()
    return (sys.executable, "-m", "pip", "install", *arguments, *pinned)


_SECONDS_FOR_AN_IMPORT = 180
_OLDEST_PYTHON = (3, 10)
_BRIAN2_COMPILES = (
    "import logging, shutil, sys, brian2; logging.disable(logging.CRITICAL)\n"
    "from brian2.codegen.cpp_prefs import get_compiler_and_args\n"
    "from brian2.codegen.runtime.cython_rt import CythonCodeObject\n"
    "import sysconfig, os\n"
    "name = (os.environ.get('CXX') or sysconfig.get_config_var('CXX') or 'c++').split()[0]\n"
    "if get_compiler_and_args()[0] == 'unix' and not shutil.which(name):\n"
    "    sys.exit(f'no C++ compiler: {name} is not there')\n"
    "if not CythonCodeObject.is_available():\n"
    "    sys.exit('a test compilation failed')\n"
)


@dataclass(frozen=True)
class Library:
    """A library that something here needs.

    Attributes
    ----------
    name : str
        As pip calls it; "python" and "c++ compiler" are not pip's.
    check : str
        Python source that fails when the library does not work.
    needed_for : str
    """

    name: str
    check: str
    needed_for: str


LIBRARIES = (
    Library("python", "", "everything"),
    Library("numpy", "import numpy", "everything"),
    Library("scipy", "import scipy.linalg", "everything"),
    Library("safetensors", "import safetensors.numpy", "network files"),
    Library("torch", "import torch", "training"),
    Library("lightning", "import lightning", "training"),
    Library("numba", "import numba", "target integer at full speed"),
    Library("scikit-learn", "import sklearn.datasets", "task digits"),
    Library("onnx", "import onnx", "ONNX export"),
    Library("onnxruntime", "import onnxruntime", "target onnxruntime"),
    Library("onnxscript", "import onnxscript", "ONNX export"),
    Library("nir", "import nir", "NIR files"),
    Library("h5py", "import h5py", "files of Keras, the paper's package and NIR"),
    Library(LAVA, "import targets.lava.assembly", "target lava"),
    Library("brian2", "import brian2", "target brian2"),
    Library("c++ compiler", _BRIAN2_COMPILES, "target brian2 at full speed"),
    Library("jinja2", "import jinja2", "reports"),
    Library("matplotlib", "import matplotlib.figure", "plots in reports"),
    Library("distributed", "import distributed", "sweeps"),
    Library("optuna", "import optuna", "searches in sweeps"),
    Library("pyarrow", "import pyarrow.parquet", "tables of sweeps"),
)


@dataclass(frozen=True)
class Finding:
    """The state of one library.

    Attributes
    ----------
    name : str
    version : str or None
        None when it is absent (or has no version).
    works : bool
    problem : str
        Empty when it works.
    needed_for : str
    commands : tuple of tuple of str
        Commands that :func:`repair` runs; empty when it works, or pip cannot repair it.
    advice : str
        What to type or do; empty when it works.
    """

    name: str
    version: str | None
    works: bool
    problem: str
    needed_for: str
    commands: tuple[Command, ...] = ()
    advice: str = ""


def examine(
    names: Iterable[str] | None = None, progress: Callable[[int, int], None] | None = None
) -> list[Finding]:
    """Check all libraries, or those named, in the order of `LIBRARIES`.

    Parameters
    ----------
    names : iterable of str, optional
    progress : callable, optional
        Called with (libraries done, libraries in all); all of them take some twenty seconds.

    Raises
    ------
    InputError
        On a name that is not in `LIBRARIES`.
    """
    known = {library.name: library for library in LIBRARIES}
    wanted = list(known if names is None else names)
    if unknown := sorted(set(wanted) - set(known)):
        raise InputError(f"doctor cannot check {unknown[0]!r}; choose from {', '.join(known)}.")
    chosen = [library for name, library in known.items() if name in wanted]
    findings = []
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        for finding in pool.map(_examine, chosen):
            findings.append(finding)
            if progress:
                progress(len(findings), len(chosen))
    return findings


def repair(findings: Sequence[Finding]) -> None:
    """Run the commands that repair what does not work, each once.

    Call :func:`examine` again afterwards.

    Raises
    ------
    RunError
        When a command failed.
    """
    run_commands(command for finding in findings for command in finding.commands)


def to_table(findings: Sequence[Finding]) -> list[tuple[str, str, str, str, str]]:
    """Return the findings as rows of text, headings first."""
    rows = [("library", "version", "works", "needed for", "how to fix it")]
    for f in findings:
        works = "yes" if f.works else f"no: {f.problem}"
        rows.append((f.name, f.version or "-", works, f.needed_for, f.advice))
    return rows


def _examine(library: Library) -> Finding:
    if library.name == "python":
        return _examine_python(library)
    version = _version(library.name)
    is_package = library.name != "c++ compiler"
    problem = "absent" if is_package and version is None else _failure(library.check)
    if not problem:
        return Finding(library.name, version, True, "", library.needed_for)
    if not is_package:
        advice = "install a C++ compiler, such as with: apt-get install g++"
        return Finding(library.name, version, False, problem, library.needed_for, (), advice)
    commands = commands_for(library.name)
    return Finding(
        library.name, version, False, problem, library.needed_for, commands, as_typed(commands)
    )


def _examine_python(library: Library) -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    works = sys.version_info >= _OLDEST_PYTHON
    oldest = ".".join(map(str, _OLDEST_PYTHON))
    problem, advice = ("", "") if works else ("too old", f"use Python {oldest} or later")
    return Finding(library.name, version, works, problem, library.needed_for, (), advice)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _failure(source: str) -> str:
    """Run Python source in a fresh interpreter; return its last line if it failed, else nothing."""
    packages = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (packages, os.environ.get("PYTHONPATH"))))
    try:
        done = subprocess.run(
            [sys.executable, "-c", source],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS_FOR_AN_IMPORT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {_SECONDS_FOR_AN_IMPORT} s"
    if done.returncode == 0:
        return ""
    lines = (done.stderr or done.stdout).strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"


def doctor(*, fix: bool = False) -> list[Finding]:
    """Check every library, print a table, and repair what does not work if asked to.

    Parameters
    ----------
    fix : bool
        Run the commands that repair what does not work, then check again.

    Returns
    -------
    list of Finding
        The state after all repairs.

    Raises
    ------
    RunError
        When a repair failed.
    """
    findings = _examine_targets()
    if fix and not all(finding.works for finding in findings):
        repair(findings)
        findings = _examine_targets()
    return findings


def _examine_targets() -> list[Finding]:
    with progress_bar("doctor", "libraries") as progress:
        findings = examine(progress=progress)
    _show(findings)
    return findings


def _show(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table

    header, *rows = to_table(findings)
    table = Table(*header, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console(file=sys.stdout, soft_wrap=not sys.stdout.isatty()).print(table, markup=False)
