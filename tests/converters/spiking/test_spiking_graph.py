"""Whole float graphs on neurons: the ensembles they become, and what calibration does to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path

import numpy as np
import pytest

import lmu_deploy as ld
from converters.spiking import spike, spike_again
from converters.spiking.calibration import independent_products
from converters.spiking.closed_loop import divide_step
from converters.spiking.device import Block, RecordedDevice, SessionRecorder
from converters.spiking.graph.plan import Drive, Plan, plan_graph
from converters.spiking.neurons import VirtualDevice
from converters.spiking.recipe import keep_calibration, load_calibration
from lmu_deploy.api.check import placement, remarks
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import save
from lmu_deploy.core.graph.executor import record_states, run
from lmu_deploy.core.graph.linear import Affine, Conv1d, Dense
from lmu_deploy.core.graph.lmu import LMU
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.pointwise import Activation, Add, Concat
from lmu_deploy.core.graph.recurrent import LSTM, SimpleRNN
from lmu_deploy.core.graph.time import Reduce
from lmu_deploy.core.legendre import discretize
from lmu_deploy.core.loading import load
from lmu_deploy.core.network import Memory
from lmu_deploy.core.spiking.chip import Device, Populations
from lmu_deploy.core.spiking.ensembles import ONE
from lmu_deploy.core.spiking.graph import InputCurrent, SpikeConnection, SpikingGraph
from lmu_deploy.core.spiking.network import SpikingNetwork
from lmu_deploy.fidelity.measures.sizes import neurobench_of
from lmu_deploy.tasks.selection import CALIBRATION_SAMPLES, limited, task_for
from targets.spiking import SpikingTarget

STEPS, N_IN = 6, 3
RNG = np.random.default_rng(5)
_STATE = RNG.bit_generator.state
SMALL = {"neurons_per_state": 16, "neurons_per_unit": 12, "calibration_samples": 80}
QUICK = {**SMALL, "presentation_ms": 20.0, "tau_ms": 30.0}


def _alone(make: Callable[..., Network]) -> Callable[..., Network]:
    """Draw the weights of a network from a generator of its own, whatever was made before."""

    @wraps(make)
    def made(*args: str) -> Network:
        RNG.bit_generator.state = _STATE
        return make(*args)

    return made


def _weights(*shape: int) -> np.ndarray:
    return RNG.uniform(-1.0, 1.0, shape) / np.sqrt(shape[0])


def _memory(n_in: int, channels: int = 2, activation: str | None = None) -> LinearMemory:
    memory = Memory(3, channels, 6.0, "zoh", *discretize(3, 6.0, "zoh"))
    bias = None if activation is None else _weights(channels)
    given = None if activation is None else Activation(activation)
    return LinearMemory(memory, 2.0 * _weights(n_in, channels), bias, given)


@_alone
def two_blocks(activation: str = "relu") -> Network:
    """Return memory, units, memory, units, and a readout of the last step."""
    return Network(
        (
            Node("m1", _memory(N_IN), (INPUT,)),
            Node("d1", Dense(2.0 * _weights(6, 5), _weights(5)), ("m1",)),
            Node("u1", Activation(activation), ("d1",)),
            Node("m2", _memory(5), ("u1",)),
            Node("d2", Dense(2.0 * _weights(6, 4), _weights(4)), ("m2",)),
            Node("u2", Activation(activation), ("d2",)),
            Node("last", Reduce("last"), ("u2",)),
            Node("out", Dense(_weights(4, 3), _weights(3)), ("last",)),
        ),
        (N_IN,),
        "out",
    )


@_alone
def residual() -> Network:
    """Return a block with a rectified encoder, a normalization, a sum, and a mean over time."""
    return Network(
        (
            Node("stem", Dense(_weights(N_IN, 4), _weights(4)), (INPUT,)),
            Node("norm", Affine(_weights(4) + 1.0, _weights(4)), ("stem",)),
            Node("memory", _memory(4, activation="relu"), ("norm",)),
            Node("units", Dense(_weights(6, 5), _weights(5)), ("memory",)),
            Node("tanh", Activation("tanh"), ("units",)),
            Node("mix", Dense(_weights(5, 4), _weights(4)), ("tanh",)),
            Node("sum", Add(), ("stem", "mix")),
            Node("both", Concat(), ("sum", "memory")),
            Node("mean", Reduce("mean"), ("both",)),
            Node("out", Dense(_weights(10, 2), _weights(2)), ("mean",)),
        ),
        (N_IN,),
        "out",
    )


@_alone
def with_lstm() -> Network:
    """Return two memories with an LSTM between them, past which a branch goes."""
    lstm = LSTM(_weights(4, 12), _weights(3, 12), _weights(12))
    return Network(
        (
            Node("m1", _memory(N_IN), (INPUT,)),
            Node("d1", Dense(_weights(6, 4), _weights(4)), ("m1",)),
            Node("u1", Activation("sigmoid"), ("d1",)),
            Node("lstm", lstm, ("u1",)),
            Node("both", Concat(), ("lstm", "u1")),
            Node("m2", _memory(7), ("both",)),
            Node("out", Dense(_weights(6, 2), _weights(2)), ("m2",)),
        ),
        (N_IN,),
        "out",
    )


@_alone
def lmus() -> Network:
    """Return a convolution, an LMU of dense units, and one of recurrent units."""
    first, second = _memory(4), _memory(5)
    dense = SimpleRNN(_weights(10, 5), None, _weights(5), Activation("tanh"))
    recurrent = SimpleRNN(_weights(6, 3), _weights(3, 3), _weights(3), Activation("tanh"))
    return Network(
        (
            Node("conv", Conv1d(_weights(2, N_IN, 4), left=1), (INPUT,)),
            Node("a", LMU(first.memory, first.encoders, dense, True), ("conv",)),
            Node("b", LMU(second.memory, second.encoders, recurrent, False), ("a",)),
            Node("out", Dense(_weights(3, 2)), ("b",)),
        ),
        (N_IN,),
        "out",
    )


def _evaluate(plan: Plan, inputs: np.ndarray) -> np.ndarray:
    """Compute what a plan says, with ideal ensembles, independently of the executor."""
    ideal: dict[str, np.ndarray] = {}
    host: dict[str, np.ndarray] = {INPUT: inputs, ONE: np.ones((*inputs.shape[:2], 1))}

    def of(drive: Drive) -> np.ndarray:
        terms = [ideal[n] @ k for n, k in drive.spikes.items()]
        return np.asarray(sum(terms + [host[n] @ k for n, k in drive.host.items()]))

    for node in plan.host.nodes:
        for spot in (each for each in plan.spots if each.node is node):
            value = of(spot.drive) + np.zeros((*inputs.shape[:2], 1))
            if spot.probe:
                host[node.name] = value
            elif spot.memory is None:
                ideal[node.name] = node.operator.forward(value)
            else:
                plain = replace(spot.memory, encoders=np.eye(value.shape[2]), bias=None)
                ideal[node.name] = plain.forward(value)
        if node.name not in host and all(name in host for name in node.inputs):
            host[node.name] = node.operator.forward(*(host[name] for name in node.inputs))
    return host[plan.host.output]


GRAPHS = {
    "two blocks": (two_blocks(), ["m1", "u1", "m2", "u2"], ["out"], []),
    "residual": (residual(), ["memory/encoder", "memory", "tanh"], ["out"], []),
    "lstm": (with_lstm(), ["m1", "u1", "m2"], ["u1", "out"], ["lstm"]),
    "lmus": (lmus(), ["a/memory", "a/hidden", "b/memory"], ["b/memory"], ["b/hidden"]),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_plan_computes_what_the_float_network_does(name: str) -> None:
    network, ensembles, probes, on_host = GRAPHS[name]
    plan = plan_graph(network)
    inputs = np.random.default_rng(0).normal(size=(4, STEPS, N_IN))
    assert [spot.node.name for spot in plan.spots if not spot.probe] == ensembles
    assert [spot.node.name for spot in plan.spots if spot.probe] == probes
    assert list(plan.reasons) == on_host
    np.testing.assert_allclose(_evaluate(plan, inputs), run(network, inputs), atol=1e-12)


def test_units_on_the_host_leave_memories_on_neurons() -> None:
    network = two_blocks()
    plan = plan_graph(network, units=False)
    assert [(s.node.name, s.probe) for s in plan.spots] == [
        ("m1", False), ("d1", True), ("m2", False), ("d2", True),
    ]  # fmt: skip
    inputs = np.random.default_rng(0).normal(size=(2, STEPS, N_IN))
    np.testing.assert_allclose(_evaluate(plan, inputs), run(network, inputs), atol=1e-12)


@pytest.fixture(scope="module")
def inputs() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(80, STEPS, N_IN)) * 0.7


@pytest.fixture(scope="module")
def network() -> Network:
    return two_blocks()


def _spike(network: Network, inputs: np.ndarray, **options: object) -> SpikingGraph:
    settings = {"units": "chip", "mismatch": 0.2, "weight_bits": 6, **SMALL, **options}
    made = spike(network, inputs, **settings)  # type: ignore[arg-type]
    assert isinstance(made, SpikingGraph)
    return made


@pytest.fixture(scope="module")
def graph(network: Network, inputs: np.ndarray) -> SpikingGraph:
    return _spike(network, inputs)


def test_currents_of_a_memory_give_the_float_states_with_an_ideal_decoder(
    graph: SpikingGraph, network: Network, inputs: np.ndarray
) -> None:
    """Step x <- a x + (1 - a)(A' x + C v) by hand; it has to end at S^-1 m of the float memory."""
    ensemble = graph["m1"]
    memory = network.memories["m1"]
    a_bar, _ = divide_step(memory, graph.steps_per_presentation)
    decay = graph.decay
    a_prime = (a_bar - decay * np.eye(3)) / (1.0 - decay)
    scales = ensemble.scales.reshape(2, 3)
    targets = a_prime * scales[:, None, :] / scales[:, :, None]
    (current,) = ensemble.currents
    x = np.zeros((len(inputs), 2, 3))
    for step in range(STEPS):
        entering = (inputs[:, step] @ current.weights.T).reshape(x.shape)
        for _ in range(graph.steps_per_presentation):
            decoded = np.einsum("cij,scj->sci", targets, x)
            x = decay * x + (1.0 - decay) * (decoded + entering)
    expected = record_states(network, inputs).memory["m1"][:, -1]
    np.testing.assert_allclose((x * scales).reshape(len(x), -1), expected, atol=1e-9)


def _error(graph: SpikingGraph, inputs: np.ndarray) -> float:
    states = SpikingTarget().run(graph, inputs, record=True).states
    assert states is not None
    expected = record_states(graph.host, inputs, nodes=["out"]).nodes["out"]
    error = states.y[:, -1] - expected[:, -1]
    return float(np.linalg.norm(error) / np.linalg.norm(expected[:, -1]))


def test_calibration_reduces_the_error_of_a_chip(
    graph: SpikingGraph, network: Network, inputs: np.ndarray
) -> None:
    fresh = np.random.default_rng(9).normal(size=(20, STEPS, N_IN)) * 0.7
    plain = _spike(network, inputs, calibration="none")
    assert np.array_equal(
        plain["m1"].populations.gain_factors, graph["m1"].populations.gain_factors
    )
    assert _error(graph, fresh) < 0.7 * _error(plain, fresh)


def test_planted_wrong_connection_is_detected(graph: SpikingGraph, inputs: np.ndarray) -> None:
    """Exchange the spikes of two units of the first block on their way into the second memory."""
    memory = graph["m2"]
    own, other = memory.connections
    neurons = SMALL["neurons_per_unit"]
    order = np.arange(other.senders).reshape(-1, neurons)[[1, 0, 2, 3, 4]].reshape(-1)
    swapped = replace(other, weights=other.weights[:, :, order])
    broken = replace(memory, connections=(own, swapped))
    ensembles = tuple(broken if each is memory else each for each in graph.ensembles)
    assert _error(replace(graph, ensembles=ensembles), inputs) > 1.3 * _error(graph, inputs)


def test_seeds_choose_the_chip(graph: SpikingGraph, network: Network, inputs: np.ndarray) -> None:
    assert _spike(network, inputs).fingerprint() == graph.fingerprint()
    assert (
        _spike(network, inputs, chip_seed=4, calibration="static").fingerprint()
        != graph.fingerprint()
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("two blocks", {"weight_bits": 5, "tau_ms": 30.0, "readout_tau_ms": 8.0, "neuron": "dpi"}),
        ("residual", {"calibration": "static", "tau_mismatch": 0.1, "maximum_rates": (60.0, 90.0)}),
        ("residual", {"units": "host", "membrane_noise": 0.05}),
        ("lstm", {"calibration": "none", "neurons_per_unit": 14, "profile": "dynapse2"}),
        ("lmus", {"threshold_noise": 0.02, "calibration_samples": 60}),
    ],
)
def test_a_graph_is_converted_again_from_its_file(
    name: str, options: dict[str, object], inputs: np.ndarray, tmp_path: Path
) -> None:
    settings = {"units": "chip", **QUICK, **options, "chip_seed": 8}
    made = spike(GRAPHS[name][0], inputs, **settings, seed=3)  # type: ignore[arg-type]
    made.save(tmp_path / "graph.safetensors")
    graph = load(tmp_path / "graph.safetensors")
    assert isinstance(graph, SpikingGraph)
    samples = graph.calibration.samples
    again = spike_again(graph, inputs, seed=3, chip_seed=8, calibration_samples=samples)
    assert again.fingerprint() == graph.fingerprint()
    other = spike_again(graph, inputs, seed=4, chip_seed=9, calibration_samples=samples)
    settings["chip_seed"] = 9
    expected = spike(GRAPHS[name][0], inputs, **settings, seed=4)  # type: ignore[arg-type]
    assert other.fingerprint() == expected.fingerprint() != graph.fingerprint()


