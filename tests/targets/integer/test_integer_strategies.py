"""Networks that hypothesis draws: ONNX Runtime and Lava equal the bit-exact simulator.

Two hundred networks for ONNX Runtime; twenty for Lava, which run in one interpreter, because its
start is most of what they take.
"""

from __future__ import annotations

import importlib.util
from itertools import islice, zip_longest

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from lmu_deploy.core.integer.graph import edges
from lmu_deploy.core.integer.layers import SeriesMemory
from lmu_deploy.core.integer.network import IntegerNetwork
from targets.base import Run
from targets.conformance.strategies import integer_networks, loud_and_quiet
from targets.integer import IntegerTarget

FOR_ONNX, FOR_LAVA = 200, 20
SEEDS = st.integers(0, 1000)
ALWAYS_THE_SAME = settings(
    phases=[Phase.generate],
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def needs(library: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        importlib.util.find_spec(library) is None,
        reason=f"{library} is not installed; run lmu-deploy doctor --fix",
    )


def differences(ours: Run, theirs: Run) -> list[str]:
    """Name all that two runs of one network differ in."""
    assert ours.states is not None
    assert theirs.states is not None
    found = [
        name
        for name in ("m", "h", "y")
        if not np.array_equal(getattr(ours.states, name), getattr(theirs.states, name))
    ]
    found += [] if np.array_equal(ours.outputs, theirs.outputs) else ["outputs"]
    found += [] if ours.synops == theirs.synops else ["synops"]
    found += [] if ours.carried == theirs.carried else ["carried"]
    for kind in ("events", "saturations"):
        mine, other = getattr(ours, kind), getattr(theirs, kind)
        places = sorted(set(mine) | set(other))
        found += [
            f"{kind} {place}"
            for place in places
            if not (place in mine and place in other and np.array_equal(mine[place], other[place]))
        ]
    return found


def simulate(network: IntegerNetwork, inputs: np.ndarray) -> Run:
    return IntegerTarget("numpy").run(network, inputs, record=True)


@needs("onnxruntime")
@settings(max_examples=FOR_ONNX)
@given(network=integer_networks(), seed=SEEDS)
def test_onnx_runtime_equals_the_simulator(network, seed):
    from targets.onnxruntime import OnnxRuntimeTarget

    inputs = loud_and_quiet(network, seed)
    assume(not IntegerTarget().unsupported(network))
    ours = OnnxRuntimeTarget().run(network, inputs, record=True)
    assert differences(ours, simulate(network, inputs)) == []


@pytest.fixture(scope="module")
def on_lava():
    """Networks that Lava can run, their inputs, and what it made of them."""
    from targets.lava import LavaTarget

    lava, cases = LavaTarget(), []

    @settings(ALWAYS_THE_SAME, max_examples=10 * FOR_LAVA)
    @given(network=integer_networks(thresholds=True), seed=SEEDS)
    def draw(network: IntegerNetwork, seed: int) -> None:
        if not IntegerTarget().unsupported(network) and not lava.unsupported(network):
            cases.append((network, loud_and_quiet(network, seed)))

    draw()
    # Of each number of layers the last: hypothesis begins with the smallest, and often keeps a part
    # of the previous one. Its choices depend on the constants in all modules that are imported.
    by_depth = [[case for case in cases[::-1] if len(case[0].layers) == n][::3] for n in (1, 2, 3)]
    in_turn = (case for group in zip_longest(*by_depth) for case in group if case is not None)
    chosen = list(islice(in_turn, FOR_LAVA))
    assert len(chosen) == FOR_LAVA
    return list(zip(chosen, lava.run_each(chosen, record=True), strict=True))


@needs("lava")
def test_lava_equals_the_simulator(on_lava):
    for number, ((network, inputs), run) in enumerate(on_lava):
        assert differences(run, simulate(network, inputs)) == [], f"network {number}: {network}"


@needs("lava")
def test_networks_for_lava_cover_the_representation(on_lava):
    networks = [network for (network, _), _ in on_lava]
    layers = [layer for network in networks for layer in network.layers]
    assert {len(network.layers) for network in networks} == {1, 2, 3}
    assert any(isinstance(layer.memory, SeriesMemory) for layer in layers)
    assert any(layer.memory.hidden is not None for layer in layers)
    assert any(layer.hidden is None for layer in layers)
    assert {edge.connection.threshold > 0 for n in networks for edge in edges(n)} == {True, False}
    assert max(max(run.saturations.values()) for _, run in on_lava) > 0
    assert sum(bool(run.states.m.any() and run.states.y.any()) for _, run in on_lava) > 10


@needs("lava")
def test_one_changed_answer_is_seen(on_lava):
    (network, inputs), run = on_lava[0]
    other = simulate(network, inputs)
    other.states.y[-1, -1, -1] += 1
    assert differences(run, other) == ["y"]
