"""Networks that the real Keras made: every layer, usual forms, random graphs, every generation.

`tests/fixtures/make_keras_models.py` made models, inputs and answers. Files are read without the
sandbox here, whose tests are elsewhere, because a process for each would take a minute.
"""

import re
import zipfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from converters.importers import import_file
from converters.keras_lmu import KerasLMUImporter, read_keras
from converters.keras_lmu import file as keras_file
from converters.keras_lmu.architecture import read_model
from converters.keras_lmu.network import READERS, assemble
from converters.keras_lmu.operations import OPERATIONS
from converters.sandbox import FileContents
from lmu_deploy.api.exchange import from_keras, import_network
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.executor import run, run_stepwise
from lmu_deploy.core.graph.network import OPERATORS

pytest.importorskip("h5py", reason="h5py (the extra import) is absent")

FOLDER = Path(__file__).resolve().parents[2] / "fixtures/keras_models"
MODELS = sorted(
    str(p.relative_to(FOLDER)) for p in FOLDER.rglob("*") if p.suffix in (".keras", ".h5", ".hdf5")
)
TWO_OUTPUTS = str(Path("forms") / "two-outputs.keras")


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    from converters.sandbox.hdf5 import read_hdf5

    monkeypatch.setattr(
        keras_file, "read_in_sandbox", lambda _, path: FileContents(*read_hdf5(Path(path)))
    )


@cache
def answers(folder):
    with np.load(folder / "answers.npz") as arrays:
        return {name: arrays[name].astype(np.float64) for name in arrays.files}


def inputs_of(file):
    """Return the model's inputs one behind the other in every frame, as a network takes them."""
    arrays, name = answers((FOLDER / file).parent), Path(file).stem
    found = [arrays[key] for key in sorted(arrays) if key.startswith(f"{name}/input")]
    return found, [arrays[key] for key in sorted(arrays) if key.startswith(f"{name}/output")]


def as_frames(network, inputs):
    samples = len(inputs[0])
    if len(inputs) == 1:
        (x,) = inputs
        if "one frame" in network.provenance.get("input", ""):
            return x[:, None]
        if "reshaped" in network.provenance.get("input", ""):
            return x.reshape(samples, -1, *network.frame)
        if "order" in network.provenance.get("input", ""):
            return x.swapaxes(1, 2)
        return x.reshape(*x.shape[:2], *network.frame)
    steps = max(x.shape[1] for x in inputs if x.ndim > 2)
    frames = [
        (x if x.ndim > 2 else np.repeat(x[:, None], steps, axis=1)).reshape(samples, steps, -1)
        for x in inputs
    ]
    return np.concatenate(frames, axis=-1)


def close(found, expected):
    scale = np.abs(expected).max()
    assert np.ptp(expected) > 1e-3, "outputs that say nothing"
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("file", [file for file in MODELS if file != TWO_OUTPUTS])
def test_a_network_has_the_answers_of_keras(file):
    inputs, (expected,) = inputs_of(file)
    network = read_keras(FOLDER / file)
    x = as_frames(network, inputs)
    close(run(network, x), expected)
    close(run_stepwise(network, x), expected)


def model(name):
    return FOLDER / "forms" / f"{name}.keras"


def test_nodes_have_the_names_of_layers():
    network = read_keras(model("nested"))
    assert [node.name for node in network.nodes] == [
        "inner.dense",
        "inner.dense.activation",
        "inner.batch_normalization",
        "lmu",
        "lmu.last",
        "top.dense_1",
        "top.dense_1.activation",
        "top.dense_2",
    ]
    shared = read_keras(model("shared"))
    assert (shared["twin.2"].operator.kernel == shared["twin"].operator.kernel).all()


def test_one_of_several_outputs_is_chosen_by_name():
    (x,), outputs = inputs_of(TWO_OUTPUTS)
    with pytest.raises(InputError, match="has the outputs every_step, classes; choose one with"):
        read_keras(model("two-outputs"))
    for name, expected in zip(("every_step", "classes"), outputs, strict=True):
        network = read_keras(model("two-outputs"), output=name)
        close(run(network, x), expected)
        assert ("summary" in {node.name for node in network.nodes}) == (name == "classes")
    inner = read_keras(model("two-outputs"), output="summary")
    assert inner.output == "summary.last"
    with pytest.raises(InputError, match="no output 'tanh'; choose one of every_step, classes"):
        read_keras(model("two-outputs"), output="tanh")


