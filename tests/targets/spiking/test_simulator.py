"""The NumPy simulator of a Loihi network does what docs/reference/loihi-semantics.md says."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lmu_deploy
from converters.loihi import loihi_spike
from converters.loihi.lower import lif_chip
from converters.loihi.neurons import (
    FastLifNeurons,
    LifNeurons,
    is_fast,
    make_neurons,
    round_rows,
)
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import load, save
from lmu_deploy.core.metrics import nrmse
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, LSTMLayer, Memory, Readout
from lmu_deploy.core.reference import run_reference
from lmu_deploy.core.spiking.loihi import (
    LOIHI_CLASSES,
    LoihiMemory,
    LoihiNetwork,
    LoihiNeurons,
)
from lmu_deploy.fidelity import Result
from lmu_deploy.fidelity.assemble import _integer_peers
from lmu_deploy.fidelity.measures.agreement import compare_states
from lmu_deploy.fidelity.measures.sizes import network_sizes
from targets.spiking import SpikingTarget
from targets.spiking.layers import Job
from targets.spiking.target import run_job


def int8(rng, most, *shape):
    return rng.integers(-most, most + 1, shape).astype(np.int8)


def neurons_of(rng, **changes):
    parts = {
        "encoders": int8(rng, 100, 3, 9),
        "encoder_exponent": 6,
        "bias_mantissas": rng.integers(-4096, 4096, (3, 9)).astype(np.int16),
        "bias_exponent": 7,
        "current_decay": 4095,
        "membrane_decay": 400,
        "threshold": 2**15,
    }
    return LoihiNeurons(**{**parts, **changes})


def memory_of(rng, **changes):
    neurons = neurons_of(rng)
    parts = {
        "neurons": neurons,
        "decoders": int8(rng, 127, 1, 3, 27),
        "decoder_multiplier": rng.integers(1, 2**15, 3).astype(np.int32),
        "decoder_shift": np.full(3, 9, np.int32),
        "input_weights": int8(rng, 127, 3),
        "input_multiplier": rng.integers(1, 2**15, 3).astype(np.int32),
        "input_shift": np.full(3, 12, np.int32),
        "decay": 41,
        "message_shift": 7,
        "scales": np.ones((1, 3)),
        "input_scale": np.full(1, 1e-3),
    }
    return LoihiMemory(**{**parts, **changes})


def delay(order=3, theta=12.0, **parts):
    layer = LMULayer(np.ones((1, 1)), None, None, None, Memory.legendre(order, theta), None)
    return LMUNetwork((layer,), Readout(np.eye(order), None), return_sequences=True, **parts)


def sines(rng, samples, steps):
    return np.sin(rng.uniform(0.1, 0.5, (samples, 1, 1)) * np.arange(steps)[None, :, None])


def by_hand(neurons, state, neuron, messages):
    """One neuron in Python's own integers, line by line as the page says."""
    weight = int(neurons.encoders[state, neuron])
    bias = int(neurons.bias_mantissas[state, neuron]) * 2**neurons.bias_exponent
    u = v = 0
    spikes = []
    for message in messages:
        a = weight * int(message) // 2**neurons.encoder_exponent
        u = toward_zero(u * (4095 - neurons.current_decay)) + 64 * a
        if u > 2**23:
            u -= 2**24
        elif u <= -(2**23):
            u += 2**24
        v = toward_zero(v * (4096 - neurons.membrane_decay)) + u + bias
        v = max(-(2**23) + 1, min(2**23 - 1, v))
        spikes.append(v > 64 * neurons.threshold)
        v = 0 if spikes[-1] else v
    return spikes


def toward_zero(product):
    return product // 4096 if product >= 0 else -(-product // 4096)


@pytest.mark.parametrize(
    ("exponent", "most", "current_decay"),
    [(6, 100, 4095), (4, 127, 4095), (0, 7, 1200), (7, 127, 0)],
)
def test_neurons_against_one_in_plain_python(rng, exponent, most, current_decay):
    neurons = neurons_of(
        rng,
        encoders=int8(rng, most, 3, 9),
        encoder_exponent=exponent,
        current_decay=current_decay,
    )
    messages = rng.integers(-32767, 32768, (60, 2, 3))
    simulator = make_neurons(neurons, 2)
    spikes = np.stack([simulator.step(m).copy() for m in messages])
    assert 0.0 < spikes.mean() < 0.9
    for state in range(3):
        for neuron in range(9):
            expected = by_hand(neurons, state, neuron, messages[:, 1, state])
            assert spikes[:, 1, state, neuron].tolist() == expected


