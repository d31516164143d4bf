"""Every example runs and prints plausible figures."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Return a function that runs an example as a script and returns its lines."""

    def call(name: str) -> list[str]:
        monkeypatch.chdir(tmp_path)
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        assert list(tmp_path.iterdir()) == []
        return capsys.readouterr().out.splitlines()

    return call


def numbers(line: str) -> list[float]:
    return [float(text) for text in re.findall(r"\d+(?:\.\d+)?(?:e[-+]\d+)?", line)]


def test_decode_window(run):
    errors = {int(order): error for order, error in map(numbers, run("decode_window"))}
    assert errors[4] > errors[8] > errors[16] > 0.1
    assert errors[24] < 0.001


def test_quantize_options(run):
    found = [numbers(line[20:]) for line in run("quantize_options")]
    accuracy, agreement, deviation = zip(*found, strict=True)
    assert min(accuracy[:4]) > 0.97
    assert agreement[0] > 0.99
    assert deviation[0] < deviation[2] < deviation[4]


def test_stream_integer(run):
    lines = run("stream_integer")
    assert len(lines) == 9
    assert numbers(lines[7])[1] == numbers(lines[8])[0]


def test_stream_onnx(run):
    accuracy, error = numbers(run("stream_onnx")[0])[:2]
    assert accuracy > 0.98
    assert error < 1e-4


def test_own_data(run):
    in_float, integers = numbers(run("own_data")[-1])
    assert in_float > 0.9
    assert abs(in_float - integers) < 0.02


def test_calibrate_recorded(run):
    *runs, last = run("calibrate_recorded")
    assert len(runs) == 2 and all(line.startswith("layer0/memory: ") for line in runs)
    before, after = numbers(last)
    assert after < 0.1
    assert after < 0.4 * before
