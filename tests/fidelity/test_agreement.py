"""Agreement with the reference, compared with SciPy and with counts by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.metrics import nrmse
from lmu_deploy.fidelity.measures.agreement import ClassAgreement, class_agreement, deviation


def test_flips_are_counted():
    answers = np.array([0, 1, 2, 0, 1])
    reference = np.eye(3)[[0, 1, 2, 1, 0]]
    outputs = np.eye(3)[[0, 2, 2, 0, 2]]
    found = class_agreement(outputs, reference, answers)
    assert found == ClassAgreement(samples=5, flips=3, lost=1, gained=1)
    assert found.share == pytest.approx(0.4)


def test_first_of_equal_outputs_wins():
    ties = np.zeros((1, 3))
    assert class_agreement(ties, np.eye(3)[[0]], np.array([0])).flips == 0
    assert class_agreement(ties, np.eye(3)[[1]], np.array([0])).flips == 1


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (3, 3), (9, 1), (0, 6), (40, 22)])
def test_mcnemar_is_the_exact_binomial_tail(lost, gained):
    few, changed = min(lost, gained), lost + gained
    expected = min(1.0, 2.0 * binom.cdf(few, changed, 0.5))
    found = ClassAgreement(100, changed, lost, gained).p_value
    assert found == pytest.approx(expected)
    if changed:
        assert found == pytest.approx(binomtest(gained, changed).pvalue)


def test_paired_interval_covers_the_difference():
    rng = np.random.default_rng(8)
    shares = np.array([0.04, 0.01, 0.95])
    hits = 0
    for lost, gained, _ in rng.multinomial(400, shares, size=1000):
        low, high = ClassAgreement(400, lost + gained, lost, gained).difference_ci95
        hits += low <= shares[1] - shares[0] <= high
    assert 0.93 <= hits / 1000 <= 0.975


def test_deviation_is_the_nrmse_to_the_reference(rng):
    reference, noise = rng.normal(size=(2, 4, 9, 2))
    assert deviation(reference + noise, reference, 3) == pytest.approx(
        nrmse(reference + noise, reference, 3)
    )
    flat = rng.normal(size=(5, 3))
    assert deviation(2.0 * flat, flat) == pytest.approx(1.0)
    assert deviation(flat, np.zeros_like(flat)) is None


def test_samples_must_be_the_same():
    with pytest.raises(InputError):
        class_agreement(np.zeros((2, 3)), np.zeros((3, 3)), np.zeros(2))
    with pytest.raises(InputError):
        class_agreement(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0))
