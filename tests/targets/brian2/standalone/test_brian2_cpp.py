"""Target brian2-cpp: the spikes of target brian2, from one program that is compiled here once.

A build takes ten seconds and more, so that one has to do: `compiled` is that of a network with
hidden units, two channels and three samples. The conformance suite would take some thirty builds,
of networks whose feedback this target refuses; what it asks for is asked of that one run here.
`benchmarks/standalone.py --equality` compares the other neuron models, noise and stacked layers.
"""

import dataclasses
import json
import shutil

import numpy as np
import pytest

pytest.importorskip("brian2", reason="target brian2-cpp needs Brian2")
if not (shutil.which("g++") and shutil.which("make")):
    pytest.skip("target brian2-cpp needs g++ and make", allow_module_level=True)

from converters.spiking import spike
from converters.spiking.neurons import NEURONS
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, LSTMLayer, Memory, Readout
from lmu_deploy.core.reference import run_reference
from lmu_deploy.core.spiking.chip import DPISynapse
from targets.base import InParts, Run, Target, get_target
from targets.brian2 import Brian2Target, library
from targets.brian2.standalone import Brian2CppTarget, model, target

pytestmark = pytest.mark.xdist_group("brian2-cpp")  # one program is built for all
SAMPLES, STEPS, HOLD = 3, 9, 20
PLACE = "layer0/memory"


def make_layer(rng, feedback=False):
    # Recurrent units belong to the host, which asks nothing of the memory.
    kernels = (rng.normal(size=shape) for shape in ((8, 5), (3, 5), (5, 5)))
    hidden = Hidden(*kernels, None, "tanh")
    return LMULayer(
        input_encoders=rng.normal(size=(3, 2)) / 2,
        hidden_encoders=0.1 * rng.normal(size=(5, 2)) if feedback else None,
        memory_encoders=0.1 * rng.normal(size=(8, 2)) if feedback else None,
        memory_bias=np.array([0.1, -0.1]),
        memory=Memory.legendre(4, 12.0, 2),
        hidden=hidden,
    )


@pytest.fixture(scope="module")
def case():
    """A float network, inputs, and the network on 2 * 4 * 30 neurons with mismatch."""
    rng = np.random.default_rng(8)
    readout = Readout(rng.normal(size=(5, 2)), rng.normal(size=2))
    network = LMUNetwork((make_layer(rng),), readout, return_sequences=True)
    inputs = rng.uniform(0, 1, (40, STEPS, 3))
    spiking = spike(
        network,
        inputs,
        neurons_per_state=30,
        presentation_ms=HOLD,
        calibration="static",
        mismatch=0.1,
    )
    given = inputs[:SAMPLES].copy()
    given.flags.writeable = False
    return network, given, spiking


@pytest.fixture(scope="module")
def runtime(case):
    """What target brian2 does, before anything is compiled."""
    return Brian2Target().run(case[2], case[1], record=True, seed=4)


@pytest.fixture(scope="module")
def compiled(case, runtime):
    """The one build: the run, and the progress it reported."""
    reported: list[tuple[int, int]] = []
    found = list(
        Brian2CppTarget().parts(
            case[2], case[1], record=1, seed=4, progress=lambda *both: reported.append(both)
        )
    )
    assert len(found) == 1
    return found[0], reported


@pytest.fixture
def unbuilt(monkeypatch):
    """Nothing may be compiled."""

    def refuse(*_):
        raise AssertionError("it went as far as compiling")

    monkeypatch.setattr(target, "run_job", refuse)


def simulate(spiking, inputs, seed, fault=""):
    """The network of the case in NumPy, right or with a fault: the raster of sample 0."""
    (memory,), layer = spiking.memories, spiking.host.layers[0]
    x = inputs[:1]
    u = x @ layer.input_encoders + layer.memory_bias
    neurons = NEURONS["lif"](
        memory.populations,
        spiking.neuron,
        spiking.device,
        spiking.dt_ms,
        1,
        np.random.default_rng(0),
        np.float64,
    )
    neurons.v = np.random.default_rng([seed, 0]).random(neurons.v.shape)
    state, spikes, raster = np.zeros((1, 2, 4)), np.zeros((1, 8, 30)), []
    for step in range(STEPS * HOLD):
        hold = max(step - (fault == "input a step late"), 0) // HOLD
        before = spikes
        if fault != "states before spikes":
            spikes = neurons.step(state.reshape(1, -1))
        arrived = (before if fault == "spikes a step late" else spikes).reshape(1, 2, -1)
        drive = np.einsum("cif,scf->sci", memory.weights, arrived)
        drive *= 1.0 if fault == "no 1/dt" else 1e3
        drive += u[:, hold, :, None] * memory.scaled_input
        state = spiking.decay * state + (1 - spiking.decay) * drive
        if fault == "states before spikes":
            spikes = neurons.step(state.reshape(1, -1))
        raster.append(spikes[0].reshape(-1).astype(np.uint8))
    return np.stack(raster)


