"""`validate` with networks that were made by hand in place of those of the defaults."""

from __future__ import annotations

import importlib
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

import lmu_deploy
from converters.spiking import spike
from lmu_deploy.api.forms import Forms
from lmu_deploy.core.errors import InputError, RunError
from lmu_deploy.core.files import save
from lmu_deploy.core.graph.linear import Dense
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.pointwise import Activation
from lmu_deploy.core.graph.time import Reduce
from lmu_deploy.core.graph.transforms import as_layers
from lmu_deploy.core.legendre import discretize
from lmu_deploy.core.loading import load_float
from lmu_deploy.core.network import LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.core.spiking.graph import SpikingGraph
from lmu_deploy.fidelity.assemble import hash_file
from lmu_deploy.fidelity.measures.sizes import network_sizes
from lmu_deploy.fidelity.store import read_fidelity
from targets.base import get_target
from targets.integer import IntegerTarget

validate_module = importlib.import_module("lmu_deploy.api.validate")
DIGITS = "examples/models/digits.safetensors"


# Tests that share an expensive fixture run in one worker.
pytestmark = pytest.mark.xdist_group("validate use")


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """The digits network in one slice and 8-bit messages."""
    path = tmp_path_factory.mktemp("narrow") / "narrow.safetensors"
    lmu_deploy.quantize(DIGITS, slices=1, message_bits=8, out=path)
    return path


@pytest.fixture(scope="module")
def lowered(tmp_path_factory):
    """The digits network on a chip with 20 % mismatch, calibrated and not."""
    folder = tmp_path_factory.mktemp("lowered")
    paths = {name: folder / f"{name}.safetensors" for name in ("static", "none")}
    for name, path in paths.items():
        lmu_deploy.spike(DIGITS, neurons_per_state=20, mismatch=0.2, calibration=name, out=path)
    return paths


def forms(folder, *paths):
    found = Forms(load_float(DIGITS, "test"), None, 0, folder)
    found.use(paths)
    return found


def test_the_given_network_is_what_runs(narrow, tmp_path):
    lmu_deploy.validate(
        DIGITS, targets="integer", use=[narrow], out=tmp_path, limit=4, attribution=0
    )
    found = read_fidelity(tmp_path)
    assert found.hashes["integer"] == hash_file(narrow)
    default = network_sizes(lmu_deploy.quantize(DIGITS))
    assert found.targets["integer"].sizes.weight_bytes < default.weight_bytes


def test_an_uncalibrated_network_stands_beside_the_calibrated_one(lowered, tmp_path):
    both = forms(tmp_path, *lowered.values())
    made = both.needed_by(get_target("brian2"))
    assert made.calibration.method == "static"
    plain = both.uncalibrated()
    assert plain.calibration.method == "none"
    assert plain.device.mismatch == made.device.mismatch == 0.2
    assert set(both.files) == {"float", "spiking", "uncalibrated"}


def test_beside_a_given_network_no_other_is_made_up(lowered, tmp_path):
    assert forms(tmp_path, lowered["static"]).uncalibrated() is None


def test_networks_of_something_else_are_refused(narrow, tmp_path):
    with pytest.raises(InputError, match="is the second integer network given"):
        forms(tmp_path, narrow, narrow)
    with pytest.raises(InputError, match="was not made from the float network"):
        forms(tmp_path, DIGITS)
    source = as_layers(load_float(DIGITS, "test"), "test")
    readout = replace(source.readout, kernel=source.readout.kernel + np.float32(0.01))
    save(replace(source, readout=readout), other := tmp_path / "other.safetensors")
    found = Forms(load_float(other, "test"), None, 0, tmp_path)
    with pytest.raises(InputError, match="was not made from the float network"):
        found.use([narrow])


def test_a_graph_of_neurons_is_run_by_each_target_that_can():
    rng = np.random.default_rng(0)
    memory = Memory(2, 1, 5.0, "zoh", *discretize(2, 5.0, "zoh"))
    network = Network(
        (
            Node("memory", LinearMemory(memory, np.ones((1, 1))), (INPUT,)),
            Node("dense", Dense(rng.normal(size=(2, 3))), ("memory",)),
            Node("units", Activation("relu"), ("dense",)),
            Node("mean", Reduce("mean"), ("units",)),
            Node("out", Dense(rng.normal(size=(3, 2))), ("mean",)),
        ),
        (1,),
        "out",
    )
    options = {"neurons_per_state": 10, "neurons_per_unit": 10, "calibration": "static"}
    graph = spike(network, rng.uniform(-1.0, 1.0, (8, 6, 1)), **options)
    assert isinstance(graph, SpikingGraph)
    made = Forms(network, None, 0, None)
    made.use([graph])
    assert made.needed_by(get_target("spiking")) is graph
    assert made.needed_by(get_target("brian2")) is graph


