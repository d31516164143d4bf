"""The front end in integers: near the real numbers, and equal in NumPy and C."""

import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.c.front_end import IntegerLogMel, front_end_files, trial_samples
from converters.c.project import write_project
from converters.c.rules import Layout
from converters.quantize import quantize
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.linear import Dense
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.pointwise import Activation
from lmu_deploy.core.graph.time import Reduce
from lmu_deploy.tasks.log_mel import FRONT_END, LogMel

GCC = shutil.which("gcc") or shutil.which("cc")
needs_gcc = pytest.mark.skipif(GCC is None, reason="no C compiler")
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror")
SCALE, LIMIT = 4 / 2047, 2047
FRONT_ENDS = (LogMel(), LogMel(16_000, 512, 128, 24, 100.0, 7_000.0, 2.0**-16, 4.0))


@pytest.fixture
def network():
    """Return an integer network that records a front end."""
    rng = np.random.default_rng(0)
    nodes = (
        Node("units", Dense(rng.normal(size=(32, 6))), (INPUT,)),
        Node("relu", Activation("relu"), ("units",)),
        Node("mean", Reduce("mean"), ("relu",)),
        Node("out", Dense(rng.normal(size=(6, 2))), ("mean",)),
    )
    notes = {FRONT_END: LogMel().to_json()}
    return quantize(
        Network(nodes, (32,), "out", provenance=notes), rng.uniform(0, 3.9, size=(4, 9, 32))
    )


@pytest.mark.parametrize("front", FRONT_ENDS)
def test_messages_are_within_one_unit_of_the_real_numbers(front):
    samples = trial_samples(20 * front.window)
    found = IntegerLogMel(front, SCALE, 10 * LIMIT).apply(samples)
    difference = found - front.apply(samples) / SCALE
    assert np.abs(difference).max() < 0.5 + 0.6
    assert abs(difference.mean()) < 0.05
    assert found.max() > 1500


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0, 1, 3, 300, 32_767]))
def test_no_sample_overflows(seed, level):
    rng = np.random.default_rng(seed)
    samples = (level * rng.choice([-1, 1], 1024)).astype(np.int16)
    own = IntegerLogMel(LogMel(), SCALE, LIMIT)
    found = own.apply(samples)
    assert (found >= 0).all()
    assert np.abs(found - LogMel().apply(samples) / SCALE).max() < 1.1
    assert level or not found.any()


def test_logarithm_of_any_number():
    own = IntegerLogMel(LogMel(), SCALE, LIMIT)
    values = np.unique(np.geomspace(1, 2**62, 5000).astype(np.int64))
    exact = 2**16 * np.log2(values.astype(np.longdouble))
    assert np.abs(own.log(values) - exact).max() < 4.5
    assert (np.diff(own.log(values)) >= 0).all()


def compiled(folder, *sources):
    flags = (*STRICT, "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    subprocess.run([GCC, *flags, *sources, "-o", "test"], cwd=folder, check=True)
    return subprocess.run([folder / "test"], capture_output=True, text=True, check=False)


@needs_gcc
@pytest.mark.parametrize("front", FRONT_ENDS)
def test_c_computes_the_same_frames(front, tmp_path):
    for file, text in front_end_files(IntegerLogMel(front, SCALE, LIMIT), "net").items():
        (tmp_path / file).write_text(text)
    done = compiled(tmp_path, "net_sound.c", "test_net_sound.c")
    assert done.returncode == 0, done.stderr
    assert re.search(r"net_sound: 1\d frames, 0 values differ", done.stdout)


@needs_gcc
@pytest.mark.parametrize("table", ["window", "turn_imaginary", "filters", "logs"])
def test_a_changed_table_fails_the_test(table, tmp_path):
    files = front_end_files(IntegerLogMel(LogMel(), SCALE, LIMIT), "net")
    code = files["net_sound.c"]
    start = code.index(f" {table}[")
    place = list(re.finditer(r"-?\d+", code[start : start + 2000]))[40]
    begin, end = start + place.start(), start + place.end()
    files["net_sound.c"] = code[:begin] + str(int(place[0]) // 2 + 1) + code[end:]
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    done = compiled(tmp_path, "net_sound.c", "test_net_sound.c")
    assert done.returncode == 1
    assert " 0 values differ" not in done.stdout


@needs_gcc
def test_the_project_of_a_network_listens(network, tmp_path):
    write_project(network, tmp_path, "word")
    done = compiled(tmp_path, "word_sound.c", "test_word_sound.c")
    assert done.returncode == 0
    assert "word_sound.c" in (tmp_path / "CMakeLists.txt").read_text()
    assert "word_sound_push" in (tmp_path / "README.md").read_text()
    own = IntegerLogMel.of_network(network)
    assert (own.scale, own.limit) == (network.input.message.scale, network.input.message.limit)


def test_a_network_without_front_end_gets_none(network, tmp_path):
    silent = replace(network, provenance={}, source=None)
    write_project(silent, tmp_path, "word")
    assert not list(tmp_path.glob("*sound*"))
    assert "sound" not in (tmp_path / "CMakeLists.txt").read_text()


def test_a_mean_over_time_keeps_one_frame_of_each_source(network):
    assert set(Layout(network).depths.values()) == {1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": 250}, "power of two"),
        ({"hop": 100}, "a hop that divides it"),
        ({"floor": 1e-15}, "a floor nearer to 1e-6"),
        ({"doublings": 0.001}, "doublings nearer to 8"),
    ],
)
def test_front_ends_without_integer_form_are_refused(changes, message):
    front = replace(LogMel(), **changes)
    with pytest.raises(InputError, match=message):
        IntegerLogMel(front, SCALE, LIMIT)


def test_a_front_end_of_other_bands_is_refused(network):
    other = {FRONT_END: replace(LogMel(), bands=20).to_json()}
    with pytest.raises(InputError, match="takes 32 features and its front end has 20 bands"):
        IntegerLogMel.of_network(replace(network, provenance=other))
