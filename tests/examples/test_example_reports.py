"""The example reports: their commands exist, and they show the figures in their folder."""

from __future__ import annotations

import runpy
import shlex
from pathlib import Path

import pytest
import typer

from lmu_deploy.cli import app
from lmu_deploy.fidelity.store import read_fidelity

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = runpy.run_path(str(ROOT / "examples" / "reports" / "make_reports.py"))
MADE = sorted(path.parent for path in (ROOT / "docs" / "reports").glob("*/fidelity.json"))
COMMANDS = [words for name in SCRIPT["REPORTS"] for words in SCRIPT["commands"](name)]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[1:3]))
def test_commands_and_their_options_exist(words):
    command = typer.main.get_command(app).commands[words[1]]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known
    for word in words:
        if word.startswith("examples/"):
            assert (ROOT / word).exists(), word


@pytest.mark.parametrize("folder", MADE, ids=lambda folder: folder.name)
def test_reports_are_those_of_the_script(folder):
    fidelity = read_fidelity(folder)
    assert fidelity.command in [shlex.join(w) for w in SCRIPT["commands"](folder.name)]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert (folder / "report.html").stat().st_size < 1_000_000  # each is kept in the repository
    assert fidelity.hashes["inputs"] in page
    assert "/tmp" not in page
    assert not (folder / "report.md").exists()


def test_every_report_is_on_the_page():
    page = (ROOT / "docs" / "results" / "example-reports.md").read_text(encoding="utf-8")
    for name in set(SCRIPT["REPORT_OF"].values()):
        assert f"<!-- report: {name} -->" in page
