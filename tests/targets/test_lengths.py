"""Sequences of different lengths on targets: each as if it were alone."""

import numpy as np
import pytest

from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.graph.transforms import as_layers
from lmu_deploy.core.loading import load
from lmu_deploy.fidelity.streaming import run_streamed
from targets.base import ByLength, get_target

LENGTHS = np.array([8, 3, 5, 3, 8, 1, 5])


@pytest.fixture(scope="module")
def network():
    return load("examples/models/digits.safetensors")


@pytest.fixture
def inputs(rng):
    return rng.normal(size=(len(LENGTHS), 8, 8))


def test_outputs_are_those_of_the_masked_executor(network, inputs):
    found = ByLength(get_target("reference"), LENGTHS).run(network, inputs)
    np.testing.assert_allclose(found.outputs, run(network, inputs, LENGTHS), rtol=0, atol=1e-12)


def test_what_follows_a_sequence_changes_nothing(network, inputs, rng):
    other = inputs.copy()
    for row, length in zip(other, LENGTHS, strict=True):
        row[length:] = rng.normal(size=row[length:].shape)
    target = ByLength(get_target("reference"), LENGTHS)
    one, two = (target.run(network, x, record=True) for x in (inputs, other))
    np.testing.assert_array_equal(one.outputs, two.outputs)
    np.testing.assert_array_equal(one.states.m, two.states.m)


def test_integers_are_those_of_every_sequence_alone(inputs):
    from converters.quantize import quantize

    network = quantize(as_layers(load("examples/models/digits.safetensors"), "test"), inputs)
    target = get_target("integer")
    found = ByLength(target, LENGTHS).run(network, inputs, record=True)
    alone = [
        target.run(network, x[None, :n], record=True) for x, n in zip(inputs, LENGTHS, strict=True)
    ]
    for row, (single, length) in enumerate(zip(alone, LENGTHS, strict=True)):
        np.testing.assert_array_equal(found.outputs[row], single.outputs[0])
        np.testing.assert_array_equal(found.states.m[row, :length], single.states.m[0])
        assert not found.states.m[row, length:].any()
        for name, counts in found.events.items():
            np.testing.assert_array_equal(counts[row, :length], single.events[name][0])
            assert not counts[row, length:].any()
    assert found.synops == sum(single.synops for single in alone)


def test_streamed_parts_are_the_whole(network, inputs):
    target = ByLength(get_target("reference"), LENGTHS)
    streamed = run_streamed(target, network, inputs, kept=3)
    whole = target.run(network, inputs).outputs
    np.testing.assert_allclose(streamed.outputs, whole, rtol=0, atol=1e-12)
    assert len(streamed.states.m) == 3
