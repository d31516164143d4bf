"""Neurons, populations and the maps that are fitted to them, without any simulator library."""

import dataclasses

import numpy as np
import pytest

from converters.spiking.calibration import measure_rates, static
from converters.spiking.closed_loop import behind_synapse, divide_step
from converters.spiking.dynamic import Recorder, dynamic, follow, ranges
from converters.spiking.neurons import NEURONS, Chip
from converters.spiking.populations import currents_for, make_populations, with_mismatch
from converters.spiking.ridge import Products, Regression, best_ridge, round_weights
from lmu_deploy.core.network import Memory
from lmu_deploy.core.spiking.chip import Device, NeuronModel, Populations

LIF = NeuronModel("lif", 20.0, 2.0)
DPI = NeuronModel("dpi", 20.0, 2.0)
IDEAL = Device("generic-analog", 0, 0.0, 0.0, 0)
PARTS, TAU_MS = 50, 100.0


def single(current):
    """Neurons of one population whose currents at state zero are given."""
    ones = np.ones((1, len(current)))
    return Populations(ones, 0.0 * ones, np.array([current], dtype=float), ones, ones)


def count(populations, model, device, dt_ms, seconds, copies=1):
    rng = np.random.default_rng(0)
    neurons = NEURONS[model.kind](populations, model, device, dt_ms, copies, rng)
    x = np.zeros((copies, populations.states))
    total = np.zeros(neurons.v.shape)
    for _ in range(round(1e3 * seconds / dt_ms)):
        total += neurons.step(x)
    return total / seconds


def test_rates_approach_the_textbook_formula_as_the_step_shrinks():
    current = np.array([0.5, 0.99, 1.05, 1.5, 3.0, 10.0])
    with np.errstate(divide="ignore", invalid="ignore"):
        formula = 1e3 / (2.0 + 20.0 * np.log(current / (current - 1.0)))
    formula[current <= 1.0] = 0.0
    rates = count(single(current), LIF, IDEAL, 0.05, 4.0)[0, 0]
    np.testing.assert_allclose(rates, formula, rtol=0.02, atol=0.3)


def test_coarse_steps_slow_strong_neurons_down():
    """A spike waits for the end of its step: every interval is a whole number of milliseconds."""
    rates = count(single([10.0]), LIF, IDEAL, 1.0, 10.0)[0, 0]
    free_steps = np.ceil(20.0 * np.log(10.0 / 9.0))
    assert rates == pytest.approx(1e3 / (2.0 + free_steps - 1.0), abs=0.2)


def test_dpi_rates_approach_those_of_continuous_time_as_the_step_shrinks():
    wanted = np.array([20.0, 50.0, 100.0, 200.0])
    threshold, currents = currents_for(DPI, wanted)
    rates = count(single([0.99 * threshold, *currents]), DPI, IDEAL, 0.05, 4.0)[0, 0]
    np.testing.assert_allclose(rates[1:], wanted, rtol=0.01)
    assert rates[0] <= 0.25  # a membrane may start above the onset, and then spikes once


def test_a_dpi_without_feedback_is_a_linear_filter_where_its_current_is_large():
    """Below its onset v = J (1 - exp(-t / tau)), but for the gain current's share."""
    neurons = NEURONS["dpi"](single([0.5]), DPI, IDEAL, 0.01, 1, np.random.default_rng(0))
    neurons.v[:] = 0.1
    for _ in range(2000):
        neurons.step(np.zeros((1, 1)))
    assert neurons.v.item() == pytest.approx(0.5 - 0.4 * np.exp(-1.0), rel=0.01)


def test_a_dpi_without_input_sinks_to_its_dark_current_and_recovers():
    neurons = NEURONS["dpi"](single([-1.0]), DPI, IDEAL, 1.0, 1, np.random.default_rng(0))
    for _ in range(1000):
        neurons.step(np.zeros((1, 1)))
    dark = DPI.circuit.dark / DPI.circuit.onset
    assert 0.9 * dark < neurons.v.item() <= dark
    neurons.offsets[:] = 4.0
    assert sum(neurons.step(np.zeros((1, 1))).item() for _ in range(100)) >= 5


