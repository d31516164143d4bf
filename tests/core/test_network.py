"""LMUNetwork: sizes, parameter counts, validation of every field."""

import json
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import HEADER, load, save
from lmu_deploy.core.graph.network import Network, Node, layer_operator
from lmu_deploy.core.graph.transforms import as_layers
from lmu_deploy.core.legendre import discretize
from lmu_deploy.core.network import (
    FLOAT_CLASSES,
    Hidden,
    LMULayer,
    LMUNetwork,
    LSTMLayer,
    Memory,
    Readout,
)

MEMORY = Memory.legendre(3, 9.0, channels=2)
HIDDEN = Hidden(np.ones((6, 4)), np.ones((5, 4)), np.ones((4, 4)), np.ones(4), "tanh")
LAYER = LMULayer(np.ones((5, 2)), np.ones((4, 2)), np.ones((6, 2)), np.ones(2), MEMORY, HIDDEN)
LSTM = LSTMLayer(np.ones((4, 12)), np.ones((3, 12)), np.ones(12))
READOUT = Readout(np.ones((3, 7)), np.ones(7))
NETWORK = LMUNetwork((LAYER, LSTM), READOUT, task="digits", provenance={"seed": "1"})


def test_sizes_follow_from_the_arrays():
    assert (LAYER.n_in, LAYER.n_out, MEMORY.size, HIDDEN.units) == (5, 4, 6, 4)
    assert (LSTM.n_in, LSTM.n_out) == (4, 3)
    assert (NETWORK.n_in, NETWORK.n_out) == (5, 7)
    memory_alone = replace(LAYER, hidden=None, hidden_encoders=None)
    assert memory_alone.n_out == 6


def test_parameter_count():
    lmu = 5 * 2 + 4 * 2 + 6 * 2 + 2 + 6 * 4 + 5 * 4 + 4 * 4 + 4
    lstm = 4 * 12 + 3 * 12 + 12
    assert NETWORK.n_parameters == lmu + lstm + 3 * 7 + 7
    trained = replace(LAYER, memory=replace(MEMORY, discretizer="trained"))
    grown = replace(NETWORK, layers=(trained, LSTM))
    assert grown.n_parameters == NETWORK.n_parameters + 3 * 3 + 3


@pytest.mark.parametrize(
    ("encoders", "feeds_back"),
    [
        ({}, True),
        ({"hidden_encoders": None}, True),
        ({"memory_encoders": None}, True),
        ({"hidden_encoders": None, "memory_encoders": None}, False),
    ],
)
def test_feeds_back(encoders, feeds_back):
    assert replace(LAYER, **encoders).feeds_back is feeds_back


@pytest.mark.parametrize("discretizer", ["zoh", "bilinear", "euler"])
def test_legendre_memory_equals_discretize(discretizer):
    memory = Memory.legendre(4, 50.0, 3, discretizer)
    a_bar, b_bar = discretize(4, 50.0, discretizer)
    np.testing.assert_array_equal(memory.a_bar, a_bar)
    np.testing.assert_array_equal(memory.b_bar, b_bar)
    assert (memory.order, memory.channels, memory.theta) == (4, 3, 50.0)


def test_networks_are_immutable():
    with pytest.raises(FrozenInstanceError):
        NETWORK.task = "other"
    for array in (MEMORY.a_bar, HIDDEN.bias, LAYER.input_encoders, LSTM.kernel, READOUT.kernel):
        with pytest.raises(ValueError, match="read-only"):
            array.flat[0] = 2.0
    given_provenance = {"a": "1"}
    network = replace(NETWORK, provenance=given_provenance)
    given_provenance["a"] = "2"
    assert network.provenance == {"a": "1"}


