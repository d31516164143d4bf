"""Brian2 in parts, as a validation runs it, draws the very numbers of the one run of deploy."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.spiking import spike
from lmu_deploy.core.network import LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.fidelity.streaming import counted_of, run_streamed
from targets.base import InParts
from targets.brian2 import Brian2Target, target

SAMPLES, STEPS = 11, 3


@pytest.fixture(scope="module")
def inputs():
    return np.random.default_rng(4).uniform(0, 1, (SAMPLES, STEPS, 2))


@pytest.fixture(scope="module")
def noisy(inputs):
    """Two memories on noisy neurons, one after the other."""
    rng = np.random.default_rng(5)
    layers = tuple(
        LMULayer(rng.normal(size=(n, 1)), None, None, None, Memory.legendre(2, 12.0), None)
        for n in (2, 2)
    )
    network = LMUNetwork(layers, Readout(rng.normal(size=(2, 2)), None))
    made = spike(network, inputs, neurons_per_state=6, calibration="static", presentation_ms=10.0)
    return dataclasses.replace(made, device=dataclasses.replace(made.device, membrane_noise=0.3))


@pytest.fixture(scope="module")
def whole(noisy, inputs):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(target, "_MOST_SAMPLES", 4)
        yield Brian2Target().run(noisy, inputs, record=True, seed=9)


@settings(max_examples=4)
@given(kept=st.integers(1, SAMPLES), part=st.integers(1, SAMPLES))
def test_the_outputs_of_any_parts_equal_those_of_one_run(noisy, inputs, whole, kept, part):
    assert isinstance(Brian2Target(), InParts)
    reported = []
    found = run_streamed(
        Brian2Target(),
        noisy,
        inputs,
        kept,
        part=part,
        seed=9,
        progress=lambda *d: reported.append(d),
    )
    assert (found.outputs == whole.outputs).all()
    assert (found.synops, found.seed, found.steps) == (whole.synops, 9, STEPS)
    for name in ("m", "h", "y"):
        assert (getattr(found.states, name) == getattr(whole.states, name)[:kept]).all()
    for name, counts in whole.events.items():
        mine = counted_of(found)[name]
        assert (mine.by_sample == counts.sum(axis=1)).all()
        assert (mine.by_step == counts.sum(axis=0)).all()
        assert (found.rasters[name] == whole.rasters[name]).all()
        assert (found.counts[name] == whole.counts[name][:kept]).all()
    assert (found.neurons, found.settings, found.notes) == (
        whole.neurons,
        whole.settings,
        whole.notes,
    )
    assert reported == sorted(reported) and reported[-1] == (SAMPLES, SAMPLES)


def test_a_separate_run_of_a_part_has_other_noise(noisy, inputs, whole):
    """Run by itself, the second batch meets other noise than as a part of the whole."""
    alone = Brian2Target().run(noisy, inputs[4:8], seed=9)
    assert not (alone.outputs == whole.outputs[4:8]).any()
