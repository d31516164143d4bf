"""Weights of few bits: the weights that are still free compensate each rounding."""

import itertools

import numpy as np
import pytest

from converters.spiking.ridge import (
    Products,
    Regression,
    fit_sparse,
    round_and_refit,
    round_sparse,
    round_weights,
)


@pytest.fixture
def products(rng):
    """Features that overlap, as the rates of neurons of one population do."""
    features = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 40))
    features += 0.3 * rng.normal(size=features.shape)
    targets = features @ rng.normal(size=(40, 3)) + 0.1 * rng.normal(size=(500, 3))
    found = Products(40, 3)
    found.add(features, targets)
    return found


@pytest.mark.parametrize("bits", [2, 4, 6])
def test_what_is_refitted_loses_less_than_what_is_rounded_alone(products, bits):
    best = Regression(products).fit(1e-4)
    refitted = round_and_refit(best.T, bits, products.penalized(1e-4))
    least = products.mean_square_error(best)
    lost = products.mean_square_error(refitted.T) - least
    assert 0.0 < lost < 0.35 * (products.mean_square_error(round_weights(best.T, bits).T) - least)


@pytest.mark.parametrize("bits", [2, 5])
def test_refitted_weights_are_representable_on_the_chip(products, bits):
    best = Regression(products).fit(1e-4)
    refitted = round_and_refit(best.T, bits, products.penalized(1e-4))
    np.testing.assert_allclose(round_weights(refitted, bits), refitted, rtol=1e-12, atol=0.0)
    largest = 2 ** (bits - 1) - 1
    steps = refitted / (np.abs(best.T).max(axis=1, keepdims=True) / largest)
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-9)
    assert np.abs(steps).max() <= largest + 1e-9


def test_orthogonal_columns_are_rounded_independently(rng):
    weights = rng.normal(size=(3, 12))
    products = np.diag(rng.uniform(1.0, 2.0, 12))
    found = round_and_refit(weights, 4, products)
    np.testing.assert_allclose(found, round_weights(weights, 4), atol=1e-12)


def test_equal_features_compensate_the_rounding_of_each_other():
    """Of two equal features, the second takes the rounding error of the first."""
    products = np.ones((3, 3)) + 1e-9 * np.eye(3)
    found = round_and_refit(np.array([[7.0, 2.4, 2.4]]), 4, products)
    assert found.sum() == pytest.approx(12.0) and round_weights(
        np.array([[7.0, 2.4, 2.4]]), 4
    ).sum() == pytest.approx(11.0)


def test_rows_of_zeros_stay_zero():
    np.testing.assert_array_equal(round_and_refit(np.zeros((2, 4)), 3, np.eye(4)), 0.0)


def test_silent_neurons_and_few_rows_leave_equations_that_can_be_solved(rng):
    few = Products(30, 2)
    few.add(np.where(np.arange(30) < 4, 0.0, rng.normal(size=(5, 30))), rng.normal(size=(5, 2)))
    assert np.linalg.eigvalsh(few.penalized(0.0)).min() > 0.0
    assert np.linalg.eigvalsh(Products(3, 1).penalized(1e-6)).min() > 0.0
    best = Regression(few).fit(1e-6)
    assert np.isfinite(round_and_refit(best.T, 6, few.penalized(1e-6))).all()


def test_few_features_are_the_best_ones_where_they_are_independent(rng):
    """Orthogonal features: the best subset is that of the largest weights, found by no search."""
    features = np.linalg.qr(rng.normal(size=(60, 12)))[0]
    target = features @ rng.normal(size=12)
    weights = features.T @ target
    found = fit_sparse(features.T @ features, features.T @ target, 4)
    largest = np.argsort(-np.abs(weights))[:4]
    assert set(np.flatnonzero(found)) == set(largest)
    np.testing.assert_allclose(found[largest], weights[largest], atol=1e-9)


def test_few_features_come_close_to_the_best_subset(rng):
    """Features that overlap, against all 210 subsets of four of ten."""
    features = rng.normal(size=(80, 10)) @ (np.eye(10) + 0.4 * rng.normal(size=(10, 10)))
    target = features @ rng.normal(size=10)
    products, aim = features.T @ features, features.T @ target

    def missed(weights):
        return np.linalg.norm(features @ weights - target)

    def within(subset):
        return np.linalg.lstsq(features[:, subset], target)[1][0] ** 0.5

    best = min(within(list(subset)) for subset in itertools.combinations(range(10), 4))
    found = fit_sparse(products, aim, 4)
    assert np.count_nonzero(found) == 4
    assert best <= missed(found) <= 1.25 * best
    assert missed(fit_sparse(products, aim, 10)) < 1e-6 < missed(found)


def test_rounding_few_weights_keeps_the_others_zero(products):
    most = 5
    sparse = Regression(products, most).fit(1e-4).T
    rounded = round_sparse(sparse, 4, products.penalized(1e-4))
    assert (np.count_nonzero(sparse, axis=1) == most).all()
    assert ((rounded != 0.0) <= (sparse != 0.0)).all()
    np.testing.assert_allclose(round_weights(rounded, 4), rounded, rtol=1e-9)
    with_refit, alone = (products.relative_error(w.T) for w in (rounded, round_weights(sparse, 4)))
    assert with_refit <= alone
