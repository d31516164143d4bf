"""The C project: compiles without warnings, runs clean under sanitizers, passes its own vectors."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from converters.c.project import write_project
from converters.c.rules import Layout, identifier
from converters.quantize import quantize
from converters.vectors import frames_of, write_vectors
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.linear import Conv1d, Dense
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.pointwise import Activation
from lmu_deploy.core.graph.time import Reduce
from lmu_deploy.core.integer.graph import with_connections
from targets.integer.run import IntegerTarget

GCC = shutil.which("gcc") or shutil.which("cc")
COMPILERS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not installed"),
    )
    for name in ("gcc", "clang")
]
needs_gcc = pytest.mark.skipif(GCC is None, reason="no C compiler")
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror")


@pytest.fixture(scope="module")
def network():
    rng = np.random.default_rng(3)
    nodes = (
        Node("conv.1", Conv1d(rng.normal(size=(3, 2, 8)), left=2), (INPUT,)),
        Node("relu", Activation("relu"), ("conv.1",)),
        Node("out", Dense(rng.normal(size=(8, 3)) * (rng.random((8, 3)) < 0.3)), ("relu",)),
    )
    return quantize(Network(nodes, (2,), "out"), rng.normal(size=(3, 12, 2)))


def build(compiler, folder, name):
    """Compile a project with every warning, under the sanitizers where the compiler has them."""
    flags = [*STRICT]
    if compiler == "gcc":
        flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command = [compiler, *flags, f"{name}.c", f"test_{name}.c", "-o", "test"]
    subprocess.run(command, cwd=folder, check=True)


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("sparse", [False, True])
def test_it_compiles_strictly_and_passes_its_vectors(network, tmp_path, sparse, compiler):
    write_project(network, tmp_path, "my-net 1", sparse)
    build(compiler, tmp_path, "my_net_1")
    done = subprocess.run([tmp_path / "test"], capture_output=True, text=True, check=True)
    assert "40 frames of the output, 0 values differ" in done.stdout


@pytest.mark.parametrize("compiler", COMPILERS)
def test_weights_of_four_bits_are_stored_in_half_the_room(network, tmp_path, compiler):
    narrow = {
        edge.place: replace(edge.connection, slices=np.clip(edge.connection.slices, -8, 7))
        for edge in network.edges
    }
    network = with_connections(network, narrow)
    whole = write_project(network, tmp_path / "whole")
    source = write_project(network, tmp_path, pack=True)
    weights = sum(c.slices.size for c in narrow.values())
    assert 0 <= whole.flash - source.flash - weights // 2 <= len(narrow)
    assert "lmu_packed" in source.code and "lmu_drive" not in source.code
    build(compiler, tmp_path, "network")
    done = subprocess.run([tmp_path / "test"], capture_output=True, text=True, check=True)
    assert "0 values differ" in done.stdout


@needs_gcc
def test_wide_weights_are_not_packed(network, tmp_path):
    assert write_project(network, tmp_path, pack=True).code == write_project(network, tmp_path).code


@needs_gcc
def test_a_changed_weight_fails_the_test(network, tmp_path):
    write_project(network, tmp_path)
    code = (tmp_path / "network.c").read_text()
    weight = re.search(r"(w_out_input\[\d+\] = \{\s*)(-?\d+)", code)
    changed = code.replace(
        weight.group(0), f"{weight.group(1)}{(int(weight.group(2)) + 64) % 128}", 1
    )
    (tmp_path / "network.c").write_text(changed)
    build = [GCC, "-std=c99", "network.c", "test_network.c", "-o", "test"]
    subprocess.run(build, cwd=tmp_path, check=True)
    done = subprocess.run([tmp_path / "test"], capture_output=True, check=False)
    assert done.returncode == 1


def test_the_code_has_neither_heap_nor_floating_point(network, tmp_path):
    write_project(network, tmp_path)
    code = (tmp_path / "network.c").read_text()
    assert not re.search(r"\b(malloc|calloc|free|float|double)\b", code)
    assert re.findall(r"#include .*", code) == ['#include "network.h"']


def test_identifiers_are_valid_and_different():
    assert identifier("block.0/lmu-1") == "block_0_lmu_1"
    assert identifier("1st") == "n1st"


def test_rings_are_as_long_as_what_is_read(network):
    layout = Layout(network)
    by_name = {str(place): depth for (place, _), depth in layout.depths.items()}
    assert by_name == {"input": 4, "relu": 1}


def test_the_definition_equals_the_simulator(network):
    x = np.random.default_rng(8).normal(size=(2, 15, 2))
    expected = IntegerTarget("numpy").run(network, x, record=True).states.parts
    for sample in range(2):
        found = frames_of(network, x[sample])
        for place, values in expected.items():
            assert np.array_equal(found[place], values[sample]), place


def test_vectors_are_plain_json(network, tmp_path):
    path = write_vectors(network, tmp_path / "vectors.json", samples=1, steps=9)
    tree = json.loads(path.read_text())
    assert tree["specification"] == 2
    assert [p["place"] for p in tree["populations"]] == ["input", "relu", "out"]
    assert len(tree["samples"]) == 1
    assert len(tree["samples"][0]["out"]) == 9


def test_a_network_that_needs_many_steps_has_vectors_of_as_many(tmp_path):
    rng = np.random.default_rng(5)
    nodes = (
        Node("wide", Conv1d(rng.normal(size=(4, 1, 2)), dilation=20), (INPUT,)),
        Node("once", Reduce("mean"), ("wide",)),
    )
    network = quantize(Network(nodes, (1,), "once"), rng.normal(size=(4, 70, 1)))
    with pytest.raises(InputError, match=r"32 steps of the input give no frame of .*at least 61"):
        write_vectors(network, tmp_path / "vectors.json")
    write_project(network, tmp_path, "wide")
    assert "outputs of 61 steps" in " ".join((tmp_path / "README.md").read_text().split())


def test_fifty_lines_of_plain_python_agree(network, tmp_path):
    """The example's own implementation of the specification accepts the vectors, and no others."""
    script = Path(__file__).parents[3] / "examples/vectors/check_vectors.py"
    path = write_vectors(network, tmp_path / "vectors.json", samples=1, steps=7)
    done = subprocess.run([sys.executable, script, path], capture_output=True, text=True)
    assert "integers are equal" in done.stdout, done.stderr
    tree = json.loads(path.read_text())
    tree["samples"][0]["relu"][3][2] += 1
    path.write_text(json.dumps(tree))
    done = subprocess.run([sys.executable, script, path], capture_output=True, text=True)
    assert "relu differs in frame 3" in done.stderr
