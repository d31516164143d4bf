"""The compiled step of a series equals NumPy's in every integer and in all that it counts."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.quantize import quantize
from lmu_deploy.core.integer.functions import saturated
from lmu_deploy.core.integer.memories import Series, sign_matrix
from lmu_deploy.core.integer.parts import Format, Place, largest
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, Memory, Readout
from targets.integer import IntegerTarget
from targets.integer.engine import _fastest as fastest
from targets.integer.numpy_engine import SeriesStep

pytest.importorskip("torch", reason="the numba engine needs torch")
pytest.importorskip("numba", reason="numba is not installed: pip install 'lmu-deploy[fast]'")
from targets.integer.numba_engine import CompiledEngine

compiled = CompiledEngine().series
MEMORY, TERMS = Place("lmu", "memory"), Place("lmu", "series")
STATES = ("m", "message", "sent")
COUNTED = (
    f"{TERMS}/drive",
    f"{TERMS}/recurrent/slice0",
    f"{TERMS}/term",
    f"{TERMS}/message",
    f"{MEMORY}/state",
    f"{MEMORY}/message",
)


def drawn_series(rng: np.random.Generator, form: type[Series] = Series) -> Series:
    """Any series that the representation allows, of up to three channels; narrow ones and wide."""
    channels, order, terms = rng.integers(1, 4), rng.integers(1, 40), rng.integers(1, 5)
    most = rng.choice([99, 32_767])
    return form(
        MEMORY,
        TERMS,
        int(channels),
        int(order),
        int(rng.integers(1, 5)),
        Format(int(rng.integers(8, 33)), 0.01),
        Format(int(rng.integers(2, 33)), 0.04),
        int(rng.integers(0, 14)),
        rng.integers(0, rng.choice([3, 32]), terms - 1),
        rng.integers(1, most, (terms, order), endpoint=True),
        rng.integers(0, 32, (terms, order)),
        None if rng.integers(2) else rng.integers(-500, 500, channels * order),
        int(rng.integers(8, 33)),
    )


def drawn_step(series: Series, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """State, messages and drive, some of them zero, some at their limits."""

    def integers(limit: int) -> np.ndarray:
        values = rng.integers(-limit, limit, (4, series.size), endpoint=True)
        chosen = rng.integers(0, 6, values.shape)
        values = np.where(chosen < 2, values >> rng.integers(0, 30, values.shape), values)
        values = np.where(chosen == 2, np.where(values < 0, -limit, limit), values)
        return np.where(chosen == 3, 0, values)

    # int32_objections refuses a network whose drive does not fit int32 together with the bias.
    bias = 0 if series.bias is None else int(np.abs(series.bias).max())
    m, message = integers(series.state.limit), integers(series.message.limit)
    return m, message, integers(largest(32) - bias)


def differences(one: SeriesStep, two: SeriesStep, series: Series, seed: int) -> list[str]:
    """Name all that two forms differ in after a step from the same place."""
    m, message, drive = drawn_step(series, np.random.default_rng(seed))
    before = [part.copy() for part in (m, message, drive)]
    sent = np.zeros_like(m)
    ours, my_message, mine = one((m, message, sent), drive)
    theirs, message_of_two, others = two((m, message, sent), drive)
    found = [
        name for name, a, b in zip(STATES, ours, theirs, strict=True) if not np.array_equal(a, b)
    ]
    found += [] if np.array_equal(my_message, message_of_two) else ["sends"]
    found += [p for p in COUNTED if mine.get(p, 0) != others.get(p, 0)]
    found += sorted((set(mine) | set(others)) - set(COUNTED))
    sender = CompiledEngine().series_sender(series)
    (events, synops), (other, other_synops) = sender.tally(ours[2]), sender.tally(theirs[2])
    found += [] if np.array_equal(events, other) and synops == other_synops else ["events"]
    found += [] if all(map(np.array_equal, before, (m, message, drive))) else ["arguments"]
    return found


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_step_is_equal(seed):
    series = drawn_series(np.random.default_rng(seed))
    assert differences(series.update, compiled(series), series, seed) == []


def test_what_is_drawn_saturates_everywhere():
    seen: set[str] = set()
    for seed in range(40):
        series = drawn_series(np.random.default_rng(seed))
        m, message, drive = drawn_step(series, np.random.default_rng(seed))
        counts = compiled(series)((m, message, np.zeros_like(m)), drive)[2]
        seen |= {place for place, count in counts.items() if count}
    assert seen == set(COUNTED)


class SignBelowDiagonalWrong(Series):
    def _apply(self, k, vector, counts):
        flipped = vector.copy()
        flipped[:, 0] *= -1
        return super()._apply(k, flipped, counts)


class RoundsDown(Series):
    def _apply(self, k, vector, counts):
        v = vector.reshape(len(vector), self.channels, self.order)
        sums = v @ sign_matrix(self.order).T.astype(np.int64)
        place = f"{self.inner}/recurrent/slice0"
        sums = saturated(sums, largest(self.accumulator_bits), place, counts)
        return ((sums * self.multiplier[k]) >> self.shift[k]).reshape(vector.shape)


class CountsTheLastMessages(Series):
    def update(self, state, drive):
        (m, vector, sent), message, counts = super().update(state, drive)
        return (m, vector, sent + (vector != 0)), message, counts


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (SignBelowDiagonalWrong, {"m", "message", "sends"}),
        (RoundsDown, {"m"}),
        (CountsTheLastMessages, {"sent", "events"}),
    ],
)
def test_another_rule_is_caught(fault, expected):
    found: set[str] = set()
    for seed in range(20):
        faulty = drawn_series(np.random.default_rng(seed), fault)
        sound = drawn_series(np.random.default_rng(seed))
        found |= set(differences(faulty.update, compiled(sound), sound, seed))
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