def test_a_network_that_no_target_runs_is_refused(narrow, lowered):
    with pytest.raises(InputError, match="no target of spiking runs the spiking network"):
        lmu_deploy.validate(DIGITS, targets="spiking:1", use=[lowered["static"]])
    with pytest.raises(InputError, match="no target of brian2, onnxruntime runs the integer"):
        lmu_deploy.validate(DIGITS, targets="brian2:1,onnxruntime", use=[narrow])


@pytest.mark.parametrize("steps", [0, -1, 4])
def test_steps_of_sequences_with_one_answer_are_refused(steps, tmp_path):
    with pytest.raises(InputError, match="steps"):
        lmu_deploy.validate(DIGITS, targets="integer", steps=steps, out=tmp_path)


class Waits(IntegerTarget):
    """A target in a process of its own that ends after another target has begun."""

    in_own_process = True
    begun = threading.Event()

    def run(self, network, inputs, *, progress=None, **more):
        deadline = time.monotonic() + 60.0
        while not self.begun.wait(0.01):
            progress(0, len(inputs))
            if time.monotonic() > deadline:
                raise RunError("nothing else ran meanwhile.")
        return super().run(network, inputs, progress=progress, **more)


class Other(IntegerTarget):
    """A target that runs in this process."""

    def run(self, *given, **more):
        Waits.begun.set()
        return super().run(*given, **more)


class Fails(IntegerTarget):
    def run(self, *given, **more):
        raise RunError("this one failed.")


def validated(monkeypatch, **targets):
    monkeypatch.setattr(
        validate_module, "get_target", lambda name: targets.get(name, lambda: get_target(name))()
    )
    Waits.begun.clear()
    return lmu_deploy.validate(DIGITS, targets=",".join(targets), limit=12, attribution=0)


def test_a_target_in_its_own_process_runs_beside_the_others(monkeypatch):
    report = validated(monkeypatch, waits=Waits, other=Other)
    assert list(report.targets) == ["waits", "other"]
    assert report["waits"].metric == report["other"].metric


def test_a_failure_stops_what_runs_beside(monkeypatch):
    before = threading.active_count()
    with pytest.raises(RunError, match="this one failed"):
        validated(monkeypatch, waits=Waits, fails=Fails)
    assert threading.active_count() == before
    with pytest.raises(RunError, match="this one failed"):
        validated(monkeypatch, other=Other, fails=type("Apart", (Fails,), {"in_own_process": True}))


def test_channels_of_other_units_and_a_class_at_every_step(rng):
    x = rng.normal(size=(60, 8, 2)) * (1.0, 1e4)
    data = lmu_deploy.Dataset(x, x[:, :, 0] > 0, x[:20], x[:20, :, 0] > 0)
    kernel = rng.normal(size=(2, 2)) / ((1.0,), (1e4,))
    memory = Memory.legendre(3, 6.0, 2)
    layer = LMULayer(kernel, None, None, None, memory, None)
    network = Network.from_layers(
        LMUNetwork((layer,), Readout(rng.normal(size=(6, 2)), None), return_sequences=True)
    )
    report = lmu_deploy.validate(network, data, targets="integer", attribution=0)
    gain = report.networks["integer"].input.gain
    assert gain[0] > 1e3 * gain[1]
    assert report["integer"].specification.different == 0
    assert report["integer"].specification.residuals == 0
    assert all(p.by_class is None for p in report["integer"].populations.values())


def test_an_attribution_beside_the_runs_is_the_one_after_them():
    pytest.importorskip("onnxruntime", reason="the second target")
    reports = [
        lmu_deploy.validate(DIGITS, targets=names, limit=20, attribution=4, attribution_budget=0.1)
        for names in ("integer,onnxruntime", "onnxruntime,integer")
    ]
    beside, after = (report["integer"] for report in reports)
    assert beside.attribution is not None
    assert beside.attribution == after.attribution
    assert beside.ranges == after.ranges


def test_long_sequences_calibrate_graphs_of_neurons_on_fewer_samples():
    digits = lmu_deploy.load(DIGITS)
    words = lmu_deploy.load("examples/models/spoken-digits.safetensors")
    steps = lmu_deploy.load_task("spoken-digits").task.steps
    counts = [
        Forms(network, task, 0, None)._calibration_samples()
        for network, task in ((digits, "digits"), (words, "spoken-digits"), (words, None))
    ]
    assert counts == [200, 4_000 // steps, 200]
