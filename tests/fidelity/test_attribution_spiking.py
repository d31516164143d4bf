"""Attribution of spiking networks: ideal memories equal float, spiking ones the Brian2 target."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from converters.spiking import spike
from lmu_deploy.api.validate import explained
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, LSTMLayer, Memory, Readout
from lmu_deploy.core.reference import run_reference
from lmu_deploy.fidelity import Result
from lmu_deploy.fidelity.attribution import chips, measure
from lmu_deploy.fidelity.attribution.chips import Chips, run_hybrid, same_chip
from lmu_deploy.fidelity.attribution.spiking import affordable_runs, attribute_spiking
from lmu_deploy.fidelity.attribution.switches import (
    CALIBRATION,
    DAMAGE,
    MISMATCH,
    NEURONS,
    NOISE,
    UNITS,
    WEIGHT_BITS,
)
from lmu_deploy.fidelity.measures.agreement import deviation
from lmu_deploy.fidelity.store import Parts
from lmu_deploy.tasks.base import Split, Task
from targets.base import Run

ORDER, CHANNELS, STEPS = 3, 2, 20
TASK = Task("planted", "classification", 2, 3, STEPS, load=lambda: None)


def layer(rng, n_in, units=6):
    hidden = Hidden(rng.normal(size=(ORDER * CHANNELS, units)), None, None, None, "tanh")
    memory = Memory.legendre(ORDER, 16.0, CHANNELS)
    return LMULayer(rng.normal(size=(n_in, CHANNELS)) / n_in, None, None, None, memory, hidden)


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(31)
    network = LMUNetwork((layer(rng, 2),), Readout(rng.normal(size=(6, 3)), None))
    inputs = np.sin(np.linspace(0, 7, STEPS)[None, :, None] * rng.uniform(0.5, 1.5, (24, 1, 2)))
    return network, inputs, run_reference(network, inputs).outputs.argmax(axis=1)


def spiking_of(samples, **options):
    chosen = {"neurons_per_state": 40, "mismatch": 0.1, "membrane_noise": 0.0, "weight_bits": 0}
    chosen["units"] = "host"
    return spike(samples[0], samples[1], presentation_ms=20.0, **{**chosen, **options})


@pytest.fixture(scope="module")
def spiking(samples):
    return spiking_of(samples)


def test_ideal_populations_are_the_float_network(samples):
    rng = np.random.default_rng(32)
    middle = LSTMLayer(*(rng.normal(size=s) * 0.5 for s in ((6, 8), (2, 8), (8,))))
    network = LMUNetwork(
        (layer(rng, 2), middle, layer(rng, 2)), Readout(rng.normal(size=(6, 3)), np.ones(3)), True
    )
    _, inputs, _ = samples
    chip = spike(network, inputs, presentation_ms=20.0, neurons_per_state=10, calibration="none")
    truth = run_reference(network, inputs, record=True)
    found = run_hybrid(chip, inputs, [])
    assert len(found.m) == 2
    np.testing.assert_allclose(np.concatenate(found.m, axis=2), truth.m, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.y, truth.y, rtol=0, atol=1e-9)


@pytest.mark.parametrize("units", ["host", "chip"])
@pytest.mark.parametrize(
    ("neuron", "noise"), [("lif", 0.0), ("lif", 0.3), ("dpi", 0.3), ("if", 0.0), ("poisson", 0.0)]
)
def test_all_sources_equal_the_brian2_target(samples, neuron, noise, units):
    """All states, hidden units and outputs of every step are equal with ==, including noise."""
    pytest.importorskip("brian2", reason="Brian2 is not installed")
    from targets.brian2 import Brian2Target

    chosen = {"neuron": neuron, "membrane_noise": noise, "calibration": "static", "units": units}
    chip = spiking_of(samples, **chosen)
    inputs = samples[1][:3, :6]
    run = Brian2Target().run(chip, inputs, record=True, seed=5)
    fired = []
    found = run_hybrid(chip, inputs, [0], seed=5, observe=lambda *step: fired.append(step[2]))
    spikes = np.stack(fired).reshape(6, chip.steps_per_presentation, 3, -1)
    assert (run.events["layer0/memory"] == spikes.sum(axis=(1, 3)).T).all()
    assert (found.m[0] == run.states.m).all()
    assert (found.y == run.states.y).all()


@pytest.mark.parametrize(
    ("neuron", "sizes"),
    [
        ("lif", {"threshold_noise": 0.1, "tau_mismatch": 0.3, "membrane_noise": 0.1}),
        ("dpi", {"threshold_noise": 0.1, "tau_mismatch": 0.3}),
        ("if", {"tau_mismatch": 0.3}),
    ],
)
def test_threshold_noise_and_time_constant_mismatch_equal_the_targets(samples, neuron, sizes):
    """All states equal those of the Brian2 equations and of the simulator in double precision."""
    pytest.importorskip("brian2", reason="Brian2 is not installed")
    from targets.brian2 import Brian2Target

    chip = spiking_of(samples, neuron=neuron, calibration="static", **sizes)
    inputs = samples[1][:3, :6]
    run = Brian2Target().run(chip, inputs, record=True, seed=5)
    found = run_hybrid(chip, inputs, [0], seed=5)
    assert (found.m[0] == run.states.m).all()
    for name, size in sizes.items():
        assert run.settings[name] == size
        without = dataclasses.replace(chip.device, **{name: 0.0})
        plain = dataclasses.replace(chip, device=without)
        if name != "tau_mismatch":  # which stands in the populations
            assert (run_hybrid(plain, inputs, [0], seed=5).m[0] != found.m[0]).any()


def test_threshold_noise_is_refused_where_undefined(samples):
    with pytest.raises(InputError, match=r"threshold_noise is 0\.1, and it is defined for"):
        spiking_of(samples, neuron="if", threshold_noise=0.1, calibration="none")


def test_the_total_is_the_real_run(samples, full, attributed):
    pytest.importorskip("brian2", reason="Brian2 is not installed")
    from targets.brian2 import Brian2Target

    _, inputs, targets = samples
    run = Brian2Target().run(full, inputs[:8], seed=3)
    assert attributed.whole.metric == TASK.score(run.outputs, targets[:8])
    truth = run_reference(samples[0], inputs[:8]).outputs
    assert attributed.whole.output == deviation(run.outputs, truth)


@pytest.fixture(scope="module")
def full(samples):
    """Network on a chip with all imperfections."""
    return spiking_of(samples, mismatch=0.3, membrane_noise=0.2, weight_bits=5)


@pytest.fixture(scope="module")
def attributed(samples, full):
    _, inputs, targets = samples
    return attribute_spiking(
        full, inputs, targets, TASK, samples=8, seed=3, chips=Chips(full, inputs)
    )


def test_sources_are_separated_and_add_up(samples, full, attributed):
    sources = [step.source for step in attributed.steps]
    assert sources == ["neurons of layer0", MISMATCH, NOISE, WEIGHT_BITS]
    assert sum(attributed.shares_in_turn()) == pytest.approx(1.0)
    assert sum(attributed.shares_alone()) + attributed.interaction == pytest.approx(1.0)
    # The same chip, calibrated on other inputs than it was: the remaining error is due to that.
    _, inputs, targets = samples
    other = attribute_spiking(
        full, inputs, targets, TASK, samples=8, seed=3, chips=Chips(full, inputs[:9])
    )
    assert [step.source for step in other.steps] == [*sources, CALIBRATION]
    assert other.whole == attributed.whole


PLANTED = {
    MISMATCH: {"mismatch": 2.0, "neurons_per_state": 150},
    NOISE: {"membrane_noise": 3.0, "neurons_per_state": 60},
    WEIGHT_BITS: {"weight_bits": 2, "neurons_per_state": 30},
    NEURONS: {"neurons_per_state": 5},
    CALIBRATION: {"mismatch": 0.3, "calibration": "none", "neurons_per_state": 60},
}


@pytest.mark.parametrize("source", PLANTED)
def test_a_planted_imperfection_is_named_first(samples, source):
    _, inputs, targets = samples
    chip = spiking_of(samples, **{"mismatch": 0.0, **PLANTED[source]})
    found = attribute_spiking(chip, inputs, targets, TASK, samples=8, chips=Chips(chip, inputs))
    assert found.causes[0].source == source
    assert found.causes[0].place == "layer0/memory"
    assert found.causes[0].share > 0.5


def noisy(network, population, spread, seed=3):
    """Return the network on a chip where one population drifted since its calibration."""
    rng = np.random.default_rng(seed)
    memory = network.memories[0]
    populations = memory.populations
    factors = populations.gain_factors.copy(), populations.bias_factors.copy()
    for each in factors:
        each[population] *= np.exp(spread * rng.normal(size=each.shape[1]))
    drifted = dataclasses.replace(populations, gain_factors=factors[0], bias_factors=factors[1])
    return dataclasses.replace(
        network, memories=(dataclasses.replace(memory, populations=drifted),)
    )


@pytest.mark.parametrize("population", [1, 3, 5])
def test_a_population_that_drifted_is_named(samples, spiking, population):
    _, inputs, targets = samples
    chosen = {"samples": 16, "chips": Chips(spiking, inputs)}
    good = attribute_spiking(spiking, inputs, targets, TASK, **chosen)
    bad = attribute_spiking(noisy(spiking, population, 2.0), inputs, targets, TASK, **chosen)
    first = bad.causes[0]
    assert (first.source, first.place) == (CALIBRATION, f"layer0/memory/population{population}")
    assert first.row_share > 0.5
    assert first.share > 0.5
    assert bad.whole.output > 2 * good.whole.output
    assert [step.source for step in good.steps] == ["neurons of layer0", MISMATCH]
    sources = ["neurons of layer0", MISMATCH, DAMAGE, CALIBRATION]
    assert [step.source for step in bad.steps] == sources
    assert bad.shares_in_turn()[-1] > 0.5


def test_units_on_neurons_come_last_and_are_named_when_they_fail(samples):
    _, inputs, targets = samples
    chip = spiking_of(samples, units="chip")
    chips_of = Chips(chip, inputs)
    good = attribute_spiking(chip, inputs, targets, TASK, samples=16, chips=chips_of)
    broken = dataclasses.replace(chip.units, decoders=chip.units.decoders[::-1].copy())
    worse = dataclasses.replace(chip, units=broken)
    bad = attribute_spiking(worse, inputs, targets, TASK, samples=16, chips=chips_of)
    assert [step.source for step in good.steps] == ["neurons of layer0", MISMATCH, UNITS]
    assert bad.steps[:2] == good.steps[:2]
    assert (bad.causes[0].source, bad.causes[0].place) == (UNITS, "layer0/hidden")
    assert bad.causes[0].share > 0.9
    assert bad.whole.output > 2 * good.whole.output


def test_layers_are_enabled_one_after_another(samples):
    rng = np.random.default_rng(33)
    network = LMUNetwork((layer(rng, 2), layer(rng, 6)), Readout(rng.normal(size=(6, 3)), None))
    chip = spike(
        network, samples[1], presentation_ms=20.0, neurons_per_state=20, calibration="none"
    )
    targets = run_reference(network, samples[1]).outputs.argmax(axis=1)
    seen = []
    found = attribute_spiking(
        chip, samples[1], targets, TASK, samples=8, progress=lambda *done: seen.append(done)
    )
    sources = ["neurons of layer0", "neurons of layer1", MISMATCH, CALIBRATION, UNITS]
    assert [step.source for step in found.steps] == sources
    assert sum(found.shares_in_turn()) == pytest.approx(1.0)
    assert sum(found.shares_alone()) + found.interaction == pytest.approx(1.0)
    assert found.reference.metric == 1.0
    total = seen[0][1]
    assert [done for done, _ in seen] == list(range(1, total + 1))
    again = attribute_spiking(chip, samples[1], targets, TASK, samples=8)
    assert (again.steps, again.causes) == (found.steps, found.causes)


def test_unsuitable_networks_and_data_are_refused(samples, spiking):
    with pytest.raises(InputError, match="24 samples and 2 desired outputs"):
        attribute_spiking(spiking, samples[1], samples[2][:2], TASK)
    with pytest.raises(InputError, match="not linear filters"):
        attribute_spiking(spiking_of(samples, synapse="dpi"), samples[1], samples[2], TASK)


def test_chips_of_the_same_settings_are_converted_once(samples, spiking):
    made = Chips(spiking, samples[1])
    ideal = made.calibrated()
    plain = spiking_of(samples, calibration="none")
    assert made.of(plain).calibrated() is ideal
    assert made.of(spiking_of(samples, mismatch=0.2)).calibrated() is not ideal
    assert not same_chip(ideal, spiking)
    assert same_chip(made.calibrated(mismatch=True), spiking)


def test_a_stopped_attribution_calibrates_and_runs_nothing_again(
    samples, full, attributed, tmp_path, monkeypatch
):
    _, inputs, targets = samples
    calls = {"calibrations": 0, "runs": 0}

    def counted(name, work, stop):
        def call(*args, **options):
            if sum(calls.values()) == stop:
                raise KeyboardInterrupt
            calls[name] += 1
            return work(*args, **options)

        return call

    def attribute(stop=None):
        monkeypatch.setattr(chips, "spike", counted("calibrations", spike, stop))
        monkeypatch.setattr(measure, "run_hybrid", counted("runs", run_hybrid, stop))
        mine = Chips(full, inputs, Parts(tmp_path))
        return attribute_spiking(full, inputs, targets, TASK, samples=8, seed=3, chips=mine)

    for stop in (2, 5):
        with pytest.raises(KeyboardInterrupt):
            attribute(stop)
    found = attribute()
    done = dict(calls)
    assert done["calibrations"] == 6
    assert (found.steps, found.causes) == (attributed.steps, attributed.causes)
    assert attribute() == found
    assert calls == done
    mine = Chips(full, inputs)
    mine.add(full)
    again = attribute_spiking(full, inputs, targets, TASK, samples=8, seed=3, chips=mine)
    assert calls["calibrations"] == done["calibrations"] + 5  # not the network's own chip
    assert (again.steps, again.causes) == (attributed.steps, attributed.causes)


def test_an_attribution_that_takes_long_runs_fewer_samples_or_none(full):
    assert affordable_runs(full, 24, STEPS) == 24
    assert 2 <= affordable_runs(full, 1000, 50 * STEPS) < 32
    assert affordable_runs(full, 1000, 10_000 * STEPS) == 0


def test_a_report_explains_the_uncalibrated_chip_too(samples, spiking, monkeypatch):
    _, inputs, targets = samples
    split = Split(inputs, targets)
    task = dataclasses.replace(TASK, load=lambda: SimpleNamespace(train=split))
    plain = spiking_of(samples, calibration="none")
    run = Run("brian2", np.zeros((24, 3)), {}, {}, 0, {}, STEPS, STEPS, 0.0, 0)
    made = []
    monkeypatch.setattr(chips, "spike", lambda *a, **k: made.append(k) or spike(*a, **k))
    result = Result(run, spiking, {"uncalibrated": Result(run, plain)})
    (found,) = explained([result], split, task, 8)
    own, other = found.attribution, found.variants["uncalibrated"].attribution
    assert [step.source for step in own.steps] == ["neurons of layer0", MISMATCH]
    assert [step.source for step in other.steps] == ["neurons of layer0", MISMATCH, CALIBRATION]
    assert other.steps[:2] == own.steps
    assert other.causes[0].source == CALIBRATION
    assert len(made) == 2  # without mismatch and with it, for both
    assert explained([result], split, task, 0) == [result]
