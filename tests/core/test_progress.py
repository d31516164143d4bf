"""Progress: estimates of the remaining time, bars and log lines."""

from __future__ import annotations

import logging
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from lmu_deploy.api.quantize import quantize
from lmu_deploy.api.run import announce, neurons_of, run
from lmu_deploy.api.spike import spike
from lmu_deploy.core import progress
from lmu_deploy.core.files import save
from lmu_deploy.core.loading import load_float
from lmu_deploy.core.progress import progress_bar, time_left
from targets.base import get_target

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "models" / "digits.safetensors"


@pytest.fixture(scope="module")
def digits():
    return load_float(DIGITS, "test")


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves by hand."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def messages(caplog):
    """Return what has been logged since the last call."""
    caplog.set_level(logging.INFO, "lmu_deploy")

    def logged():
        texts = list(caplog.messages)
        caplog.clear()
        return texts

    return logged


@pytest.mark.parametrize(
    ("spent", "done", "total", "said"),
    [
        (5.0, 0, 10, ""),
        (5.0, 10, 10, ""),
        (5.0, 1, 2, "about 5 s left"),
        (0.01, 1, 2, "about 1 s left"),
        (99.0, 1, 2, "about 99 s left"),
        (60.0, 1, 61, "about 60 min left"),
        (60.0, 2, 302, "about 2.5 h left"),
    ],
)
def test_what_is_left_follows_from_the_pace(spent, done, total, said):
    assert time_left(spent, done, total) == said


def test_first_part_brings_an_estimate_at_once(messages, clock):
    with progress_bar("brian2") as show:
        show(0, 100)
        clock[0] += 4.0
        show(0, 100)  # nothing is known yet
        clock[0] += 0.5
        show(1, 100)
        clock[0] += 0.5
        show(2, 100)  # too soon to say it again
        clock[0] += 5.0
        show(50, 100)
    assert messages() == [
        "brian2: 1 of 100 samples, about 7 min left",
        "brian2: 50 of 100 samples, about 10 s left",
        "brian2: 50 samples in 10.0 s",
    ]


def test_the_last_part_is_logged_once(messages, clock):
    with progress_bar("attribution", "runs") as show:
        for _ in range(4):
            clock[0] += 6.0
            show(30, 30)
        assert messages() == ["attribution: 30 of 30 runs"]


def test_short_work_logs_one_line(messages, clock):
    with progress_bar("integer", "runs") as show:
        for done in range(1, 4):
            clock[0] += 0.2
            show(done, 3)
    assert messages() == ["integer: 3 runs in 0.6 s"]


def test_terminal_shows_the_same_estimate(monkeypatch, capsys, clock):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    with progress_bar("lava") as show:
        clock[0] += 60.0
        show(1, 4)
    shown = re.sub(r"\x1b\[[0-9;?]*\w", "", capsys.readouterr().err)
    assert "lava" in shown and "1/4" in shown and "about 3 min left" in shown
    assert shown.endswith("\n")


def test_notebook_shows_one_text_that_changes(monkeypatch, clock, messages):
    published = []
    publisher = types.SimpleNamespace(publish=lambda *args, **kw: published.append((args, kw)))
    shell = types.SimpleNamespace(kernel=None, display_pub=publisher)
    ipython = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    with progress_bar("lava") as show:
        for done in (1, 2, 3, 4):
            clock[0] += 60.0
            show(done, 4)
    assert [kw["update"] for _, kw in published] == [False, True, True, True, True]
    assert len({kw["transient"]["display_id"] for _, kw in published}) == 1
    assert "4/4" in published[-1][0][0]["text/plain"]
    assert messages() == []


def test_script_without_logging_sees_nothing(capsys):
    with progress_bar("integer") as show:
        show(1, 1)
    assert capsys.readouterr() == ("", "")


def test_simulation_shows_its_size_before_it_starts(digits, tmp_path, messages):
    made = spike(digits, neurons_per_state=3, calibration="static")
    messages()
    path = tmp_path / "spiking.safetensors"
    save(made, path)
    summary = run(path, target="brian2", limit=1).summary()
    said = messages()
    assert re.fullmatch(
        r"brian2: 48 neurons, [\d,]+ synapses; 1 sample of 8 steps of 50 chip steps; "
        r"about \d+ s on one core",
        said[0],
    )
    assert neurons_of(made) == 48 == 16 * 3
    assert summary["chip_steps"] == 8 * 50


def test_only_slow_targets_are_announced(digits, messages):
    integer = quantize(digits)
    inputs = np.zeros((3, 8, 8))
    messages()
    announce("reference", get_target("reference"), digits, inputs)
    announce("integer", get_target("integer"), integer, inputs)
    assert messages() == []
    announce("lava", get_target("lava"), integer, inputs)
    (said,) = messages()
    assert said.startswith("lava: 76 neurons, ")
    assert said.endswith(" synapses; 3 samples of 8 steps; about 2 s on one core")
    assert neurons_of(integer) == 16 + 60