@pytest.mark.parametrize("kind", ["if", "poisson"])
def test_rectified_linear_rates_are_exact_at_a_coarse_step(kind):
    current = np.array([-2.0, 0.0, 0.5, 2.0, 4.0])
    rates = count(single(current), NeuronModel(kind, 20.0, 0.0), IDEAL, 1.0, 20.0, copies=20)
    expected = np.maximum(current, 0.0) / 0.02
    spread = rates[:, 0].std(axis=0)
    np.testing.assert_allclose(rates[:, 0].mean(axis=0), expected, rtol=0.02, atol=0.05)
    if kind == "if":
        assert spread.max() < 0.05
    else:
        chance = current / 0.02 * 1e-3
        by_chance = np.sqrt(np.clip(chance * (1.0 - chance), 0.0, None) * 1e3 / 20.0)
        np.testing.assert_allclose(spread[3:], by_chance[3:], rtol=0.5)
        assert spread[:2].max() == 0.0


@pytest.mark.parametrize("model", [LIF, DPI])
def test_noise_has_the_stated_size_on_a_free_membrane(model):
    device = dataclasses.replace(IDEAL, membrane_noise=0.05)
    populations = single([0.7] * 400)
    neurons = NEURONS[model.kind](populations, model, device, 1.0, 1, np.random.default_rng(1))
    seen = []
    for step in range(400):
        spikes = neurons.step(np.zeros((1, 1)))
        if step >= 200 and step % 20 == 0:
            assert not spikes.any()
            seen.append(neurons.v.copy())
    assert np.mean(seen) == pytest.approx(0.7, abs=0.01)
    assert np.std(seen) == pytest.approx(0.05, rel=0.05)


def test_tuning_curves_start_at_their_intercepts_and_end_at_their_rates():
    populations = make_populations(4, 200, LIF, (100.0, 200.0), np.random.default_rng(0))
    preferred_end = populations.gains + populations.biases
    rates = 1e3 / (2.0 + 20.0 * np.log(preferred_end / (preferred_end - 1.0)))
    intercepts = (1.0 - populations.biases) / populations.gains
    assert rates.min() >= 99.9 and rates.max() <= 200.1
    assert np.abs(intercepts).max() <= 0.95
    assert abs(populations.encoders.mean()) < 0.2


@pytest.mark.parametrize("kind", ["if", "poisson"])
def test_rectified_linear_curves_start_and_end_where_they_should(kind):
    model = NeuronModel(kind, 20.0, 0.0)
    populations = make_populations(4, 200, model, (100.0, 200.0), np.random.default_rng(0))
    rates = (populations.gains + populations.biases) / 0.02
    assert rates.min() >= 99.9 and rates.max() <= 200.1
    assert np.abs(populations.biases / populations.gains).max() <= 0.95


def test_mismatch_has_mean_one_and_the_stated_variation():
    nominal = make_populations(10, 2000, LIF, (100.0, 200.0), np.random.default_rng(0))
    chip = with_mismatch(nominal, 0.2, np.random.default_rng(1))
    for factors in (chip.gain_factors, chip.bias_factors):
        assert factors.mean() == pytest.approx(1.0, abs=0.01)
        assert factors.std() == pytest.approx(0.2, rel=0.03)
    same = with_mismatch(nominal, 0.0, np.random.default_rng(1))
    np.testing.assert_array_equal(same.gain_factors, 1.0)


def test_ridge_equals_the_normal_equations_and_measures_its_own_error(rng):
    features, targets = rng.normal(size=(60, 8)), rng.normal(size=(60, 2))
    products = Products(8, 2)
    products.add(features[:25], targets[:25])
    products.add(features[25:], targets[25:])
    weights = Regression(products).fit(0.1)
    penalty = 0.1 * np.trace(features.T @ features) / 8 * np.eye(8)
    direct = np.linalg.solve(features.T @ features + penalty, features.T @ targets)
    np.testing.assert_allclose(weights, direct, atol=1e-12)
    left = np.linalg.norm(features @ weights - targets) / np.linalg.norm(targets)
    assert products.relative_error(weights) == pytest.approx(left)


def test_factorizations_and_eigendecompositions_give_the_same_map(rng, monkeypatch):
    features, targets = (
        rng.normal(size=(300, 40)) @ rng.normal(size=(40, 40)),
        rng.normal(size=(300, 3)),
    )
    learned, held_out = Products(40, 3), Products(40, 3)
    learned.add(features[:200], targets[:200])
    held_out.add(features[200:], targets[200:])
    spectral = best_ridge([learned], [held_out], (1e-4, 1e-2, 1.0, 100.0))
    monkeypatch.setattr("converters.spiking.ridge._SPECTRAL", 0)
    factorized = best_ridge([learned], [held_out], (1e-4, 1e-2, 1.0, 100.0))
    assert spectral[0] == factorized[0]
    np.testing.assert_allclose(spectral[1], factorized[1], rtol=1e-8, atol=1e-12)


