"""ONNX forms of an integer network in the commands export, validate and deploy."""

import json
from pathlib import Path

import numpy as np
import pytest

from lmu_deploy.api.exchange import export, import_network
from lmu_deploy.api.quantize import quantize
from lmu_deploy.api.run import run
from lmu_deploy.api.validate import validate
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import save
from lmu_deploy.core.graph.linear import Conv1d
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.pointwise import Add
from lmu_deploy.core.graph.recurrent import GRU
from lmu_deploy.core.graph.time import Reduce
from lmu_deploy.tasks.base import get_task
from targets.host import to_messages
from targets.integer import IntegerTarget

onnx = pytest.importorskip("onnx", reason="the extra [onnx] is not installed")
ort = pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")

DIGITS = Path(__file__).parents[3] / "examples" / "models" / "digits.safetensors"


@pytest.fixture(scope="module")
def integer():
    return quantize(DIGITS)


def session(path):
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_the_exported_digits_network_equals_the_simulator(integer, tmp_path):
    save(integer, tmp_path / "digits-int.safetensors")
    out = export(tmp_path / "digits-int.safetensors", to="onnx-int", out=tmp_path / "a.onnx")
    inputs = get_task("digits").load().test.inputs
    messages, _ = to_messages(inputs, integer.input.message)
    (outputs,) = session(out).run(["output"], {"input": messages.astype(np.int32)})
    expected = IntegerTarget().run(integer, inputs).outputs
    assert outputs.dtype == np.int32
    np.testing.assert_array_equal(outputs * integer.y_scale, expected)


@pytest.mark.parametrize(
    ("form", "expected"),
    [("onnx-int", "sequence"), ("onnx-int-step", "step"), ("onnx-qdq", "qdq-sequence")],
)
def test_every_form_is_recorded_in_the_metadata(integer, tmp_path, form, expected):
    found = session(export(integer, to=form, out=tmp_path / "a.onnx")).get_modelmeta()
    assert found.custom_metadata_map["lmu_deploy.form"].endswith(expected)
    assert found.custom_metadata_map["lmu_deploy.task"] == "digits"


def test_a_network_of_any_form_is_exported_and_imported_equal(tmp_path):
    """Through model files and ONNX files, as the commands do."""
    branch = Conv1d(np.full((3, 2, 2), 0.1), left=2)
    nodes = (
        Node("block.0.conv", branch, (INPUT,)),
        Node("sum", Add(), ("block.0.conv", INPUT)),
        Node("gru", GRU(np.full((2, 9), 0.1), np.eye(3, 9)), ("sum",)),
        Node("mean", Reduce("mean"), ("gru",)),
    )
    network = Network(nodes, (2,), "mean", "digits", {"command": "test"})
    file = network.save(tmp_path / "network.safetensors")
    for form in ("onnx", "onnx-step"):
        again = import_network(export(file, to=form, out=tmp_path / "a.onnx"))
        assert again.fingerprint() == network.fingerprint()
        assert [node.name for node in again.nodes] == [node.name for node in nodes]
        assert again.provenance["command"] == "test"


def test_a_form_of_another_representation_is_refused(integer, tmp_path):
    for form in ("onnx", "onnx-step"):
        with pytest.raises(InputError, match=r"not IntegerNetwork; give the float file.*onnx-int"):
            export(integer, to=form, out=tmp_path / "a.onnx")
    for form in ("onnx-int", "onnx-int-step", "onnx-qdq"):
        with pytest.raises(InputError, match=r"not Network; make one with lmu-deploy quantize"):
            export(DIGITS, to=form, out=tmp_path / "a.onnx")
    with pytest.raises(InputError, match="onnx-int8"):
        export(integer, to="onnx-int8", out=tmp_path / "a.onnx")
    with pytest.raises(InputError, match=r"another kind of file .* onnx-int; name it a.onnx"):
        export(integer, to="onnx-int", out=tmp_path / "a.nir")
    with pytest.raises(InputError, match="is the file that is read; give another name"):
        export(DIGITS, to="onnx", out=DIGITS)
    assert list(tmp_path.iterdir()) == []


def test_validate_runs_both_graphs_and_the_simulator(tmp_path):
    targets = "integer,onnxruntime,onnxruntime/integer"
    page = validate(DIGITS, targets=targets, limit=12, out=tmp_path / "report").path
    assert page.is_file()
    found = json.loads((tmp_path / "report" / "fidelity.json").read_text())["targets"]
    assert list(found) == targets.split(",")
    equal = found["onnxruntime/integer"]["equal_to"]
    assert equal["target"] == "integer"
    assert equal["equal"]
    assert equal["samples"] == 12
    assert found["onnxruntime"]["equal_to"] is None
    for kind in ("events", "synops", "saturations"):
        assert found["onnxruntime/integer"][kind] == found["integer"][kind]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("onnxruntime/spiking", "choose one of onnxruntime/float, onnxruntime/integer"),
        ("integer/float", "choose one of integer/integer"),
        ("onnxruntime/", "is not NAME, NAME/FORM"),
    ],
)
def test_an_unsupported_form_is_refused(name, expected, tmp_path):
    with pytest.raises(InputError, match=expected):
        validate(DIGITS, targets=name, limit=2, out=tmp_path)


def test_deploy_runs_the_graph_of_the_files_representation(integer):
    summary = run(integer, target="onnxruntime", limit=12).summary()
    simulated = run(integer, target="integer", limit=12).summary()
    assert summary["settings"]["graph"] == "integer"
    assert summary["events"]["total"] == simulated["events"]["total"] > 0
    assert summary["synops"] == simulated["synops"]
    assert run(DIGITS, target="onnxruntime", limit=12).summary()["settings"]["graph"] == "float"
