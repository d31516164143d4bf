"""ONNX files are converted back to LMUNetwork; damaged and foreign ones are refused."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import to_tree
from lmu_deploy.core.network import LMULayer, LMUNetwork, Memory, Readout

onnx = pytest.importorskip("onnx", reason="the extra [onnx] is not installed")

from converters.onnx import from_onnx, read_onnx, save_onnx, to_onnx, to_onnx_step  # noqa: E402


def small_network():
    layer = LMULayer(np.ones((1, 1)), None, None, None, Memory.legendre(3, 6.0), None)
    return LMUNetwork((layer,), Readout(np.ones((3, 1)), None), task="digits")


def assert_equal_in_float32(network, other):
    tree, tensors = to_tree(network)
    other_tree, other_tensors = to_tree(other)
    assert tree == other_tree
    assert list(tensors) == list(other_tensors)
    for name, array in tensors.items():
        assert other_tensors[name].dtype == np.float32
        np.testing.assert_array_equal(other_tensors[name], array.astype(np.float32))


@settings(max_examples=100)
@given(data=st.data())
def test_round_trip_is_equal_in_float32(networks, data):
    network = data.draw(networks)
    assert_equal_in_float32(network, from_onnx(to_onnx(network)))
    assert_equal_in_float32(network, from_onnx(to_onnx_step(network)))
    assert_equal_in_float32(network, from_onnx(to_onnx(network, record=True, stateful=True)))


def test_round_trip_through_a_file(tmp_path):
    save_onnx(to_onnx(small_network()), tmp_path / "a.onnx")
    assert_equal_in_float32(small_network(), read_onnx(tmp_path / "a.onnx"))


def props(model, **changes):
    """Change entries of the metadata; None removes one."""
    values = {item.key: item.value for item in model.metadata_props}
    values.update({f"lmu_deploy.{key}": value for key, value in changes.items()})
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {k: v for k, v in values.items() if v is not None})
    return model


READOUT = json.dumps(
    {"type": "Readout", "fields": {"kernel": {"tensor": "readout.kernel"}, "bias": None}}
)


def with_structure(change):
    model = to_onnx(small_network())
    values = {item.key: item.value for item in model.metadata_props}
    tree = json.loads(values["lmu_deploy.structure"])
    change(tree["fields"])
    return props(model, structure=json.dumps(tree))


def without_weights():
    model = to_onnx(small_network())
    del model.graph.initializer[:]
    return model


def with_external_weights():
    model = to_onnx(small_network())
    for tensor in model.graph.initializer:
        onnx.external_data_helper.set_external_data(tensor, "../../etc/passwd")
    return model


def with_wrong_size():
    model = to_onnx(small_network())
    for tensor in model.graph.initializer:
        if tensor.name == "readout.kernel":
            tensor.dims[0] = 2**40
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: props(to_onnx(small_network()), structure=None), "not made by lmu_deploy"),
        (lambda: props(to_onnx(small_network()), format="99"), "format that this version"),
        (lambda: props(to_onnx(small_network()), structure="{"), "damaged"),
        (lambda: props(to_onnx(small_network()), structure="[" * 100_000), "damaged"),
        (lambda: props(to_onnx(small_network()), structure="7"), "at its root"),
        (lambda: with_structure(lambda f: f.update(layers=[])), "at least one"),
        (lambda: with_structure(lambda f: f.update(layers=7)), "damaged"),
        (lambda: with_structure(lambda f: f.pop("task")), "lacks task: an older version"),
        (lambda: with_structure(lambda f: f["readout"].update(type="Path")), "contains a Path"),
        (
            lambda: with_structure(lambda f: f.clear()),
            "lacks layers, readout, return",
        ),
        (lambda: props(to_onnx(small_network()), structure=READOUT), "no complete network"),
        (without_weights, "is missing"),
        (with_external_weights, "lies in another file"),
        (with_wrong_size, "damaged"),
    ],
)
def test_foreign_and_damaged_models_are_refused(model, message, tmp_path):
    model = model()
    with pytest.raises(InputError, match=message):
        from_onnx(model)
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=f"a.onnx.*{message}"):
        read_onnx(tmp_path / "a.onnx")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(InputError, match="no such file"):
            read_onnx(path)


@settings(max_examples=300)
@given(data=st.data())
def test_damage_is_harmless_or_raises_one_input_error(data, tmp_path_factory):
    whole = bytearray(to_onnx(small_network()).SerializeToString())
    if data.draw(st.booleans()):
        whole = whole[: data.draw(st.integers(0, len(whole) - 1))]
    for _ in range(data.draw(st.integers(1, 5))):
        if whole:
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    path.write_bytes(bytes(whole))
    try:
        assert isinstance(read_onnx(path), LMUNetwork)
    except InputError as error:
        assert "\n" not in str(error)
