"""Networks that hypothesis draws: Lava equals the bit-exact simulator.

They run in one interpreter, because its start is most of what a small one takes. The environment
variable ``LMU_DEPLOY_LAVA_GRAPHS`` asks for another number of them, and for larger ones beyond the
first.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import pytest
from equal_runs import differences
from hypothesis import HealthCheck, Phase, find, given, settings
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


Case = tuple[IntegerNetwork, np.ndarray]
WANTED: dict[str, Callable[[IntegerNetwork], bool]] = {
    **{
        kind.__name__: lambda network, kind=kind: kind in map(type, network.populations)
        for kind in (*kinds_of(Population), HostNodes)
    },
    "offsets": lambda network: any(len(edge.offsets) > 1 for edge in network.edges),
    "a stride": lambda network: any(edge.stride > 1 for edge in network.edges),
    "frames after": lambda network: any(edge.after for edge in network.edges),
    "a row": lambda network: any(edge.row for edge in network.edges),
    "a threshold": lambda network: any(e.connection.threshold for e in network.edges),
    "no threshold": lambda network: not all(e.connection.threshold for e in network.edges),
    "tokens": lambda network: network.input.tokens,
}
"""What the networks together have: every population, and edges of every kind."""


def runs_on_both(network: IntegerNetwork) -> bool:
    """Return whether Lava and the simulator can run a network."""
    return not LavaTarget().unsupported(network) and not IntegerTarget().unsupported(network)


def first(has: Callable[[IntegerNetwork], bool]) -> Case:
    """Draw networks until one has what is wanted."""
    return find(
        graph_runs(most=2, most_steps=5),
        lambda case: has(case[0]) and runs_on_both(case[0]),
        settings=settings(ALWAYS_THE_SAME, max_examples=1000),
    )


def covering() -> list[Case]:
    """Return networks that together have everything that is wanted."""
    found: list[Case] = []
    for _, has in sorted(WANTED.items()):
        if not any(has(network) for network, _ in found):
            found.append(first(has))
    return found


def drawn(number: int, most: int) -> list[Case]:
    """Draw networks that Lava can run, with inputs."""
    found: list[Case] = []

    @settings(ALWAYS_THE_SAME, max_examples=4 * number)
    @given(graph_runs(most=most, most_steps=5))
    def draw(case: Case) -> None:
        if runs_on_both(case[0]):
            found.append(case)

    draw()
    # Hypothesis begins with the smallest, and often keeps a part of the one before.
    chosen = found[:: max(len(found) // number, 1)][-number:]
    assert len(chosen) == number
    return chosen


@pytest.fixture(scope="module")
def runs():
    """Networks, their inputs, and what Lava made of them."""
    cases = covering()
    cases += drawn(max(min(GRAPHS, USUAL) - len(cases), 1), 3)
    if GRAPHS > USUAL:
        cases += drawn(GRAPHS - USUAL, 6)
    return list(zip(cases, LavaTarget().run_each(cases, record=True), strict=True))


def test_lava_equals_the_simulator(runs):
    for number, ((network, inputs), run) in enumerate(runs):
        simulator = IntegerTarget("numpy").run(network, inputs, record=True)
        assert differences(run, simulator) == [], f"network {number}: {network}"
        for place, raster in run.rasters.items():
            assert raster.sum() == run.events[place][0].sum()


@pytest.mark.parametrize("what", sorted(WANTED))
def test_they_cover_the_representation(what, runs):
    assert any(WANTED[what](network) for (network, _), _ in runs)


def test_some_values_saturate(runs):
    assert max(max(run.saturations.values()) for _, run in runs) > 0
