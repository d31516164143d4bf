"""The benchmark of round trips: a few networks come back, and a changed one is counted."""

from dataclasses import replace

import numpy as np
import pytest

from lmu_deploy.core.graph.linear import Dense
from lmu_deploy.core.graph.network import INPUT, Network, Node


@pytest.fixture(scope="module")
def trips(load_benchmark):
    return load_benchmark("round_trips")


def test_drawn_networks_come_back(trips):
    for module in ("onnxruntime", "nir", "torch"):
        pytest.importorskip(module, reason="an extra is not installed")
    found = trips.measure(trips.draw(5))
    assert all(trip.holds for trip in found)
    assert found[0].done == 5


def test_a_changed_network_is_counted(trips):
    network = Network((Node("a", Dense(np.ones((1, 1))), (INPUT,)),), (1,), "a")
    renamed = replace(network, nodes=(replace(network.nodes[0], name="b"),), output="b")
    other = replace(network, nodes=(Node("a", Dense(np.full((1, 1), 2.0)), (INPUT,)),))
    for again, difference in ((renamed, 0.0), (other, 0.0), (network, 2e-5)):
        trip = trips.Trip("any")
        trip.count(network, again, difference)
        assert not trip.holds
    trip = trips.Trip("any")
    trip.count(network, network, 1e-6)
    assert trip.holds