@given(
    seed=st.integers(0, 2**32 - 1),
    exponent=st.integers(0, 7),
    decay=st.integers(1, 255),
    size=st.sampled_from([300, 3000, 30000]),
    bias=st.integers(0, 7),
    threshold=st.integers(1, 2**17 - 1),
)
@settings(max_examples=40)
def test_fast_neurons_equal_the_plain_ones(seed, exponent, decay, size, bias, threshold):
    rng = np.random.default_rng(seed)
    neurons = neurons_of(
        rng,
        encoders=int8(rng, min(127, 8 * 2**exponent - 1), 3, 9),
        encoder_exponent=exponent,
        bias_exponent=bias,
        membrane_decay=16 * decay,
        threshold=threshold,
    )
    assert is_fast(neurons)
    plain, fast = LifNeurons(neurons, 2), FastLifNeurons(neurons, 2)
    for messages in rng.integers(-size, size + 1, (25, 2, 3)):
        assert np.array_equal(plain.step(messages), fast.step(messages))
        assert np.array_equal(plain.v, fast.v)


def test_a_relay_without_spikes_filters_its_input_for_exactly_one_presentation(rng):
    memory = memory_of(rng, decoders=np.zeros((1, 3, 27), np.int8))
    layer = delay().layers[0]
    signal = np.zeros((1, 3, 1))
    signal[0, 0] = 0.5
    done = run_job(Job("layer0", memory, layer, signal, presentation_steps=7))
    x = [0, 0, 0]
    for step in range(1, 22):  # messages of steps 0 to 20 arrive one step later
        message = 500 if step <= 7 else 0
        for k in range(3):
            product = int(memory.input_weights[k]) * message * int(memory.input_multiplier[k])
            x[k] = toward_zero(x[k] * (4096 - 41)) + (product + 2**11) // 2**12
        if step % 7 == 0:
            assert done.states[0, step // 7 - 1].tolist() == x
    assert any(x)
    assert done.counts["input"].tolist() == [[7, 0, 0]]


def test_saturations_of_relays_are_counted(rng):
    memory = memory_of(rng, input_shift=np.zeros(3, np.int32), message_shift=0)
    done = run_job(Job("layer0", memory, delay().layers[0], np.ones((2, 4, 1)) * 40.0, 3))
    assert done.saturations["input"] == 2 * 4
    assert done.saturations["relay/state"] > 0
    assert done.saturations["relay/message"] >= done.saturations["relay/state"]
    assert np.abs(done.states).max() == 2**23 - 1


def test_events_synops_and_rasters_agree(rng):
    memory = memory_of(rng)
    done = run_job(
        Job("layer0", memory, delay().layers[0], sines(rng, 3, 300) * 20, presentation_steps=1)
    )
    for kind in ("memory", "relay", "input"):
        assert done.counts[kind].sum() == done.by_neuron[kind].sum() > 0
        assert np.array_equal(done.rasters[kind][:-1].sum(axis=1), done.counts[kind][0])
    by_sender = done.by_neuron["memory"] @ (memory.decoders[0] != 0).sum(axis=0)
    by_sender += done.by_neuron["relay"] @ (memory.neurons.encoders != 0).sum(axis=1)
    by_sender += done.by_neuron["input"].sum() * (memory.input_weights != 0).sum()
    assert done.synops(memory) == by_sender


def feedback_network(rng):
    def array(*shape):
        return rng.normal(size=shape) / np.sqrt(shape[0])

    first = LMULayer(
        input_encoders=array(2, 2),
        hidden_encoders=0.2 * array(4, 2),
        memory_encoders=0.1 * array(6, 2),
        memory_bias=np.array([0.1, 0.0]),
        memory=Memory.legendre(3, 10.0, channels=2),
        hidden=Hidden(array(6, 4), array(2, 4), array(4, 4), array(4), "tanh"),
    )
    lstm = LSTMLayer(array(4, 12), array(3, 12), array(12))
    last = LMULayer(array(3, 1), None, None, None, Memory.legendre(2, 8.0), None)
    return LMUNetwork((first, lstm, last), Readout(array(2, 2), None))


def test_events_have_the_names_of_the_layers(rng):
    numbered = feedback_network(rng)
    named = dataclasses.replace(numbered, names=("lmu_1", "lstm", "lmu_2", "answer"))
    inputs = rng.normal(size=(3, 6, 2))
    options = {"neurons_per_state": 4, "presentation_ms": 20.0, "tau_ms": 20.0}
    ours, others = (
        SpikingTarget().run(loihi_spike(each, inputs, **options), inputs)
        for each in (named, numbered)
    )
    kinds = ("relay", "memory", "input")
    assert ours.events.keys() == {f"{name}/{kind}" for name in ("lmu_1", "lmu_2") for kind in kinds}
    for kind in kinds:
        assert np.array_equal(ours.events[f"lmu_2/{kind}"], others.events[f"layer2/{kind}"]), kind
    assert "lmu_1/relay/state" in ours.saturations


def test_a_sample_spikes_alone_as_it_does_among_others(rng):
    network = feedback_network(rng)
    inputs = rng.normal(size=(5, 12, 2))
    lowered = loihi_spike(network, inputs, neurons_per_state=20, presentation_ms=20.0, tau_ms=20.0)
    together = SpikingTarget().run(lowered, inputs, record=True)
    for i in (0, 4):
        alone = SpikingTarget().run(lowered, inputs[i : i + 1], record=True)
        for kind in ("m", "h", "y"):
            ours, others = getattr(alone.states, kind)[0], getattr(together.states, kind)[i]
            assert np.array_equal(ours, others), kind
        for name, counts in alone.events.items():
            assert np.array_equal(counts[0], together.events[name][i]), name
    assert together.states.m.shape[2] == 8
    assert {note for note in together.notes if "LSTM" in note}


def test_a_calibrated_memory_follows_the_float_one(rng, monkeypatch):
    network = delay(order=3, theta=300.0)
    lowered = loihi_spike(
        network, sines(rng, 20, 800) * 0.5, neurons_per_state=60, presentation_ms=1.0, tau_ms=50.0
    )
    inputs = sines(np.random.default_rng(5), 4, 800) * 0.5
    run = SpikingTarget().run(lowered, inputs, record=True)
    true = run_reference(network, inputs, record=True).m
    assert nrmse(run.states.real_m(), true, washout=200) < 0.08
    assert not any(run.saturations.values())
    # The fit is judged beyond the range too, where it is worse; within it, as well as ever.
    monkeypatch.setattr("converters.spiking.dynamic.CALIBRATION_MARGIN", 1.0)
    within = loihi_spike(
        network,
        sines(np.random.default_rng(6), 20, 800) * 0.5,
        neurons_per_state=60,
        presentation_ms=1.0,
        tau_ms=50.0,
    )
    assert within.calibration.fit_error < 0.1


def test_a_network_survives_its_file(rng, tmp_path):
    lowered = loihi_spike(delay(task="delay"), sines(rng, 6, 30), neurons_per_state=5)
    save(lowered, tmp_path / "n.safetensors")
    again = load(tmp_path / "n.safetensors", LOIHI_CLASSES)
    assert isinstance(again, LoihiNetwork)
    assert again.task == "delay"
    inputs = sines(rng, 2, 10)
    runs = [SpikingTarget().run(n, inputs, record=True) for n in (lowered, again)]
    assert np.array_equal(runs[0].states.m, runs[1].states.m)


@given(seed=st.integers(0, 2**32 - 1), size=st.floats(1e-4, 2e5))
@settings(max_examples=30)
def test_rounded_rows_are_within_half_a_step_of_the_real_ones(seed, size):
    real = np.random.default_rng(seed).normal(size=(4, 6)) * size
    real = np.clip(real, -2.0e6, 2.0e6)
    rows = round_rows(real)
    step = rows.multiplier / 2.0**rows.shift
    assert np.all(np.abs(rows.weights * step[:, None] - real) <= 0.52 * step[:, None])
    assert np.all(step <= np.abs(real).max(axis=1) / 126.0)


def test_rows_beyond_the_gain_are_refused():
    with pytest.raises(InputError, match="does not fit 8 bits and a gain of 15"):
        round_rows(np.full((1, 2), 1e9))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoders": np.full((3, 9), 127, np.int8), "encoder_exponent": 0}, "wrap more than once"),
        ({"bias_mantissas": np.full((3, 9), 5000, np.int16)}, "13 bits"),
        ({"bias_exponent": 8}, "bias exponent is 8"),
        ({"threshold": 0}, "threshold is 0"),
        ({"membrane_decay": 4096}, "membrane decay is 4096"),
        ({"encoders": np.zeros((3, 9), np.int16)}, "int8"),
    ],
)
def test_neurons_that_the_chip_has_not_are_refused(rng, changes, words):
    with pytest.raises(InputError, match=words):
        neurons_of(rng, **changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"decoder_multiplier": np.full(3, 2**15, np.int32)}, "decoder multiplier"),
        ({"input_shift": np.full(3, -1, np.int32)}, "input shift"),
        ({"scales": np.zeros((1, 3))}, "positive throughout"),
        ({"scales": np.ones((1, 2))}, "3 populations for 1 channels of order 2"),
        ({"decoders": np.zeros((1, 3, 26), np.int8)}, "decoders has shape"),
        ({"decay": 0}, "relay decay is 0"),
    ],
)
def test_memories_that_cannot_be_are_refused(rng, changes, words):
    with pytest.raises(InputError, match=words):
        memory_of(rng, **changes)


