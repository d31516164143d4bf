"""Spiking memories on cores: demands, placement, pre-flight rules."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest

import lmu_deploy
from converters.loihi import loihi_spike
from lmu_deploy.api.check import placement, remarks
from lmu_deploy.cli import main
from lmu_deploy.core.files import save
from lmu_deploy.core.network import LMULayer, LMUNetwork, LSTMLayer, Memory, Readout
from lmu_deploy.fidelity.judge import fit_of
from lmu_deploy.hardware.placement import loihi_demands, loihi_senders, place
from lmu_deploy.hardware.preflight import check
from lmu_deploy.hardware.profile import DigitalProfile, Figure, load_profile

NEURONS = 7


def chip(name="loihi2", **limits) -> DigitalProfile:
    profile = load_profile(name, "digital")
    assert isinstance(profile, DigitalProfile)
    figures = {n: Figure(value=value, source="for a test") for n, value in limits.items()}
    return profile.model_copy(update=figures)


@pytest.fixture(scope="module")
def network():
    """Two memories, of 2 channels of order 3 and of order 2, with an LSTM between them."""
    rng = np.random.default_rng(3)
    first = LMULayer(np.ones((1, 2)), None, None, None, Memory.legendre(3, 10.0, 2), None)
    lstm = LSTMLayer(rng.normal(size=(6, 8)), rng.normal(size=(2, 8)), np.zeros(8))
    last = LMULayer(np.ones((2, 1)), None, None, None, Memory.legendre(2, 10.0), None)
    host = LMUNetwork((first, lstm, last), Readout(np.eye(2), None))
    made = loihi_spike(host, rng.normal(size=(5, 8, 1)), neurons_per_state=NEURONS)
    # A few synapses that are not there, so that what is counted are synapses and not places.
    memory = made.memories[0]
    decoders, encoders = memory.decoders.copy(), memory.neurons.encoders.copy()
    decoders[1, 2, :5] = 0
    encoders[encoders == 0] = 1
    encoders[4, 2] = 0
    neurons = dataclasses.replace(memory.neurons, encoders=encoders)
    memory = dataclasses.replace(memory, decoders=decoders, neurons=neurons)
    return dataclasses.replace(made, memories=(memory, None, made.memories[2]))


def heard_by(network, profile):
    """Names of what every neuron receives, as the semantics page defines it, one by one."""
    names = [
        (sender.population, n)
        for sender in loihi_senders(network, profile)
        for n in range(sender.neurons)
    ]
    return {
        demand.population: [
            {names[k] for k in np.flatnonzero(row)} for row in demand.sources.toarray()
        ]
        for demand in loihi_demands(network, profile)
    }


def test_connectivity_of_relays_and_neurons(network):
    heard = heard_by(network, chip())
    memory = network.memories[0]
    for k in range(6):
        c, i = divmod(k, 3)
        wanted = {
            ("layer0/memory", c * 3 * NEURONS + j)
            for j in range(3 * NEURONS)
            if memory.decoders[c, i, j]
        }
        if memory.input_weights[k]:
            wanted.add(("layer0/input", c))
        assert heard["layer0/relay"][k] == wanted
    for j in range(6 * NEURONS):
        wanted = {("layer0/relay", j // NEURONS)} if j != 4 * NEURONS + 2 else set()
        assert heard["layer0/memory"][j] == wanted
    assert all(name.startswith("layer2/") for rows in heard["layer2/relay"] for name, _ in rows)


def test_synapses_take_a_byte_at_the_target(network):
    for demand in loihi_demands(network, chip()):
        assert demand.synaptic_bytes.tolist() == demand.sources.sum(axis=1).tolist()
    stored = sum(core.synaptic_bytes for core in place(network, chip()))
    memories = [memory for memory in network.memories if memory is not None]
    weights = [a for m in memories for a in (m.decoders, m.neurons.encoders, m.input_weights)]
    assert stored == sum(int(np.count_nonzero(a)) for a in weights)


def test_small_memory_fits_one_core_of_loihi2(network):
    (core,) = place(network, chip())
    assert core.neurons == {
        "layer0/relay": 6,
        "layer0/memory": 6 * NEURONS,
        "layer2/relay": 2,
        "layer2/memory": 2 * NEURONS,
    }
    # One axon for each sender, of which the three inputs come from outside; the neuron without an
    # encoder still sends.
    assert core.in_axons == 3 + 8 + 8 * NEURONS
    assert core.out_axons == core.in_axons - 3


def test_relays_are_not_on_cores_whose_messages_are_too_narrow(network):
    loihi1 = chip("loihi1")
    (core,) = place(network, loihi1)
    assert core.neurons == {"layer0/memory": 6 * NEURONS, "layer2/memory": 2 * NEURONS}
    assert (core.in_axons, core.out_axons) == (8, 0)
    assert core.synaptic_bytes == 8 * NEURONS - 1
    assert check(network, loihi1) == []


@pytest.mark.parametrize(
    "limits",
    [
        {"neurons_per_core": 5},
        {"synaptic_bytes_per_core": 60},
        {"fan_in": 30},
        {"fan_in": 30, "neurons_per_core": 9, "synaptic_bytes_per_core": 40},
    ],
)
def test_placement_respects_limits_and_places_all_neurons(network, limits):
    profile = chip(**limits)
    cores = place(network, profile)
    assert sum(sum(core.neurons.values()) for core in cores) == 8 + 8 * NEURONS
    for core in cores:
        assert sum(core.neurons.values()) <= profile.neurons_per_core.value
        assert core.synaptic_bytes <= profile.synaptic_bytes_per_core.value
        assert core.in_axons <= profile.fan_in.value
    assert len(cores) > 1


@pytest.mark.parametrize(
    ("limits", "object_", "value"),
    [
        ({"weight_bits": 7}, "weights of layer0/memory, bits", 8),
        ({"state_bits": 23}, "states of layer2/memory, bits", 24),
        ({"accumulator_bits": 4}, "accumulators of layer0/relay, bits", None),
        ({"fan_in": 21}, "fan-in of a neuron of layer0/relay", 22),
        ({"synaptic_bytes_per_core": 21}, "synapses of a neuron of layer0/relay, bytes", 22),
        ({"cores": 2, "neurons_per_core": 30}, "cores of Intel Loihi 2", 3),
        ({"fan_out": 63}, "output axons of core 0 (layer0/relay, layer0/memory, layer2/relay, "
         "layer2/memory)", 64),
    ],
)  # fmt: skip
def test_each_rule_finds_its_violation(network, limits, object_, value):
    found = check(network, chip(**limits))
    violation = next(v for v in found if v.object == object_)
    assert violation.value == value or value is None
    assert violation.value > violation.limit
    assert violation.remedy and "quantize" not in violation.remedy
    assert check(network, chip(**{name: limit + 100 for name, limit in limits.items()})) == []


def test_decoder_bits_is_the_worst_case(network):
    memory, group = network.memories[2], list(network.groups())[1]
    spikes = np.array(np.meshgrid(*[[0, 1]] * 2 * NEURONS)).reshape(2 * NEURONS, -1)
    sums = memory.decoders[0].astype(int) @ spikes
    largest = int(np.abs(sums).max())
    assert 2 ** (group.accumulator_bits - 2) <= largest < 2 ** (group.accumulator_bits - 1)


def test_report_states_the_fit(network):
    fit = fit_of(network)
    assert (fit.profile, fit.violations) == ("loihi1", [])
    assert fit_of(dataclasses.replace(network, profile="generic-analog")) is None


def test_check_accepts_loihi_networks(network, tmp_path, monkeypatch, capsys):
    path = tmp_path / "loihi.safetensors"
    save(network, path)
    assert lmu_deploy.check(path, profile="loihi1") == []
    assert "layer2/memory" in placement(path, profile="loihi2")
    assert "relays" in remarks(path)[0]
    for profile in ("loihi1", "loihi2"):
        monkeypatch.setattr(sys, "argv", ["lmu-deploy", "check", str(path), "--profile", profile])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
        shown = capsys.readouterr().out
        assert f"fits {profile}." in shown
        assert ("layer0/relay (6)" in shown) == (profile == "loihi2")
