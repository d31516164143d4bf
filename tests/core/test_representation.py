"""Reprs, tables, identity and saving of every representation of a network."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import lmu_deploy
from converters.loihi import loihi_spike
from converters.quantize import quantize
from converters.spiking import spike
from lmu_deploy.core.files import load as load_tree
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.graph.transforms import as_layers
from lmu_deploy.core.loading import load
from lmu_deploy.core.network import (
    FLOAT_CLASSES,
    Hidden,
    LMULayer,
    LMUNetwork,
    LSTMLayer,
    Memory,
    Readout,
)
from lmu_deploy.core.reference import run_reference
from lmu_deploy.core.representation import REPR_LENGTH, Part, Representation


def float_network(task="digits"):
    rng = np.random.default_rng(0)
    memory = Memory.legendre(3, 6.0, 2)
    hidden = Hidden(rng.normal(size=(6, 4)), rng.normal(size=(1, 4)), None, np.zeros(4), "tanh")
    layers = (
        LMULayer(rng.normal(size=(1, 2)), None, None, None, memory, hidden),
        LSTMLayer(rng.normal(size=(4, 20)), rng.normal(size=(5, 20)), np.zeros(20)),
    )
    readout = Readout(rng.normal(size=(5, 2)), np.zeros(2))
    return Network.from_layers(LMUNetwork(layers, readout, task=task))


@pytest.fixture(scope="module")
def representations():
    network = float_network()
    inputs = np.random.default_rng(1).normal(size=(4, 12, 1)).astype(np.float32)
    return {
        "float": network,
        "integer": quantize(network, inputs),
        "spiking": spike(network, inputs, neurons_per_state=20),
        "loihi": loihi_spike(network, inputs, "loihi1", neurons_per_state=20),
    }


NAMES = ["float", "integer", "spiking", "loihi"]


@pytest.mark.parametrize("name", NAMES)
def test_repr_is_one_short_line(representations, name):
    text = repr(representations[name])
    assert text.startswith(type(representations[name]).__name__ + "(1 input, 2 outputs, ")
    assert len(text) <= REPR_LENGTH
    assert "\n" not in text


def test_repr_stays_short_where_the_task_has_a_long_name():
    assert len(repr(float_network("x" * 200))) == REPR_LENGTH


def parts(value):
    """Yield every part below a network, itself included."""
    if isinstance(value, tuple):
        for item in value:
            yield from parts(item)
    if isinstance(value, Part):
        yield value
        for field in dataclasses.fields(value):
            yield from parts(getattr(value, field.name))


@pytest.mark.parametrize("name", NAMES)
def test_repr_of_every_part_is_one_short_line(representations, name):
    for part in parts(representations[name]):
        assert len(repr(part)) <= REPR_LENGTH
        assert "\n" not in repr(part)


def test_printing_a_network_shows_a_table_of_nodes():
    lines = str(float_network()).splitlines()
    assert lines[0] == "Network: 1 input, 2 outputs, 246 parameters, 4 nodes, task digits"
    assert lines[2].split() == ["node", "operator", "inputs", "output", "shape", "parameters"]
    assert lines[5].startswith("layer0   LMU, order 3, theta 6, 2 channels, 4 dense tanh units  ")


@pytest.mark.parametrize("name", NAMES)
def test_table_names_every_node(representations, name):
    text = str(representations[name])
    for node in ("input", "layer0", "layer1", "readout"):
        assert f"\n{node}" in text
    assert not any(line.endswith(" ") for line in text.splitlines())


def test_parameters_of_the_table_add_up():
    network = float_network()
    summary = network.summary()
    column = summary.columns.index("parameters")
    assert sum(int(row[column]) for row in summary.rows) == network.n_parameters


@pytest.mark.parametrize("name", NAMES)
def test_notebook_shows_the_table_as_escaped_html(representations, name):
    assert "<table>" in representations[name]._repr_html_()


def test_names_are_escaped_in_html():
    assert "<b>" not in float_network("<b>")._repr_html_()


@pytest.mark.parametrize("name", NAMES)
def test_networks_compare_and_hash_by_identity(representations, name):
    network = representations[name]
    other = dataclasses.replace(network)
    assert network == network
    assert network != other
    assert {network: 1, other: 2}[network] == 1
    assert network.fingerprint() == other.fingerprint()


@pytest.mark.parametrize("name", NAMES)
def test_network_saves_itself(representations, name, tmp_path):
    network = representations[name]
    path = network.save(tmp_path / "network.safetensors")
    assert load(path).fingerprint() == network.fingerprint()


def test_representation_without_a_summary_says_so():
    with pytest.raises(NotImplementedError):
        Representation().summary()


def test_the_earlier_name_of_the_float_network_says_which_one_to_use():
    with pytest.warns(DeprecationWarning, match=r"LMUNetwork is deprecated; use lmu_deploy\.Netw"):
        assert lmu_deploy.LMUNetwork is LMUNetwork


MODELS = Path(__file__).resolve().parents[2] / "examples" / "models"
LAYERS = "digits", "mackey-glass-hybrid", "mackey-glass-lmu", "psmnist-lmu", "psmnist-parallel"
"""Models whose files hold layers, as version 0.1 wrote them."""


@pytest.mark.parametrize("name", LAYERS)
def test_files_of_layers_load_as_graphs_that_compute_the_same(name, tmp_path):
    path = MODELS / f"{name}.safetensors"
    layers = load_tree(path, FLOAT_CLASSES)
    assert isinstance(layers, LMUNetwork)
    network = load(path)
    again = load(network.save(tmp_path / "graph.safetensors"))
    assert network.fingerprint() == again.fingerprint() == Network.from_layers(layers).fingerprint()
    assert as_layers(again, "test").fingerprint() == layers.fingerprint()
    assert again.provenance == layers.provenance and again.task == layers.task
    inputs = np.random.default_rng(0).normal(size=(3, 30, network.n_in))
    found = run_reference(again, inputs, record=True)
    expected = run_reference(layers, inputs, record=True)
    for name in ("outputs", "m", "h", "y"):
        values = getattr(expected, name)
        atol = 1e-9 * np.abs(values).max(initial=0.0)
        np.testing.assert_allclose(getattr(found, name), values, rtol=0, atol=atol)


def test_the_fingerprint_of_a_graph_is_that_of_its_numbers_and_names(tmp_path):
    """Neither the layout of arrays in memory nor task and provenance count; names do."""
    network = float_network()
    turned = list(network.nodes)
    for number, node in enumerate(turned):
        if (kernel := getattr(node.operator, "kernel", None)) is not None:
            operator = dataclasses.replace(node.operator, kernel=np.asfortranarray(kernel))
            turned[number] = dataclasses.replace(node, operator=operator)
    same = dataclasses.replace(network, nodes=tuple(turned), task=None, provenance={"a": "b"})
    assert load(same.save(tmp_path / "a.safetensors")).fingerprint() == network.fingerprint()
    nodes = [*network.nodes[:-1], dataclasses.replace(network.nodes[-1], name="head")]
    renamed = dataclasses.replace(network, nodes=tuple(nodes), output="head")
    assert renamed.fingerprint() != network.fingerprint()
