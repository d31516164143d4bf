"""spike(): what it refuses, what it puts into the network, and that seeds mean what they say."""

import numpy as np
import pytest

from converters.options import SpikeOptions
from converters.spiking import closed_loop, spike, spike_chips
from converters.spiking.calibration import LEVELS, measure_rates, static
from converters.spiking.neurons import Chip
from converters.spiking.populations import make_populations
from converters.spiking.recipe import draw_samples
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import load, save
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, LSTMLayer, Memory, Readout
from lmu_deploy.core.spiking.chip import Device, NeuronModel
from lmu_deploy.core.spiking.network import SPIKING_CLASSES
from lmu_deploy.hardware.preflight import check
from lmu_deploy.hardware.profile import Figure, load_profile, profile_names

LIF = NeuronModel("lif", 20.0, 2.0)


def lmu(rng, n_in, memory, units=4):
    hidden = Hidden(rng.normal(size=(memory.size, units)), None, None, None, "tanh")
    encoders = rng.normal(size=(n_in, memory.channels))
    return LMULayer(encoders, None, None, None, memory, hidden)


@pytest.fixture
def network(rng):
    layers = (lmu(rng, 2, Memory.legendre(3, 8.0, 2)),)
    return LMUNetwork(layers, Readout(rng.normal(size=(4, 2)), None))


@pytest.fixture
def inputs(rng):
    return rng.uniform(-1, 1, (12, 8, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"profile": "loihi2"}, "profile loihi2 is of a chip that is digital"),
        ({"profile": "nothing"}, "unknown profile 'nothing'"),
        ({"calibration": "best"}, "choose one of dynamic, none, static"),
        ({"neuron": "hh"}, "neuron is 'hh'"),
        ({"presentation_ms": 10.5}, "presentation_ms is 10.5 ms, not a whole multiple"),
        ({"tau_ms": 100.3}, "tau_ms is 100.3 ms, not a whole multiple"),
        ({"dt_ms": 0.3}, "not a whole multiple of the simulation step of 0.3 ms"),
        (
            {"presentation_ms": 5.0},
            "lasts 40 ms, and for order 3 a synapse of 100 ms needs 100 ms",
        ),
        ({"neurons_per_state": 20_000}, "need 120000 neurons and profile generic-analog has 65536"),
        ({"neurons_per_state": 0}, "neurons_per_state is 0"),
        ({"neurons_per_state": 5_000}, "15000 weights for each state, and 12000 can be fitted"),
        ({"mismatch": -0.1}, "mismatch is -0.1"),
        ({"weight_bits": 1}, "weight_bits is 1"),
        ({"seed": -1}, "seed is -1"),
        ({"maximum_rates": (120.0, 100.0)}, "highest maximum rate is 100"),
        ({"maximum_rates": (100.0, 500.0)}, "highest maximum rate is 500, outside 100 to 450"),
        ({"maximum_rates": 100.0}, "give two numbers, the lowest and the highest"),
    ],
)
def test_bad_requests_get_one_sentence(network, inputs, options, message):
    with pytest.raises(InputError, match=message) as caught:
        spike(network, inputs, **options)
    assert "\n" not in str(caught.value)


def test_bad_inputs_and_networks_are_refused(network, inputs, rng):
    with pytest.raises(InputError, match="shape"):
        spike(network, inputs[..., :1])
    with pytest.raises(InputError, match="NaN"):
        spike(network, np.where(inputs > 0.9, np.nan, inputs))
    lstm = LSTMLayer(rng.normal(size=(2, 12)), rng.normal(size=(3, 12)), rng.normal(size=12))
    with pytest.raises(InputError, match="no LMU layer"):
        spike(LMUNetwork((lstm,), Readout(np.ones((3, 1)), None)), inputs)


def test_higher_orders_need_longer_windows(inputs, rng):
    network = LMUNetwork((lmu(rng, 2, Memory.legendre(16, 8.0)),), Readout(np.ones((4, 1)), None))
    with pytest.raises(InputError, match=r"needs 200 ms or more; present each .* 25 ms"):
        spike(network, inputs, presentation_ms=24.0, neurons_per_state=2)
    assert spike(
        network, inputs, presentation_ms=25.0, neurons_per_state=2, calibration="none"
    ).memories


