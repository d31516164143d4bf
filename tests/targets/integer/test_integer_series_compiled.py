"""The compiled step of a series equals NumPy's in every integer and in all that it counts."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.quantize import quantize
from lmu_deploy.core.integer.layered import SeriesMemory
from lmu_deploy.core.integer.parts import Connection, Format, largest
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, Memory, Readout
from targets.integer import IntegerTarget
from targets.integer.engine import _fastest as fastest
from targets.integer.numpy_engine import Series

pytest.importorskip("torch", reason="the numba engine needs torch")
pytest.importorskip("numba", reason="numba is not installed: pip install 'lmu-deploy[fast]'")
from targets.integer.numba_engine import CompiledEngine

compiled = CompiledEngine().series

PLACES = (
    "series/drive",
    "series/recurrent/slice0",
    "series/term",
    "series/message",
    "memory/state",
    "memory/message",
)


def drawn_series(rng: np.random.Generator) -> SeriesMemory:
    """Any series that the representation allows, of up to three channels; narrow ones and wide."""
    channels, order, terms = rng.integers(1, 4), rng.integers(1, 40), rng.integers(1, 5)
    size, ones = channels * order, np.ones((1, channels * order), int)
    most = rng.choice([99, 32_767])
    return SeriesMemory(
        int(channels),
        int(order),
        int(rng.integers(1, 5)),
        Format(int(rng.integers(8, 33)), 0.01),
        Format(int(rng.integers(2, 33)), 0.04),
        int(rng.integers(0, 14)),
        rng.integers(0, rng.choice([3, 32]), terms - 1),
        rng.integers(1, most, (terms, order), endpoint=True),
        rng.integers(0, 32, (terms, order)),
        Connection(np.ones((1, size, 1), int), ones, 0 * ones),
        None,
        None,
        None,
        int(rng.integers(8, 33)),
    )


def drawn_step(memory: SeriesMemory, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """State, messages and drive, some of them zero, some at their limits."""

    def integers(limit: int) -> np.ndarray:
        values = rng.integers(-limit, limit, (4, memory.size), endpoint=True)
        chosen = rng.integers(0, 6, values.shape)
        values = np.where(chosen < 2, values >> rng.integers(0, 30, values.shape), values)
        values = np.where(chosen == 2, np.where(values < 0, -limit, limit), values)
        return np.where(chosen == 3, 0, values).astype(np.int32)

    return integers(memory.state.limit), integers(memory.message.limit), integers(largest(32))


def differences(one, two, memory: SeriesMemory, seed: int) -> list[str]:
    """Name all that two forms differ in after a step from the same place."""
    step = drawn_step(memory, np.random.default_rng(seed))
    kept = [part.copy() for part in step]
    ours, theirs = one.advance(*step), two.advance(*step)
    names = ("m", "message", "sent")
    found = [n for n in names if not np.array_equal(getattr(ours, n), getattr(theirs, n))]
    found += [p for p in PLACES if ours.saturations.get(p, 0) != theirs.saturations.get(p, 0)]
    (events, synops), (others, other_synops) = one.tally(ours.sent), two.tally(theirs.sent)
    found += [] if np.array_equal(events, others) and synops == other_synops else ["events"]
    found += [] if all(map(np.array_equal, kept, step)) else ["arguments"]
    return found


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_step_is_equal(seed):
    memory = drawn_series(np.random.default_rng(seed))
    assert differences(Series(memory), compiled(memory), memory, seed) == []


def test_what_is_drawn_saturates_everywhere():
    seen: set[str] = set()
    for seed in range(40):
        memory = drawn_series(np.random.default_rng(seed))
        done = compiled(memory).advance(*drawn_step(memory, np.random.default_rng(seed)))
        seen |= {place for place, count in done.saturations.items() if count}
    assert seen == set(PLACES)


class SignBelowDiagonalWrong(Series):
    def _apply(self, k, vector, counts):
        flipped = vector.copy()
        flipped[:, 0] *= -1
        return super()._apply(k, flipped, counts)


class RoundsDown(Series):
    def __init__(self, memory):
        super().__init__(memory)
        self._half = 0 * self._half


class CountsTheLastMessages(Series):
    def advance(self, m, message, drive):
        done = super().advance(m, message, drive)
        return dataclasses.replace(done, sent=done.sent + (done.message != 0))


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (SignBelowDiagonalWrong, {"m", "message"}),
        (RoundsDown, {"m"}),
        (CountsTheLastMessages, {"sent", "events"}),
    ],
)
def test_another_rule_is_caught(fault, expected):
    found: set[str] = set()
    for seed in range(20):
        memory = drawn_series(np.random.default_rng(seed))
        found |= set(differences(fault(memory), compiled(memory), memory, seed))
    assert expected <= found


def network_of(rng: np.random.Generator, order: int, channels: int) -> LMUNetwork:
    """Draw a network of two inputs with e_h and e_m."""
    hidden = Hidden(
        rng.normal(size=(order * channels, 21)) / np.sqrt(order),
        rng.normal(size=(2, 21)),
        rng.normal(size=(21, 21)) / 5.0,
        None,
        "tanh",
    )
    layer = LMULayer(
        rng.normal(size=(2, channels)),
        0.05 * rng.normal(size=(21, channels)),
        0.02 * rng.normal(size=(order * channels, channels)),
        None,
        Memory.legendre(order, 90.0, channels=channels),
        hidden,
    )
    return LMUNetwork((layer,), Readout(rng.normal(size=(21, 4)), None))


@pytest.mark.parametrize(("order", "channels", "bits"), [(45, 1, 5), (16, 3, 12)])
def test_whole_runs_are_equal(rng, order, channels, bits):
    inputs = (rng.random((7, 60, 2)) < 0.4) * rng.normal(size=(7, 60, 2))
    integer = quantize(
        network_of(rng, order, channels), inputs, realization="sign-taylor", message_bits=bits
    )
    loud = np.concatenate([inputs, 3.0 * inputs])
    one, two = (IntegerTarget(e).run(integer, loud, record=True) for e in ("numpy", "numba"))
    assert one.settings != two.settings
    assert one.saturations["layer0/memory/message"] > 0
    for name in "mhy":
        assert np.array_equal(getattr(one.states, name), getattr(two.states, name))
    assert (one.saturations, one.synops, one.carried) == (two.saturations, two.synops, two.carried)
    for name, counts in one.events.items():
        assert np.array_equal(counts, two.events[name])
        assert np.array_equal(one.rasters[name], two.rasters[name])


def test_long_runs_of_a_series_are_compiled_though_their_products_are_few(rng, monkeypatch):
    for module in ("torch", "targets.integer.numba_kernels"):  # as if neither had been imported yet
        monkeypatch.delitem(sys.modules, module, raising=False)
    inputs, network = rng.normal(size=(7, 60, 2)), network_of(rng, 16, 1)
    series, dense = (
        quantize(network, inputs, realization=form) for form in ("sign-taylor", "dense-incremental")
    )
    assert fastest(series, 10_000) == fastest(dense, 10_000) == "numpy"
    assert fastest(series, 10_000_000) == "numba"
    assert fastest(dense, 10_000_000) == "numpy"
