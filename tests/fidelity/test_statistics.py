"""Intervals compared with SciPy, with direct resampling, and with their nominal coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, poisson

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.metrics import nrmse
from lmu_deploy.fidelity.measures.statistics import (
    bennett,
    bootstrap_nrmse,
    bootstrap_nrmse_difference,
    missing,
    squared_sums,
    wilson,
)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_equals_scipy(counts):
    successes, trials = counts
    expected = binomtest(successes, trials).proportion_ci(0.95, "wilson")
    assert wilson(successes, trials) == (expected.low, expected.high)


@pytest.mark.parametrize("counts", [(0, 0), (3, 2), (-1, 4)])
def test_wilson_refuses_impossible_counts(counts):
    with pytest.raises(InputError):
        wilson(*counts)


def test_squared_sums_give_the_metric(rng):
    targets, outputs = rng.normal(size=(2, 7, 30, 2))
    errors, norms = squared_sums(outputs, targets, washout=4)
    assert np.sqrt(errors.sum() / norms.sum()) == pytest.approx(nrmse(outputs, targets, 4))


def test_bootstrap_equals_resampling_the_arrays(rng):
    targets = rng.normal(size=(25, 12, 1))
    outputs = targets + 0.3 * rng.normal(size=(25, 1, 1)) * rng.normal(size=targets.shape)
    values = []
    for _ in range(3000):
        drawn = rng.integers(0, 25, 25)
        values.append(nrmse(outputs[drawn], targets[drawn]))
    expected = np.percentile(values, [2.5, 97.5])
    found = bootstrap_nrmse(*squared_sums(outputs, targets), seed=1)
    assert found == pytest.approx(expected, rel=0.04)
    assert found == bootstrap_nrmse(*squared_sums(outputs, targets), seed=1)
    assert found != bootstrap_nrmse(*squared_sums(outputs, targets), seed=2)


def test_bootstrap_covers_the_truth_about_as_often_as_stated():
    rng = np.random.default_rng(3)
    hits = 0
    for trial in range(200):
        spread = rng.gamma(4.0, 0.25, size=(60, 1, 1))
        targets = rng.normal(size=(60, 20, 1))
        outputs = targets + 0.5 * np.sqrt(spread) * rng.normal(size=targets.shape)
        low, high = bootstrap_nrmse(*squared_sums(outputs, targets), seed=trial, resamples=400)
        hits += low <= 0.5 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_difference_is_paired(rng):
    targets = rng.normal(size=(40, 10, 1))
    scale = rng.gamma(1.0, 1.0, size=(40, 1, 1))
    noise = scale * rng.normal(size=targets.shape)
    errors, norms = squared_sums(targets + 1.05 * noise, targets)
    reference, _ = squared_sums(targets + noise, targets)
    low, high = bootstrap_nrmse_difference(errors, reference, norms)
    alone_low, alone_high = bootstrap_nrmse(errors, norms)
    assert 0.0 < low < high
    assert high - low < (alone_high - alone_low) / 5


@pytest.mark.parametrize("expected", [0.1, 1.0, 20.0, 1e6])
def test_limit_of_rare_events_holds_for_counts(expected):
    """Poisson tails are within the bound, and large counts are nearly normal."""
    for deviations in (2.0, 4.0, 6.0):
        limit = float(bennett(np.array(expected), np.array(1.0), deviations))
        assert poisson.sf(np.ceil(expected + limit) - 1, expected) <= np.exp(-0.5 * deviations**2)
        assert limit >= deviations * expected**0.5
    assert (limit == pytest.approx(deviations * expected**0.5, rel=0.01)) == (expected == 1e6)


def test_limit_of_missing_terms_holds_for_sums_of_few(rng):
    """Exact tails of sums of a few terms of which one in a hundred is missing."""
    terms = np.array([4.0, 3.0, 3.0, 2.0, 1.0])
    for deviations in (2.0, 4.0, 6.0):
        limit = float(missing(np.array(1e-6), terms, 0.01, deviations))
        tail = sum(
            float(np.prod(np.where(lost, 0.01, 0.99)))
            for lost in np.ndindex(2, 2, 2, 2, 2)
            if terms @ lost >= limit
        )
        assert tail <= np.exp(-0.5 * deviations**2)
    plain = float(missing(np.array(9.0), np.zeros(5), 0.01, 4.0))
    assert plain == pytest.approx(12.0, rel=0.01)  # nothing to miss: a normal distribution


def test_one_sample_has_no_interval():
    assert bootstrap_nrmse(np.ones(1), np.ones(1)) is None
    assert bootstrap_nrmse(np.ones(3), np.zeros(3)) is None
    assert bootstrap_nrmse_difference(np.ones(1), np.ones(1), np.ones(1)) is None


def test_shapes_must_fit():
    with pytest.raises(InputError, match="samples, steps, n_out"):
        squared_sums(np.zeros((2, 3, 1)), np.zeros((2, 4, 1)))
