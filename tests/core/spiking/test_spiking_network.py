"""A SpikingNetwork refuses what cannot be one, and survives its file."""

import dataclasses

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import load, save
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, LSTMLayer, Memory, Readout
from lmu_deploy.core.spiking.chip import (
    Calibration,
    Device,
    DPICircuit,
    DPISynapse,
    NeuronModel,
    Populations,
    check_multiple,
)
from lmu_deploy.core.spiking.network import SPIKING_CLASSES, SpikingMemory, SpikingNetwork

ORDER, CHANNELS, NEURONS = 3, 2, 5


@pytest.fixture
def parts(rng):
    shape = (CHANNELS * ORDER, NEURONS)
    populations = Populations(
        encoders=rng.choice([-1.0, 1.0], shape),
        gains=rng.uniform(1, 2, shape),
        biases=rng.normal(size=shape),
        gain_factors=rng.uniform(0.5, 2, shape),
        bias_factors=rng.uniform(0.5, 2, shape),
    )
    memory = SpikingMemory(
        populations,
        recurrent=rng.normal(size=(ORDER, ORDER)),
        input=rng.normal(size=ORDER),
        scales=rng.uniform(0.5, 1, (CHANNELS, ORDER)),
        weights=rng.normal(size=(CHANNELS, ORDER, ORDER * NEURONS)),
    )
    floats = Memory.legendre(ORDER, 8.0, CHANNELS)
    hidden = Hidden(rng.normal(size=(floats.size, 4)), None, None, None, "tanh")
    lmu = LMULayer(rng.normal(size=(2, CHANNELS)), None, None, None, floats, hidden)
    lstm = LSTMLayer(rng.normal(size=(4, 12)), rng.normal(size=(3, 12)), rng.normal(size=12))
    return {
        "memories": (memory, None),
        "host": LMUNetwork((lmu, lstm), Readout(rng.normal(size=(3, 2)), None), task="digits"),
        "neuron": NeuronModel("lif", 20.0, 2.0),
        "device": Device("generic-analog", 1, 0.1, 0.0, 0),
        "calibration": Calibration("dynamic", 0, 10, 1e-3, 0.02),
        "dt_ms": 1.0,
        "tau_ms": 100.0,
        "presentation_ms": 50.0,
    }


def test_derived_figures(parts):
    network = SpikingNetwork(**parts)
    memory = network.memories[0]
    assert (network.n_in, network.n_out, network.task) == (2, 2, "digits")
    assert network.steps_per_presentation == 50
    assert network.decay == pytest.approx(np.exp(-0.01))
    assert (memory.states, memory.neurons, memory.order, memory.channels) == (6, 30, 3, 2)
    assert memory.synapses.tolist() == [ORDER * NEURONS] * 30
    chip = memory.populations
    at_one = chip.slopes + chip.offsets
    expected = chip.gains * chip.gain_factors * chip.encoders + chip.biases * chip.bias_factors
    np.testing.assert_array_equal(at_one, expected)


def test_populations_have_the_names_of_the_layers_that_they_belong_to(parts):
    host = dataclasses.replace(parts["host"], names=("lmu_1", "lstm", "answer"))
    network = SpikingNetwork(**{**parts, "host": host})
    assert [group.place for group in network.groups()] == ["lmu_1/memory"]
    shown = [row[0] for row in network.summary().rows]
    assert shown == ["input", "lmu_1/memory", "lmu_1/hidden", "lstm", "answer"]


def test_synapses_of_weight_zero_are_not_counted(parts):
    memory = parts["memories"][0]
    weights = memory.weights.copy()
    weights[1, 2, 7] = 0.0
    pruned = dataclasses.replace(memory, weights=weights)
    missing = memory.synapses - pruned.synapses
    assert missing.tolist() == [NEURONS if k == ORDER * NEURONS + 7 else 0 for k in range(30)]