def test_saved_and_loaded(graph: SpikingGraph, tmp_path: Path) -> None:
    path = graph.save(tmp_path / "graph.safetensors")
    found = load(path)
    assert isinstance(found, SpikingGraph)
    assert found.fingerprint() == graph.fingerprint()
    assert str(found) == str(graph) and "u1" in str(graph) and "synapses on the chip" in str(graph)
    assert len(repr(graph)) <= 100


LAB = Device("generic-analog", 0, 0.5, 0.02, 6)
OF_LAB = {"membrane_noise": 0.02, "mismatch": 0.5}


def _in_lab(graph: SpikingGraph, chip_seed: int = 7) -> SpikingGraph:
    """Return a graph on a chip whose mismatch only the chip knows, so that it can be simulated."""
    lab = VirtualDevice(LAB, chip_seed)
    ensembles = []
    for each in graph.ensembles:
        block = Block(each.name, each.populations, graph.neuron, graph.dt_ms)  # type: ignore[arg-type]
        ensembles.append(replace(each, populations=lab.populations(block)))
    return replace(graph, ensembles=tuple(ensembles), device=replace(graph.device, board=""))


@pytest.fixture(scope="module")
def session(
    network: Network, inputs: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, SpikingGraph]:
    """Record what the calibration of a graph drives on a chip in a laboratory."""
    recorder = SessionRecorder(VirtualDevice(LAB, 7))
    made = _spike(network, inputs, device=recorder, **OF_LAB)
    path = tmp_path_factory.mktemp("lab") / "session.npz"
    recorder.save(path)
    assert [run.place for run in recorder.runs] == [
        *("m1", "m1", "m1"), *("u1", "u1"), *("m2", "m2", "m2"), *("u2", "u2"),
    ]  # fmt: skip
    return path, made


