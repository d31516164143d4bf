"""Networks that hypothesis draws: Lava equals the bit-exact simulator.

They run in one interpreter, because its start is most of what a small one takes. The environment
variable ``LMU_DEPLOY_LAVA_GRAPHS`` asks for another number of them, and for larger ones beyond the
first.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
from equal_runs import differences
from hypothesis import HealthCheck, Phase, given, settings
from integer_graphs import graph_runs, kinds_of
from needs import needs

from lmu_deploy.core.integer.network import HostNodes, IntegerNetwork
from lmu_deploy.core.integer.populations import Population
from targets.integer import IntegerTarget
from targets.lava import LavaTarget

USUAL = 20
GRAPHS = int(os.environ.get("LMU_DEPLOY_LAVA_GRAPHS", USUAL))
ALWAYS_THE_SAME = settings(
    phases=[Phase.generate],
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
pytestmark = needs("lava")


def drawn(number: int, most: int) -> list[tuple[IntegerNetwork, np.ndarray]]:
    """Draw networks that Lava can run, with inputs."""
    found: list[tuple[IntegerNetwork, np.ndarray]] = []

    @settings(ALWAYS_THE_SAME, max_examples=4 * number)
    @given(graph_runs(most=most, most_steps=5))
    def draw(case: tuple[IntegerNetwork, np.ndarray]) -> None:
        if not LavaTarget().unsupported(case[0]) and not IntegerTarget().unsupported(case[0]):
            found.append(case)

    draw()
    # Hypothesis begins with the smallest, and often keeps a part of the one before.
    chosen = found[:: max(len(found) // number, 1)][-number:]
    assert len(chosen) == number
    return chosen


@pytest.fixture(scope="module")
def runs():
    """Networks, their inputs, and what Lava made of them."""
    cases = drawn(min(GRAPHS, USUAL), 3)
    if GRAPHS > USUAL:
        cases += drawn(GRAPHS - USUAL, 6)
    return list(zip(cases, LavaTarget().run_each(cases, record=True), strict=True))


def test_lava_equals_the_simulator(runs):
    for number, ((network, inputs), run) in enumerate(runs):
        simulator = IntegerTarget("numpy").run(network, inputs, record=True)
        assert differences(run, simulator) == [], f"network {number}: {network}"
        for place, raster in run.rasters.items():
            assert raster.sum() == run.events[place][0].sum()


def test_they_cover_the_representation(runs):
    networks = [network for (network, _), _ in runs]
    populations = {type(p) for network in networks for p in network.populations}
    assert populations == {*kinds_of(Population), HostNodes}
    edges = [edge for network in networks for edge in network.edges]
    assert any(len(edge.offsets) > 1 for edge in edges)
    assert any(edge.stride > 1 for edge in edges)
    assert any(edge.after for edge in edges)
    assert any(edge.row for edge in edges)
    assert {edge.connection.threshold > 0 for edge in edges} == {True, False}
    assert any(network.input.tokens for network in networks)
    assert max(max(run.saturations.values()) for _, run in runs) > 0