def test_what_is_assumed_is_logged_and_an_output_chosen(caplog):
    caplog.set_level("INFO", "lmu_deploy")
    network = import_network(model("two-outputs"), output="every_step")
    assert network.n_out == 2
    import_network(FOLDER / "paper/paper.hdf5")
    assert any("assumed: hidden units of the paper's cell are tanh" in m for m in caplog.messages)
    import_network(model("two-inputs"))
    assert "input: in every frame one behind the other: signal (3), other (2)" in caplog.messages
    with pytest.raises(InputError, match="option 'order' is of an architecture"):
        import_file(model("two-inputs"), options={"order": "3"})
    assert import_file(FOLDER / "paper/paper.hdf5", output="rnn").output == "rnn.last"


def test_a_model_itself_is_converted_through_its_file(tmp_path):
    class Model:
        def __init__(self, suffixes):
            self.suffixes = suffixes

        def save(self, path):
            if path.suffix not in self.suffixes:
                raise ValueError("unknown format")
            name = "forms/gated.keras" if path.suffix == ".keras" else "keras2-h5/shared.h5"
            path.write_bytes((FOLDER / name).read_bytes())

    gated, shared = from_keras(Model([".keras"]), task="delay"), from_keras(Model([".h5"]))
    assert gated.fingerprint() == import_file(model("gated"), task="delay").fingerprint()
    assert "twin.2" in {node.name for node in shared.nodes}
    with pytest.raises(InputError, match="a dict is no model of Keras"):
        from_keras({})


def test_several_inputs_come_in_a_recorded_order():
    assert read_keras(model("two-inputs")).provenance["input"] == (
        "in every frame one behind the other: signal (3), other (2)"
    )
    image = read_keras(model("image-input"))
    assert image.frame == (7,) and "other (2, 2, 1)" in image.provenance["input"]
    static = read_keras(model("static-input"))
    assert "other (4) of the last step" in static.provenance["input"]
    only = read_keras(model("two-inputs"), output="global_average_pooling1d")
    assert only.frame == (2,), "an input that the output does not need is left out"


@pytest.mark.parametrize(
    ("file", "subject", "text"),
    [
        ("paper/paper.hdf5", "assumed", "hidden units of the paper's cell are tanh; the file does"),
        ("layers/stateful.keras", "stateful", "gru carried its state on in Keras"),
        ("layers/flatten.keras", "assumed", "sequences of 9 steps, which dense reads at once"),
        ("layers/vector.keras", "input", "one frame without time; give sequences of one step"),
        ("layers/reshape-input.keras", "input", "reshaped from (4, 3) to (12, 1)"),
        ("keras_lmu-0.3.1/keras_lmu-0.3.1.h5", "memory matrices", "from the file"),
        ("keras_lmu-0.7.0/keras_lmu-0.7.0.h5", "keras version", "2.15.0"),
    ],
)
def test_what_a_file_leaves_open_is_recorded(file, subject, text):
    assert text in read_keras(FOLDER / file).provenance[subject]


def test_the_activation_of_the_papers_cell_is_an_option():
    options = {"activation": "relu"}
    network = KerasLMUImporter().read(FOLDER / "paper/paper.hdf5", None, options)
    assert "paper's cell are relu" in network.provenance["assumed"]


def refusal(name, change):
    """Return the message about a model whose configuration `change` has changed."""
    file = keras_file.open_keras(model(name))
    change({layer["config"]["name"]: layer for layer in file.config["config"]["layers"]})
    with pytest.raises(InputError) as caught:
        assemble(file, {})
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "layer", "options", "reason"),
    [
        ("conv-front", "conv1d", {"data_format": "channels_first"}, "train with channels_last"),
        ("conv-front", "conv1d", {"padding": "reflect"}, "padding is 'reflect'; choose one of"),
        ("separable-front", "batch_normalization", {"axis": 1}, "normalizes axis 1 of (7, 4)"),
        ("pixels", "reshape", {"target_shape": [5, 4]}, "cannot have the axes"),
        ("gated", "dense_1", {"activation": "glu"}, "activation 'glu' has no counterpart"),
        ("two-ways", "bidirectional", {"merge_mode": "max"}, "merge_mode is 'max'"),
        ("two-inputs", "concatenate", {"axis": 3}, "only the last, that of the features"),
        ("original", "lmu", {"order": 7}, "hidden kernel has shape (9, 3), expected (10, any)"),
        ("original", "lmu", {"hidden_to_memory": False}, "hidden kernel has shape"),
    ],
)
def test_a_refusal_names_the_layer_and_what_works(name, layer, options, reason):
    message = refusal(name, lambda layers: layers[layer]["config"].update(options))
    assert f"layer {layer!r}" in message and reason in message


