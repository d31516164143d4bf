"""ONNX files are converted back to the same Network; damaged and foreign ones are refused."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from equal_runs import assert_same
from hypothesis import given, settings
from hypothesis import strategies as st

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.linear import Dense
from lmu_deploy.core.graph.lmu import LMU
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, LSTMLayer, Memory, Readout

onnx = pytest.importorskip("onnx", reason="the extra [onnx] is not installed")

from converters.onnx import from_onnx, read_onnx, save_onnx, to_onnx, to_onnx_step  # noqa: E402

FIXTURES = Path(__file__).parents[2] / "fixtures"


def small_network():
    lmu = LMU(Memory.legendre(3, 6.0), np.ones((1, 1)))
    nodes = Node("lmu_1", lmu, (INPUT,)), Node("readout", Dense(np.ones((3, 1))), ("lmu_1",))
    return Network(nodes, (1,), "readout", "digits", {"command": "test"})


def test_round_trip_through_a_file(tmp_path):
    for export in (to_onnx, to_onnx_step):
        save_onnx(export(small_network()), tmp_path / "a.onnx")
        assert_same(small_network(), read_onnx(tmp_path / "a.onnx"))


def test_a_file_of_an_earlier_version_is_read():
    """tests/fixtures/onnx-format-1.onnx was written by to_onnx_step before networks were graphs."""
    rng = np.random.default_rng(7)

    def w(*shape):
        return rng.normal(size=shape).astype(np.float32)

    encoders = w(2, 2), w(4, 2), None, w(2)
    memory = Memory.legendre(3, 6.0, 2)
    narrow = memory.a_bar.astype(np.float32), memory.b_bar.astype(np.float32)
    memory = Memory(3, 2, 6.0, "zoh", *narrow)
    layer = LMULayer(*encoders, memory, Hidden(w(6, 4), w(2, 4), w(4, 4), w(4), "tanh"))
    lstm = LSTMLayer(w(4, 12), w(3, 12), w(12))
    provenance = {"command": "an earlier version"}
    layers = LMUNetwork((layer, lstm), Readout(w(3, 2), None), False, "digits", provenance)
    assert_same(Network.from_layers(layers), read_onnx(FIXTURES / "onnx-format-1.onnx"))


def test_one_array_of_many_references_is_made_once():
    """A file cannot ask for more memory than a few times its size."""
    dense = Dense(np.full((1, 1), 0.1))
    names = [INPUT, *map(str, range(50))]
    nodes = [Node(b, dense, (a,)) for a, b in pairwise(names)]
    network = from_onnx(to_onnx(Network(tuple(nodes), (1,), names[-1])))
    arrays = [node.operator.kernel for node in network.nodes]
    assert len({array.__array_interface__["data"][0] for array in arrays}) == 1


def props(model, **changes):
    """Change entries of the metadata; None removes one."""
    values = {item.key: item.value for item in model.metadata_props}
    values.update({f"lmu_deploy.{key}": value for key, value in changes.items()})
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {k: v for k, v in values.items() if v is not None})
    return model


READOUT = json.dumps(
    {"type": "Dense", "fields": {"kernel": {"tensor": "readout.kernel"}, "bias": None}}
)


def with_structure(change):
    model = to_onnx(small_network())
    values = {item.key: item.value for item in model.metadata_props}
    tree = json.loads(values["lmu_deploy.structure"])
    change(tree["fields"])
    return props(model, structure=json.dumps(tree))


def with_reference(name):
    return with_structure(
        lambda f: f["nodes"][0]["fields"]["operator"]["fields"].update(
            input_encoders={"tensor": name}
        )
    )


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
        (lambda: with_structure(lambda f: f.update(nodes=[])), "at least one"),
        (lambda: with_structure(lambda f: f.update(nodes=7)), "damaged"),
        (lambda: with_structure(lambda f: f.update(output="lmu_1")), "does not depend on readout"),
        (lambda: with_structure(lambda f: f.pop("task")), "lacks task: an older version"),
        (lambda: with_structure(lambda f: f["nodes"][0].update(type="Path")), "contains a Path"),
        (lambda: with_reference("lmu_1.memory.a_bar:object"), "is missing"),
        (lambda: with_reference(0.5), "is missing"),
        (lambda: with_reference("lmu_1.memory.a_bar:float32:float64"), "is missing"),
        (
            lambda: with_structure(lambda f: f.clear()),
            "lacks nodes, frame, output",
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
        assert isinstance(read_onnx(path), Network)
    except InputError as error:
        assert "\n" not in str(error)
