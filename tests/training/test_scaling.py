"""Scales and offsets of channels: fitted, kept as nodes, and undone, on every path to a chip."""

import dataclasses
import shutil

import numpy as np
import pytest

import lmu_deploy as ld
from converters.quantize import quantize as quantize_alone
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.graph.transforms import as_layers, fold, input_scaling
from lmu_deploy.core.integer.parts import Format, Place
from lmu_deploy.core.integer.populations import Input
from lmu_deploy.core.reference import run_reference
from lmu_deploy.tasks.base import get_task
from lmu_deploy.tasks.dataset import Dataset
from lmu_deploy.tasks.preflight import baseline

pytest.importorskip("lightning", reason="training needs lightning")

import torch

from lmu_deploy.training import train
from lmu_deploy.training.config import default_model
from lmu_deploy.training.scaling import Channels, Scaling

LAYER = {"kind": "lmu", "units": 12, "order": 6, "theta": 16, "channels": 2}
SETTINGS = {"batch_size": 20, "learning_rate": 0.02, "schedule": "one-cycle", "layers": [LAYER]}
UNITS, ZEROS = np.array([64.0, 2.0**-9]), np.array([2.0**16, 0.25])


def waves(samples, rng):
    """Slow and fast sines of two channels."""
    classes, time = np.arange(samples) % 2, np.arange(16)[None, :, None]
    phases = 2 * np.pi * rng.random((samples, 1, 2))
    x = np.sin(2 * np.pi * (1 + 2 * classes)[:, None, None] * time / 16 + phases)
    return np.round(x * 2**10) / 2**10, classes


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    return [*waves(300, rng), *waves(40, rng)]


@pytest.fixture(scope="module")
def data(arrays):
    """One channel counts around 65,536, and the other is tiny."""
    x, y, x_test, y_test = arrays
    return Dataset(x * UNITS + ZEROS, y, x_test * UNITS + ZEROS, y_test)


@pytest.fixture(scope="module")
def trained(data):
    return train(data, config={**SETTINGS, "epochs": 6}, progress=False)


@pytest.fixture(scope="module")
def integers(trained, data):
    return ld.quantize(trained.network, data)


def test_unit_and_zero_of_a_channel_change_no_training(arrays, trained):
    plain = train(Dataset(*arrays), config={**SETTINGS, "epochs": 6}, progress=False)
    assert trained.figures["test_accuracy"] == plain.figures["test_accuracy"] > 0.9
    raw = {**SETTINGS, "epochs": 6, "scaling": "none"}
    assert trained.history[-1]["train_loss"] == pytest.approx(
        plain.history[-1]["train_loss"], rel=1e-3
    )
    assert input_scaling(train(Dataset(*arrays), config=raw, progress=False).network) is None


def test_without_scaling_large_offsets_are_not_learned(data):
    raw = train(data, config={**SETTINGS, "epochs": 6}, scaling="none", progress=False)
    assert raw.figures["test_accuracy"] < 0.8


