"""Model files: a saved network loads unchanged; corrupt or foreign files raise InputError."""

import json
import os
import pickle

import numpy as np
import pytest
from equal_runs import assert_same
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from lmu_deploy.core import files
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import from_tree, load, save, to_tree
from lmu_deploy.core.integer.network import INTEGER_CLASSES
from lmu_deploy.core.network import FLOAT_CLASSES, Hidden, LMULayer, LMUNetwork, Memory, Readout


def small_network(task="digits"):
    hidden = Hidden(np.ones((4, 3)), None, np.eye(3), None, "tanh")
    layer = LMULayer(np.ones((1, 2)), None, None, None, Memory.legendre(2, 6.0, 2), hidden)
    return LMUNetwork((layer,), Readout(np.ones((3, 1)), None), task=task)


@settings(max_examples=100)
@given(data=st.data())
def test_round_trip_keeps_every_bit(networks, data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "network.safetensors"
    network = data.draw(networks)
    save(network, path)
    loaded = load(path, FLOAT_CLASSES)
    assert type(loaded) is LMUNetwork
    assert_same(network, loaded)


def test_loaded_arrays_are_read_only(tmp_path):
    save(small_network(), tmp_path / "a.safetensors")
    loaded = load(tmp_path / "a.safetensors", FLOAT_CLASSES)
    with pytest.raises(ValueError, match="read-only"):
        loaded.readout.kernel[0, 0] = 2.0


def test_tensor_keys_are_paths(tmp_path):
    save(small_network(), tmp_path / "a.safetensors")
    assert set(load_file(tmp_path / "a.safetensors")) == {
        "layers.0.input_encoders",
        "layers.0.memory.a_bar",
        "layers.0.memory.b_bar",
        "layers.0.hidden.memory_kernel",
        "layers.0.hidden.recurrent_kernel",
        "readout.kernel",
    }


def test_noncontiguous_view_is_saved(tmp_path):
    kernel = np.arange(6.0).reshape(2, 3).T
    save(Readout(kernel, None), tmp_path / "a.safetensors")
    np.testing.assert_array_equal(load(tmp_path / "a.safetensors", (Readout,)).kernel, kernel)


def test_unsupported_type_is_rejected(tmp_path):
    with pytest.raises(InputError, match=r"provenance\.when is a object"):
        to_tree({"provenance": {"when": object()}})
    with pytest.raises(InputError, match="is a set"):
        save({1, 2}, tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    save(small_network(), path)

    def fail_half_way(tensors, name, metadata):
        name.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "save_file", fail_half_way)
    with pytest.raises(KeyboardInterrupt):
        save(small_network(task=None), path)
    assert_same(load(path, FLOAT_CLASSES), small_network())
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.safetensors"]


def write(path, change_tree=None, change_tensors=None, header=None):
    """Write a network's file with its header or its tensors changed."""
    tree, tensors = to_tree(small_network())
    if change_tree:
        change_tree(tree["fields"])
    if change_tensors:
        change_tensors(tensors)
    if header is None:
        header = json.dumps({"format": 1, "root": tree})
    save_file(tensors, path, metadata={"lmu_deploy": header})


def layer_of(fields):
    return fields["layers"][0]["fields"]


TREES = {
    "other format": ({"header": '{"format": 2, "root": 1}'}, "update lmu_deploy"),
    "no JSON": ({"header": "{"}, "not a readable"),
    "a list": ({"header": "[]"}, "update lmu_deploy"),
    "no root": ({"header": '{"format": 1}'}, "at its root"),
    "nested too deep": ({"header": "[" * 100_000}, "not a readable"),
    "huge number": ({"header": '{"format": 1, "root": 1e999}'}, "at its root"),
    "unknown class": ({"change_tree": lambda f: f["readout"].update(type="Popen")}, "a Popen"),
    "class of another kind": (
        {"change_tree": lambda f: f["readout"].update(f["layers"][0])},
        "must be a Readout",
    ),
    "class is no text": ({"change_tree": lambda f: f["readout"].update(type=[1])}, "a.safetensors"),
    "extra field": ({"change_tree": lambda f: f.update(x=1)}, "does not know: x; update"),
    "missing field": ({"change_tree": lambda f: f.pop("task")}, "lacks task: an older version"),
    "fields is a list": ({"change_tree": lambda f: f["readout"].update(fields=[])}, "corrupt"),
    "task is a number": ({"change_tree": lambda f: f.update(task=3)}, "task must be a string"),
    "task is a list": ({"change_tree": lambda f: f.update(task=["a"])}, "task must be a string"),
    "flag is a number": ({"change_tree": lambda f: f.update(return_sequences=1)}, "true or false"),
    "no layers": ({"change_tree": lambda f: f.update(layers=[])}, "at least one"),
    "layers is null": ({"change_tree": lambda f: f.update(layers=None)}, "a.safetensors"),
    "layers is a number": ({"change_tree": lambda f: f.update(layers=4)}, "a.safetensors"),
    "order is a text": (
        {"change_tree": lambda f: layer_of(f)["memory"]["fields"].update(order="2")},
        "memory order is '2'",
    ),
    "order is absurd": (
        {"change_tree": lambda f: layer_of(f)["memory"]["fields"].update(order=10**30)},
        "memory order",
    ),
    "theta is absurd": (
        {"change_tree": lambda f: layer_of(f)["memory"]["fields"].update(theta=10**400)},
        "memory theta",
    ),
    "array is a number": (
        {"change_tree": lambda f: layer_of(f).update(input_encoders=1.0)},
        "array",
    ),
    "tensor of no name": (
        {"change_tree": lambda f: f["readout"]["fields"].update(kernel={"tensor": "no"})},
        "tensor 'no' is missing",
    ),
    "tensor name is a list": (
        {"change_tree": lambda f: f["readout"]["fields"].update(kernel={"tensor": ["a"]})},
        "a.safetensors",
    ),
    "tensor is another's": (
        {
            "change_tree": lambda f: f["readout"]["fields"].update(
                kernel={"tensor": "layers.0.memory.a_bar"}
            )
        },
        "readout kernel has 2 inputs",
    ),
    "provenance is a list": ({"change_tree": lambda f: f.update(provenance=[])}, "provenance"),
    "provenance of numbers": (
        {"change_tree": lambda f: f.update(provenance={"map": {"a": 1}})},
        "provenance a must be",
    ),
    "wrong shape": (
        {"change_tensors": lambda t: t.update({"readout.kernel": np.ones((4, 1))})},
        "readout kernel has 4 inputs",
    ),
    "wrong rank": (
        {"change_tensors": lambda t: t.update({"readout.kernel": np.ones(3)})},
        r"shape \(3,\)",
    ),
    "wrong type": (
        {"change_tensors": lambda t: t.update({"readout.kernel": np.ones((3, 1), np.int8)})},
        "give a floating type",
    ),
    "not finite": (
        {"change_tensors": lambda t: t.update({"readout.kernel": np.full((3, 1), np.inf)})},
        "3 entries",
    ),
}


@pytest.mark.parametrize(("change", "message"), TREES.values(), ids=TREES)
def test_corrupt_header_or_tensor_is_rejected(tmp_path, change, message):
    path = tmp_path / "a.safetensors"
    write(path, **change)
    with pytest.raises(InputError, match=message) as caught:
        load(path, FLOAT_CLASSES)
    assert str(caught.value).startswith(str(path))


def test_unmodified_file_loads(tmp_path):
    write(tmp_path / "a.safetensors")
    assert_same(load(tmp_path / "a.safetensors", FLOAT_CLASSES), small_network())


def test_other_representation_is_rejected(tmp_path):
    save(small_network(), tmp_path / "a.safetensors")
    others = tuple(cls for cls in INTEGER_CLASSES if cls not in FLOAT_CLASSES)
    with pytest.raises(InputError, match=r"it contains a LMUNetwork where one of .*IntegerGraph"):
        load(tmp_path / "a.safetensors", others)


class Bomb:
    """Fails the test when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a readable"),
        (b"\x00" * 7, "not a readable"),
        (b"\xff" * 64, r"is not a .safetensors file; convert .* lmu-deploy import"),
        (pickle.dumps(Bomb()), r"is not a .safetensors file; convert .* lmu-deploy import"),
        (
            b"PK\x03\x04" + b"\x00" * 100,
            r"is not a .safetensors file; convert .* lmu-deploy import",
        ),
        (b"ein Text" * 50, r"is not a .safetensors file; convert .* lmu-deploy import"),
    ],
)
def test_file_of_another_format_is_rejected(tmp_path, content, message):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=message):
        load(tmp_path / "a.safetensors", FLOAT_CLASSES)


def test_foreign_safetensors_missing_files_and_folders_are_rejected(tmp_path):
    save_file({"weight": np.ones(3)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="is not an lmu_deploy file"):
        load(tmp_path / "other.safetensors", FLOAT_CLASSES)
    for path in (tmp_path, tmp_path / "none.safetensors"):
        with pytest.raises(InputError, match="no such file"):
            load(path, FLOAT_CLASSES)


@settings(max_examples=300)
@given(data=st.data())
def test_corrupt_bytes_load_or_raise_input_error(data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    write(path)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    for _ in range(data.draw(st.integers(1, 4))):
        if content:
            position = data.draw(st.integers(0, len(content) - 1))
            content[position] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    try:
        assert isinstance(load(path, FLOAT_CLASSES), LMUNetwork)
    except InputError as error:
        assert str(error).startswith(str(path))
        assert "\n" not in str(error)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["tensor", "map", "type", "fields"]), inner, max_size=3)
        | st.builds(lambda v: {"tensor": v}, inner)
        | st.builds(lambda v: {"type": "Readout", "fields": {"kernel": v, "bias": v}}, inner)
        | st.builds(lambda v: {"type": v, "fields": v}, inner)
    ),
    max_leaves=8,
)


@settings(max_examples=300)
@given(tree=JSON)
def test_arbitrary_trees_load_or_raise_input_error(tree, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "tree.safetensors"
    write(path, header=json.dumps({"format": 1, "root": tree}))
    try:
        load(path, FLOAT_CLASSES)
    except InputError as error:
        assert str(error).startswith(str(path))


def test_from_tree_instantiates_only_given_classes():
    tree, tensors = to_tree(small_network())
    with pytest.raises(InputError, match="it contains a Memory where one of LMULayer, LMUNetwork"):
        from_tree(tree, tensors, (LMUNetwork, LMULayer))


def test_a_pipe_is_named_as_such(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is a pipe or a device; write its contents to a file"):
        load(tmp_path / "pipe", FLOAT_CLASSES)
