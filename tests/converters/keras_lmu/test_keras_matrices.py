"""The memory matrices of networks imported from keras-lmu, compared with those of real Keras."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from converters.importers import import_file
from converters.keras_lmu import matrices
from converters.keras_lmu.architecture import KerasLayer
from converters.keras_lmu.build import Graph
from converters.keras_lmu.file import Arrays
from converters.keras_lmu.lmu import read_lmu_cell
from converters.keras_lmu.matrices import (
    MemoryMatrices,
    block_length,
    fused_product,
    keras_matrices,
    solve,
)
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.lmu import LMU
from lmu_deploy.core.legendre import discretize

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures/keras_lmu"

KERAS = {
    # From keras-lmu 0.9.0 with TensorFlow 2.19.1, and equally from 0.7.0 with 2.15.1, on a
    # processor with AVX-512 and 48 KiB; those of 32 KiB from Eigen, compiled with that size.
    (55, 14.5652345969731, True, 48): "5511dd135d",
    (60, 2.0359316814367907, True, 48): "88b8cdc5ec",
    (63, 2496.6853202815114, True, 48): "e4ee23945f",
    (64, 300.0, False, 48): "170aa3414e",
    (100, 128.0, False, 48): "78670e6d2d",
    (256, 784.0, False, 48): "ea4d149c0c",
    (256, 784.0, False, 32): "a56e9def81",
}
"""By order, theta, whether theta was trained and the cache: SHA-256 of A and B, ten digits."""


@pytest.mark.parametrize("case", KERAS)
def test_matrices_are_bit_identical_to_those_of_keras(case):
    order, theta, trained, cache = case
    a_bar, b_bar = keras_matrices(order, theta, "zoh", trained, cache)
    zero = np.float32(0)  # adding it turns -0.0 into 0.0
    found = hashlib.sha256((a_bar + zero).tobytes() + (b_bar + zero).tobytes()).hexdigest()
    assert found[:10] == KERAS[case]


@pytest.mark.parametrize(("order", "theta"), [(1, 2.0), (12, 40.0), (40, 30.0), (7, 5000.0)])
def test_matrices_of_keras_differ_from_the_exact_ones_by_rounding_only(order, theta):
    a_bar, b_bar = keras_matrices(order, theta, "zoh", False, 32)
    exact_a, exact_b = discretize(order, theta)
    assert np.linalg.norm(a_bar - exact_a) < 3e-5 * np.linalg.norm(exact_a)
    assert np.linalg.norm(b_bar - exact_b) < 3e-5 * np.linalg.norm(exact_b)
    made = keras_matrices(order, 9.0 * order, "euler", False, 32)
    expected = discretize(order, 9.0 * order, "euler")
    np.testing.assert_array_equal(made[0], expected[0].astype(np.float32))


@pytest.mark.parametrize("n", [1, 3, 8, 17, 40, 97])
def test_products_and_solutions_are_accurate(rng, n):
    a = rng.normal(size=(n, n)).astype(np.float32)
    b = rng.normal(size=(n, n + 3)).astype(np.float32)
    np.testing.assert_allclose(fused_product(a, b), a.astype(float) @ b, rtol=0, atol=1e-5 * n)
    a += 2 * n**0.5 * np.eye(n, dtype=np.float32)
    x = solve(a, b, 24)
    np.testing.assert_allclose(a.astype(float) @ x, b, rtol=0, atol=1e-5 * n)


def test_block_length_follows_the_cache():
    # Values of evaluateProductBlockingSizesHeuristic in Eigen 3.4.
    assert [block_length(257, 1024 * kib) for kib in (32, 48)] == [88, 136]
    assert block_length(96, 32768) == 96 and block_length(192, 32768) == 96


def test_matrices_are_exact_by_default_and_the_choice_is_recorded(monkeypatch):
    pytest.importorskip("h5py", reason="h5py (the extra import) is absent")
    file = FIXTURES / "keras3-example.keras"
    monkeypatch.setattr(matrices, "first_cache_kib", lambda: 48)
    networks = {
        choice: import_file(file, options={} if choice is None else {"matrices": choice})
        for choice in (None, "exact", "keras", "keras:48")
    }
    memories = {choice: network.nodes[0].operator.memory for choice, network in networks.items()}
    exact = discretize(memories["exact"].order, memories["exact"].theta)[0]
    for choice in (None, "exact"):
        np.testing.assert_array_equal(memories[choice].a_bar, exact)
        assert networks[choice].provenance["memory matrices"] == "exact"
    np.testing.assert_array_equal(memories["keras"].a_bar, memories["keras:48"].a_bar)
    assert memories["keras"].a_bar.dtype == np.float32
    assert "48 KiB of L1" in networks["keras:48"].provenance["memory matrices"]
    with pytest.raises(InputError, match="no such file"):
        import_file(file, options={"matrices": "keras:"})


@pytest.mark.parametrize("file", ["keras3-example.keras", "keras2-stack.keras"])
def test_the_default_does_not_depend_on_the_machine(monkeypatch, file):
    pytest.importorskip("h5py", reason="h5py (the extra import) is absent")

    def fail(*_):
        raise AssertionError("the default import read the processor's cache")

    monkeypatch.setattr(matrices, "first_cache_kib", fail)
    monkeypatch.setattr(matrices, "keras_matrices", fail)
    network = import_file(FIXTURES / file)
    for node in network.nodes:
        if isinstance(node.operator, LMU):
            memory = node.operator.memory
            a_bar, b_bar = discretize(memory.order, memory.theta, memory.discretizer)
            np.testing.assert_array_equal(memory.a_bar, a_bar)
            np.testing.assert_array_equal(memory.b_bar, b_bar)


def test_layers_too_large_to_imitate_keras_get_exact_matrices(monkeypatch):
    pytest.importorskip("h5py", reason="h5py (the extra import) is absent")
    monkeypatch.setattr("converters.keras_lmu.matrices.MOST_WORK", 1)
    network = import_file(FIXTURES / "keras3-example.keras", options={"matrices": "keras"})
    memory = network.nodes[0].operator.memory
    np.testing.assert_array_equal(memory.a_bar, discretize(memory.order, memory.theta)[0])
    assert "exact in layer" in network.provenance["memory matrices"]


@pytest.mark.parametrize("written", [["1", "Data", "48K"], None, ["1", "Data", "much"]])
def test_the_cache_size_is_read_from_the_system_or_is_32_kib(tmp_path, monkeypatch, written):
    monkeypatch.setattr(matrices, "_CACHES", tmp_path)
    if written:
        (tmp_path / "index0").mkdir()
        for name, text in zip(("level", "type", "size"), written, strict=True):
            (tmp_path / "index0" / name).write_text(f"{text}\n")
    expected = 48 if written and written[2] == "48K" else matrices.USUAL_CACHE
    assert matrices.first_cache_kib.__wrapped__() == expected


STORED = {"kernel": np.full((2, 1), 0.5), "A": np.eye(3) * 0.25, "B": np.full((1, 3), 0.125)}


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("trained", [True, False])
def test_matrices_that_a_file_stores(named, trained):
    """With a trained theta they are of its first value, and the network needs those of the last."""
    roles = ["kernel", *(["theta_inv"] if trained else []), "A", "B"]
    arrays = STORED | {"theta_inv": np.float32(1 / 7)}
    groups = {role: ("rnn", "cell") if named and role in "AB" else () for role in roles}
    entries = [
        ((*groups[role], role if named else str(number)), np.asarray(arrays[role], np.float32))
        for number, role in enumerate(roles)
    ]
    options = {"order": 3, "memory_d": 1, "theta": 9.0, "trainable_theta": trained}
    cell = KerasLayer("LMUCell", "memory", "", options)
    read = read_lmu_cell(cell, "memory", Arrays(entries, set()), Graph(MemoryMatrices(), 2), None)
    expected = discretize(3, 7.0)[0] if trained else STORED["A"]
    np.testing.assert_allclose(read.memory.a_bar, expected, rtol=1e-6)
