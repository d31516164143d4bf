"""Fixtures of validations: a reference run, and targets that differ from it by known amounts."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lmu_deploy.api.quantize import quantize
from lmu_deploy.api.validate import explained
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.graph.transforms import as_layers
from lmu_deploy.core.loading import load_float
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, LSTMLayer, Memory, Readout
from lmu_deploy.fidelity import Result, assemble, write_fidelity
from lmu_deploy.report import write_report
from lmu_deploy.report.robustness_file import gather
from lmu_deploy.tasks.base import Split, Task, get_task
from lmu_deploy.tasks.selection import limited
from targets.base import Run, States
from targets.integer import IntegerTarget
from targets.reference import ReferenceTarget

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "models" / "digits.safetensors"
CASES = (
    "digits",
    "signal",
    "explained",
    "nothing recorded",
    "no events",
    "long names",
    "one sample",
    "three layers",
    "no targets",
)
SIZES = {"input": 8, "layer0/memory": 48, "layer0/hidden": 32}


def make_network(n_in=8, n_out=10, order=6, channels=8, theta=8.0, units=32, sequences=False):
    rng = np.random.default_rng(5)

    def weights(*shape):
        return (rng.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32)

    layer = LMULayer(
        input_encoders=weights(n_in, channels),
        hidden_encoders=None,
        memory_encoders=None,
        memory_bias=None,
        memory=Memory.legendre(order, theta, channels),
        hidden=Hidden(
            weights(channels * order, units), weights(n_in, units), None, weights(1, units)[0],
            "tanh",
        ),
    )  # fmt: skip
    readout = Readout(weights(units, n_out), np.zeros(n_out, np.float32))
    provenance = {"command": "lmu-deploy train digits --seed 3", "seed": "3"}
    return Network.from_layers(LMUNetwork((layer,), readout, sequences, "digits", provenance))


def make_run(target, reference, samples, noise, seed, *, integer=False, spikes=0, **changes):
    """Return the run of the reference with noise on outputs and states, and synthetic events."""
    rng = np.random.default_rng(seed)
    outputs, states = reference.outputs[:samples], reference.states
    steps = reference.steps
    kept = min(samples, 40)
    m = states.m[:kept] + noise * rng.normal(size=states.m[:kept].shape)
    h, y = states.h[:kept], states.y[:kept]
    scale = 2.0**-21 if integer else 1.0
    if integer:
        m, h, y = (np.rint(a / scale).astype(np.int32) for a in (m, h, y))
    chip_steps = steps * spikes if spikes else steps + 1
    names = [n for n in SIZES if n == "layer0/memory" or not spikes]
    rate = 0.05 if spikes else 0.8
    events = {n: rng.binomial(SIZES[n] * max(spikes, 1), rate, (samples, steps)) for n in names}
    rasters = {
        n: (rng.random((chip_steps, SIZES[n])) < rate).astype(np.uint8)
        * (rng.random(SIZES[n]) < 0.9)
        for n in names
    }
    run = Run(
        target=target,
        outputs=outputs + noise * rng.normal(size=outputs.shape),
        neurons={n: SIZES[n] for n in names},
        events=events,
        synops=int(sum(e.sum() for e in events.values())) * 40,
        saturations={"layer0/memory/state": 0, "layer0/hidden/drive": 3} if integer else {},
        steps=steps,
        chip_steps=chip_steps,
        wall_seconds=0.25,
        seed=seed,
        states=States(m, h, y, np.full(m.shape[2], scale), np.full(h.shape[2], scale), scale),
        rasters=rasters,
        notes=("The hidden layer ran on the host.",) if spikes else (),
        settings={"mismatch": 0.1, "calibration": "dynamic"} if spikes else {},
    )
    return replace(run, **changes)


def make_digits(samples=240):
    network = make_network()
    inputs = np.random.default_rng(1).random((samples, 8, 8)).astype(np.float32)
    reference = ReferenceTarget().run(network, inputs, record=True)
    rng = np.random.default_rng(2)
    noisy = reference.outputs + 0.15 * rng.normal(size=reference.outputs.shape)
    split = Split(inputs, noisy.argmax(axis=1))
    task = Task("digits", "classification", 8, 10, 8, load=lambda: None)
    integer = make_run("integer", reference, samples, 1e-3, 11, integer=True)
    lava = replace(
        integer,
        target="lava",
        outputs=integer.outputs[:8],
        events={n: e[:8] for n, e in integer.events.items()},
        synops=int(sum(e[:8].sum() for e in integer.events.values())) * 40,
        wall_seconds=21.0,
        notes=("Ran the first 8 samples.",),
        states=replace(
            integer.states,
            m=integer.states.m[:8], h=integer.states.h[:8], y=integer.states.y[:8],
        ),
    )  # fmt: skip
    plain = {"events": {}, "rasters": {}, "synops": 0, "neurons": {}}
    onnx = make_run("onnxruntime", reference, samples, 1e-7, 12, **plain)
    brian2 = make_run("brian2", reference, min(samples, 200), 0.05, 13, spikes=20)
    raw = make_run("brian2", reference, min(samples, 200), 0.4, 14, spikes=20)
    results = [
        Result(onnx, network),
        Result(integer, network),
        Result(lava, network),
        Result(brian2, None, {"uncalibrated": Result(raw)}),
    ]
    return SimpleNamespace(
        network=network, reference=reference, split=split, task=task, results=results
    )


def make_signal(samples=6, steps=1000):
    network = make_network(1, 1, order=6, channels=1, theta=20.0, units=8, sequences=True)
    time = np.arange(steps) / 12.0
    phase = np.random.default_rng(4).random((samples, 1)) * 6.0
    inputs = np.sin(time + phase)[:, :, None].astype(np.float32)
    reference = ReferenceTarget().run(network, inputs, record=True)
    noise = 0.1 * np.random.default_rng(6).normal(size=reference.outputs.shape)
    task = Task("sines", "regression", 1, 1, steps, load=lambda: None, washout=20)
    split = Split(inputs, (reference.outputs + noise).astype(np.float32))
    results = [
        Result(make_run("integer", reference, samples, 0.01, 21, integer=True), network),
        Result(make_run("brian2", reference, samples, 0.1, 22, spikes=5), network),
    ]
    return SimpleNamespace(
        network=network, reference=reference, split=split, task=task, results=results
    )


def make_deep():
    """Return a validation of an LMU, an LSTM and an LMU without hidden units in sequence."""
    rng = np.random.default_rng(7)
    graph = make_network(2, 3, order=4, channels=2, theta=10.0, units=5)
    first = as_layers(graph, "test").layers[0]
    second = LSTMLayer(*(rng.normal(size=s) * 0.5 for s in ((5, 16), (4, 16), (16,))))
    third = LMULayer(
        rng.normal(size=(4, 1)), None, None, None, Memory.legendre(7, 30.0, 1, "bilinear"), None
    )
    readout = Readout(rng.normal(size=(7, 2)), None)
    network = Network.from_layers(LMUNetwork((first, second, third), readout))
    inputs = rng.random((30, 25, 2)).astype(np.float32)
    reference = ReferenceTarget().run(network, inputs, record=True)
    split = Split(inputs, reference.outputs.argmax(axis=1))
    task = Task("deep", "classification", 2, 2, 25, load=lambda: None)
    run = make_run("plugin", reference, 30, 0.02, 31, events={}, rasters={}, neurons={})
    return SimpleNamespace(
        network=network, reference=reference, split=split, task=task, results=[Result(run, network)]
    )


def make_explained(samples=24):
    """Return the digits network in narrow integers with attribution, a yield and a sweep."""
    network = load_float(DIGITS, "test")
    task = get_task("digits")
    integer = quantize(network, message_bits=6, slices=1, refit=False)
    split = limited(task.load().test, samples)
    run = IntegerTarget().run(integer, split.inputs, record=True)
    reference = ReferenceTarget().run(network, split.inputs, record=True)
    chip = make_run("brian2", reference, samples, 0.05, 13, spikes=20)
    return SimpleNamespace(
        network=network,
        reference=reference,
        split=split,
        task=task,
        results=[*explained([Result(run, integer)], split, task, 8), Result(chip)],
        yields=[make_yield()],
        sweeps=[make_sweep()],
    )


def make_yield(**changes):
    """Return the content of a file of `lmu-deploy yield` with forty chips."""
    rng = np.random.default_rng(3)
    values = {"none": 0.96, "dynamic": 0.98}
    values = {m: np.round(mean * 359 + rng.normal(size=40)) / 359 for m, mean in values.items()}
    return {
        "network": "0" * 64,
        "task": "digits",
        "metric": "accuracy",
        "profile": "generic-analog",
        "samples": 359,
        "steps": 8,
        "settings": {"mismatch": 0.2, "seed": 0},
        "reference": 354 / 359,
        "ideal": 353 / 359,
        "chips": list(range(40)),
        "values": {method: found.tolist() for method, found in values.items()},
        "spikes": {method: [1e4] * 40 for method in values},
        **changes,
    }


def make_sweep(**changes):
    """Return the content of sweep.json: two numeric settings, one with names, one refused trial."""
    forms = ["dense-incremental", "schur", "fir"]
    bits, slices, form = zip(*product([4, 6, 8, 12], [1, 2], forms), strict=True)
    size = [b * s * 100 for b, s in zip(bits, slices, strict=True)]
    metric = [0.98 - 0.4 * 2.0**-b / s for b, s in zip(bits, slices, strict=True)]
    front = [n for n in range(len(bits)) if form[n] == "schur" and slices[n] == 1]
    columns = {
        "quantize.message_bits": bits,
        "quantize.slices": slices,
        "quantize.realization": [None if f == "fir" else f for f in form],
        "status": ["done"] * 23 + ["refused"],
        "metric_name": ["accuracy"] * 23 + [None],
        "metric": [*metric[:23], None],
        "reference": [0.982] * 23 + [None],
        "memory_bytes": [*size[:23], None],
    }
    return {
        "schema": "lmu_deploy/sweep",
        "version": 1,
        "objectives": ["metric", "memory_bytes"],
        "more_is_better": [True, False],
        "varied": [name for name in columns if name.startswith("quantize")],
        "front": front,
        "columns": columns,
        **changes,
    }


def write_studies(folder, validation, where):
    """Copy the yields and sweeps of a validation into the folder of its report."""
    yields, sweeps = getattr(validation, "yields", []), getattr(validation, "sweeps", [])
    files = [where / f"yield{n}.json" for n in range(len(yields))]
    folders = [where / f"sweep{n}" for n in range(len(sweeps))]
    for path, found in zip(files, yields, strict=True):
        path.write_text(json.dumps(found))
    for path, found in zip(folders, sweeps, strict=True):
        path.mkdir()
        (path / "sweep.json").write_text(json.dumps(found))
    if files or folders:
        gather(folder, validation.task.name, files, folders)


@pytest.fixture(scope="session")
def digits():
    return make_digits()


@pytest.fixture(scope="session")
def signal():
    return make_signal()


@pytest.fixture(scope="session")
def assembled():
    """Function that assembles (fidelity, excerpts) of a validation with replaced parts."""

    def build(validation, **changes):
        parts = {**vars(validation), **changes}
        return assemble(
            parts["results"],
            parts["reference"],
            parts["task"],
            parts["split"],
            parts["network"],
            command=changes.get("command", "lmu-deploy validate digits.safetensors --seed 0"),
            seed=0,
            date="2026-01-02T03:04:05+00:00",
        )

    return build


@pytest.fixture(scope="session")
def edge_cases(digits):
    """One validation for each part that can be missing or unusual."""
    run = digits.results[1].run
    nothing = replace(run, events={}, rasters={}, saturations={}, synops=0, states=None, neurons={})
    silent = replace(
        run,
        events={n: np.zeros_like(e) for n, e in run.events.items()},
        rasters={n: np.zeros_like(r) for n, r in run.rasters.items()},
        synops=0,
        saturations={"layer0/memory/state": 0},
    )
    name = "layer0/memory/a population with a very long name that a plugin of a user has defined"
    long = replace(
        run,
        target="a-target-from-a-plugin-with-a-long-name",
        events={name: run.events["layer0/memory"]},
        neurons={name: 48},
        rasters={name: run.rasters["layer0/memory"]},
        saturations={name + f"/{i}": i for i in range(20)},
    )
    one = make_digits(samples=1)
    deep = make_deep()

    def with_results(*results):
        return SimpleNamespace(**{**vars(digits), "results": list(results)})

    return {
        "nothing recorded": with_results(Result(nothing)),
        "no events": with_results(Result(silent)),
        "long names": with_results(Result(long), Result(run)),
        "one sample": one,
        "three layers": deep,
        "no targets": with_results(),
    }


@pytest.fixture(scope="session")
def cases(digits, signal, edge_cases):
    """All validations by name, those of `CASES`."""
    return {"digits": digits, "signal": signal, "explained": make_explained(), **edge_cases}


@pytest.fixture(scope="session")
def reported(cases, assembled, tmp_path_factory):
    """Function that returns the path of the report of a case; tests must not change its folder.

    One worker of pytest-xdist writes it for all.
    """
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "reported"
    shared.mkdir(exist_ok=True)

    @cache
    def make(case):
        folder = shared / case
        with exclusive(shared / f"{case}.lock"):
            if not (folder / "report.html").exists():
                folder.mkdir(exist_ok=True)
                write_fidelity(folder, *assembled(cases[case]))
                write_studies(folder, cases[case], tmp_path_factory.mktemp("beside"))
                write_report(folder)
        return folder / "report.html"

    return make


@contextmanager
def exclusive(path):
    """Hold the lock of a file; without effect on systems without flock."""
    with path.open("w") as file:
        if find_spec("fcntl"):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture
def folder_of(tmp_path, assembled):
    """Function that writes the results of a validation into a new folder."""

    def write(validation, **changes):
        folder = tmp_path / f"report{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        write_fidelity(folder, *assembled(validation, **changes))
        return folder

    return write
