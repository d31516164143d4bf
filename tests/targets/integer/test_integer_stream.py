"""A stream of a million steps takes no more memory than a short one, and does not drift.

The difference of its state from that of a fresh run on the same last inputs is bounded by
targets/integer/limit_cycles.py; integer-semantics.md says why the two differ.
"""

from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layered import layered, relayered

from converters.quantize import quantize
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.network import LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.core.options import REALIZATIONS
from targets.conformance.fixtures import example
from targets.integer import IntegerTarget, step
from targets.integer.limit_cycles import deviation_bound

ORDER, THETA, WINDOW = 6, 20.0, 500
STREAMS, BLOCK, BLOCKS = 100, 1_000, 10
assert STREAMS * BLOCK * BLOCKS == 1_000_000


def memory_alone(realization: str, feedback: bool = False) -> IntegerNetwork:
    rng = np.random.default_rng(1)
    e_m = 0.02 * rng.normal(size=(ORDER, 1)) if feedback else None
    memory = Memory.legendre(ORDER, THETA)
    layer = LMULayer(np.ones((1, 1)), None, e_m, None, memory, None)
    network = LMUNetwork((layer,), Readout(rng.normal(size=(ORDER, 1)), None), True)
    return quantize(network, rng.uniform(-1.0, 1.0, (8, 300, 1)), realization=realization)


def block(number: int) -> np.ndarray:
    """Inputs of a block of steps, shape (streams, steps, 1): noise, and pauses of half a block."""
    inputs = np.random.default_rng([7, number]).uniform(-0.6, 0.6, (STREAMS, BLOCK, 1))
    inputs[number % 2 :: 2, : BLOCK // 2] = 0.0
    return inputs


def fresh(network: IntegerNetwork, inputs: np.ndarray) -> np.ndarray:
    """States after inputs from zero on."""
    return IntegerTarget("numpy").run(network, inputs, record=True).states.m[:, -1]


def deviations(network: IntegerNetwork, blocks: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Follow streams; compare each with a fresh run at the end of every block.

    Returns the deviations (blocks, states) and their bounds, in units of the state, and the rms of
    the states.
    """
    memory, stream, found, bounds, squares = layered(network).layers[0].memory, None, [], [], []
    for number in range(blocks):
        inputs = block(number)
        for t in range(BLOCK):
            if t == BLOCK - WINDOW:
                before = np.abs(stream.memories[0]).max(axis=0)
            _, stream = step(network, inputs[:, t], stream)
        state = stream.memories[0]
        found.append(np.abs(state - fresh(network, inputs[:, -WINDOW:])).max(axis=0))
        bounds.append(deviation_bound(memory, WINDOW, before))
        squares.append(np.mean(state.astype(float) ** 2))
    assert not any(n for place, n in stream.state.saturations.items() if "memory" in place)
    return np.array(found), np.array(bounds), float(np.sqrt(np.mean(squares)))


def test_a_million_steps_do_not_drift():
    found, bounds, rms = deviations(memory_alone("dense-incremental"), BLOCKS)
    assert np.all(found <= bounds)
    assert found[-1].max() > 0, "no limit cycle: compare exactly instead"
    assert bounds.max() < 0.05 * rms
    assert np.ptp(bounds.max(axis=1)) < 1e-3 * bounds.max(), "the bound is the same at any time"


@pytest.mark.parametrize("realization", REALIZATIONS)
def test_every_realization_stays_within_its_bound(realization):
    network = memory_alone(realization, feedback=realization in ("schur", "sign-taylor"))
    found, bounds, rms = deviations(network, 1)
    assert np.all(found <= bounds)
    assert bounds.max() < 0.15 * rms
    assert (realization == "fir") == (bounds.max() == 0.0), "a delay line forgets all"


# Threads of other tests in this process allocate memory, too.
OWN_MEMORY = tracemalloc.Filter(True, "*/targets/integer/*")


def test_memory_stays_constant():
    network, stream, sizes = memory_alone("dense-incremental"), None, []
    inputs = np.concatenate([block(0)[:1], block(1)[:1]], axis=1)
    for t in range(inputs.shape[1]):
        if t == 500:
            tracemalloc.start()
        _, stream = step(network, inputs[:, t], stream)
        if t in (1_000, inputs.shape[1] - 1):
            held = tracemalloc.take_snapshot().filter_traces([OWN_MEMORY])
            sizes.append(sum(trace.size for trace in held.traces))
    tracemalloc.stop()
    assert 0 < sizes[1] < sizes[0] + 1_000


@settings(max_examples=15)
@given(
    st.sampled_from(["dense-incremental", "schur", "sign-taylor"]),
    st.integers(0, 2**32 - 1),
    st.integers(1, 300),
    st.sampled_from([0, 1, 40]),
)
def test_two_pasts_never_lie_further_apart_than_the_bound(realization, seed, steps, threshold):
    """After any number of equal inputs, with a threshold on what the memory sends itself too."""
    network, rng = memory_alone(realization), np.random.default_rng(seed)
    memory = layered(network).layers[0].memory
    if realization != "sign-taylor":
        recurrent = dataclasses.replace(memory.recurrent, threshold=threshold)
        memory = dataclasses.replace(memory, recurrent=recurrent)
        layer = dataclasses.replace(layered(network).layers[0], memory=memory)
        network = relayered(network, layers=(layer,))
    inputs = rng.uniform(-0.6, 0.6, (2, 100 + steps, 1))
    inputs[1, 100:] = inputs[0, 100:]
    m = IntegerTarget("numpy").run(network, inputs, record=True).states.m.astype(np.int64)
    apart = np.abs(m[0] - m[1])
    assert np.all(apart[-1] <= deviation_bound(memory, steps, apart[99]))


def test_a_bound_that_leaves_out_a_rounding_is_passed(monkeypatch):
    """The bound is no larger than it has to be by much: without messages' errors it is broken."""
    network = memory_alone("dense-incremental")
    monkeypatch.setattr("targets.integer.limit_cycles._half", lambda shift: 0.0)
    found, bounds, _ = deviations(network, 1)
    assert np.any(found > bounds)


def test_feedback_through_an_activation_has_no_bound():
    given_ = example("recurrent")
    memory = layered(quantize(given_.network, given_.calibration)).layers[0].memory
    with pytest.raises(InputError, match="hidden units"):
        deviation_bound(memory, 10, np.zeros(memory.size))