def test_devices_that_close_loops_and_devices_that_play_drives_are_calibrated(
    network: Network, inputs: np.ndarray, session: tuple[Path, SpikingGraph]
) -> None:
    fresh = np.random.default_rng(9).normal(size=(40, STEPS, N_IN)) * 0.7
    live = _spike(network, inputs, device=VirtualDevice(LAB, 7), **OF_LAB)
    none = _spike(network, inputs, calibration="none", **{**OF_LAB, "mismatch": 0.0})
    assert all(np.all(each.populations.gain_factors == 1.0) for each in live.ensembles)  # type: ignore[union-attr]
    uncalibrated = _error(_in_lab(none), fresh)
    for graph in (live, session[1]):
        assert _error(_in_lab(graph), fresh) < 0.5 * uncalibrated
        assert _error(_in_lab(graph), fresh) < 0.5 * _error(_in_lab(graph, 8), fresh)


def test_a_graph_is_calibrated_from_a_session_file_alone(
    network: Network, inputs: np.ndarray, session: tuple[Path, SpikingGraph]
) -> None:
    path, made = session
    found = _spike(network, inputs, device=path, **OF_LAB)
    assert found.device.board == "session.npz"
    assert replace(found, device=made.device).fingerprint() == made.fingerprint()
    with pytest.raises(InputError, match=r"calibrated for device session\.npz.*run it on that"):
        SpikingTarget().run(found, inputs)
    with pytest.raises(InputError, match=r"session\.npz has gains that differ by"):
        _spike(network, inputs, device=path, seed=1, **OF_LAB)
    with pytest.raises(InputError, match=r"run 3 .* populations and neurons \(5, 12\), and"):
        _spike(network, inputs, device=path, neurons_per_unit=13, **OF_LAB)


