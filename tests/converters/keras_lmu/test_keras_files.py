"""Networks imported from files of keras-lmu have the outputs of Keras."""

import json
from pathlib import Path

import numpy as np
import pytest

from converters.importers import import_file
from converters.keras_lmu import read_keras
from lmu_deploy.api.validate import validate
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.graph.transforms import as_layers, with_logits
from lmu_deploy.core.legendre import discretize
from lmu_deploy.tasks.dataset import Dataset

pytest.importorskip("h5py", reason="h5py (the extra import) is absent")

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures/keras_lmu"
WHOLE = sorted(p.name for p in FIXTURES.glob("*") if p.suffix == ".keras" and "gru" not in p.name)
WHOLE += [f"keras{v}-{n}.h5" for v in (2, 3) for n in ("feedback", "stack")]
BARE = sorted(p.name for p in FIXTURES.glob("*weights.h5"))


def keras_answer(file):
    version, _, name = file.partition("-")
    name = name.split(".")[0].removesuffix("-weights")
    with np.load(FIXTURES / f"{version}.npz") as arrays:
        return arrays[f"{name}-inputs"].astype(np.float64), arrays[f"{name}-outputs"]


def test_fixtures_of_both_versions_are_complete():
    assert len(WHOLE) == 2 * 7 + 4
    assert len(BARE) == 2 + 4


@pytest.mark.parametrize("matrices", ["exact", "keras"])
@pytest.mark.parametrize("file", WHOLE)
def test_a_whole_model_has_the_outputs_of_keras(file, matrices):
    inputs, outputs = keras_answer(file)
    network = import_file(FIXTURES / file, options={"matrices": matrices})
    assert np.ptp(outputs) > 0.05  # outputs that say something
    np.testing.assert_allclose(run(network, inputs), outputs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("file", BARE)
def test_weights_with_an_architecture_have_the_outputs_of_keras(file):
    version, _, name = file.partition("-")
    name = name.split(".")[0].removesuffix("-weights")
    network = import_file(FIXTURES / file, architecture=FIXTURES / f"{version}-{name}.json")
    inputs, outputs = keras_answer(file)
    np.testing.assert_allclose(run(network, inputs), outputs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("file", ["keras2-feedback-weights.h5", "keras3-feedback.weights.h5"])
def test_weights_with_options_have_the_outputs_of_keras(file):
    options = {
        "memory_d": "2",
        "order": "4",
        "theta": "6.5",
        "units": "5",
        "hidden_to_memory": "true",
        "memory_to_memory": "true",
        "input_to_hidden": "True",
        "use_bias": "true",
    }
    network = import_file(FIXTURES / file, options=options)
    inputs, outputs = keras_answer(file)
    np.testing.assert_allclose(run(network, inputs), outputs, rtol=0, atol=1e-6)
    with pytest.raises(InputError, match=r"asks for 6|weights in the file"):
        import_file(FIXTURES / file, options={**options, "memory_to_memory": "false"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "4", "theta": "6.5"}, "option units is missing"),
        ({"order": "4", "units": "5"}, "option theta is missing"),
        ({"orders": "4"}, "unknown option 'orders'; choose from memory_d, order"),
        ({"order": "four", "theta": "6", "units": "5"}, "order is 'four', not an integer"),
        ({"order": "4", "theta": "6", "units": "5", "hidden_cell": "NoCell"}, "NoCell has no co"),
    ],
)
def test_wrong_options_are_reported(options, message):
    with pytest.raises(InputError, match=message):
        import_file(FIXTURES / "keras3-feedback.weights.h5", options=options)


def test_all_problems_are_reported_at_once(tmp_path):
    def break_it(layers):
        layers[1]["class_name"] = "MultiHeadAttention"
        layers[2]["config"]["activation"] = "mish"
        lmu(layers)["hidden_cell"]["class_name"] = "PeepholeCell"
        layers[-1]["class_name"] = "my>Readout"

    with pytest.raises(InputError) as caught:
        changed(tmp_path, break_it, "stack")
    message = str(caught.value)
    for part in (
        "(MultiHeadAttention): attention has no counterpart; use an LMU",
        "(LSTM): activation 'mish' has no counterpart; train with one of celu, elu",
        "hidden cell PeepholeCell has no counterpart; the cells that have are Dense, SimpleRNNCell",
        "(Readout): this class of layer has no counterpart; docs/how-to/import.md lists",
    ):
        assert part in message


def test_weights_without_an_architecture_are_refused():
    with pytest.raises(InputError, match=r"has only weights; give the architecture with --arch"):
        import_file(FIXTURES / "keras3-feedback.weights.h5")


def test_an_architecture_beside_a_whole_model_is_refused():
    with pytest.raises(InputError, match="has its own architecture"):
        import_file(FIXTURES / "keras3-stack.keras", architecture=FIXTURES / "keras3-stack.json")


def changed(tmp_path, change, name="feedback", output=None):
    """Import weights with an architecture in which `change` has changed something."""
    model = json.loads((FIXTURES / f"keras3-{name}.json").read_text())
    change(model["config"]["layers"])
    path = tmp_path / "architecture.json"
    path.write_text(json.dumps(model))
    return read_keras(FIXTURES / f"keras3-{name}.weights.h5", path, output=output)


