"""Bootstrap intervals over seeds, chips and images have the width that theory gives."""

import numpy as np
import pytest


@pytest.fixture(scope="module")
def intervals(load_benchmark):
    return load_benchmark("intervals")


def test_chips_of_a_seed_that_agree_count_once(intervals):
    of_seeds = np.random.default_rng(0).normal(size=(40, 1))
    low, high = intervals.of_mean(np.repeat(of_seeds, 5, axis=1))
    error = of_seeds.std() / np.sqrt(40)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert low < of_seeds.mean() < high


def test_chips_that_differ_add_their_part(intervals):
    values = np.random.default_rng(1).normal(size=(1, 60))
    low, high = intervals.of_mean(values)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(60), rel=0.1)


def test_images_are_the_same_on_all_chips(intervals):
    hits = np.zeros((2, 3, 100))
    hits[:, :, :80] = 1.0  # every chip is right about the same images, so that chips add nothing
    low, high = intervals.of_mean(hits)
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.8 * 0.2 / 100), rel=0.1)


def test_a_ratio_is_over_the_same_chips(intervals):
    reference = np.random.default_rng(2).uniform(1.0, 3.0, size=(10, 1))
    assert intervals.of_ratio(2.0 * reference, reference) == pytest.approx((2.0, 2.0))
    assert intervals.shown((0.123, 0.456), 1, 100.0) == "12.3 to 45.6"