def test_a_session_continues_where_the_recording_ends(
    network: Network, inputs: np.ndarray, tmp_path: Path
) -> None:
    """A laboratory plays the runs of one ensemble after the other, as their drives become known."""
    labels = np.arange(len(inputs)) % 3
    data = ld.Dataset(inputs, labels, inputs[:6], labels[:6])
    options = {"units": "chip", **QUICK, **OF_LAB}
    path, places = tmp_path / "session.npz", ["m1", "u1", "m2", "u2"]
    made = ld.spike(network, data, record_session=path, **options)  # type: ignore[arg-type]
    for number, place in enumerate(places):
        recorder = SessionRecorder(VirtualDevice(LAB, 7))
        for run_ in RecordedDevice.load(path).runs:
            if run_.place == place:
                signs, ones = np.sign(run_.gains), np.ones(run_.gains.shape)
                programmed = (signs, np.abs(run_.gains), run_.biases, ones, ones)
                block = Block(place, Populations(*programmed), made.neuron, 1.0)  # type: ignore[union-attr]
                recorder.run(block, run_.drive, [number])
            elif run_.place in places[:number]:
                recorder.runs.append(run_)
        recorder.save(path)
        if place != places[-1]:
            ld.spike(network, data, device=path, record_session=path, **options)  # type: ignore[arg-type]
    found = ld.spike(network, data, device=path, **options)  # type: ignore[arg-type]
    assert isinstance(found, SpikingGraph)
    fresh = np.random.default_rng(9).normal(size=(40, STEPS, N_IN)) * 0.7
    known = task_for(network, data).load().train.filled
    direct = spike(network, known, device=VirtualDevice(LAB, 7), **options)  # type: ignore[arg-type]
    assert _error(_in_lab(found), fresh) < 1.2 * _error(_in_lab(direct), fresh)  # type: ignore[arg-type]
    assert _error(_in_lab(found), fresh) < 0.5 * _error(_in_lab(found, 8), fresh)