def lmu(layers):
    return next(layer for layer in layers if layer["class_name"] == "LMU")["config"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda layers: lmu(layers).update(order=5), r"kernel has shape .*expected \(12, any\)"),
        (lambda layers: lmu(layers).update(order=10**9), "order is 1000000000, outside 1 to 1024"),
        (lambda layers: lmu(layers).update(theta=None), "theta is None, not a number"),
        (lambda layers: lmu(layers).update(theta=0.25), "theta is 0.25, outside 1 to"),
        (lambda layers: lmu(layers).update(discretizer="euler", theta=2), "euler diverges for ord"),
        (lambda layers: lmu(layers).update(memory_d=65_536), "kernel"),
        (lambda layers: lmu(layers).update(hidden_cell=[1]), "hidden_cell has no configuration"),
        (lambda layers: layers.pop(), "the file has weights of 'dense', which no layer takes"),
        (lambda layers: layers.reverse(), "Dense takes 5 features and is given"),
        (lambda layers: layers.clear(), "the model has no layers"),
        (lambda layers: layers.append("x"), "lists no layers"),
        (lambda layers: layers.append(layers[-1]), "Dense takes 5 features and is given"),
    ],
)
def test_an_architecture_that_does_not_fit_is_refused(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        changed(tmp_path, change)


def test_what_the_chosen_output_does_not_need_is_left_out(tmp_path):
    def break_it(layers):
        layers[-2]["config"]["hidden_cell"]["config"]["activation"] = "mish"

    with pytest.raises(InputError, match="mish"):
        changed(tmp_path, break_it, "stack")
    network = changed(tmp_path, break_it, "stack", output="lstm")
    assert [node.name for node in network.nodes] == ["lmu_feedforward_1", "lstm"]
    with pytest.raises(InputError, match="no output 'gru'; choose one of dense_7"):
        changed(tmp_path, break_it, "stack", output="gru")


def test_layers_in_a_circle_are_refused(tmp_path):
    def bend(layers):
        layers[1]["inbound_nodes"] = layers[3]["inbound_nodes"]

    with pytest.raises(InputError, match=r"takes its own output through .* a model has no circles"):
        changed(tmp_path, bend, "stack")


def keras_like_matrices(path, **changes):
    """Matrices of the example's memory as Keras holds them: transposed, rounded to float32."""
    a_bar, b_bar = discretize(6, 12.0)
    arrays = {"lmu_1/A": a_bar.T.astype("f4"), "lmu_1/B": b_bar[None].astype("f4"), **changes}
    np.savez(path, **arrays)
    return {"matrices": str(path)}


def test_matrices_can_be_read_from_a_file(tmp_path):
    file = "keras3-example.keras"
    network = import_file(FIXTURES / file, options=keras_like_matrices(tmp_path / "m.npz"))
    memory = network.nodes[0].operator.memory
    np.testing.assert_array_equal(memory.a_bar, discretize(6, 12.0)[0].astype("f4"))
    inputs, outputs = keras_answer(file)
    np.testing.assert_allclose(run(network, inputs), outputs, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lmu_1/A": np.eye(6, dtype="f4")}, "differs from that of the model's order and theta"),
        ({"lmu_1/A": np.eye(5, dtype="f4")}, "matrix A has shape"),
        ({"lmu_1/B": np.array(["a"])}, "matrix B has type"),
    ],
)
def test_matrices_of_another_model_are_refused(tmp_path, changes, message):
    options = keras_like_matrices(tmp_path / "m.npz", **changes)
    with pytest.raises(InputError, match=message):
        import_file(FIXTURES / "keras3-example.keras", options=options)
    with pytest.raises(InputError, match="has no lmu_4/A"):
        import_file(FIXTURES / "keras3-stack.keras", options=options)
    (tmp_path / "m.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"no readable \.npz"):
        import_file(FIXTURES / "keras3-example.keras", options=options)


def test_provenance_and_task_are_recorded():
    network = import_file(FIXTURES / "keras3-example.keras", task="psmnist")
    assert network.task == "psmnist"
    assert network.provenance["imported from"] == "keras-lmu"
    assert network["dense_1.activation"].operator.name == "softmax"
    layers = as_layers(network, "quantize")
    assert layers.provenance["left out"] == "the softmax at the end: outputs are logits"
    inputs, answers = keras_answer("keras3-example.keras")
    logits = run(with_logits(network), inputs)
    found = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(found, answers, rtol=0, atol=1e-6)


def test_a_classifier_with_a_softmax_is_validated_by_its_logits(rng):
    network = import_file(FIXTURES / "keras3-example.keras")
    x = rng.normal(size=(60, 12, 1))
    y = run(network, x).argmax(axis=1)
    y[:3] = y[40:43] = range(3)  # every class occurs
    data = Dataset(x[:40], y[:40], x[40:], y[40:])
    report = validate(network, data, targets=["integer"], attribution=0)
    assert report["integer"].reference.deviation < 0.1
