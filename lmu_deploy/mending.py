"""The commands that mend a library which does not work: what pip installs, and how it is typed."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from lmu_deploy.errors import RunError

LAVA = "lava-nc"
Command = tuple[str, ...]


def commands_for(name: str) -> tuple[Command, ...]:
    """Give the commands that install a library, by the name that pip has for it."""
    return _lava_commands() if name == LAVA else (_pip(requirement(name)),)


def requirement(name: str) -> str:
    """Give what this package asks of a library, such as ``onnx>=1.16``; the bare name if nothing.

    Environment markers are left out: the answer is for the interpreter that runs now.
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
    """Give commands as a person types them, one after the other."""
    return " && ".join(
        shlex.join(["python" if part == sys.executable else part for part in command])
        for command in commands
    )


def run_commands(commands: Iterable[Command]) -> None:
    """Run commands in turn, each once.

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
    """Install lava-nc without its claim to Python <3.11, and what it needs, apart."""
    if sys.version_info < (3, 11):
        return (_pip(f"{LAVA}==0.10.0"),)
    needs = map(requirement, ("asteval", "networkx", "scikit-learn", "scipy"))
    return (
        _pip("--no-deps", "--ignore-requires-python", f"{LAVA}==0.10.0"),
        _pip(*needs),
    )


def _pip(*arguments: str) -> Command:
    """Give a pip command, held to the exact versions of a checkout if this is one."""
    constraints = Path(__file__).resolve().parents[1] / "constraints.txt"
    held = ("-c", str(constraints)) if constraints.is_file() else ()
    return (sys.executable, "-m", "pip", "install", *arguments, *held)
