"""Brian2 and the NumPy simulator run a graph of ensembles spike for spike alike."""

from __future__ import annotations

import numpy as np
import pytest

from converters.spiking import spike
from lmu_deploy.core.spiking.graph import SpikingGraph
from targets.brian2.target import Brian2Target
from targets.spiking import SpikingTarget
from tests.converters.spiking.test_spiking_graph import N_IN, STEPS, residual, two_blocks, with_lstm

pytest.importorskip("brian2")


@pytest.mark.parametrize("make", [two_blocks, residual, with_lstm])
def test_same_spikes(make: object) -> None:
    inputs = np.random.default_rng(2).normal(size=(4, STEPS, N_IN)) * 0.7
    graph = spike(
        make(),  # type: ignore[operator]
        inputs,
        units="chip",
        neurons_per_state=6,
        neurons_per_unit=4,
        calibration="static",
        mismatch=0.2,
        tau_mismatch=0.1,
        presentation_ms=30.0,
        tau_ms=50.0,
    )
    assert isinstance(graph, SpikingGraph)
    ours = SpikingTarget().run(graph, inputs, record=True, seed=3)
    theirs = Brian2Target().run(graph, inputs, record=True, seed=3)
    assert ours.synops == theirs.synops > 0
    for each in graph.ensembles:
        assert ours.events[each.name].sum() > 0
        assert np.array_equal(ours.events[each.name], theirs.events[each.name])
        assert np.array_equal(ours.rasters[each.name], theirs.rasters[each.name])
        counts = ours.counts[each.name]
        assert np.array_equal(counts, theirs.counts[each.name])
        assert np.array_equal(counts.sum(axis=2), ours.events[each.name])
        raster = ours.rasters[each.name].reshape(counts.shape[1], -1, counts.shape[2])
        assert np.array_equal(counts[0], raster.sum(axis=1))
    np.testing.assert_allclose(ours.outputs, theirs.outputs, atol=1e-10)
    assert ours.states is not None and theirs.states is not None
    np.testing.assert_allclose(ours.states.m, theirs.states.m, atol=1e-10)


def test_noise_of_a_run_is_that_of_its_seed() -> None:
    inputs = np.random.default_rng(2).normal(size=(3, STEPS, N_IN)) * 0.7
    graph = spike(
        two_blocks(), inputs, units="chip", neurons_per_state=6, neurons_per_unit=4,
        calibration="static", membrane_noise=0.05, presentation_ms=30.0, tau_ms=50.0,
    )  # fmt: skip
    for target in (SpikingTarget(), Brian2Target()):
        first, again, other = (target.run(graph, inputs, seed=seed) for seed in (1, 1, 2))
        assert np.array_equal(first.outputs, again.outputs)
        assert not np.array_equal(first.outputs, other.outputs)
        parts = list(Brian2Target().parts(graph, inputs, record=1, seed=1))
        assert sum(len(part.outputs) for part in parts) == len(inputs)