WRONG = {
    "order": (MEMORY, {"order": 0}, "memory order is 0"),
    "order too large": (MEMORY, {"order": 5000}, "outside 1 to 4096"),
    "order a float": (MEMORY, {"order": 3.0}, "memory order is 3.0"),
    "order does not fit": (MEMORY, {"order": 4}, r"a_bar has shape \(3, 3\), expected \(4, 4\)"),
    "channels": (MEMORY, {"channels": -1}, "memory channels is -1"),
    "theta": (MEMORY, {"theta": 0.0}, "memory theta is 0"),
    "theta nan": (MEMORY, {"theta": float("nan")}, "memory theta is nan"),
    "discretizer": (MEMORY, {"discretizer": "rk4"}, "bilinear, euler, trained, zoh"),
    "a_bar nan": (MEMORY, {"a_bar": np.full((3, 3), np.nan)}, "9 entries"),
    "a_bar complex": (MEMORY, {"a_bar": np.ones((3, 3), complex)}, "floating type"),
    "b_bar": (MEMORY, {"b_bar": np.ones((3, 1))}, r"memory b_bar has shape \(3, 1\)"),
    "memory kernel": (HIDDEN, {"memory_kernel": np.ones(4)}, "memory_kernel has shape"),
    "input kernel": (HIDDEN, {"input_kernel": np.ones((5, 3))}, "input_kernel has shape"),
    "recurrent kernel": (HIDDEN, {"recurrent_kernel": np.ones((4, 3))}, "recurrent_kernel"),
    "bias": (HIDDEN, {"bias": np.ones(3)}, "hidden bias has shape"),
    "bias a list": (HIDDEN, {"bias": [1.0] * 4}, "hidden bias is list"),
    "activation": (HIDDEN, {"activation": "gelu"}, "hard-tanh, linear, relu, tanh"),
    "input encoders": (LAYER, {"input_encoders": np.ones((5, 1))}, "input_encoders has shape"),
    "no input encoders": (LAYER, {"input_encoders": None}, "input_encoders is NoneType"),
    "hidden encoders": (LAYER, {"hidden_encoders": np.ones((3, 2))}, "hidden_encoders has shape"),
    "memory encoders": (LAYER, {"memory_encoders": np.ones((3, 2))}, "memory_encoders has shape"),
    "memory bias": (LAYER, {"memory_bias": np.ones(1)}, "memory_bias has shape"),
    "no memory": (LAYER, {"memory": None}, "needs a Memory"),
    "hidden of another kind": (LAYER, {"hidden": READOUT}, "needs a Memory, and a Hidden"),
    "encoders of no hidden": (LAYER, {"hidden": None}, "hidden_encoders need hidden units"),
    "kernel of other input": (
        LAYER,
        {"hidden": replace(HIDDEN, input_kernel=np.ones((4, 4)))},
        r"input_kernel has shape \(4, 4\), expected \(5, 4\)",
    ),
    "kernel of other memory": (
        LAYER,
        {"hidden": replace(HIDDEN, memory_kernel=np.ones((5, 4)))},
        r"memory_kernel has shape \(5, 4\), expected \(6, 4\)",
    ),
    "lstm kernel": (LSTM, {"kernel": np.ones((4, 11))}, "lstm kernel has shape"),
    "lstm recurrent": (LSTM, {"recurrent_kernel": np.ones((3, 11))}, "lstm recurrent_kernel"),
    "lstm bias": (LSTM, {"bias": None}, "lstm bias is NoneType"),
    "readout kernel": (READOUT, {"kernel": np.ones(3)}, "readout kernel has shape"),
    "readout bias": (READOUT, {"bias": np.ones(6)}, "readout bias has shape"),
    "no layers": (NETWORK, {"layers": ()}, "at least one"),
    "other layers": (NETWORK, {"layers": (LAYER, READOUT)}, "must be LMU or LSTM layers"),
    "layers that do not fit": (NETWORK, {"layers": (LSTM, LAYER)}, "layer 0 has 3 outputs"),
    "readout that does not fit": (NETWORK, {"layers": (LAYER,)}, "last layer has 4 outputs"),
    "no readout": (NETWORK, {"readout": None}, "must be a Readout"),
    "flag": (NETWORK, {"return_sequences": "yes"}, "give true or false"),
    "task": (NETWORK, {"task": 7}, "task must be a string"),
    "task too long": (NETWORK, {"task": "x" * 201}, "at most 200"),
    "too few names": (NETWORK, {"names": ("a", "b")}, "a network of 2 layers has 2 names"),
    "one name twice": (NETWORK, {"names": ("a", "b", "a")}, "two nodes have the name a"),
    "name of the input": (NETWORK, {"names": ("input", "b", "c")}, "the name 'input'"),
    "name with a break": (NETWORK, {"names": ("a\n", "b", "c")}, "cannot have the name"),
    "number as a name": (NETWORK, {"names": (0, 1, 2)}, "node name must be a string"),
    "provenance": (NETWORK, {"provenance": ["a"]}, "provenance must map"),
    "provenance value": (NETWORK, {"provenance": {"seed": 1}}, "provenance seed must be a string"),
    "provenance key": (NETWORK, {"provenance": {1: "seed"}}, "provenance key must be a string"),
}


@pytest.mark.parametrize(("part", "change", "message"), WRONG.values(), ids=WRONG)
def test_wrong_field_is_rejected_by_name(part, change, message):
    with pytest.raises(InputError, match=message):
        replace(part, **change)


def test_layers_keep_their_names_in_graphs_and_files_and_compute_the_same(tmp_path):
    named = replace(NETWORK, names=("lmu_1", "block.0", "answer"))
    assert NETWORK.node_names == ("layer0", "layer1", "readout")
    assert named.node_names == named.names
    graph = Network.from_layers(named)
    assert [node.name for node in graph.nodes] == ["lmu_1", "block.0", "last", "answer"]
    assert as_layers(graph, "test").names == named.names
    assert as_layers(Network.from_layers(NETWORK), "test").names == ()
    assert named.fingerprint() == NETWORK.fingerprint()
    save(named, tmp_path / "n.safetensors")
    assert load(tmp_path / "n.safetensors", FLOAT_CLASSES).names == named.names


def test_files_from_before_layers_had_names_load(tmp_path):
    path = tmp_path / "n.safetensors"
    save(NETWORK, path)
    header = json.loads(safe_open(path, "numpy").metadata()[HEADER])
    assert header["root"]["fields"].pop("names") == []
    save_file(load_file(path), path, metadata={HEADER: json.dumps(header)})
    assert load(path, FLOAT_CLASSES).node_names == ("layer0", "layer1", "readout")


def test_a_readout_that_a_graph_lacks_gets_a_name_that_is_free():
    plain = replace(LAYER, hidden=None, hidden_encoders=None)
    graph = Network((Node("readout", layer_operator(plain), ("input",)),), (5,), "readout")
    assert as_layers(graph, "test").names == ("readout", "readout_")


@given(data=st.data())
def test_networks_can_be_rebuilt_from_their_parts(networks, data):
    network = data.draw(networks)
    assert replace(network).layers == network.layers
    assert network.n_parameters > 0