def test_a_matrix_that_rounding_made_indefinite_is_regularized_more(rng, monkeypatch):
    monkeypatch.setattr("converters.spiking.ridge._SPECTRAL", 0)
    products = Products(6, 1)
    products.add(rng.normal(size=(3, 6)), rng.normal(size=(3, 1)))
    shift = 1e-4 * np.trace(products.ff) / 6
    products.ff -= shift * np.eye(6)  # what sums in single precision may leave
    found = Regression(products).fit(1e-6)
    enough = Regression(products).fit(1e-3)
    np.testing.assert_array_equal(found, enough)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("tau_mismatch", [0.0, 0.3])
def test_compiled_neurons_spike_as_those_of_numpy(tau_mismatch, monkeypatch):
    """Bit for bit: membranes, spikes, and filtered spikes."""
    pytest.importorskip("numba")
    nominal = make_populations(6, 20, LIF, (100.0, 200.0), np.random.default_rng(0))
    chip = with_mismatch(nominal, 0.2, np.random.default_rng(1), tau_mismatch)
    states = np.random.default_rng(2).uniform(-1.5, 1.5, (200, 5, 6)).astype(np.float32)
    found = []
    for least in (1, 10**9):
        monkeypatch.setattr("converters.spiking.compiled.LEAST_NEURONS", least)
        whole = Chip(chip, LIF, IDEAL, 1.0, TAU_MS, 3)
        neurons = whole.neurons(5, np.random.default_rng(3))
        assert (neurons.kernels is None) == (least > 1)
        rng = np.random.default_rng(4)
        recorder = Recorder(whole, neurons, 1, 5, np.ones((2, 3, 3)), rng)
        for x in states:
            recorder.advance(x.reshape(5, 2, 3))
        found.append((neurons.v, neurons.waiting, recorder.filtered))
    for compiled, plain in zip(*found, strict=True):
        np.testing.assert_array_equal(compiled, plain)
    assert found[0][2].max() > 10.0


def test_rates_are_counts_of_whole_seconds_in_blocks_of_any_length():
    """More spikes than a byte can count, and counting that starts within a block."""
    chip = Chip(single([1.5, 3.0, 10.0, 0.0]), NeuronModel("if", 1.0, 0.0), IDEAL, 1.0, 1.0, 1)
    rates = measure_rates(chip, np.random.default_rng(0))
    np.testing.assert_allclose(rates[22, 0], [1000.0, 1000.0, 1000.0, 0.0], atol=1.0)


def test_rounded_weights_are_few_integers_of_a_scale_for_each_row(rng):
    weights = rng.normal(size=(2, 3, 500)) * np.array([1.0, 1e-3, 50.0])[None, :, None]
    rounded = round_weights(weights, 4)
    for row, before in zip(rounded.reshape(6, -1), weights.reshape(6, -1), strict=True):
        scale = np.abs(before).max() / 7
        np.testing.assert_allclose(row / scale, np.rint(row / scale), atol=1e-9)
        assert np.abs(row - before).max() <= scale / 2 * (1 + 1e-9)
        assert len(np.unique(np.rint(row / scale))) <= 15
    assert round_weights(weights, 0) is weights


