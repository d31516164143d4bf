"""Target brian2: the spikes of a NumPy simulation, the fields of a Run, and no side effects."""

import builtins
import dataclasses
import gc
import json
import os
import signal
import subprocess
import sys
import weakref

import numpy as np
import pytest

from converters.spiking import spike
from converters.spiking.neurons import NEURONS
from lmu_deploy.core.errors import InputError, MissingDependencyError
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, LSTMLayer, Memory, Readout
from lmu_deploy.core.reference import run_reference
from lmu_deploy.core.spiking.chip import DPISynapse, Populations
from targets.base import Target, get_target
from targets.brian2 import Brian2Target, library, target

STEPS = 8


def make_network(rng, feedback=False, return_sequences=False):
    memory = Memory.legendre(4, 8.0, 2)
    hidden = Hidden(
        memory_kernel=rng.normal(size=(8, 5)),
        input_kernel=rng.normal(size=(3, 5)),
        recurrent_kernel=0.3 * rng.normal(size=(5, 5)) if feedback else None,
        bias=rng.normal(size=5),
        activation="tanh",
    )
    layer = LMULayer(
        input_encoders=rng.normal(size=(3, 2)) / 2,
        hidden_encoders=0.1 * rng.normal(size=(5, 2)) if feedback else None,
        memory_encoders=0.1 * rng.normal(size=(8, 2)) if feedback else None,
        memory_bias=np.array([0.1, -0.1]) if feedback else None,
        memory=memory,
        hidden=hidden,
    )
    readout = Readout(rng.normal(size=(5, 2)), rng.normal(size=2))
    return LMUNetwork((layer,), readout, return_sequences=return_sequences)


@pytest.fixture(scope="module")
def case():
    """A float network, inputs, and the network on 4 * 2 * 50 neurons."""
    rng = np.random.default_rng(8)
    network = make_network(rng)
    inputs = rng.uniform(0, 1, (160, STEPS, 3))
    spiking = spike(network, inputs[40:], neurons_per_state=50, units="host")
    return network, inputs[:40], spiking


@pytest.fixture(scope="module")
def run(case):
    return Brian2Target().run(case[2], case[1], record=True, seed=4)


def simulate(spiking, x, seed):
    """One layer without feedback, closed in NumPy: states, spikes of sample 0, counts."""
    (memory,) = spiking.memories
    layer = spiking.host.layers[0]
    u = x @ layer.input_encoders
    neurons = NEURONS[spiking.neuron.kind](
        memory.populations,
        spiking.neuron,
        spiking.device,
        spiking.dt_ms,
        len(x),
        np.random.default_rng(0),
        np.float64,
    )
    neurons.v = np.random.default_rng([seed, 0]).random(neurons.v.shape)
    state = np.zeros((len(x), memory.channels, memory.order))
    ends, raster, counts = [], [], np.zeros((len(x), x.shape[1]), dtype=int)
    for t in range(x.shape[1]):
        for _ in range(spiking.steps_per_presentation):
            spikes = neurons.step(state.reshape(len(x), -1))
            counts[:, t] += spikes.sum(axis=(1, 2))
            raster.append(spikes[0].reshape(-1))
            by_channel = spikes.reshape(len(x), memory.channels, -1)
            drive = np.einsum("cif,scf->sci", memory.weights, by_channel) * 1e3
            drive += u[:, t, :, None] * memory.scaled_input
            state = spiking.decay * state + (1 - spiking.decay) * drive
        ends.append((state * memory.scales).reshape(len(x), -1))
    return np.stack(ends, axis=1), np.stack(raster), counts


def test_equals_a_numpy_simulation_spike_for_spike(case, run):
    m, raster, counts = simulate(case[2], case[1], seed=4)
    np.testing.assert_array_equal(run.rasters["layer0/memory"], raster)
    np.testing.assert_array_equal(run.events["layer0/memory"], counts)
    np.testing.assert_allclose(run.states.m, m, rtol=0, atol=1e-9)