@pytest.mark.parametrize(
    "file", ["paper/paper-hybrid.hdf5", "layers/gru.keras", "layers/conv.keras"]
)
@pytest.mark.parametrize("harm", ["flat", "empty", "scalar", "long", "integers", "deep"])
def test_weights_of_a_wrong_shape_are_refused(file, harm):
    """Some shapes are as good as those of the file, such as one bias in two axes."""
    damage = {
        "flat": lambda a: a.reshape(-1) if a.ndim > 1 else a.reshape(1, -1),
        "empty": lambda a: a[:0],
        "scalar": lambda a: np.float32(3.0).reshape(()),
        "long": lambda a: np.repeat(a, 2, axis=-1),
        "integers": lambda a: a.astype("i4"),
        "deep": lambda a: a[..., None],
    }[harm]
    whole = keras_file.open_keras(FOLDER / file)
    refused = 0
    for name, array in whole.contents.arrays.items():
        arrays = {**whole.contents.arrays, name: damage(array)}
        try:
            assemble(replace(whole, contents=FileContents(arrays, whole.contents.header)), {})
        except InputError as error:
            assert "cannot be imported" in str(error)
            refused += 1
    assert refused >= len(whole.contents.arrays) - 2


def functional(*layers):
    """Return a file of layers without weights: (class, name, options, names of the inputs)."""
    described = [
        {
            "class_name": kind,
            "config": {"name": name, **options},
            "inbound_nodes": [[[source, 0, 0, {}] for source in sources]] if sources else [],
        }
        for kind, name, options, *sources in layers
    ]
    first, last = layers[0][1], layers[-1][1]
    config = {"layers": described, "input_layers": [[first, 0, 0]], "output_layers": [[last, 0, 0]]}
    model = {"class_name": "Functional", "config": config}
    return keras_file.KerasFile(model, FileContents({}, {"attributes": {}}), "2.15.0")


INPUT_LAYER = ("InputLayer", "x", {"batch_input_shape": [None, 6, 2]})


def test_masks_that_some_layers_honor_and_others_ignore_are_refused():
    file = functional(
        INPUT_LAYER,
        ("Masking", "mask", {}, "x"),
        ("GlobalAveragePooling1D", "mean", {}, "mask"),
        ("GlobalMaxPooling1D", "max", {}, "mask"),
        ("Add", "sum", {}, "mean", "max"),
    )
    with pytest.raises(InputError, match="layer max takes masked steps too, and other layers skip"):
        assemble(file, {})


def test_every_layer_without_a_counterpart_is_named():
    file = functional(
        INPUT_LAYER,
        ("Lambda", "code", {}, "x"),
        ("Permute", "turn", {"dims": [2, 1]}, "code"),
        ("my>Thing", "own", {}, "x"),
        ("GlobalMaxPooling1D", "max", {}, "own"),
        ("LSTM", "cells", {"stateful": True, "return_state": 3}, "code", "max"),
        ("Add", "sum", {}, "cells", "max"),
    )
    with pytest.raises(InputError) as caught:
        assemble(file, {})
    assert str(caught.value) == (
        "the model cannot be imported: layer 'code' (Lambda): a Lambda holds Python code, which is "
        "not run; use layers of Keras in its place; layer 'own' (Thing): this class of layer has "
        "no counterpart; docs/how-to/import.md lists those that have one; layer 'cells' (LSTM): "
        "it takes its initial state from another layer, which a network has no place for; start "
        "it from zero."
    )


def test_a_mask_that_no_layer_honors_is_left_out():
    def file(value):
        mask = ("Masking", "mask", {"mask_value": value}, "x")
        return functional(INPUT_LAYER, mask, ("GlobalMaxPooling1D", "pool", {}, "mask"))

    network = assemble(file(0.0), {})
    assert [node.name for node in network.nodes] == ["pool"]
    assert "takes masked steps too, as in Keras" in network.provenance["left out"]
    with pytest.raises(InputError, match="the steps that mask sets to zero; mask the value 0"):
        assemble(file(2.0), {})


def test_every_reader_is_tested_and_names_its_operators():
    read = set()
    for path in FOLDER.rglob("*.keras"):
        read |= set(re.findall(r'"class_name": "(?:keras-lmu>)?(\w+)"', config_of(path)))
    assert set(READERS) <= read
    for name, reader in READERS.items():
        assert set(reader.operators) <= set(OPERATORS), name


def operation(function, *operands, **options):
    """Return a network of one operation on tensors, as Keras 3 stores it, or its refusal."""

    def described_call(kind, name, source, operands=(), options=None):
        tensor = {"class_name": "__keras_tensor__", "config": {"keras_history": [source, 0, 0]}}
        return {
            "class_name": kind,
            "module": "keras.src.ops.numpy",
            "config": {"name": name},
            "inbound_nodes": [{"args": [tensor, *operands], "kwargs": options or {}}],
        }

    described = [
        {"class_name": "InputLayer", "config": {"name": "x", "batch_shape": [None, 6, 3]}},
        described_call("Cast", "cast", "x", options={"dtype": "float32"}),
        described_call(function, "made", "cast", operands, options),
    ]
    config = {
        "layers": described,
        "input_layers": [["x", 0, 0]],
        "output_layers": [["made", 0, 0]],
    }
    model = {"class_name": "Functional", "config": config}
    return assemble(keras_file.KerasFile(model, FileContents({}, {"attributes": {}}), "3.5.0"), {})


