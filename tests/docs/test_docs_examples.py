"""Every example runs and prints plausible figures."""

from __future__ import annotations

import importlib.util
import os
import re
import runpy
from pathlib import Path

import numpy as np
import pytest

import lmu_deploy as ld

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


def spoken_digits():
    """Return the names of the example that listens."""
    return runpy.run_path(str(EXAMPLES / "spoken_digits_stream.py"))


def test_words_are_judged_one_by_one():
    example = spoken_digits()
    heard = [
        example["Detection"](3, 1000, 6000),
        example["Detection"](4, 5000, 6500),  # the same word once more
        example["Detection"](5, 20_000, 26_400),
        example["Detection"](6, 70_000, 72_000),  # where nothing was said
    ]
    words = [(3, 1000, 4000), (7, 20_000, 24_000), (1, 40_000, 44_000)]
    found = example["judge"](example["Recording"](np.zeros(0), words), heard)
    assert found["words"] == 3
    assert (found["found"], found["right"], found["additional"]) == (2, 1, 2)
    assert found["latency_median"] == (2000 + 2400) / 2 / 8000


def test_a_continuous_recording_is_classified(monkeypatch):
    beside = EXAMPLES.parents[1] / "shared" / "data"
    folder = Path(os.environ.get("LMU_DEPLOY_DATA") or beside)
    if not (folder / "fsdd").is_dir():
        pytest.skip("the spoken digits are absent; set LMU_DEPLOY_DATA to their folder")
    monkeypatch.setenv("LMU_DEPLOY_DATA", str(folder))
    example = spoken_digits()
    network = ld.quantize(example["MODEL"])
    recording = example["continuous"](8, noise=3.0, seed=1)
    heard, listener = example["listen"](network, recording)
    found = example["judge"](recording, heard)
    assert (found["found"], found["additional"]) == (8, 0)
    assert found["right"] >= 7
    assert found["latency_95"] < 0.3
    noise = example["Recording"](recording.samples[:6000], [])  # the pause before the first word
    assert example["listen"](network, noise)[0] == []
    assert listener.frames == len(recording.samples) // 128


@pytest.mark.skipif(importlib.util.find_spec("aeon") is None, reason="aeon is not installed")
def test_japanese_vowels(run):
    lines = run("japanese_vowels")
    in_float, integers = numbers(lines[1])
    assert in_float > 0.95
    assert abs(in_float - integers) < 0.02
    assert lines[-1] == "C computes the same integers"
