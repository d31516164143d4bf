"""`run`: objects and paths in, a RunResult out."""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure

import lmu_deploy as ld
from lmu_deploy.api.check import check_data
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.graph.linear import Conv1d, Dense
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import Node
from lmu_deploy.core.graph.pointwise import Add
from lmu_deploy.core.graph.time import Reduce
from lmu_deploy.core.network import Memory
from lmu_deploy.core.representation import REPR_LENGTH

DIGITS = "examples/models/digits.safetensors"


# Tests that share an expensive fixture run in one worker.
pytestmark = pytest.mark.xdist_group("run")


@pytest.fixture(scope="module")
def network():
    return ld.load(DIGITS)


@pytest.fixture(scope="module")
def data():
    return ld.load_task("digits")


@pytest.fixture(scope="module")
def integer(network, data):
    return ld.quantize(network, data)


@pytest.fixture(scope="module")
def recorded(integer, data):
    return ld.run(integer, data, limit=6, record=True)


def test_objects_and_paths_give_the_same(network, data, integer, tmp_path):
    path = integer.save(tmp_path / "integer.safetensors")
    runs = [
        ld.run(given, named, target="integer", limit=5)
        for given, named in ((integer, data), (path, "digits"), (str(path), None))
    ]
    for found in runs[1:]:
        np.testing.assert_array_equal(found.outputs, runs[0].outputs)
        assert found.metric == runs[0].metric
    assert ld.run(network, data, limit=5).target == "reference"


def test_arrays_of_inputs_need_no_answers(integer, data, recorded):
    found = ld.run(integer, data.test.x[:6])
    np.testing.assert_array_equal(found.outputs, recorded.outputs)
    assert found.metric is None
    assert found.against_reference is None
    assert found.deviation == recorded.deviation
    with pytest.raises(InputError, match="right answers"):
        found.summary()


def test_answers_to_arrays_give_the_same_figures(integer, data, recorded):
    found = ld.run(integer, data.test.x[:6], y=data.test.y[:6])
    assert found.metric == recorded.metric
    assert found.against_reference == recorded.against_reference


def test_the_float_network_may_be_left_out(integer, data):
    found = ld.run(integer, data, limit=2, reference=False)
    assert found.reference is None
    assert found.deviation is None
    assert found.metric.name == "accuracy"


def test_states_are_recorded_when_asked_for(integer, recorded, tmp_path):
    assert recorded.states.m.shape == (6, 8, 16)
    assert recorded.reference.states.m.shape == (6, 8, 16)
    path = recorded.save_states(tmp_path / "states.npz")
    with np.load(path) as stored:
        np.testing.assert_array_equal(stored["m"], recorded.states.m)
    silent = ld.run(integer, limit=1)
    assert silent.states is None
    for wanted in (silent.plot_states, lambda: silent.save_states(path)):
        with pytest.raises(InputError, match="record=True"):
            wanted()


def test_the_summary_is_what_is_written(integer, tmp_path):
    found = ld.run(integer, limit=3, json=tmp_path / "run.json")
    assert json.loads((tmp_path / "run.json").read_text()) == found.summary()
    assert found.summary()["n_samples"] == 3


def test_the_plots_are_figures(recorded):
    assert isinstance(recorded.plot_states(), Figure)
    assert len(recorded.plot_states(sample=5).axes) == 2
    assert isinstance(recorded.plot_events(), Figure)
    with pytest.raises(InputError, match="sample"):
        recorded.plot_states(sample=6)


def test_a_float_run_has_no_events_to_plot(network):
    with pytest.raises(InputError, match="sends no events"):
        ld.run(network, limit=1).plot_events()


def test_a_result_shows_itself(recorded):
    assert repr(recorded).startswith("RunResult(integer, 6 samples of 8 steps, accuracy ")
    assert len(repr(recorded)) <= REPR_LENGTH
    assert "<table>" in recorded._repr_html_()
    assert recorded in {recorded}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"data": "digits", "y": np.zeros(3, int)}, "y belongs to inputs"),
        ({"data": np.zeros((2, 8, 8)), "json": "x.json"}, "right answers"),
        ({"data": np.zeros((2, 8, 8)), "y": [11, 3]}, "number the classes from 0 to 9"),
        ({"data": np.zeros((2, 8, 7))}, "8"),
        ({"target": "nowhere"}, "unknown target"),
        ({"target": "brian2"}, "brian2"),
    ],
)
def test_what_does_not_fit_is_refused(integer, given, message):
    with pytest.raises(InputError, match=message):
        ld.run(integer, **given)


@pytest.fixture(scope="module")
def branched():
    """A network that is no chain: a convolution beside a memory, and the mean over time."""
    rng = np.random.default_rng(3)
    nodes = (
        Node("conv", Conv1d(rng.normal(size=(3, 2, 4)), left=2), ("input",)),
        Node("memory", LinearMemory(Memory.legendre(4, 8.0), rng.normal(size=(2, 1))), ("input",)),
        Node("sum", Add(), ("conv", "memory")),
        Node("mean", Reduce("mean"), ("sum",)),
        Node("readout", Dense(rng.normal(size=(4, 3))), ("mean",)),
    )
    return ld.Network(nodes, (2,), "readout")