def test_network_has_the_requested_options(network, inputs, tmp_path):
    made = spike(
        network,
        inputs,
        neurons_per_state=10,
        presentation_ms=20.0,
        tau_ms=40.0,
        mismatch=0.2,
        weight_bits=6,
        calibration="static",
        seed=3,
        chip_seed=9,
    )
    memory = made.memories[0]
    assert (made.presentation_ms, made.tau_ms, made.dt_ms) == (20.0, 40.0, 1.0)
    assert (made.device.seed, made.device.mismatch, made.device.weight_bits) == (9, 0.2, 6)
    assert (made.calibration.method, made.calibration.seed) == ("static", 3)
    assert made.calibration.samples == len(inputs)
    assert memory.neurons == 60
    row = 31 * memory.weights[0, 0] / np.abs(memory.weights[0, 0]).max()
    np.testing.assert_allclose(row, np.rint(row), atol=1e-9)
    assert made.host is network
    save(made, tmp_path / "s.safetensors")
    again = load(tmp_path / "s.safetensors", SPIKING_CLASSES)
    np.testing.assert_array_equal(again.memories[0].weights, memory.weights)


def test_figures_come_from_the_profile(network, inputs):
    profile = load_profile("generic-analog")
    made = spike(network, inputs, neurons_per_state=5, calibration="none")
    assert made.device.mismatch == profile.mismatch.value == 0.10
    assert made.tau_ms == 1e3 * profile.synapse_tau.value
    assert made.neuron.membrane_tau_ms == 1e3 * profile.membrane_tau.value
    assert "generic-analog" in profile_names("analog")


@pytest.mark.parametrize("given", [None, (100.0, 120.0)])
def test_neurons_end_between_the_maximum_rates(network, inputs, given):
    """The rate of a LIF neuron that is driven by x = 1, in continuous time."""
    made = spike(
        network, inputs, neurons_per_state=200, maximum_rates=given, calibration="none", mismatch=0
    )
    low, high = given or (100.0, 200.0)
    populations = made.memories[0].populations
    strongest = populations.gains + populations.biases
    rates = 1e3 / (2.0 + 20.0 * np.log(strongest / (strongest - 1.0)))
    assert low - 1e-6 < rates.min() < low + 0.1 * (high - low)
    assert high - 0.1 * (high - low) < rates.max() < high + 1e-6
    assert made.maximum_rates == (low, high)


def test_seeds_draw_curves_and_chips(network, inputs):
    def parts(**seeds):
        made = spike(network, inputs, neurons_per_state=5, calibration="static", **seeds)
        memory = made.memories[0]
        return memory.populations.gains, memory.populations.gain_factors, memory.weights

    first, again = parts(seed=1), parts(seed=1)
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    chip = parts(seed=1, chip_seed=2)
    np.testing.assert_array_equal(chip[0], first[0])
    assert not np.array_equal(chip[1], first[1]) and not np.array_equal(chip[2], first[2])
    assert not np.array_equal(parts(seed=2)[0], first[0])


def test_uncalibrated_decoders_know_nothing_of_the_chip(network, inputs):
    def weights(**options):
        return spike(network, inputs, neurons_per_state=8, **options).memories[0].weights

    ideal = weights(mismatch=0.0, calibration="static")
    np.testing.assert_array_equal(weights(mismatch=0.3, calibration="none"), ideal)
    assert not np.array_equal(weights(mismatch=0.3, calibration="static"), ideal)


def test_every_lmu_layer_gets_neurons_of_its_own(inputs, rng):
    first = lmu(rng, 2, Memory.legendre(3, 8.0, 1))
    lstm = LSTMLayer(rng.normal(size=(4, 12)), rng.normal(size=(3, 12)), rng.normal(size=12))
    second = lmu(rng, 3, Memory.legendre(2, 6.0, 2))
    network = LMUNetwork((first, lstm, second), Readout(rng.normal(size=(4, 1)), None))
    shown = []
    made = spike(
        network,
        inputs,
        neurons_per_state=6,
        progress=lambda done, total: shown.append((done, total)),
    )
    assert made.memories[1] is None
    assert [m.states for m in made.memories if m is not None] == [3, 4]
    gains = [m.populations.gains for m in made.memories if m is not None]
    assert not np.array_equal(gains[0][:3], gains[1][:3])
    assert shown[-1][0] == shown[-1][1]
    assert shown == sorted(shown)


def test_samples_are_left_out_before_long_ones_are_shortened():
    inputs = np.arange(300.0).reshape(100, 3, 1)
    room = 45 * 3 * 7
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("converters.spiking.recipe._TRAJECTORY_ELEMENTS", room)
        drawn = draw_samples(inputs, 90, 7, seed=1)
        assert drawn.shape == (45, 3, 1) and len(np.unique(drawn)) == drawn.size
        assert draw_samples(inputs, 90, 14, seed=1).shape == (40, 1, 1)
        assert draw_samples(inputs, 20, 7, seed=1).shape == (20, 3, 1)