def test_a_network_of_other_memories_is_refused(rng):
    lowered = loihi_spike(delay(), sines(rng, 6, 30), neurons_per_state=5)
    with pytest.raises(InputError, match="the two must be equal"):
        dataclasses.replace(lowered, host=delay(order=4))
    with pytest.raises(InputError, match="1 memories for 3 layers"):
        dataclasses.replace(lowered, host=feedback_network(rng))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"profile": "loihi2"}, "no LIF neurons"),
        ({"profile": "generic-analog"}, "digital"),
        ({"tau_ms": 10.5}, "not a whole multiple"),
        ({"presentation_ms": 5.0}, "present each input for at least"),
        ({"neurons_per_state": 60_000}, "use at most"),
        ({"maximum_rates": (100.0, 50.0)}, "highest maximum rate is 50"),
    ],
)
def test_bad_requests_get_one_clear_sentence(rng, options, words):
    with pytest.raises(InputError, match=words):
        loihi_spike(delay(), sines(rng, 4, 20), **options)


def test_the_command_leads_to_loihi_and_refuses_what_an_analog_chip_has(tmp_path):
    model = Path(__file__).resolve().parents[3] / "examples" / "models" / "digits.safetensors"
    out = tmp_path / "loihi.safetensors"
    made = lmu_deploy.spike(
        model, profile="loihi1", neurons_per_state=4, calibration="dynamic", out=out
    )
    assert isinstance(made, LoihiNetwork)
    assert made.profile == "loihi1"
    found = lmu_deploy.run(out, target="spiking", limit=3, record=tmp_path / "states.npz")
    summary = found.summary()
    assert summary["target"] == "spiking"
    assert summary["n_samples"] == 3
    assert set(summary["events"]["by_population"]) == {
        "layer0/memory",
        "layer0/relay",
        "layer0/input",
    }
    assert np.load(tmp_path / "states.npz")["m"].dtype.kind == "i"
    with pytest.raises(InputError, match="mismatch has no meaning"):
        lmu_deploy.spike(model, profile="loihi1", mismatch=0.1)
    with pytest.raises(InputError, match="calibration has no meaning"):
        lmu_deploy.spike(model, profile="loihi1", calibration="static")
    with pytest.raises(InputError, match="spike --profile loihi1"):
        lmu_deploy.run(model, target="spiking")