class Loop:
    """A memory of order 3 and the inputs it is judged by, closed in NumPy."""

    def __init__(self, neurons, mismatch):
        rng = np.random.default_rng(5)
        memory = Memory.legendre(3, 8.0, 2)
        matrices = divide_step(memory, PARTS)
        self.decay = np.exp(-1.0 / TAU_MS)
        u = rng.uniform(-1, 1, (140, 8, 2))
        states = follow(*matrices, u, PARTS)
        self.scales = ranges(states)
        a_prime, b_prime = behind_synapse(*matrices, self.decay)
        self.targets = a_prime * self.scales[:, None, :] / self.scales[:, :, None]
        self.input, self.u = b_prime / self.scales, u[:20]
        self.truth, self.learned = states[:, :20] / self.scales, states[:, 20:] / self.scales
        self.ideal = make_populations(6, neurons, LIF, (100.0, 200.0), rng)
        made = with_mismatch(self.ideal, mismatch, rng)
        self.chip = Chip(made, LIF, IDEAL, 1.0, TAU_MS, 3)

    def fit(self, method):
        rng = np.random.default_rng(6)
        if method == "dynamic":
            trajectory = self.learned.astype(np.float32)
            return dynamic(self.chip, self.targets, trajectory, rng)
        measured = self.chip
        if method == "none":
            measured = dataclasses.replace(self.chip, populations=self.ideal)
        return static(measured, self.targets, rng)

    def error(self, weights):
        """NRMSE of the states over all steps of the 20 inputs."""
        neurons = self.chip.neurons(20, np.random.default_rng(7))
        x = np.zeros(self.truth.shape[1:])
        squares = 0.0
        for step, truth in enumerate(self.truth):
            spikes = neurons.step(x.reshape(20, -1)).reshape(20, 2, -1)
            drive = np.einsum("cif,scf->sci", weights, spikes, optimize=True) * 1e3
            drive += self.u[:, step // PARTS, :, None] * self.input
            x = self.decay * x + (1.0 - self.decay) * drive
            squares += np.square(x - truth).sum()
        return np.sqrt(squares / np.square(self.truth).sum())


def test_dynamic_calibration_beats_static_beats_none_under_mismatch():
    loop = Loop(neurons=80, mismatch=0.2)
    error = {m: loop.error(loop.fit(m).weights) for m in ("none", "static", "dynamic")}
    assert error["dynamic"] < 0.9 * error["static"]
    assert error["static"] < 0.5 * error["none"]


def test_dynamic_calibration_compensates_all_of_the_mismatch():
    errors = [loop.error(loop.fit("dynamic").weights) for loop in (Loop(40, 0.0), Loop(40, 0.2))]
    assert errors[1] < 1.25 * errors[0]


def test_error_falls_with_neurons():
    errors = [loop.error(loop.fit("dynamic").weights) for loop in (Loop(10, 0.1), Loop(80, 0.1))]
    assert errors[1] < 0.5 * errors[0]


def test_fit_error_is_that_of_unseen_samples_and_seeds_repeat_it():
    loop = Loop(20, 0.1)
    first, again = loop.fit("dynamic"), loop.fit("dynamic")
    np.testing.assert_array_equal(first.weights, again.weights)
    assert (first.error, first.ridge) == (again.error, again.ridge)
    assert 0.0 < first.error < 0.2


def test_few_samples_hold_out_the_end_of_their_time():
    loop = Loop(10, 0.1)
    shown = []
    found = dynamic(
        loop.chip,
        loop.targets,
        loop.learned[:, :2].astype(np.float32),
        np.random.default_rng(0),
        lambda done, total: shown.append((done, total)),
    )
    assert 0.0 < found.error < 1.0
    assert shown[-1] == (400, 400) and len(shown) == 400


def test_time_constants_spread_as_asked_and_nothing_else_changes():
    nominal = make_populations(40, 250, LIF, (100.0, 200.0), np.random.default_rng(3))
    plain = with_mismatch(nominal, 0.2, np.random.default_rng(4))
    spread = with_mismatch(nominal, 0.2, np.random.default_rng(4), 0.3)
    assert plain.tau_factors is None
    assert (plain.gain_factors == spread.gain_factors).all()
    assert (plain.bias_factors == spread.bias_factors).all()
    assert spread.tau_factors.mean() == pytest.approx(1.0, abs=0.02)
    assert spread.tau_factors.std() == pytest.approx(0.3, rel=0.05)


@pytest.mark.parametrize("model", [LIF, DPI, NeuronModel("if", 20.0, 0.0)])
def test_a_neuron_of_a_short_time_constant_is_that_of_such_a_model(model):
    populations = single(np.full(6, 2.0))
    factors = np.array([[0.5, 0.8, 1.0, 1.0, 1.25, 2.0]])
    device = dataclasses.replace(IDEAL, tau_mismatch=0.3)
    mixed = count(dataclasses.replace(populations, tau_factors=factors), model, device, 0.1, 2.0)
    for number, factor in enumerate(factors[0]):
        own = dataclasses.replace(model, membrane_tau_ms=20.0 * factor)
        alone = count(single(np.array([2.0])), own, IDEAL, 0.1, 2.0)
        assert mixed[0, 0, number] == pytest.approx(alone[0, 0, 0], abs=1.0)


def test_threshold_noise_gives_the_rate_of_a_normal_distribution():
    """A membrane at 0.9 of a threshold that varies by 0.05: two standard deviations, 2.28 %."""
    device = dataclasses.replace(IDEAL, threshold_noise=0.05)
    rng = np.random.default_rng(5)
    neurons = NEURONS["lif"](single(np.full(20_000, 0.9)), LIF, device, 1.0, 1, rng)
    neurons.v[:] = 0.9
    fired = neurons.step(np.zeros((1, 1)))
    assert fired.mean() == pytest.approx(0.0228, abs=0.004)
    assert not (neurons.step(np.zeros((1, 1))) & fired).any()  # those rest