def test_network_takes_the_units_of_the_data(trained, data):
    network = trained.network
    assert [node.name for node in network.nodes][:2] == ["input_scaling", "layer0"]
    outputs = run(network, data.test.x)
    assert data.task.score(outputs, data.test.y) == trained.figures["test_accuracy"]
    layers = as_layers(network, "test")  # what spiking conversions and NIR take
    folded = run(fold(network), data.test.x)
    np.testing.assert_allclose(folded, outputs, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(run_reference(layers, data.test.x).outputs, folded, atol=1e-6)


@pytest.mark.parametrize(
    ("target", "needs"), [("onnxruntime", "onnxruntime"), ("c", ""), ("lava", "lava")]
)
def test_targets_agree_in_every_integer(integers, data, target, needs):
    if needs:
        pytest.importorskip(needs, reason=f"target {target}")
    inputs = data.test.x[:3]
    expected = ld.run(integers, inputs, target="integer").outputs
    if target == "c":
        from targets.c import CTarget

        if shutil.which("cc") is None:
            pytest.skip("no C compiler")
        found = CTarget().run(integers, inputs).outputs
    else:
        found = ld.run(integers, inputs, target=target).outputs
    np.testing.assert_array_equal(found, expected)
    wrong = dataclasses.replace(integers.input, offset=integers.input.offset + 0.05)
    moved = dataclasses.replace(integers, populations=(wrong, *integers.populations[1:]))
    assert not np.array_equal(ld.run(moved, inputs, target="integer").outputs, expected)


def test_integers_are_as_good_as_the_float_network(integers, trained, data):
    exact = data.test.x.astype(np.float64) * integers.input.gain + integers.input.offset
    messages = np.rint(exact / integers.input.message.scale)
    assert np.abs(messages).max() > 1000  # the messages of both channels use their width
    assert np.abs(messages).reshape(-1, 2).max(axis=0).min() > 1000
    outputs = ld.run(integers, data, target="integer")
    assert outputs.against_reference.value > 0.95
    again = integers.input.unscaled(messages)
    assert np.abs(again - data.test.x).max() <= np.abs(UNITS).max() * 1e-3


def test_vectors_and_dequantized_files_hold_the_units(integers, data, tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnx files")
    runtime = pytest.importorskip("onnxruntime", reason="onnx files")
    from converters.vectors import frames_of

    x = data.test.x[:1]
    expected = ld.run(integers, x, target="integer").outputs
    frames = frames_of(integers, x[0])[str(integers.output)]
    np.testing.assert_array_equal(frames[-1] * integers.y_scale, expected[0])
    file = tmp_path / "q.onnx"
    ld.export(integers, to="onnx-qdq", out=file)
    session = runtime.InferenceSession(file)
    (answer,) = session.run(None, {session.get_inputs()[0].name: x.astype(np.float32)})[:1]
    np.testing.assert_allclose(answer[0], expected[0], atol=0.02 * np.abs(expected).max())
    assert onnx.load(file)


def test_quantization_aware_training_keeps_the_scaling(trained, data, tmp_path):
    config = tmp_path / "c.toml"
    config.write_text("epochs = 1\n")
    found = ld.quantize(trained.network, data, method="qat", config=config)
    assert found.input.gain is not None
    assert input_scaling(found.source).name == "input_scaling"
    assert ld.run(found, data, target="integer").metric.value > 0.9


def test_outputs_of_a_regression_are_in_their_units(rng, tmp_path):
    x = np.cumsum(rng.normal(size=(200, 16, 2)), axis=1)
    y = np.stack([101_325 + 100 * x[:, -1, 0], 1e-3 * x[:, -1, 1]], axis=1)
    data = Dataset(x[:150], y[:150], x[150:], y[150:])
    result = train(data, config={**SETTINGS, "epochs": 20}, progress=False)
    outputs = run(result.network, data.test.x)
    error = np.sqrt(np.mean((outputs - data.test.y) ** 2, axis=0)) / data.test.y.std(axis=0)
    assert (error < 0.5).all()
    by_output = [result.figures[f"test_nrmse_{k}"] for k in range(2)]
    assert result.figures["test_nrmse_mean"] == pytest.approx(np.mean(by_output))
    found = ld.run(ld.quantize(result.network, data), data, target="integer")
    off = np.sqrt(np.mean((found.outputs - outputs) ** 2, axis=0)) / data.test.y.std(axis=0)
    assert (off[:1] < 0.2).all()


@pytest.mark.parametrize("method", ["standard", "robust", "min-max"])
def test_statistics_are_those_of_the_definition(rng, method):
    x = rng.normal(3.0, 2.0, size=(500, 2))
    x[:, 1] = 7.0
    found = Channels.fit(x, method)
    center, spread = {
        "standard": (x[:, 0].mean(), x[:, 0].std()),
        "robust": (np.median(x[:, 0]), np.diff(np.quantile(x[:, 0], [0.05, 0.95]))[0] / 2),
        "min-max": ((x[:, 0].max() + x[:, 0].min()) / 2, np.ptp(x[:, 0]) / 2),
    }[method]
    np.testing.assert_allclose([found.center[0], found.spread[0]], [center, spread])
    np.testing.assert_allclose([found.center[1], found.spread[1]], [7.0, 1.0])
    there = found.forward.apply(x)
    np.testing.assert_allclose(found.backward.apply(there), x)


def test_padding_does_not_count(rng):
    x = [rng.normal(100.0, 1.0, size=(n, 1)) for n in rng.integers(3, 9, 40)]
    data = Dataset(x, np.arange(40) % 2, x, np.arange(40) % 2)
    scaling = Scaling.fit(data.task, data.train, "standard")
    assert abs(scaling.inputs.center[0] - 100.0) < 1.0
    assert scaling.outputs is None


def test_unknown_methods_and_gains_of_zero_are_refused(data):
    with pytest.raises(InputError, match="scaling"):
        train(data, config=SETTINGS, scaling="zscore", progress=False)
    with pytest.raises(InputError, match="gains of an input must not be zero"):
        Input(Place("input"), 2, Format(8, 1.0), gain=np.array([1.0, 0.0]))


def trend(samples, start, rng, lengths=(12,), ahead=1):
    """Windows of a rising, noisy series from a start on, and the values that follow."""
    series = 0.5 * np.arange(start, start + samples + 40) + np.sin(np.arange(samples + 40) / 2)
    series += 0.05 * rng.normal(size=series.shape) + 300.0
    n = rng.choice(lengths, samples)
    x = [series[i : i + k, None] for i, k in enumerate(n)]
    return x, np.stack([series[i + k : i + k + ahead] for i, k in enumerate(n)])


@pytest.fixture(scope="module")
def rising():
    rng = np.random.default_rng(1)
    return Dataset(*trend(400, 0, rng), *trend(80, 400, rng), name="rising")


@pytest.fixture(scope="module")
def follows(rising):
    layer = {"kind": "lmu", "units": 16, "order": 8, "theta": 12, "memory_to_memory": False}
    settings = {"layers": [layer], "epochs": 12, "batch_size": 20, "learning_rate": 0.02}
    return train(rising, config=settings, progress=False)


def test_direct_path_follows_a_trend_beyond_the_training_range(rising, follows):
    trivial = baseline(rising.task)
    assert trivial.words == "repeating the last value"
    assert follows.figures["test_nrmse"] < 0.8 * trivial.value
    last = rising.test.x[:, -1].astype(np.float64)
    outputs = run(follows.network, rising.test.x)
    (scaled,) = (n for n in follows.network.nodes if n.name == "output_scaling")
    within = dataclasses.replace(
        follows.network,
        nodes=tuple(n for n in follows.network.nodes if n.name not in LATER),
        output=scaled.name,
    )
    np.testing.assert_allclose(outputs, last + run(within, rising.test.x), rtol=1e-12)


LATER = ("last_value", "direct", "sum")


def test_integers_follow_a_trend_too(rising, follows):
    integers = ld.quantize(follows.network, rising)
    found = ld.run(integers, rising, target="integer")
    assert found.metric.value < 1.02 * found.against_reference.value
    assert not any(found.saturations.values())
    narrow = quantize_alone(follows.network, rising.train.x)
    assert ld.run(narrow, rising, target="integer").metric.value > 3 * found.metric.value


@pytest.mark.parametrize("target", ["onnxruntime", "c"])
def test_direct_path_is_equal_on_every_target(rising, follows, target):
    if target == "c" and shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    integers = ld.quantize(follows.network, rising)
    some = rising.test.x[:20]
    expected = ld.run(integers, some, target="integer").outputs
    np.testing.assert_array_equal(ld.run(integers, some, target=target).outputs, expected)


def test_differences_are_fitted_at_each_sequence_s_own_end(rng):
    x, y = trend(60, 0, rng, lengths=(5, 9, 12), ahead=3)
    data = Dataset(x, y, x[:9], y[:9])
    scaling = Scaling.fit(data.task, data.train, "standard", "auto")
    assert scaling.direct == "sample"
    rows = [np.flatnonzero((y.astype(np.float32) == t).all(axis=1))[0] for t in data.train.y]
    differences = np.array([y[i] - x[i][-1, 0] for i in rows])
    np.testing.assert_allclose(scaling.outputs.center, differences.mean(axis=0), rtol=1e-3)
    np.testing.assert_allclose(scaling.outputs.spread, differences.std(axis=0), rtol=1e-3)
    base = scaling.base(torch.tensor(data.train.x), torch.tensor(data.train.lengths))
    scaled = scaling.targets(torch.tensor(data.train.y), base)
    np.testing.assert_allclose(scaled.mean(axis=0), 0.0, atol=1e-3)
    np.testing.assert_allclose(scaling.unscale(scaled, base), data.train.y, rtol=1e-6)
    layers = {"layers": [LAYER | {"channels": 1}], "epochs": 1}
    network = train(data, config=layers, progress=False).network
    assert [node.name for node in network.nodes][-3:] == list(LATER)
    outputs = run(network, data.test.x, data.test.lengths)
    alone = [run(network, data.test.x[i : i + 1, :n]) for i, n in enumerate(data.test.lengths)]
    np.testing.assert_allclose(outputs, np.concatenate(alone), rtol=1e-12)


def test_series_at_every_step_has_a_direct_path(rng):
    series = np.cumsum(rng.normal(size=(6, 31, 2)), axis=1)
    data = Dataset(series[:4, :-1], series[:4, 1:], series[4:, :-1], series[4:, 1:])
    layers = {"layers": [LAYER], "epochs": 1, "learning_rate": 1e-6}
    network = train(data, config=layers, progress=False).network
    assert [node.name for node in network.nodes][-2:] == ["direct", "sum"]
    assert network["direct"].inputs == ("input_scaling",)
    scaling = Scaling.fit(data.task, data.train, "standard", "auto")
    assert scaling.direct == "step"


def test_direct_path_is_only_where_the_last_value_helps(rng):
    noise = rng.normal(size=(60, 10, 1))
    data = Dataset(noise[:50], noise[:50, 0], noise[50:], noise[50:, 0])
    for direct in ("auto", "none"):
        assert Scaling.fit(data.task, data.train, "standard", direct).direct is None
    assert Scaling.fit(data.task, data.train, "standard", "last").direct == "sample"
    with pytest.raises(InputError, match="direct is last, and task dataset has 1 inputs"):
        train(data, config={**SETTINGS, "direct": "last", "scaling": "none"}, progress=False)
    classes = Dataset(noise, np.arange(60) % 2, noise, np.arange(60) % 2)
    assert Scaling.fit(classes.task, classes.train, "standard", "auto").direct is None


def test_own_data_have_the_kind_of_network_that_suits_them(rng):
    x, y = rng.normal(size=(60, 40, 2)), np.arange(60) % 3
    steps = np.tile(y[:, None], 40)
    kinds = {
        "stack": Dataset(x, y, x, y),
        "lmu": Dataset(x, x[:, -1], x, x[:, -1]),
        "lmu of steps": Dataset(x, steps, x, steps),
    }
    for kind, data in kinds.items():
        assert default_model(data.task) == kind.split()[0]
    assert default_model(get_task("digits")) == "lmu"
    data = kinds["stack"]
    quick = {"epochs": 1, "samples": 20}
    assert train(data, config=quick, progress=False).config.stack.theta == 16
    given = train(data, config={**quick, "layers": [LAYER]}, progress=False).config
    assert (given.stack, len(given.layers)) == (None, 1)
    data = kinds["lmu"]
    assert train(data, config={**quick, "stack": {"width": 8}}, progress=False).config.stack