def test_every_neuron_spikes_as_on_target_brian2(compiled, runtime):
    run, _ = compiled
    assert runtime.rasters[PLACE].sum() > 1000
    np.testing.assert_array_equal(run.rasters[PLACE], runtime.rasters[PLACE])
    np.testing.assert_array_equal(run.events[PLACE], runtime.events[PLACE])
    assert run.synops == runtime.synops
    # Only the order of sums and the compiler's contractions may differ, by the last bits.
    np.testing.assert_allclose(run.states.m, runtime.states.m, rtol=0, atol=1e-12)
    np.testing.assert_allclose(run.states.h, runtime.states.h, rtol=0, atol=1e-12)
    np.testing.assert_allclose(run.outputs, runtime.outputs, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("fault", "same"),
    [
        ("", True),
        ("states before spikes", False),
        ("spikes a step late", False),
        ("input a step late", False),
        ("no 1/dt", False),
    ],
)
def test_rasters_distinguish_the_equations_from_faulty_ones(case, compiled, fault, same):
    raster = simulate(case[2], case[1], seed=4, fault=fault)
    assert np.array_equal(compiled[0].rasters[PLACE], raster) == same


def test_target_brian2_gives_what_it_gave_before(case, compiled, runtime):
    b2 = library.brian2_library()
    assert type(b2.get_device()).__name__ == "RuntimeDevice"
    again = Brian2Target().run(case[2], case[1], record=True, seed=4)
    np.testing.assert_array_equal(again.states.m, runtime.states.m)
    np.testing.assert_array_equal(again.rasters[PLACE], runtime.rasters[PLACE])
    assert again.settings == runtime.settings


def test_the_run_says_what_it_was(case, compiled, runtime):
    run, reported = compiled
    assert isinstance(run, Run) and run.target == "brian2-cpp"
    assert (run.steps, run.chip_steps, run.seed) == (STEPS, STEPS * HOLD, 4)
    assert run.neurons == {PLACE: 240} and run.saturations == runtime.saturations
    assert run.settings == {**runtime.settings, "codegen": "cpp_standalone"}
    assert run.notes == runtime.notes
    json.dumps(run.settings)
    assert reported == sorted(set(reported)) and reported[-1] == (SAMPLES, SAMPLES)
    events, raster = run.events[PLACE], run.rasters[PLACE]
    assert (events.shape, events.dtype) == ((SAMPLES, STEPS), np.int64)
    np.testing.assert_array_equal(raster.reshape(STEPS, -1).sum(axis=1), events[0])


def test_answers_follow_the_reference(case, compiled):
    network, inputs, _ = case
    reference = run_reference(network, inputs, record=True)
    error = np.linalg.norm(compiled[0].states.m - reference.m) / np.linalg.norm(reference.m)
    assert error < 0.25  # 30 LIF neurons a state with static decoders
    run = compiled[0]
    h = run.states.h @ network.readout.kernel + network.readout.bias
    np.testing.assert_allclose(run.states.y, h, atol=1e-12)


def test_it_is_a_target_that_runs_in_parts():
    found = get_target("brian2-cpp")
    assert isinstance(found, Target) and isinstance(found, InParts)


def test_feedback_synapses_and_units_are_refused_with_a_reason_each(case, unbuilt):
    rng = np.random.default_rng(1)
    readout = Readout(rng.normal(size=(5, 2)), None)
    network = LMUNetwork((make_layer(rng, feedback=True),), readout)
    fed = spike(network, case[1], neurons_per_state=10, calibration="none")
    fed = dataclasses.replace(fed, synapse=DPISynapse())
    reasons = Brian2CppTarget().unsupported(fed)
    words = ("hidden units fed back", "the memory fed back", "DPIs")
    assert all(word in reason for word, reason in zip(words, reasons, strict=True))
    with pytest.raises(InputError, match=r"cannot run .*hidden units.*the memory.*DPIs.*\.$"):
        Brian2CppTarget().run(fed, case[1])
    assert Brian2CppTarget().unsupported(case[2]) == []