def test_events_have_the_names_of_the_layers(case, run):
    _, inputs, spiking = case
    host = dataclasses.replace(spiking.host, names=("lmu_1", "answer"))
    named = Brian2Target().run(dataclasses.replace(spiking, host=host), inputs, seed=4)
    assert named.neurons.keys() == named.rasters.keys() == {"lmu_1/memory"}
    np.testing.assert_array_equal(named.events["lmu_1/memory"], run.events["layer0/memory"])
    assert named.saturations == {"lmu_1/memory/state": run.saturations["layer0/memory/state"]}


@pytest.mark.parametrize("kind", ["if", "dpi"])
def test_other_neurons_equal_their_simulations_spike_for_spike(case, kind):
    network, inputs, _ = case
    spiking = spike(network, inputs, neurons_per_state=20, neuron=kind, calibration="static")
    run = Brian2Target().run(spiking, inputs[:5], seed=2)
    _, raster, counts = simulate(spiking, inputs[:5], seed=2)
    np.testing.assert_array_equal(run.rasters["layer0/memory"], raster)
    np.testing.assert_array_equal(run.events["layer0/memory"], counts)


def test_chips_that_run_together_are_those_that_run_alone(case):
    network, inputs, _ = case
    chips = [
        spike(
            network, inputs, neurons_per_state=10, calibration="static", mismatch=0.2, chip_seed=c
        )
        for c in range(3)
    ]
    together = Brian2Target().run_chips(chips, inputs[:7], record=True, seed=6)
    for chip, run in zip(chips, together, strict=True):
        alone = Brian2Target().run(chip, inputs[:7], record=True, seed=6)
        np.testing.assert_array_equal(run.states.m, alone.states.m)
        np.testing.assert_array_equal(run.outputs, alone.outputs)
        np.testing.assert_array_equal(run.events["layer0/memory"], alone.events["layer0/memory"])
        np.testing.assert_array_equal(run.rasters["layer0/memory"], alone.rasters["layer0/memory"])
        np.testing.assert_array_equal(run.counts["layer0/memory"], alone.counts["layer0/memory"])
        assert (run.synops, run.settings) == (alone.synops, alone.settings)
    assert not np.array_equal(together[0].states.m, together[1].states.m)


def test_chips_of_different_kinds_are_refused(case):
    network, inputs, spiking = case
    other = spike(network, inputs, neurons_per_state=10, calibration="none")
    with pytest.raises(InputError, match="chip 1 has another neurons than chip 0"):
        Brian2Target().run_chips([spiking, other], inputs)
    faster = dataclasses.replace(spiking, tau_ms=50.0)
    with pytest.raises(InputError, match="chip 1 has another times"):
        Brian2Target().run_chips([spiking, faster], inputs)
    with pytest.raises(InputError, match="no chip"):
        Brian2Target().run_chips([], inputs)