X = np.random.default_rng(3).normal(size=(2, 6, 3)) * 3
ALL = {"class_name": "__slice__", "config": {"start": None, "stop": None, "step": None}}


@pytest.mark.parametrize(
    ("name", "operands", "options", "expected"),
    [
        ("HardSigmoid", (), {}, np.clip(X / 6 + 0.5, 0, 1)),
        ("HardTanh", (), {}, np.clip(X, -1, 1)),
        ("HardSilu", (), {}, X * np.clip(X / 6 + 0.5, 0, 1)),
        ("Softsign", (), {}, X / (1 + np.abs(X))),
        ("Mish", (), {}, X * np.tanh(np.log1p(np.exp(X)))),
        ("LeakyRelu", (), {"negative_slope": 0.3}, np.where(X < 0, 0.3 * X, X)),
        ("Flip", (), {"axis": 1}, X[:, ::-1]),
        ("Minimum", (0.25,), {}, np.minimum(X, 0.25)),
        ("Clip", (), {"x_min": -1.0, "x_max": 0.5}, np.clip(X, -1, 0.5)),
        ("Max", (), {"axis": [1]}, X.max(axis=1)),
        ("GetItem", ([ALL, {"class_name": "__ellipsis__"}, -1],), {}, X[..., -1]),
    ],
)
def test_an_operation_on_tensors_computes_what_numpy_does(name, operands, options, expected):
    network = operation(name, *operands, **options)
    np.testing.assert_allclose(run(network, X).reshape(expected.shape), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "operands", "options", "reason"),
    [
        ("Exp", (), {}, "the operation exp has no counterpart; use layers of Keras"),
        ("Power", (3,), {}, "only the power 2 has a counterpart"),
        ("TrueDivide", (0,), {}, "divides by a signal or by zero"),
        ("Add", ("1",), {}, "an operand is 1; numbers are needed"),
        ("Add", ([1.0, 2.0],), {}, "it has 2 values and its input has 3 features"),
        ("GetItem", ([ALL, 2],), {}, "no operator takes this part of (6, 3); the last step"),
        ("GetItem", ([ALL, ALL, ALL, ALL],), {}, "no operator takes this part"),
        ("GetItem", ([ALL, ALL, [0, 2, 1]],), {}, "no operator takes this part"),
        ("GetItem", ([ALL, None],), {}, "no operator takes this part"),
        ("GetItem", ([ALL, ALL, True],), {}, "no operator takes this part"),
        ("Mean", (), {"axis": 1, "keepdims": True}, "keepdims makes a sequence of one step"),
        ("Mean", (), {}, "axis is None, not an integer"),
        ("Transpose", (), {"axes": [1, 0, 2]}, "it exchanges samples with another axis"),
        ("Reshape", (), {"newshape": [-1, 5, 6]}, "cannot have the axes"),
        ("ExpandDims", (), {"axis": 1}, "only behind the last works"),
        ("Squeeze", (), {"axis": -1}, "only the last, of length one, works"),
    ],
)
def test_an_operation_without_a_counterpart_is_refused(name, operands, options, reason):
    with pytest.raises(InputError) as caught:
        operation(name, *operands, **options)
    assert f"layer 'made' ({name}): " in str(caught.value) and reason in str(caught.value)


def test_every_operation_is_tested_with_keras_or_with_numpy():
    parsed = {"hardsigmoid", "hardtanh", "hardsilu", "softsign", "mish", "flip", "identity"}
    for path in [*FOLDER.glob("operations*/*.keras")]:
        model = read_model(keras_file.open_keras(path).config)
        parsed |= {layer.operation for layer in model.layers}
    assert set(OPERATIONS) <= parsed
    for reader in OPERATIONS.values():
        assert set(reader.operators) <= set(OPERATORS)


def test_a_cut_impulse_response_is_reported():
    file = keras_file.open_keras(FOLDER / "layers/lmu-feedforward.keras")
    (layer, *_) = [
        each for each in file.config["config"]["layers"] if each["class_name"] == "LMUFeedforward"
    ]
    assert "left out" not in assemble(file, {}).provenance
    layer["config"]["truncate_ir"] = 1e-4
    assert "Keras cuts off the end" in assemble(file, {}).provenance["left out"]


def config_of(path):
    with zipfile.ZipFile(path) as archived:
        return archived.read("config.json").decode()
