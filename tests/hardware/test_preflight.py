"""Profiles have sources; pre-flight rules find every planted violation."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from layered import layered, relayered

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.functions import PiecewiseLinear
from lmu_deploy.core.integer.graph import delayed, edges, sources, with_thresholds
from lmu_deploy.core.integer.layered import (
    IntegerHidden,
    IntegerLayer,
    IntegerMemory,
    IntegerReadout,
    LayeredNetwork,
)
from lmu_deploy.core.integer.parts import Connection, Format
from lmu_deploy.hardware.placement import demands, place, table
from lmu_deploy.hardware.preflight import RULES, check
from lmu_deploy.hardware.profile import DigitalProfile, Figure, load_profile, profile_names


def link(n_out, n_in, slices=1, weights=3):
    gain = np.ones((slices, n_out), int)
    return Connection(np.full((slices, n_out, n_in), weights), gain, 0 * gain)


def network_of(states=4, units=6, n_in=2, n_out=3, slices=2):
    identity = PiecewiseLinear(np.array([1]), np.array([0]), 0, "odd")
    memory = IntegerMemory(
        Format(24, 0.1),
        Format(12, 0.1),
        10,
        link(states, states, slices),
        link(states, n_in, slices),
        link(states, units),
        None,
    )
    hidden = IntegerHidden(
        Format(24, 0.1),
        Format(8, 0.1),
        link(units, states),
        None,
        link(units, units),
        None,
        identity,
    )
    readout = IntegerReadout(link(n_out, units), None, Format(24, 0.1))
    return LayeredNetwork(Format(8, 0.1), (IntegerLayer(memory, hidden),), readout).graph()


def chip(**limits) -> DigitalProfile:
    profile = load_profile("loihi2", "digital")
    assert isinstance(profile, DigitalProfile)
    figures = {name: Figure(value=value, source="for a test") for name, value in limits.items()}
    return profile.model_copy(update=figures)


@pytest.mark.parametrize("name", ["loihi1", "loihi2"])
def test_every_figure_has_a_source(name):
    profile = load_profile(name, "digital")
    figures = [value for value in dict(profile).values() if isinstance(value, Figure)]
    assert len(figures) == 9
    assert all(figure.value >= 1 for figure in figures)
    for figure in figures:
        assert "assumed: " in figure.source or any(c.isdigit() for c in figure.source)


def test_digital_profiles_are_listed():
    assert {"loihi1", "loihi2"} <= set(profile_names("digital"))
    with pytest.raises(InputError, match="loihi1, loihi2"):
        load_profile("truenorth", "digital")


def test_populations_and_edges_of_a_network():
    network = network_of()
    assert list(map(str, sources(network))) == ["input", "layer0/memory", "layer0/hidden"]
    assert [(w.place, str(w.source), str(w.target)) for w in edges(network)] == [
        ("layer0/memory/recurrent", "layer0/memory", "layer0/memory"),
        ("layer0/memory/input", "input", "layer0/memory"),
        ("layer0/memory/hidden", "layer0/hidden", "layer0/memory"),
        ("layer0/hidden/memory", "layer0/memory", "layer0/hidden"),
        ("layer0/hidden/recurrent", "layer0/hidden", "layer0/hidden"),
        ("readout", "layer0/hidden", "readout"),
    ]
    assert delayed(network) == [
        "layer0/memory/recurrent",
        "layer0/memory/hidden",
        "layer0/hidden/recurrent",
    ]


def test_small_network_fits_loihi2_and_not_loihi1():
    assert check(network_of(), chip()) == []
    found = check(network_of(), load_profile("loihi1", "digital"))
    assert {v.object.split(" of ")[0] for v in found} == {"accumulators", "messages"}
    messages = next(v for v in found if v.object == "messages of layer0/memory, bits")
    assert (messages.value, messages.limit) == (12, 1)
    assert "lmu-deploy spike" in messages.remedy


@pytest.mark.parametrize(
    ("limits", "object_", "value"),
    [
        ({"weight_bits": 7}, "weights of layer0/memory/recurrent, bits", 8),
        ({"accumulator_bits": 20}, "accumulators of readout, bits", 24),
        ({"state_bits": 23}, "states of layer0/hidden, bits", 24),
        ({"message_bits": 11}, "messages of layer0/memory, bits", 12),
        ({"fan_in": 11}, "fan-in of a neuron of layer0/memory", 12),
        ({"synaptic_bytes_per_core": 17}, "synapses of a neuron of layer0/memory, bytes", 18),
        ({"fan_out": 9}, "output axons of core 0 (layer0/memory, layer0/hidden, readout)", 10),
        ({"cores": 2, "neurons_per_core": 5}, "cores of Intel Loihi 2", 3),
    ],
)
def test_each_rule_finds_its_violation(limits, object_, value):
    found = check(network_of(), chip(**limits))
    violation = next(v for v in found if v.object == object_)
    assert violation.value == value
    assert violation.limit < value
    assert violation.remedy
    assert str(violation).startswith(f"{object_}: {value}, and at most {violation.limit} ")
    assert check(network_of(), chip(**{name: limit + 100 for name, limit in limits.items()})) == []


def test_all_violations_are_returned():
    found = check(network_of(), chip(weight_bits=7, state_bits=16, message_bits=4, fan_in=3))
    kinds = {v.object.split(" of ")[0] for v in found}
    assert kinds == {"weights", "states", "messages", "fan-in"}
    assert len(RULES) == 9


def test_changes_of_messages_need_a_bit_more():
    network = with_thresholds(network_of(), {"layer0/hidden/memory": 1})
    (violation,) = check(network, chip(message_bits=12))
    assert violation.object == "changes of messages on layer0/hidden/memory, bits"
    assert (violation.value, violation.limit) == (13, 12)
    assert check(network, chip(message_bits=13)) == []
    assert check(network_of(), chip(message_bits=12)) == []


def test_neuron_has_axons_for_each_threshold():
    network = with_thresholds(network_of(), {"layer0/hidden/memory": 1})
    (core,) = place(network, chip())
    (plain,) = place(network_of(), chip())
    assert core.in_axons == plain.in_axons + 4
    assert core.out_axons == plain.out_axons + 4


def test_demands_count_synapses_once_for_each_slice():
    memory, hidden, readout = demands(network_of(states=4, units=6, n_in=2, n_out=3, slices=2))
    assert memory.synaptic_bytes.tolist() == [2 * 4 + 2 * 2 + 6] * 4
    assert hidden.synaptic_bytes.tolist() == [4 + 6] * 6
    assert readout.synaptic_bytes.tolist() == [6] * 3
    assert memory.sources.sum(axis=1).tolist() == [12] * 4


def test_zero_weights_take_no_memory():
    network = network_of()
    layer = layered(network).layers[0]
    memory = dataclasses.replace(layer.memory, recurrent=link(4, 4, weights=0))
    network = relayered(network, layers=(IntegerLayer(memory, layer.hidden),))
    assert demands(network)[0].synaptic_bytes.tolist() == [2 * 2 + 6] * 4


@pytest.mark.parametrize(
    "limits",
    [
        {"neurons_per_core": 3},
        {"synaptic_bytes_per_core": 40},
        {"fan_in": 12, "neurons_per_core": 4},
        {"fan_in": 12, "synaptic_bytes_per_core": 60, "neurons_per_core": 5},
    ],
)
def test_placement_respects_limits_and_places_all_neurons(limits):
    network, profile = network_of(), chip(**limits)
    cores = place(network, profile)
    assert sum(sum(core.neurons.values()) for core in cores) == 4 + 6 + 3
    total = sum(demand.synaptic_bytes.sum() for demand in demands(network))
    assert sum(core.synaptic_bytes for core in cores) == total
    for core in cores:
        assert sum(core.neurons.values()) <= profile.neurons_per_core.value
        assert core.synaptic_bytes <= profile.synaptic_bytes_per_core.value
        assert core.in_axons <= profile.fan_in.value
    assert sum(core.out_axons for core in cores) + input_axons(network, cores) == sum(
        core.in_axons for core in cores
    )


def input_axons(network, cores) -> int:
    """Axons that the input takes: every core with memory neurons receives all of it."""
    return network.n_in * sum("layer0/memory" in core.neurons for core in cores)


def test_psmnist_network_fits_loihi2():
    """Order 256 with 212 hidden units and two slices: 256 * 2 * 257 bytes and more."""
    network = network_of(states=256, units=212, n_in=1, n_out=10)
    assert check(network, chip()) == []
    cores = place(network, chip())
    assert 2 <= len(cores) <= 5
    shown = table(cores, chip())
    assert len(shown.splitlines()) == len(cores) + 1
    assert "layer0/memory" in shown
    assert "%" in shown
    print(shown)