def test_dpi_synapses_follow_their_equation(case):
    """Two rectified filters for each state, the drive of each scaled by I / (I + gain)."""
    network, inputs, spiking = case
    synapse = DPISynapse(gain=0.3, dark=0.01)
    nonlinear = dataclasses.replace(spiking, synapse=synapse)
    run = Brian2Target().run(nonlinear, inputs[:1], record=True)
    (memory,) = spiking.memories
    raster = run.rasters["layer0/memory"].reshape(-1, 2, 1, 200)
    u = inputs[0] @ network.layers[0].input_encoders
    currents = np.full((2, 2, 4), synapse.dark)
    for step, fired in enumerate(raster):
        effects = memory.weights * 1e3 * fired
        drive = np.stack([np.clip(sign * effects, 0, None).sum(axis=2) for sign in (1, -1)])
        held = u[step // 50, :, None] * memory.scaled_input
        drive += np.stack([np.clip(sign * held, 0, None) for sign in (1, -1)])
        target = drive * currents / (currents + synapse.gain)
        currents = currents * spiking.decay + (1 - spiking.decay) * target
        currents = np.maximum(currents, synapse.dark)
    m = (currents[0] - currents[1]) * memory.scales
    np.testing.assert_allclose(run.states.m[0, -1], m.reshape(-1), atol=1e-9)


def test_dpi_synapses_of_little_gain_are_linear(case, run):
    _, inputs, spiking = case
    nearly = dataclasses.replace(spiking, synapse=DPISynapse(gain=1e-6, dark=1e-7))
    again = Brian2Target().run(nearly, inputs, record=True, seed=4)
    difference = np.linalg.norm(again.states.m - run.states.m) / np.linalg.norm(run.states.m)
    assert difference < 0.05
    assert any("DPI" in note for note in again.notes)


def test_poisson_neurons_fire_as_often_as_simulated_and_repeat_by_seed(case):
    network, inputs, _ = case
    spiking = spike(network, inputs, neurons_per_state=100, neuron="poisson", calibration="static")
    run, again, other = (
        Brian2Target().run(spiking, inputs, record=True, seed=seed) for seed in (2, 2, 3)
    )
    _, _, counts = simulate(spiking, inputs, seed=2)
    # Between seeds the count varies by 0.4 %: chance moves the states, and these move the rates.
    assert run.events["layer0/memory"].sum() == pytest.approx(counts.sum(), rel=0.02)
    np.testing.assert_array_equal(run.states.m, again.states.m)
    assert not np.array_equal(run.states.m, other.states.m)
    reference = run_reference(network, inputs, record=True)
    assert np.linalg.norm(run.states.m - reference.m) < 0.25 * np.linalg.norm(reference.m)


def test_memory_follows_the_reference(case, run):
    network, inputs, _ = case
    reference = run_reference(network, inputs, record=True)
    error = np.linalg.norm(run.states.m - reference.m) / np.linalg.norm(reference.m)
    assert error < 0.06


def test_host_computes_hidden_units_and_readout_from_the_decoded_memory(case, run):
    network, inputs, _ = case
    hidden = network.layers[0].hidden
    h = np.tanh(run.states.m @ hidden.memory_kernel + inputs @ hidden.input_kernel + hidden.bias)
    y = h @ network.readout.kernel + network.readout.bias
    np.testing.assert_allclose(run.states.h, h, atol=1e-12)
    np.testing.assert_allclose(run.states.y, y, atol=1e-12)
    np.testing.assert_allclose(run.outputs, y[:, -1], atol=1e-12)


def test_run_says_what_was_done(case, run):
    spiking = case[2]
    assert isinstance(get_target("brian2"), Target)
    assert run.neurons == {"layer0/memory": 400}
    assert (run.steps, run.chip_steps, run.seed) == (STEPS, 50 * STEPS, 4)
    assert run.events["layer0/memory"].shape == (40, STEPS)
    assert run.rasters["layer0/memory"].shape == (400, 400)
    counts, events = run.counts["layer0/memory"], run.events["layer0/memory"]
    assert counts.shape == (16, STEPS, 400)
    np.testing.assert_array_equal(counts.sum(axis=2), events[:16])
    raster = run.rasters["layer0/memory"].reshape(STEPS, -1, 400)
    np.testing.assert_array_equal(counts[0], raster.sum(axis=1))
    assert run.synops == 4 * 50 * run.events["layer0/memory"].sum()
    assert run.saturations == {"layer0/memory/state": 0}
    assert any("host" in note for note in run.notes)
    settings = run.settings
    assert (settings["mismatch"], settings["calibration"]) == (0.1, "dynamic")
    assert (settings["tau_ms"], settings["presentation_ms"], settings["dt_ms"]) == (
        100.0,
        50.0,
        1.0,
    )
    assert settings["neurons_per_state"] == 50
    assert settings["chip_seed"] == spiking.device.seed
    json.dumps(settings)


def test_states_beyond_what_calibration_covers_are_counted(case):
    """Ranges are 99.9 % of what calibration saw: three times that is half of it beyond 1.5."""
    _, inputs, spiking = case
    run = Brian2Target().run(spiking, 3.0 * inputs, record=True, seed=4)
    scales = spiking.memories[0].scales.reshape(-1)
    beyond = np.count_nonzero(np.abs(run.states.m) > 1.5 * scales)
    assert beyond > 0
    assert run.saturations == {"layer0/memory/state": beyond}


def test_seed_repeats_a_run_and_batches_do_not_matter(case, run, monkeypatch):
    _, inputs, spiking = case
    monkeypatch.setattr(target, "_MOST_SAMPLES", 16)
    shown = []
    again = Brian2Target().run(
        spiking, inputs, record=True, seed=4, progress=lambda *both: shown.append(both)
    )
    np.testing.assert_array_equal(again.states.m, run.states.m)
    np.testing.assert_array_equal(again.events["layer0/memory"], run.events["layer0/memory"])
    assert again.synops == run.synops
    assert shown == sorted(shown) and shown[-1] == (40, 40)
    other = Brian2Target().run(spiking, inputs, seed=5)
    assert not np.array_equal(other.outputs, run.outputs)
    assert other.states is None


def test_without_a_compiler_the_same_spikes_come_from_numpy(case, run):
    _, inputs, spiking = case
    b2 = library.brian2_library()
    kept = b2.prefs.codegen.target
    b2.prefs.codegen.target = "numpy"
    try:
        slow = Brian2Target().run(spiking, inputs, seed=4)
    finally:
        b2.prefs.codegen.target = kept
    assert slow.settings["codegen"] == "numpy"
    assert run.settings["codegen"] in ("cython", "numpy")
    np.testing.assert_array_equal(slow.events["layer0/memory"], run.events["layer0/memory"])


def test_interruption_ends_the_run(case):
    def interrupt(done, total):
        signal.raise_signal(signal.SIGINT)

    # A shell starts background jobs with the signal ignored, and Python then leaves it so.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            Brian2Target().run(case[2], case[1], progress=interrupt)
    finally:
        signal.signal(signal.SIGINT, before)


def test_noise_repeats_by_seed_leaves_numpys_generator_alone(case):
    _, inputs, spiking = case
    noisy = dataclasses.replace(
        spiking, device=dataclasses.replace(spiking.device, membrane_noise=0.2)
    )
    np.random.seed(3)  # noqa: NPY002 - the global generator is what is tested
    expected = np.random.random(3)  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    first, again, other = (
        Brian2Target().run(noisy, inputs[:10], record=True, seed=seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(np.random.random(3), expected)  # noqa: NPY002
    np.testing.assert_array_equal(first.states.m, again.states.m)
    assert not np.array_equal(first.states.m, other.states.m)
    plain = Brian2Target().run(spiking, inputs[:10], record=True, seed=1)
    assert not np.array_equal(plain.states.m, first.states.m)


def test_noise_makes_silent_neurons_fire_as_often_as_simulated(case):
    """Currents of 0.8 thresholds, no input and no weights: every spike is the noise's."""
    _, inputs, spiking = case
    (memory,) = spiking.memories
    shape = memory.populations.gains.shape
    populations = Populations(
        memory.populations.encoders, np.ones(shape), np.full(shape, 0.8), *np.ones((2, *shape))
    )
    silent = dataclasses.replace(
        memory, populations=populations, weights=np.zeros_like(memory.weights)
    )
    device = dataclasses.replace(spiking.device, membrane_noise=0.15)
    noisy = dataclasses.replace(spiking, memories=(silent,), device=device)
    run = Brian2Target().run(noisy, np.zeros_like(inputs[:10]))
    seen = run.events["layer0/memory"][:, 2:].sum() / (10 * 300 * 400)
    neurons = NEURONS[spiking.neuron.kind](
        populations, spiking.neuron, device, 1.0, 10, np.random.default_rng(0), np.float64
    )
    counts = [neurons.step(np.zeros((10, 8))).sum() for _ in range(400)][100:]
    assert seen == pytest.approx(np.sum(counts) / (10 * 300 * 400), rel=0.03)
    assert 0.002 < seen < 0.05
    quiet = Brian2Target().run(dataclasses.replace(noisy, device=spiking.device), inputs[:1] * 0.0)
    assert quiet.events["layer0/memory"].sum() == 0


def test_feedback_goes_through_the_host_once_per_presentation():
    rng = np.random.default_rng(2)
    network = make_network(rng, feedback=True, return_sequences=True)
    inputs = rng.uniform(0, 1, (120, STEPS, 3))
    spiking = spike(network, inputs[20:], neurons_per_state=60)
    run = Brian2Target().run(spiking, inputs[:20], record=True)
    reference = run_reference(network, inputs[:20], record=True)
    assert run.outputs.shape == (20, STEPS, 2)
    assert np.linalg.norm(run.states.m - reference.m) < 0.08 * np.linalg.norm(reference.m)
    without = dataclasses.replace(network.layers[0], hidden_encoders=None, memory_encoders=None)
    other = run_reference(dataclasses.replace(network, layers=(without,)), inputs[:20], record=True)
    assert np.linalg.norm(other.m - reference.m) > 0.16 * np.linalg.norm(reference.m)
    assert any("Feedback" in note for note in run.notes)


def test_several_layers_and_lstm_layers_run_in_turn():
    rng = np.random.default_rng(3)
    first = make_network(rng).layers[0]
    lstm = LSTMLayer(*(0.5 * rng.normal(size=s) for s in ((5, 12), (3, 12), (12,))))
    bare = LMULayer(rng.normal(size=(3, 1)), None, None, None, Memory.legendre(2, 6.0), None)
    network = LMUNetwork((first, lstm, bare), Readout(rng.normal(size=(2, 1)), None))
    inputs = rng.uniform(0, 1, (120, STEPS, 3))
    spiking = spike(network, inputs[20:], neurons_per_state=60)
    run = Brian2Target().run(spiking, inputs[:20], record=True)
    reference = run_reference(network, inputs[:20], record=True)
    assert run.neurons == {"layer0/memory": 480, "layer2/memory": 120}
    assert run.states.m.shape == reference.m.shape and run.states.h.shape == reference.h.shape
    assert np.linalg.norm(run.states.m - reference.m) < 0.08 * np.linalg.norm(reference.m)
    assert any("LSTM" in note for note in run.notes)


def test_wrong_input_is_refused(case):
    network, inputs, spiking = case
    with pytest.raises(InputError, match="spike"):
        Brian2Target().run(network, inputs)
    with pytest.raises(InputError, match="shape"):
        Brian2Target().run(spiking, inputs[..., :2])
    with pytest.raises(InputError, match="NaN"):
        Brian2Target().run(spiking, np.full_like(inputs, np.nan))


def test_importing_brian2_leaves_the_process_and_its_files_as_they_were(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, signal, sys, warnings\n"
        "def now():\n"
        "    return sys.excepthook, warnings.showwarning, signal.getsignal(signal.SIGINT)\n"
        "before = now()\n"
        "from targets.brian2.library import brian2_library\n"
        "brian2_library()\n"
        "assert now() == before\n"
        "print(sorted(os.listdir(os.environ['TMPDIR'])))\n"
    )
    folder = tmp_path / "temporary"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, script],
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
    assert not list(folder.iterdir())


@pytest.mark.parametrize("error", [ImportError("No module named 'brian2'"), AttributeError("ptp")])
def test_missing_or_broken_brian2_is_named_with_the_remedy(monkeypatch, error):
    real = builtins.__import__

    def no_brian2(name, *rest):
        if name == "brian2":
            raise error
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", no_brian2)
    with pytest.raises(MissingDependencyError, match=r"pip install .*lmu-deploy\[brian2\]"):
        library.brian2_library.__wrapped__()


def test_brian2_can_be_imported_outside_the_main_thread():
    """A worker of a sweep does so; Brian2 sets the handler of a signal, which is refused there."""
    script = (
        "import signal, threading\n"
        "from targets.brian2.library import brian2_library\n"
        "before, found = signal.getsignal(signal.SIGINT), []\n"
        "thread = threading.Thread(target=lambda: found.append(brian2_library().__name__))\n"
        "thread.start(), thread.join()\n"
        "assert signal.getsignal(signal.SIGINT) is before\n"
        "assert signal.signal is not None and signal.signal(signal.SIGINT, before) is before\n"
        "print(found)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.stdout.strip() == "['brian2']", run.stderr


class Ring:
    """An object that only the garbage collector removes."""

    def __init__(self):
        self.itself = self


def test_a_run_collects_its_own_garbage_and_no_other(case):
    from brian2 import NeuronGroup

    def groups():
        return sum(type(each) is NeuronGroup for each in gc.get_objects())

    _, inputs, spiking = case
    Brian2Target().run(spiking, inputs[:2, :1])
    gc.collect()
    gc.disable()  # what is collected from here on was asked for
    try:
        before, left = groups(), weakref.ref(Ring())
        Brian2Target().run(spiking, inputs[:2, :1])
        assert groups() == before
        assert gc.get_freeze_count() == 0
        assert left() is not None
        gc.collect()
        assert left() is None
    finally:
        gc.enable()
