"""Every block of the tutorial about one's own data runs, in order, and gives what the text says."""

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

PAGE = Path(__file__).resolve().parents[2] / "docs/tutorials/own-data.md"
BLOCKS = re.findall(r"^```(python|sh)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)

pytest.importorskip("lightning", reason="the tutorial trains a network")
pytestmark = [pytest.mark.timeout(600)]


def command(line):
    """Run one command line in this process and return what it prints."""
    program, *arguments = shlex.split(line)
    assert program == "lmu-deploy"
    before, sys.argv = sys.argv, [program, *arguments]
    shown = io.StringIO()
    try:
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
            main()
    except SystemExit as stop:
        assert stop.code in (0, None), shown.getvalue()
    finally:
        sys.argv = before
    return shown.getvalue()


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What every block prints, the folder, and the names that the Python blocks define."""
    folder, before, names, found = tmp_path_factory.mktemp("own"), Path.cwd(), {}, []
    os.chdir(folder)
    try:
        for kind, block in BLOCKS:
            if kind == "sh":
                found.append("".join(command(line) for line in block.splitlines()))
                continue
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(block, str(PAGE), "exec"), names)
            found.append(out.getvalue())
        yield found, folder, names
    finally:
        os.chdir(before)


def test_the_blocks_run_and_say_what_the_text_says(printed):
    found, folder, names = printed
    everything = "".join(found)
    assert len(found) == len(BLOCKS) >= 9
    assert "Dataset('machine', classification" in everything
    assert re.search(r"do better than always answering '\w+': 0.3333", everything)
    assert re.search(r"channel 0 is [\d,]+ times larger than channel 1", everything)
    assert re.search(r"the mean of channel 0 is [\d,]+ of its standard deviations", everything)
    assert names["network"].nodes[0].name == "input_scaling"
    assert names["integers"].input.gain.shape == (2,)
    assert (folder / "report/report.html").is_file()
    assert any((folder / "machine-c").glob("*.h"))
    assert not (folder / "report/parts").exists()


def test_the_network_learns_and_the_integers_agree(printed):
    _, folder, _ = printed
    found = json.loads((folder / "report/fidelity.json").read_text(encoding="utf-8"))
    assert found["reference"]["metric"]["value"] > 0.9
    target = found["targets"]["integer"]
    assert abs(target["metric"]["value"] - found["reference"]["metric"]["value"]) < 0.03
    header = next((folder / "machine-c").glob("machine*.h")).read_text(encoding="utf-8")
    assert "_INPUT_GAIN {" in header