def test_units_on_neurons_are_refused_with_what_makes_them_the_hosts(case, unbuilt):
    layer = dataclasses.replace(
        case[0].layers[0],
        hidden=dataclasses.replace(case[0].layers[0].hidden, recurrent_kernel=None),
    )
    network = dataclasses.replace(case[0], layers=(layer,))
    options = {"neurons_per_state": 10, "neurons_per_unit": 10, "calibration": "none"}
    made = {units: spike(network, case[1], units=units, **options) for units in ("chip", "host")}
    with pytest.raises(InputError, match=r"spike --units host\.$"):
        Brian2CppTarget().run(made["chip"], case[1])
    assert Brian2CppTarget().unsupported(made["host"]) == []


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: np.where(x == x[0, 0, 0], np.nan, x), "NaN|finite"),
        (lambda x: x[..., :2], "input"),
        (lambda x: x[:0], "no samples"),
        (lambda x: x[:, :0], "without steps"),
    ],
)
def test_wrong_inputs_are_refused_before_anything_is_compiled(case, unbuilt, spoil, message):
    with pytest.raises(InputError, match=message):
        Brian2CppTarget().run(case[2], spoil(case[1]))


def test_too_many_neurons_are_refused_with_the_samples_that_would_do(case, unbuilt, monkeypatch):
    monkeypatch.setattr(target, "_MOST_NEURONS", 500)
    with pytest.raises(InputError, match=r"3 samples of 240 neurons .* at most 2 samples"):
        Brian2CppTarget().run(case[2], case[1])


def test_layers_run_in_turn_with_lstm_layers_on_the_host(case, monkeypatch):
    """Each program gets what target brian2 gives to its layer; the programs are faked."""
    rng = np.random.default_rng(3)
    lstm = LSTMLayer(*(0.5 * rng.normal(size=s) for s in ((5, 12), (3, 12), (12,))))
    bare = LMULayer(rng.normal(size=(3, 1)), None, None, None, Memory.legendre(2, 12.0), None)
    network = LMUNetwork((make_layer(rng), lstm, bare), Readout(rng.normal(size=(2, 1)), None))
    inputs = rng.uniform(0, 1, (20, 4, 3))
    spiking = spike(
        network, inputs, neurons_per_state=10, presentation_ms=HOLD, calibration="static"
    )
    expected = Brian2Target().run(spiking, inputs[:2], record=True, seed=6)
    jobs, edges = [], {0: slice(0, 8), 2: slice(8, 10)}

    def replayed(job, progress):
        jobs.append(job)
        progress(0.5)
        m = expected.states.m[..., edges[job.layer]]
        counts = expected.events[f"layer{job.layer}/memory"]
        return target.Outcome(m, counts, 5, np.zeros((0, 1), np.uint8), {}, "2.9")

    monkeypatch.setattr(target, "run_job", replayed)
    reported = []
    run = Brian2CppTarget().run(
        spiking, inputs[:2], record=True, seed=6, progress=lambda *both: reported.append(both)
    )
    for name in ("m", "h", "y"):
        np.testing.assert_array_equal(getattr(run.states, name), getattr(expected.states, name))
    assert (run.outputs.shape, run.synops, run.rasters) == ((2, 1), 10, {})
    assert reported == [(1, 2), (2, 2)]
    assert run.saturations == expected.saturations
    monkeypatch.setattr(target, "CALIBRATION_MARGIN", 0.0)
    again = Brian2CppTarget().run(spiking, inputs[:2], seed=6, progress=lambda *_: None)
    assert again.saturations == {"layer0/memory/state": 2 * 4 * 8, "layer2/memory/state": 2 * 4 * 2}
    second = expected.states.h[..., 5:8] @ bare.input_encoders
    np.testing.assert_allclose(jobs[1].channels, second, atol=1e-12)
    assert jobs[0].noise_seed != jobs[1].noise_seed
    membranes = np.random.default_rng([6, 1]).random((2, 20))
    np.testing.assert_array_equal(jobs[1].membranes, membranes)


def test_records_are_read_step_by_step(tmp_path):
    found = model.Records(tmp_path, 10, 4, raster=True)
    np.array([2, 0, 3, 0, 1, 3], np.int32).tofile(tmp_path / "spikes.bin")
    np.array([1.0, 2.0, 3.0, 4.0]).tofile(tmp_path / "ends.bin")
    np.testing.assert_array_equal(found.read_raster(3), [[1, 0, 0, 1], [0] * 4, [0, 0, 0, 1]])
    np.testing.assert_array_equal(found.read_ends(np.array([5.0, 6.0])), [[1, 2], [3, 4], [5, 6]])
    assert model.Records(tmp_path, 10, 4, raster=False).read_raster(3).shape == (0, 4)
