"""Drift, temperature and faults of a virtual chip, against their closed forms."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from converters.spiking.populations import ChipLife, Drift, make_populations, with_mismatch
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.spiking.chip import NeuronModel, Populations
from lmu_deploy.hardware.profile import load_profile, profile_names

STILL = Drift(*(0.0,) * 3, 50.0, *(0.0,) * 6, 25.0, 0.0, 0.0)
SHAPE = (20, 200)


@pytest.fixture(scope="module")
def chip():
    rng = np.random.default_rng(0)
    made = make_populations(*SHAPE, NeuronModel("lif", 20.0, 2.0), (100.0, 200.0), rng)
    return with_mismatch(made, 0.2, rng, 0.1)


def test_a_chip_without_drift_stays_as_it_is(chip):
    aged = ChipLife(chip, STILL, [1]).at(1000, 25.0)
    for name in ("gain_factors", "bias_factors", "tau_factors"):
        np.testing.assert_array_equal(getattr(aged, name), getattr(chip, name))
    assert aged.faults is None


@pytest.mark.parametrize("day", [1, 10, 50, 400])
def test_the_drift_has_the_variance_and_correlation_of_its_process(chip, day):
    life = ChipLife(chip, dataclasses.replace(STILL, gain_drift=0.2, bias_drift=0.1), [2])
    first = np.log(life.at(day, 25.0).gain_factors / chip.gain_factors)
    expected = 0.2 * np.sqrt(1.0 - np.exp(-2.0 * day / 50.0))
    assert first.std() == pytest.approx(expected, rel=0.05)
    later = np.log(life.at(day + 25, 25.0).gain_factors / chip.gain_factors)
    # Regression of the later on the earlier drift: the decay of 25 days.
    kept = float((first * later).sum() / (first * first).sum())
    assert kept == pytest.approx(np.exp(-0.5), abs=0.08)
    biases = np.log(life.at(day, 25.0).bias_factors / chip.bias_factors)
    assert biases.std() == pytest.approx(0.5 * expected, rel=0.05)
    assert abs(np.corrcoef(first.ravel(), biases.ravel())[0, 1]) < 0.06


def test_temperature_has_a_common_and_an_own_part(chip):
    warmth = {"tau_temperature": 0.003, "tau_spread": 0.001}
    life = ChipLife(chip, dataclasses.replace(STILL, **warmth), [3])
    warm, cold = life.at(0, 60.0), life.at(0, 0.0)
    change = warm.tau_factors / chip.tau_factors - 1.0
    assert change.mean() == pytest.approx(0.003 * 35.0, rel=0.03)
    assert change.std() == pytest.approx(0.001 * 35.0, rel=0.05)
    np.testing.assert_allclose((cold.tau_factors / chip.tau_factors - 1.0) / -25.0, change / 35.0)
    np.testing.assert_array_equal(warm.gain_factors, chip.gain_factors)
    np.testing.assert_array_equal(life.at(7, 25.0).tau_factors, chip.tau_factors)


def test_neurons_die_and_get_stuck_at_their_rates_and_never_recover(chip):
    rates = {"dead_rate": 0.1, "stuck_rate": 0.05}
    life = ChipLife(chip, dataclasses.replace(STILL, **rates), [4])
    year, later = life.at(365, 25.0).faults, life.at(730, 25.0).faults
    assert (year == -1.0).mean() == pytest.approx(1.0 - np.exp(-0.1), rel=0.1)
    assert (year == 1.0).mean() == pytest.approx((1.0 - np.exp(-0.05)) * np.exp(-0.1), rel=0.2)
    assert np.all(later[year == -1.0] == -1.0) and np.count_nonzero(later) > np.count_nonzero(year)


def test_a_life_does_not_depend_on_the_days_that_are_looked_at(chip):
    drift = dataclasses.replace(STILL, gain_drift=0.2, gain_spread=0.01, dead_rate=0.2)
    one, other = ChipLife(chip, drift, [5]), ChipLife(chip, drift, [5])
    other.at(300, 25.0)
    for day in (30, 7, 365):
        a, b = one.at(day, 40.0), other.at(day, 40.0)
        np.testing.assert_array_equal(a.gain_factors, b.gain_factors)
        np.testing.assert_array_equal(a.faults, b.faults)
    another = ChipLife(chip, drift, [6]).at(30, 25.0)
    assert np.any(another.gain_factors != one.at(30, 25.0).gain_factors)


def test_faulty_neurons_ignore_their_drive():
    ones = np.ones((1, 3))
    faults = np.array([[-1.0, 0.0, 1.0]])
    found = Populations(ones, 2.0 * ones, 3.0 * ones, ones, ones, faults=faults)
    np.testing.assert_array_equal(found.slopes, [[0.0, 2.0, 0.0]])
    np.testing.assert_array_equal(found.offsets, [[-1000.0, 3.0, 1000.0]])
    with pytest.raises(InputError, match="faults must be -1, 0 or 1"):
        dataclasses.replace(found, faults=0.5 * ones)
    with pytest.raises(InputError, match="noise_factors must be positive"):
        dataclasses.replace(found, noise_factors=0.0 * ones)


def test_wrong_ages_and_figures_are_refused(chip):
    life = ChipLife(chip, STILL, [7])
    with pytest.raises(InputError, match="age is -1"):
        life.at(-1, 25.0)
    with pytest.raises(InputError, match="temperature is -300"):
        life.at(0, -300.0)
    with pytest.raises(InputError, match="drift_time is 0"):
        dataclasses.replace(STILL, drift_time=0.0)
    # Far from the reference a linear law would turn negative.
    hot = ChipLife(chip, dataclasses.replace(STILL, gain_temperature=-0.05), [8]).at(0, 100.0)
    assert np.all(hot.gain_factors > 0.0)


def test_every_analog_profile_says_how_its_chips_age():
    for name in profile_names("analog"):
        figures = load_profile(name).drift
        assert Drift(**figures.values())
        for figure in dict(figures).values():
            assert figure.source.startswith("assumed: ") or "20" in figure.source
