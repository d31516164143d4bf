"""The parts of the Lava target that need no Lava: import patch, arithmetic, timetable, records."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from needs import needs

from lmu_deploy.core.integer.functions import PiecewiseLinear, Segments
from targets import workers
from targets.lava.neurons import Axon, evaluate, multiply_shift, saturate
from targets.lava.schedule import Timeline, Timetable

needs_lava = needs("lava")


def python(source: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)


@needs_lava
def test_lava_is_imported_and_dataclasses_are_as_before():
    done = python(
        "import dataclasses, multiprocessing\n"
        "before = dataclasses.dataclass\n"
        "from targets.lava.compat import import_lava\n"
        "assert import_lava().__name__ == 'lava'\n"
        "assert dataclasses.dataclass is before\n"
        "from lava.magma.core.run_configs import Loihi2SimCfg\n"
        "from lava.proc.dense.process import Dense\n"
        "assert dataclasses.make_dataclass('A', ['x']).__hash__ is None\n"
    )
    assert done.returncode == 0, done.stderr


@needs_lava
@pytest.mark.skipif(sys.version_info < (3, 11), reason="Lava imports by itself on Python 3.10")
def test_without_the_patch_lava_cannot_be_imported():
    done = python("import lava.magma.compiler.var_model")
    assert "mutable default" in done.stderr, "the patch is needed no more: take it out"


def test_the_target_imports_no_lava():
    done = python(
        "import sys, targets.lava; sys.exit(any(m.startswith('lava') for m in sys.modules))"
    )
    assert done.returncode == 0


@given(
    st.lists(st.integers(-(2**31) + 1, 2**31 - 1), min_size=1, max_size=5),
    st.integers(1, 2**15 - 1),
    st.integers(0, 31),
)
def test_multiply_shift_is_exact_and_rounds_half_up(values, gain, shift):
    half = 2 ** (shift - 1) if shift else 0
    expected = [(value * gain + half) // 2**shift for value in values]
    assert multiply_shift(np.array(values, np.int64), gain, shift).tolist() == expected


@given(st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=5), st.integers(2, 32))
def test_saturation_is_symmetric_and_counted(values, bits):
    top = 2 ** (bits - 1) - 1
    limited, changed = saturate(np.array(values, np.int64), bits)
    assert limited.tolist() == [max(-top, min(top, value)) for value in values]
    assert changed == sum(abs(value) > top for value in values)


@given(st.sampled_from(["odd", "positive", "linear"]), st.integers(-(2**31) + 1, 2**31 - 1))
def test_the_activation_is_the_least_line(kind, z):
    lines = [(3000, 0)] if kind == "linear" else [(3000, 0), (900, 40), (0, 90)]
    slope, intercept = (np.array(column, np.int32) for column in zip(*lines, strict=True))
    function = PiecewiseLinear(slope, intercept, 10, kind)
    p = {"odd": abs(z), "positive": max(z, 0), "linear": z}[kind]
    least = min((p * s + 512) // 1024 + c for s, c in lines)
    expected = -least if kind == "odd" and z < 0 else least
    assert evaluate(function, np.array([z], np.int64)).tolist() == [expected]


@given(
    st.lists(st.integers(-50, 50), min_size=0, max_size=5, unique=True),
    st.integers(0, 12),
    st.integers(-60, 60),
    st.integers(0, 99),
)
def test_a_segment_begins_at_its_breakpoint(points, shift, z, seed):
    rng = np.random.default_rng(seed)
    slope = rng.integers(-(2**15) + 1, 2**15, len(points) + 1)
    intercept = rng.integers(-99, 99, len(slope))
    function = Segments(np.sort(np.array(points, int)), slope, intercept, shift)
    k = sum(point <= z for point in points)
    half = 2 ** (shift - 1) if shift else 0
    expected = (z * int(slope[k]) + half) // 2**shift + int(intercept[k])
    assert evaluate(function, np.array([z], np.int64)).tolist() == [expected]


def test_changes_count_from_what_receivers_know_at_first():
    axon = Axon(3, np.array([10, -10]))
    sent = [axon.events(np.array([q, q]), first=n in (0, 3)) for n, q in enumerate([12, 7, 7, 9])]
    assert np.stack(sent).tolist() == [[0, 22], [-3, -5], [0, 0], [0, 19]]


@given(
    st.integers(1, 4), st.integers(1, 6), st.integers(1, 3), st.integers(0, 9), st.integers(0, 9)
)
def test_every_frame_of_every_sample_has_its_one_chip_step(samples, frames, period, offset, more):
    line = Timeline(offset, period, frames)
    table = Timetable(samples, frames, 1, frames * period + 1 + more, line.last + 1)
    found = {tick: table.at(tick, line) for tick in range(-3, table.total + 3)}
    worked = [step for step in found.values() if step is not None]
    assert worked == [(sample, frame) for sample in range(samples) for frame in range(frames)]
    ticks = np.array([tick for tick, step in found.items() if step is not None])
    assert ticks[0] == offset
    assert ticks[-1] == table.total - 1
    assert np.all(np.diff(ticks.reshape(samples, frames), axis=1) == period)


def test_the_first_of_several_failures_stays(tmp_path):
    assert workers.read_failure(tmp_path) is None
    workers.write_failure(tmp_path, "first")
    workers.write_failure(tmp_path, "second")
    assert workers.read_failure(tmp_path) == ("run", "first")
    assert [path.name for path in tmp_path.iterdir()] == [workers.FAILURE]