def test_every_figure_of_the_neurons_has_a_source():
    _, figures = lif_chip("loihi1")
    for name, figure in dict(figures).items():
        assert "assumed: " in figure.source or any(c.isdigit() for c in figure.source), name


def test_sizes_count_what_is_on_the_chip(rng):
    lowered = loihi_spike(delay(), sines(rng, 6, 30), neurons_per_state=5)
    sizes = network_sizes(lowered)
    assert sizes.weight_bits == 8
    assert sizes.weight_bytes == 3 * 15 + 15 + 3
    assert sizes.state_bytes == (2 * 15 + 3) * 3


def test_targets_are_compared_with_the_first_of_the_same_representation(rng):
    lowered = loihi_spike(delay(), sines(rng, 6, 30), neurons_per_state=5)
    run = SpikingTarget().run(lowered, sines(rng, 2, 4), record=True)
    other = dataclasses.replace(run, target="lava-lif")
    floats = dataclasses.replace(
        run, target="reference", states=dataclasses.replace(run.states, m=run.states.m * 1.0)
    )
    of_integers = dataclasses.replace(run, target="integer")
    results = [Result(of_integers, None), Result(run, lowered), Result(floats, delay())]
    results.append(Result(other, lowered))
    assert _integer_peers(results) == {"lava-lif": run}
    assert compare_states(other.states, run.states).equal
    spoilt = dataclasses.replace(run.states, m=run.states.m + 1)
    assert not compare_states(spoilt, run.states).equal