def test_a_chip_of_few_synapses_gets_the_sparsest_decoders_within_its_limit(
    graph: SpikingGraph, inputs: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    fresh = np.random.default_rng(9).normal(size=(20, STEPS, N_IN)) * 0.7
    most = {each.name: int(each.fan_in.max()) for each in graph.ensembles}
    assert max(most.values()) > 64
    network = two_blocks()
    with caplog.at_level("INFO"):
        few = spike(network, inputs, "dynapse2", units="chip", neuron="lif", **QUICK)  # type: ignore[arg-type]
    assert isinstance(few, SpikingGraph) and ld.check(few) == []
    reached = {each.name: int(each.fan_in.max()) for each in few.ensembles}
    assert set(reached.values()) <= set(range(65)) and reached["u1"] == reached["u2"] == 64
    assert any("u2: a neuron has synapses from 64 of 156" in text for text in caplog.messages)
    too_many = replace(graph, device=replace(graph.device, profile="dynapse2"))
    assert any("synapses of a neuron of u1" in problem for problem in map(str, ld.check(too_many)))
    fitted = _spike(network, inputs, fan_in=24, **QUICK)
    assert max(int(each.fan_in.max()) for each in fitted.ensembles) == 24
    unit = fitted["u2"]
    moved = [replace(each, weights=np.roll(each.weights, 1, axis=2)) for each in unit.connections]
    wrong = replace(unit, connections=tuple(moved))  # each weight at the neuron beside
    broken = tuple(wrong if each is unit else each for each in fitted.ensembles)
    assert _error(fitted, fresh) < 0.7 * _error(replace(fitted, ensembles=broken), fresh)


@pytest.mark.parametrize("calibration", ["static", "none"])
def test_few_synapses_without_a_dynamic_calibration(
    network: Network, inputs: np.ndarray, calibration: str
) -> None:
    found = _spike(network, inputs, fan_in=20, calibration=calibration, **QUICK)
    assert max(int(each.fan_in.max()) for each in found.ensembles) == 20


def test_products_of_independent_drives_equal_those_of_drawn_ones() -> None:
    rng = np.random.default_rng(0)
    curves = [
        (rng.random((4, 1, 3)), rng.random((4, 1))),
        (rng.random((4, 1, 2)), rng.random((4, 1))),
    ]
    kernel = rng.normal(size=(2, 5))
    found = independent_products(curves, kernel)
    levels = [each.reshape(-1) for each in np.meshgrid(range(4), range(4))]
    drawn = list(zip(levels, curves, strict=True))
    features = np.concatenate([rates[level, 0] for level, (rates, _) in drawn], axis=1)
    targets = np.concatenate([aims[level] for level, (_, aims) in drawn], axis=1) @ kernel
    np.testing.assert_allclose(found.ff, features.T @ features / 16)
    np.testing.assert_allclose(found.ft, features.T @ targets / 16)
    np.testing.assert_allclose(found.tt, np.mean(np.square(targets), axis=0))


def test_a_saved_calibration_gives_the_same_network(
    graph: SpikingGraph, network: Network, inputs: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "calibration.safetensors"
    save(keep_calibration(graph), path)
    saved = load_calibration(path)
    assert _spike(network, inputs, saved=saved).fingerprint() == graph.fingerprint()
    changes = {
        "is for chip seed 0, and 3": {"chip_seed": 3},
        "is for neurons of a hidden unit 12, and 13": {"neurons_per_unit": 13},
        "is for weight_bits 6, and 5": {"weight_bits": 5},
        "is for readout_tau_ms 15.0, and 20.0": {"readout_tau_ms": 20.0},
        "is for method dynamic, and static": {"calibration": "static"},
    }
    for message, change in changes.items():
        with pytest.raises(InputError, match=message):
            _spike(network, inputs, saved=saved, **change)
    for other in (two_blocks("tanh"), residual()):
        with pytest.raises(InputError, match="is for network"):
            _spike(other, inputs, saved=saved)


def test_yield_judges_a_graph_on_every_chip(network: Network, inputs: np.ndarray) -> None:
    labels = np.arange(len(inputs)) % 3
    data = ld.Dataset(inputs, labels, inputs[:9], labels[:9])
    options = {"units": "chip", "mismatch": 0.3, **QUICK}
    options |= {"neurons_per_state": 6, "neurons_per_unit": 5, "calibration_samples": 10}
    found = ld.chip_yield(network, data, chips=2, first_chip=7, **options)  # type: ignore[arg-type]
    assert found.chips == [7, 8] and found.samples == 9
    parts = task_for(network, data).load()
    known, test = limited(parts.train, CALIBRATION_SAMPLES).filled, limited(parts.test, None)
    answers = run(network, test.inputs).argmax(axis=1)
    assert found.reference == np.mean(answers == test.targets)
    for method, values in found.values.items():
        made = spike(network, known, calibration=method, chip_seed=8, **options)  # type: ignore[arg-type]
        done = SpikingTarget().run(made, test.inputs)
        assert values[1] == np.mean(done.outputs.argmax(axis=1) == test.targets)
        assert found.spikes[method][1] == sum(int(e.sum()) for e in done.events.values()) / 9


def test_chain_of_one_layer_has_the_memory_of_a_spiking_network(inputs: np.ndarray) -> None:
    from converters.options import SpikeOptions
    from converters.spiking.graph.build import build_graph
    from converters.spiking.recipe import draw_samples, make_recipe
    from lmu_deploy.hardware.profile import load_profile

    nodes = two_blocks().nodes[:3]
    one = Network((*nodes, Node("out", Dense(_weights(5, 2)), ("u1",))), (N_IN,), "out")
    options = SpikeOptions(units="chip", mismatch=0.2, **SMALL)
    chain = spike(one, inputs, units="chip", mismatch=0.2, **SMALL)
    assert isinstance(chain, SpikingNetwork) and chain.memories[0] is not None
    recipe = make_recipe(load_profile("generic-analog", "analog"), options)  # type: ignore[arg-type]
    samples = draw_samples(inputs, 80, recipe.parts * 6, 0)
    graph = build_graph(plan_graph(one), recipe, samples)
    assert np.array_equal(graph["m1"].connections[0].weights, chain.memories[0].weights)
    fan_in = {group.place: group.fan_in for group in chain.groups()}
    assert np.array_equal(graph["u1"].fan_in, fan_in["m1/hidden"])


def test_host_nodes_between_stages_are_reported(inputs: np.ndarray) -> None:
    graph = _spike(with_lstm(), inputs, calibration="static")
    assert graph.on_host == ("lstm",) and graph.round_trips == 1
    assert [[e.name for e in ensembles] for ensembles, _ in graph.stages] == [["m1", "u1"], ["m2"]]
    done = SpikingTarget().run(graph, inputs[:2])
    assert any("LSTM" in note or "lstm" in note for note in done.notes)
    assert any("6 times a sample" in note for note in done.notes)


def test_groups_count_every_synapse(graph: SpikingGraph) -> None:
    total = sum(int(group.fan_in.sum()) * group.copies for group in graph.groups())
    sent = sum(int(graph.fan_out(each.name).sum()) for each in graph.ensembles)
    assert total == sent


def test_refusals(graph: SpikingGraph, network: Network, inputs: np.ndarray) -> None:
    first, *others = graph.ensembles
    with pytest.raises(InputError, match="which is no ensemble"):
        unknown = SpikeConnection("missing", first.connections[0].weights, False)
        replace(graph, ensembles=(replace(first, connections=(unknown,)), *others))
    with pytest.raises(InputError, match="which is nothing that the host has then"):
        late = InputCurrent("u2", np.ones((first.size, 4)), True)
        replace(graph, ensembles=(replace(first, currents=(late,)), *others))
    with pytest.raises(InputError, match="must be equal"):
        replace(first, scales=first.scales[:-1])
    with pytest.raises(InputError, match="give --fan-in 2 or more"):
        _spike(network, inputs, fan_in=1)
    with pytest.raises(InputError, match="neurons"):
        _spike(network, inputs, neurons_per_unit=50_000)


def test_python_interface(network: Network, inputs: np.ndarray, tmp_path: Path) -> None:
    labels = np.arange(len(inputs)) % 3
    data = ld.Dataset(inputs, labels, inputs[:6], labels[:6])
    path = tmp_path / "graph.safetensors"
    options = {"units": "chip", "calibration": "static", **SMALL}
    made = ld.spike(network, data, out=path, **options)  # type: ignore[arg-type]
    assert isinstance(made, SpikingGraph)
    assert ld.check(path) == []
    assert "u2: 48 neurons, each with" in placement(path)
    assert remarks(path) == ["On the host in float: last (last step)."]
    done = ld.run(path, data, target="spiking", record=True)
    assert done.fidelity is not None and done.fidelity.fit is not None
    assert set(done.events) == {"m1", "u1", "m2", "u2"}
    assert done.reference is not None and done.reference.outputs.shape == done.outputs.shape
    sizes = neurobench_of(done, made)
    assert sizes is not None and sizes.synaptic_operations is not None
    assert sizes.synaptic_operations.effective_acs * 6 == done.synops
    cells = sum(g.copies * sum(w.size for w in g.weights) for g in made.groups())
    assert sizes.synaptic_operations.dense == cells * done.chip_steps
    kept = tmp_path / "calibration.safetensors"
    ld.spike(network, data, save_calibration=kept, **options)  # type: ignore[arg-type]
    again = ld.spike(network, data, load_calibration=kept, **options)  # type: ignore[arg-type]
    assert again.fingerprint() == made.fingerprint()


def test_a_graph_that_is_no_chain_needs_no_option(inputs: np.ndarray) -> None:
    made = spike(residual(), inputs, calibration="none", **SMALL)  # type: ignore[arg-type]
    assert isinstance(made, SpikingGraph)
    dense = Node("d", Dense(_weights(N_IN, 2)), (INPUT,))
    feedforward = Network((dense, Node("r", Activation("relu"), ("d",))), (N_IN,), "r")
    with pytest.raises(InputError, match="spiking form"):
        spike(feedforward, inputs)
