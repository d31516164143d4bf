"""What a run of Lava says besides its states: progress, chip steps, rasters, settings."""

from __future__ import annotations

import numpy as np
from needs import needs

from lmu_deploy.core.integer.functions import PiecewiseLinear
from lmu_deploy.core.integer.layered import (
    IntegerHidden,
    IntegerLayer,
    IntegerMemory,
    IntegerReadout,
    LayeredNetwork,
)
from lmu_deploy.core.integer.parts import Connection, Format
from targets.lava import LavaTarget

pytestmark = needs("lava")


def connection(rng, n_out, n_in):
    weights = rng.integers(-3, 4, (1, n_out, n_in)).astype(np.int8)
    return Connection(weights, np.ones((1, n_out), np.int32), np.zeros((1, n_out), np.int32))


def feedback_network(rng):
    """A layer of 4 states and 3 units, from the hidden units back into the memory too."""
    form, one = Format(12, 1.0), np.array([1], np.int32)
    memory = IntegerMemory(
        Format(24, 1.0),
        form,
        0,
        connection(rng, 4, 4),
        connection(rng, 4, 2),
        connection(rng, 4, 3),
        None,
    )
    identity = PiecewiseLinear(one, 0 * one, 0, "linear")
    hidden = IntegerHidden(Format(24, 1.0), form, connection(rng, 3, 4), None, None, None, identity)
    readout = IntegerReadout(connection(rng, 3, 3), None, Format(24, 1.0))
    return LayeredNetwork(form, (IntegerLayer(memory, hidden),), readout).graph()


def test_a_run_says_what_it_did(rng):
    network, inputs, seen = feedback_network(rng), rng.integers(-5, 6, (4, 5, 2)) * 1.0, []
    run = LavaTarget().run(network, inputs, progress=lambda *done: seen.append(done))
    assert run.states is None
    assert seen[-1] == (4, 4)
    assert run.outputs.shape == (4, 3)
    assert run.steps == 5
    assert run.chip_steps == 4 * 2 + 3 + 1
    assert run.settings["chip_steps_per_step"] == 2
    assert run.settings["versions"]["lava-nc"] == "0.10.0"
    assert set(run.neurons) == set(run.events) == set(run.rasters)
    for name, raster in run.rasters.items():
        assert raster.shape == (run.chip_steps, run.neurons[name])
        assert raster.sum() == run.events[name][0].sum()
        phases = np.flatnonzero(raster.any(axis=1)) % 2
        assert set(phases) <= {list(run.rasters).index(name) % 2}, "memory and hidden take turns"