def test_any_graph_runs_on_the_reference(branched):
    inputs = np.random.default_rng(0).normal(size=(5, 12, 2))
    lengths = np.array([12, 3, 7, 12, 1])
    found = ld.run(branched, inputs, y=np.arange(5) % 3, record=True, lengths=lengths)
    for sample, length in enumerate(lengths):
        alone = ld.run(branched, inputs[sample : sample + 1, :length]).outputs[0]
        np.testing.assert_allclose(found.outputs[sample], alone, rtol=1e-12)
    assert found.states.m.shape == (5, 12, 4)
    assert found.neurons == {"memory/memory": 4}
    assert found.metric.name == "accuracy"
    with pytest.raises(InputError, match="lengths go from 1 to 13"):
        ld.run(branched, inputs, lengths=lengths + (lengths == 12))


def test_any_graph_is_validated_on_targets_that_run_it(branched, tmp_path):
    pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")
    rng = np.random.default_rng(1)
    x = rng.normal(size=(12, 12, 2))
    y = np.arange(12) % 3
    data = ld.Dataset(x, y, x, y)
    lengths = np.arange(12) + 1
    found = ld.run(branched, x, target="onnxruntime", lengths=lengths)
    np.testing.assert_allclose(found.outputs, run(branched, x, lengths), atol=1e-5)
    targets = "onnxruntime,integer,onnxruntime/integer"
    report = ld.validate(branched, data, targets=targets, out=tmp_path, attribution=0)
    assert report["onnxruntime"].memory_error.overall["memory"] < 1e-5
    errors = [report[name].memory_error.overall for name in ("integer", "onnxruntime/integer")]
    assert errors[0] == errors[1]
    assert 0.0 < errors[0]["memory"] < 0.1
    assert "equals the specification" in report.verdicts["integer"].words
    assert "does not fit" not in report.verdicts["integer"].words
    assert [node.name for node in report.fidelity.network.nodes] == [n.name for n in branched.nodes]
    page = report.path.read_text()
    assert "causal convolution of 3 steps" in page
    spikes = ld.validate(branched, data, targets="spiking", attribution=0)
    assert spikes["spiking"].sizes.representation == "LoihiGraph"


@pytest.fixture(scope="module")
def kinds(data, tmp_path_factory):
    """Return digits as every kind of data."""
    arrays = data.train.x[:40], data.train.y[:40], data.test.x[:10], data.test.y[:10]
    own = ld.Dataset(*arrays, x_val=data.test.x[:10], y_val=data.test.y[:10])
    file = own.save(tmp_path_factory.mktemp("data") / "own.npz")
    return {"Dataset": own, "Task": own.task, "path": file, "text": str(file)}


@pytest.mark.parametrize("as_path", [False, True])
@pytest.mark.parametrize("kind", ["Dataset", "Task", "path", "text", "part"])
def test_every_kind_of_data_gives_the_same(network, kinds, kind, as_path):
    """A part of a dataset calibrates with its own samples, and is run itself."""
    own, given = kinds["Dataset"], DIGITS if as_path else network
    train, test = (own.train, own.test) if kind == "part" else (kinds[kind], kinds[kind])
    integer, model = ld.quantize(given, train), ld.quantize(network, own)
    for one, other in zip(integer.edges, model.edges, strict=True):
        assert one.connection.slices.tolist() == other.connection.slices.tolist()
    found, truth = ld.run(integer, test), ld.run(model, own)
    assert found.outputs.tolist() == truth.outputs.tolist()
    assert found.metric.value == truth.metric.value


def test_a_part_of_a_dataset_calibrates_a_chip(network, kinds):
    small = {"neurons_per_state": 5, "calibration": "static"}
    own = kinds["Dataset"]
    one, other = (ld.spike(network, given, **small) for given in (own, own.train))
    assert one.memories[0].weights.tolist() == other.memories[0].weights.tolist()


NEEDS_ALL = {
    "validate": lambda network, data: ld.validate(network, data, targets="integer"),
    "train": lambda network, data: ld.train(data),
    "check_data": lambda network, data: check_data(data, network),
    "check_data alone": lambda network, data: check_data(data),
    "chip_yield": lambda network, data: ld.chip_yield(network, data, chips=1),
    "chip_lifetime": lambda network, data: ld.chip_lifetime(network, data, ages=["1d"]),
    "qat": lambda network, data: ld.quantize(network, data, method="qat"),
    "budget": lambda network, data: ld.quantize(network, data, budget_kib=10.0),
}
"""What chooses or judges on other samples than those with which it begins."""


@pytest.mark.parametrize("name", NEEDS_ALL)
@pytest.mark.parametrize("kind", ["part", "array", "list", "all parts"])
def test_data_that_do_not_suffice_are_refused_with_one_sentence(network, data, name, kind):
    x = data.train.x[:20]
    given = {"part": data.train, "array": x, "list": list(x), "all parts": data.data}[kind]
    with pytest.raises(InputError, match=r"the data are|in place of one part") as error:
        NEEDS_ALL[name](network, given)
    assert str(error.value).count(". ") == 0 and "Dataset" in str(error.value)
