"""Rounded memories that would grow without bound are reported."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layered import layered
from scipy.linalg import block_diag
from typer.testing import CliRunner

from converters.quantize import quantize
from converters.quantize.memory_analysis import memory_matrix, spectral_radius, unstable_memories
from lmu_deploy.cli import app
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import save
from lmu_deploy.core.graph.linear import Dense
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.time import Reduce
from lmu_deploy.core.integer.graph import with_connections
from lmu_deploy.core.network import LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.core.options import REALIZATIONS
from targets.integer import IntegerTarget

INPUTS = np.random.default_rng(0).uniform(-1.0, 1.0, (8, 40, 1))


def memory_alone(e_m=None):
    layer = LMULayer(np.ones((1, 1)), None, e_m, None, Memory.legendre(4, 12.0), None)
    return LMUNetwork((layer,), Readout(np.ones((4, 1)), None))


def inverted(network):
    """The network with an inverted recurrent matrix, which makes its memory unstable."""
    recurrent = layered(network).layers[0].memory.recurrent
    slices = -recurrent.slices
    return with_connections(network, {"layer0/memory/recurrent": replace(recurrent, slices=slices)})


@pytest.mark.parametrize(
    ("matrix", "radius"),
    [
        (np.diag([0.5, -0.9]), 0.9),
        ([[0.5, 1e6], [0.0, 0.5]], 0.5),
        (1.0057 * np.array([[0.6, -0.8], [0.8, 0.6]]), 1.0057),
        (np.eye(5, k=1), 0.0),
        (np.zeros((2, 2)), 0.0),
    ],
)
def test_radius_of_known_matrices(matrix, radius):
    assert spectral_radius(np.array(matrix)) == pytest.approx(radius, abs=2e-5)


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.floats(0.1, 3.0))
def test_radius_is_that_of_the_largest_eigenvalue(seed, order, size):
    matrix = size * np.random.default_rng(seed).normal(size=(order, order))
    truth = np.abs(np.linalg.eigvals(matrix)).max()
    assert spectral_radius(matrix) == pytest.approx(truth, rel=1e-4)


def test_the_radius_of_channels_is_the_largest_of_any_of_them(rng):
    blocks = [rng.normal(size=(4, 4)) for _ in range(5)]
    shuffled = rng.permutation(20)
    whole = block_diag(*blocks)[np.ix_(shuffled, shuffled)]
    truth = max(np.abs(np.linalg.eigvals(block)).max() for block in blocks)
    assert spectral_radius(whole) == pytest.approx(truth, rel=1e-4)


def test_a_memory_whose_matrix_is_too_large_is_refused_before_any_work():
    memory = LinearMemory(Memory.legendre(128, 200.0, 128), np.ones((1, 128)))
    nodes = (
        Node("wide", memory, (INPUT,)),
        Node("mean", Reduce("mean"), ("wide",)),
        Node("out", Dense(np.ones((128 * 128, 2))), ("mean",)),
    )
    tracemalloc.start()
    with pytest.raises(InputError, match="the memory of wide has 16,384 states in all its chann"):
        quantize(Network(nodes, (1,), "out"), np.zeros((2, 50, 1)))
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


@pytest.mark.parametrize("realization", REALIZATIONS)
def test_matrix_is_that_of_the_memory_in_other_coordinates(realization):
    network = quantize(memory_alone(), INPUTS, realization=realization, slices=2)
    found = spectral_radius(memory_matrix(layered(network).layers[0].memory))
    truth = spectral_radius(memory_alone().layers[0].memory.a_bar)
    assert found == pytest.approx(0.0 if realization == "fir" else truth, rel=1e-2)
    assert unstable_memories(network) == []


def test_an_unstable_memory_is_reported_and_grows():
    network = inverted(quantize(memory_alone(), INPUTS, slices=1))
    (sentence,) = unstable_memories(network)
    assert sentence.startswith("the rounded layer0/memory has a spectral radius of 1.")
    assert "--slices 2 or with --realization schur, or reset the state" in sentence
    longer = np.tile(INPUTS[:1], (1, 10, 1))
    assert IntegerTarget().run(network, longer).saturations["layer0/memory/state"] > 0


def test_an_unstable_float_memory_is_reported():
    """Eigenvalues of a memory with memory encoders are those of a_bar + b_bar e_m^T."""
    plain = memory_alone().layers[0].memory
    e_m = 8.0 * plain.b_bar[:, None]
    own = spectral_radius(plain.a_bar + np.outer(plain.b_bar, e_m))
    assert own > 1.001
    network = quantize(memory_alone(e_m), INPUTS[:, :10], slices=2)
    (sentence,) = unstable_memories(network)
    assert f"that of the float network is {own:.5f} already" in sentence


def test_check_prints_the_warning(tmp_path):
    file = tmp_path / "grows.safetensors"
    save(inverted(quantize(memory_alone(), INPUTS)), file)
    done = CliRunner().invoke(app, ["check", str(file)])
    assert done.exit_code == 0
    assert "fits loihi2" in done.stdout
    assert "spectral radius of 1." in done.stderr
