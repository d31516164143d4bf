"""Every realization of a memory on Lava equals the bit-exact simulator."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from needs import needs

from converters.quantize import quantize
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.integer.graph import with_thresholds
from lmu_deploy.core.integer.memories import Series
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.options import REALIZATIONS
from targets.conformance.fixtures import example
from targets.integer import IntegerTarget
from targets.lava import LavaTarget
from targets.lava.plan import make_plan

pytestmark = needs("lava")

# Networks of targets.conformance.fixtures: `memory` has no hidden units, `recurrent` has e_h, e_m
# and two channels, `stacked` two layers with biases.
CASES = {
    "dense, 1 slice": ("memory", {"slices": 1}),
    "dense, 2 slices": ("memory", {"slices": 2}),
    "dense, 3 slices": ("memory", {"slices": 3}),
    "schur": ("memory", {"realization": "schur"}),
    "hessenberg": ("memory", {"realization": "hessenberg"}),
    "fir": ("memory", {"realization": "fir"}),
    "sign-taylor": ("memory", {"realization": "sign-taylor"}),
    "schur with feedback": ("recurrent", {"realization": "schur"}),
    "sign-taylor with feedback": ("recurrent", {"realization": "sign-taylor"}),
    "hessenberg in layers": ("stacked", {"realization": "hessenberg"}),
    "sign-taylor in layers": ("stacked", {"realization": "sign-taylor"}),
}
ONE_SERIES = "sign-taylor in the second layer"
CHANGES = "sign-taylor that sends changes"


def made(name: str) -> IntegerNetwork:
    """A network by its name."""
    given, options = CASES[name]
    network = Network.from_layers(example(given).network)
    return quantize(network, example(given).calibration, **options)


def with_threshold(network: IntegerNetwork, threshold: int) -> IntegerNetwork:
    """Give all edges of a network that threshold."""
    return with_thresholds(network, {edge.place: threshold for edge in network.edges})


def joined(first: IntegerNetwork, second: IntegerNetwork, node: str) -> IntegerNetwork:
    """Return the second network with a node of the first one."""
    populations = [p for p in first.populations if p.place.node == node]
    place = next(n for n, p in enumerate(second.populations) if p.place.node == node)
    others = [p for p in second.populations if p.place.node != node]
    others[place:place] = populations
    edges = [edge for edge in first.edges if edge.target.node == node]
    edges += [edge for edge in second.edges if edge.target.node != node]
    return dataclasses.replace(second, populations=tuple(others), edges=tuple(edges))


@pytest.fixture(scope="module")
def runs():
    """Network, inputs and the run of Lava by name, all of them in one interpreter."""
    networks = {name: made(name) for name in CASES}
    first, second = networks["hessenberg in layers"], networks["sign-taylor in layers"]
    networks[ONE_SERIES] = joined(first, second, "layer0")
    networks[CHANGES] = with_threshold(networks["sign-taylor with feedback"], 5)
    of = {name: CASES[name][0] for name in CASES} | {ONE_SERIES: "stacked", CHANGES: "recurrent"}
    cases = [(network, example(of[name]).inputs[:2]) for name, network in networks.items()]
    found = LavaTarget().run_each(cases, record=True)
    return {name: (*case, run) for name, case, run in zip(networks, cases, found, strict=True)}


@pytest.mark.parametrize("name", [*CASES, ONE_SERIES, CHANGES])
def test_lava_equals_the_simulator(name, runs):
    network, inputs, run = runs[name]
    simulator = IntegerTarget("numpy").run(network, inputs, record=True)
    for kind in ("m", "h", "y"):
        states = getattr(run.states, kind)
        np.testing.assert_array_equal(states, getattr(simulator.states, kind), err_msg=kind)
        assert states.size == 0 or len(np.unique(states)) > 20, "a network that says nothing"
    np.testing.assert_array_equal(run.outputs, simulator.outputs)
    np.testing.assert_array_equal(run.states.real_m(), simulator.states.real_m())
    for population, events in simulator.events.items():
        np.testing.assert_array_equal(run.events[population], events, err_msg=population)
    assert run.synops == simulator.synops
    assert dict(run.carried) == dict(simulator.carried)
    assert dict(run.saturations) == dict(simulator.saturations)
    for population, raster in run.rasters.items():
        assert raster.shape == (run.chip_steps, run.neurons[population])
        assert raster.sum() == run.events[population][0].sum()


def test_every_realization_was_run(runs):
    found = {memory.realization for network, *_ in runs.values() for memory in network.memories}
    assert found == set(REALIZATIONS)


def test_a_series_takes_a_chip_step_for_each_application(runs):
    network, inputs, run = runs["sign-taylor"]
    (memory,) = network.memories
    assert isinstance(memory, Series)
    assert memory.applications > 1
    assert run.settings["chip_steps_per_step"] == memory.applications
    assert run.chip_steps == inputs.shape[1] * memory.applications + 2
    fed_back = runs["sign-taylor with feedback"][0]
    applications = fed_back.memories[0].applications
    assert make_plan(fed_back, 1, 1).timetable.period == applications + 1


def test_a_population_has_one_dense_for_each_threshold(runs):
    processes = {name: run.settings["processes"] for name, (*_, run) in runs.items()}
    assert processes["dense, 3 slices"] == processes["dense, 1 slice"] == 3 + 2
    assert processes["sign-taylor"] == 3 + 3
    assert processes["schur with feedback"] == 4 + 3
    assert processes["hessenberg in layers"] == 6 + 5
    mixed = with_threshold(runs["schur with feedback"][0], 4)
    mixed = with_thresholds(mixed, {"layer0/memory/recurrent": 0})
    of_memory = make_plan(mixed, 1, 1).groups[1]
    assert [way.outlet.threshold for way in of_memory.exits] == [0, 4]
