"""Every command of the tutorial and of the README runs and prints what the tutorial shows.

Both are run once, in one folder and one interpreter.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from lmu_deploy.cli import main

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| (\w+)(, \w+)? \| (\d+) \| ([\d.]+) % \|(.*)$", re.MULTILINE)

# Half a minute of computing; a busy machine may need many times that.
pytestmark = [pytest.mark.xdist_group("tutorial"), pytest.mark.timeout(1500)]


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def run(line: str) -> str:
    """Run one command line in this process and return its standard output."""
    program, *arguments = shlex.split(line)
    assert program == "lmu-deploy", line
    before, sys.argv = sys.argv, [program, *arguments]
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as stop:
        assert stop.code in (0, None), f"{line}\n{err.getvalue()}"
    finally:
        sys.argv = before
    return out.getvalue()


def execute(kind: str, block: str) -> str:
    """Run a block of commands or of Python and return what it prints."""
    if kind == "sh":
        return "".join(run(line) for line in block.splitlines())
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(block, "tutorial.md", "exec"), {})
    return out.getvalue()


NUMBER = r"\d+(\.\d+)?"
# Blocks of kind console install the package, which is already installed here.
BLOCKS = [b for b in BLOCK.findall(text_of("docs/tutorials/first-network.md")) if b[0] != "console"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Change into an empty folder while the tests of this file run."""
    folder = tmp_path_factory.mktemp("tutorial")
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def outputs(folder):
    """Pairs of the output that the tutorial shows and of the output here."""
    pairs = []
    for (kind, block), (shown_kind, shown) in zip(BLOCKS[::2], BLOCKS[1::2], strict=True):
        assert kind in ("sh", "python")
        assert shown_kind == "text"
        pairs.append((shown, execute(kind, block)))
    return pairs


def test_the_commands_print_what_the_tutorial_shows(outputs):
    assert len(outputs) >= 10
    for shown, printed in outputs:
        # Figures may differ on another machine; words, files and shapes may not.
        # (12.5 seconds and 12 are both a number.)
        assert re.sub(NUMBER, "0", printed) == re.sub(NUMBER, "0", shown)


def test_the_figures_of_the_tutorial_are_reproduced(outputs):
    for shown, printed in outputs:
        for name in ("accuracy", "reference", "agreement", "accuracy:"):
            pattern = rf"\b{name} ([\d.]+)"
            pairs = zip(re.findall(pattern, shown), re.findall(pattern, printed), strict=True)
            for theirs, ours in pairs:
                assert float(ours) == pytest.approx(float(theirs), abs=0.025), shown


def test_the_table_of_the_tutorial_is_reproduced(outputs, folder):
    found = json.loads((folder / "report" / "fidelity.json").read_text())
    rows = ROW.findall(text_of("docs/tutorials/first-network.md"))
    assert len(rows) == 6
    for name, variant, samples, accuracy, rest in rows:
        if name == "reference":
            assert found["reference"]["metric"]["value"] == pytest.approx(
                float(accuracy) / 100, abs=0.025
            )
            continue
        target = found["targets"][name]
        target = target["variants"]["uncalibrated"] if variant == ", uncalibrated" else target
        assert target["samples"] == int(samples)
        assert target["metric"]["value"] == pytest.approx(float(accuracy) / 100, abs=0.025)
        _, memory, events, _, _ = (cell.strip() for cell in rest.split("|"))
        if name != "onnxruntime":
            error = target["memory_error"]["overall"]["layer0"]
            assert error == pytest.approx(float(memory), rel=0.5)
            per_sample = target["events"]["per_sample"]
            assert per_sample == pytest.approx(float(events.replace(",", "")), rel=0.2)


def test_every_other_command_of_the_readme_runs(outputs, folder):
    already = [set(shlex.split(c)) for k, b in BLOCKS if k == "sh" for c in b.splitlines()]
    commands = [c.strip() for c in re.findall(r"^    (lmu-deploy .+)$", text_of("README.md"), re.M)]
    assert len(commands) == 5
    for command in commands:
        # A command that ran with one more option, such as --record, need not run again.
        if not any(set(shlex.split(command)) <= words for words in already):
            assert run(command)


def test_the_tutorial_writes_the_files_that_it_names(outputs, folder):
    for name in ("digits.safetensors", "digits-int.safetensors", "digits-lif.safetensors"):
        assert (folder / name).is_file()
    for name in ("digits.onnx", "digits-step.onnx", "report/report.html", "report/fidelity.json"):
        assert (folder / name).is_file()
