"""A hundred networks that hypothesis draws: ONNX Runtime equals the bit-exact simulator."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from needs import needs

from lmu_deploy.core.integer.network import IntegerNetwork
from targets.base import Run
from targets.conformance.strategies import integer_networks, loud_and_quiet
from targets.integer import IntegerTarget

FOR_ONNX = 100
SEEDS = st.integers(0, 1000)


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