def test_long_sequences_are_truncated_and_samples_drawn(network, rng, monkeypatch):
    monkeypatch.setattr("converters.spiking.recipe._TRAJECTORY_ELEMENTS", 12 * 6 * 50 * 5)
    followed = []

    def scale_memory(memory, u, parts, *others):
        followed.append(u.shape[:2])
        return closed_loop.scale_memory(memory, u, parts, *others)

    monkeypatch.setattr("converters.spiking.build.scale_memory", scale_memory)
    inputs = rng.uniform(-1, 1, (30, 40, 2))
    made = spike(network, inputs, neurons_per_state=4, calibration_samples=12)
    assert made.calibration.samples == 12
    assert followed == [(12, 5)]


@pytest.mark.parametrize("calibration", ["none", "static", "dynamic"])
@pytest.mark.parametrize("weight_bits", [0, 5])
def test_no_neuron_has_more_synapses_than_its_chip_gives_it(
    network, inputs, calibration, weight_bits
):
    options = {"neurons_per_state": 8, "calibration": calibration, "weight_bits": weight_bits}
    options["units"] = "host"
    free, bound = (spike(network, inputs, fan_in=most, **options) for most in (0, 10))
    assert free.memories[0].fan_in.max() > 10 >= bound.memories[0].fan_in.max() > 5
    profile = load_profile("generic-analog")
    narrow = profile.model_copy(update={"fan_in": Figure(value=10, source="of this test")})
    named = [str(violation) for violation in check(free, narrow)]
    assert len(named) == 1
    assert named[0].startswith("synapses of a neuron of layer0/memory: ")
    assert "at most 10 are possible; spike with --fan-in 10." in named[0]
    assert check(bound, narrow) == []
    by_profile = spike(network, inputs, narrow, **options)
    np.testing.assert_array_equal(by_profile.memories[0].weights, bound.memories[0].weights)


def test_a_chip_with_too_few_synapses_is_named(network, inputs):
    made = spike(network, inputs, neurons_per_state=8, calibration="none", units="host")
    needed = 8 * int(made.memories[0].fan_in.sum())
    assert needed == made.memories[0].synapses.sum()
    profile = load_profile("generic-analog")
    for spare, found in ((0, 0), (-1, 1)):
        figure = Figure(value=needed + spare, source="of this test")
        assert len(check(made, profile.model_copy(update={"synapses": figure}))) == found
    tight = profile.model_copy(update={"synapses": Figure(value=1000, source="of this test")})
    fitted = spike(network, inputs, tight, neurons_per_state=8, calibration="none", units="host")
    assert fitted.memories[0].fan_in.max() == 1000 // 48
    assert check(fitted, tight) == []
    with pytest.raises(InputError, match="is digital and cannot run a SpikingNetwork"):
        check(made, load_profile("loihi2"))


def test_the_cost_of_few_synapses_is_reported_once_for_many_chips(network, inputs, caplog):
    options = SpikeOptions(neurons_per_state=8, fan_in=10, units="host")
    with caplog.at_level("INFO", "lmu_deploy"):
        spike_chips(network, inputs, "generic-analog", [1, 2], options)
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("A neuron has synapses from 10 of 24 neurons: held-out error 0.")
    few, every = (float(word.strip(",")) for word in said.split() if word.startswith("0."))
    assert few > 0.0 < every != few


def test_units_that_read_more_neurons_than_they_have_synapses_stay_on_the_host(network, inputs):
    options = {"neurons_per_state": 8, "calibration": "none"}
    assert spike(network, inputs, **options).units is not None
    assert spike(network, inputs, fan_in=10, **options).units is None
    with pytest.raises(InputError, match="reads all 48 neurons of the memory and may have 10"):
        spike(network, inputs, fan_in=10, units="chip", **options)


def test_the_sparse_map_from_rates_decodes_independent_states(network, inputs):
    """Against the rates at many random states, of which the fit knows only single ones."""
    memory = Memory.legendre(3, 8.0, 1)
    u = np.random.default_rng(1).uniform(-1, 1, (6, 8, 1))
    scaled = closed_loop.scale_memory(memory, u, 50, float(np.exp(-0.01)))
    populations = make_populations(3, 40, LIF, (100.0, 200.0), np.random.default_rng(2))
    ideal = Device("generic-analog", 0, 0.0, 0.0, 0)
    chip = Chip(populations, LIF, ideal, 1.0, 100.0, 3, fan_in=60)
    fit = static(chip, scaled.targets, np.random.default_rng(3))
    assert (np.count_nonzero(fit.weights, axis=2) == 60).all()
    rates = measure_rates(chip, np.random.default_rng(3))
    drawn = np.random.default_rng(4).integers(0, len(LEVELS), (500, 3))
    shown = np.stack([rates[drawn[:, state], state] for state in range(3)], axis=1)
    aim = LEVELS[drawn] @ scaled.targets[0].T
    missed = shown.reshape(500, -1) @ fit.weights[0].T - aim
    relative = np.linalg.norm(missed) / np.linalg.norm(aim)
    assert relative < 0.15
    assert relative == pytest.approx(fit.error, rel=0.25)