@pytest.mark.parametrize("neuron", [NeuronModel("lif", 20.0, 2.0), NeuronModel("dpi", 20.0, 2.0)])
def test_file_keeps_every_field(parts, tmp_path, neuron):
    kept = {**parts, "neuron": neuron}
    network = SpikingNetwork(**kept, provenance={"command": "spike"}, synapse=DPISynapse())
    save(network, tmp_path / "n.safetensors")
    again = load(tmp_path / "n.safetensors", SPIKING_CLASSES)
    assert isinstance(again, SpikingNetwork)
    before, after = dataclasses.asdict(network), dataclasses.asdict(again)
    np.testing.assert_equal(after, before)


def test_file_with_the_earlier_name_of_the_presentation_time_loads(parts, tmp_path):
    path = tmp_path / "n.safetensors"
    save(SpikingNetwork(**parts), path)
    header = safe_open(path, "numpy").metadata()["lmu_deploy"]
    earlier = header.replace('"presentation_ms"', '"hold_ms"')
    assert earlier != header
    save_file(load_file(path), path, metadata={"lmu_deploy": earlier})
    assert load(path, SPIKING_CLASSES).presentation_ms == 50.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"presentation_ms": 50.5}, "presentation_ms is 50.5 ms, not a whole multiple"),
        ({"tau_ms": 0.4}, "give 1 ms"),
        ({"neuron": NeuronModel("lif", 20.0, 1.5)}, "refractory_ms is 1.5 ms"),
        (
            {"neuron": NeuronModel("if", 20.0, 0.0), "device": Device("p", 0, 0.1, 0.1, 0)},
            "membrane_noise is 0.1, and it is defined for the neuron models lif and dpi, not if",
        ),
        ({"memories": ()}, "0 memories for 2 layers"),
        ({"memories": (None, None)}, "layer 0 has a memory"),
        ({"device": None}, "needs a Device, not NoneType"),
        ({"provenance": {"a": 1}}, "provenance a must be a string"),
    ],
)
def test_wrong_fields_are_rejected(parts, change, message):
    with pytest.raises(InputError, match=message):
        SpikingNetwork(**{**parts, **change})


def test_memory_on_a_layer_without_one_is_rejected(parts):
    memory = parts["memories"][0]
    with pytest.raises(InputError, match="layer 1 has no memory"):
        SpikingNetwork(**{**parts, "memories": (memory, memory)})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("scales", np.zeros((CHANNELS, ORDER)), "positive throughout"),
        ("weights", np.ones((CHANNELS, ORDER, 4)), "shape"),
        ("recurrent", np.eye(4), "cannot be channels of order 4"),
        ("input", np.full(ORDER, np.nan), "NaN"),
    ],
)
def test_wrong_memory_is_rejected(parts, field, value, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(parts["memories"][0], **{field: value})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NeuronModel("izhikevich", 20.0, 2.0), "choose one of"),
        (lambda: NeuronModel("poisson", 20.0, 2.0), "poisson has no refractory time"),
        (lambda: NeuronModel("lif", 20.0, 2.0, DPICircuit()), "lif has no such circuit"),
        (lambda: DPICircuit(onset=2000.0), r"must rise from dark .* and onset \(2000\) to spike"),
        (lambda: DPICircuit(feedback=8.0), "does not overcome the leak of 8 pA"),
        (lambda: DPISynapse(gain=0.0), "synapse gain is 0"),
        (lambda: Device("p", 0, 0.1, 0.0, 1), "weight_bits is 1"),
        (lambda: Device("p", 0, -0.1, 0.0, 6), "mismatch is -0.1"),
        (lambda: Calibration("guess", 0, 1, 0.0, 0.0), "choose one of"),
    ],
)
def test_wrong_chip_is_rejected(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_encoders_and_factors_are_checked(parts):
    populations = parts["memories"][0].populations
    with pytest.raises(InputError, match=r"\+1 or -1"):
        dataclasses.replace(populations, encoders=0.5 * populations.encoders)
    with pytest.raises(InputError, match="gain_factors must be positive"):
        dataclasses.replace(populations, gain_factors=-populations.gain_factors)


def test_multiples_tolerate_rounding_of_decimals():
    assert check_multiple("tau_ms", 0.3, 0.1) == 0.3
    assert check_multiple("refractory_ms", 0.0, 1.0, least=0) == 0.0
    with pytest.raises(InputError, match=r"give 0\.3 ms"):
        check_multiple("tau_ms", 0.34, 0.1)
