"""Statistical replay of graphs of neurons: healthy ones, and one fault at a time by index."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from planted import planted_chips

from converters.spiking import spike
from lmu_deploy.core.graph.linear import Dense
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.pointwise import Activation, Concat
from lmu_deploy.core.graph.recurrent import LSTM
from lmu_deploy.core.network import Memory
from lmu_deploy.core.spiking.graph import SpikingGraph
from lmu_deploy.fidelity.gate import _check_equal, judged
from lmu_deploy.fidelity.judge import judge
from lmu_deploy.fidelity.replay.chip_replay import ChipFindings, replay_graph
from lmu_deploy.fidelity.specification import examine
from lmu_deploy.fidelity.store import Parts
from lmu_deploy.fidelity.streaming import run_streamed
from lmu_deploy.report import wording
from lmu_deploy.tasks.base import Task
from targets.base import Run, get_target
from targets.spiking.forced import Forced, move

INPUTS = np.cumsum(np.random.default_rng(1).normal(size=(60, 8, 3)), axis=1).clip(-2, 2) / 2
TEST = INPUTS[40:48]
LONG = np.cumsum(np.random.default_rng(3).normal(size=(8, 24, 3)), axis=1).clip(-2, 2) / 2
CHIP = {
    "units": "chip",
    "neurons_per_state": 16,
    "neurons_per_unit": 16,
    "presentation_ms": 20.0,
    "tau_ms": 30.0,
    "mismatch": 0.2,
    "membrane_noise": 0.05,
}


def two_blocks(activation: str = "relu", lstm: bool = False) -> Network:
    """Return two memories with units behind each, and if wanted an LSTM on the host between."""
    rng = np.random.default_rng(7)

    def weights(*shape: int) -> np.ndarray:
        return rng.uniform(-1.0, 1.0, shape) / np.sqrt(shape[0])

    def memory(n_in: int) -> LinearMemory:
        return LinearMemory(Memory.legendre(3, 6.0, 2), 2.0 * weights(n_in, 2), None, None)

    host = [
        Node("lstm", LSTM(weights(5, 12), weights(3, 12), weights(12)), ("u1",)),
        Node("both", Concat(), ("lstm", "u1")),
    ]
    nodes = [
        Node("m1", memory(3), (INPUT,)),
        Node("d1", Dense(2.0 * weights(6, 5), weights(5)), ("m1",)),
        Node("u1", Activation(activation), ("d1",)),
        *(host if lstm else []),
        Node("m2", memory(8 if lstm else 5), ("both" if lstm else "u1",)),
        Node("d2", Dense(2.0 * weights(6, 4), weights(4)), ("m2",)),
        Node("u2", Activation(activation), ("d2",)),
        Node("out", Dense(weights(4, 3), weights(3)), ("u2",)),
    ]
    return Network(tuple(nodes), (3,), "out")


def made(network: Network, **options: object) -> SpikingGraph:
    found = spike(network, INPUTS[:40], **{**CHIP, "chip_seed": 3, **options})  # type: ignore[arg-type]
    assert isinstance(found, SpikingGraph)
    return found


@pytest.fixture(scope="module")
def graph() -> SpikingGraph:
    """Return a calibrated graph with mismatch and noise."""
    return made(two_blocks("tanh"))


def run_of(
    graph: SpikingGraph, target: str = "spiking", seed: int = 9, inputs: np.ndarray = TEST
) -> Run:
    return get_target(target).run(graph, inputs, record=True, seed=seed)


def replayed(
    graph: SpikingGraph, run: Run, spikes: bool = True, inputs: np.ndarray = TEST
) -> ChipFindings:
    assert run.states is not None
    given = (run.rasters, 0, run.counts) if spikes else ()
    found = replay_graph(graph, inputs, run.states.parts, *given)
    assert found is not None
    return found


def faulty(graph: SpikingGraph, kind: str, seed: int, spikes: bool) -> tuple[ChipFindings, list]:
    """Plant a fault in a run, and replay its recording against the healthy graph."""
    planted = planted_chips.GRAPH_KINDS[kind](graph, np.random.default_rng(seed))
    parts, of = planted_chips.record_graph(planted, TEST, 9)
    given = (of.rasters, 0, of.counts) if spikes else ()
    found = replay_graph(graph, TEST, parts, *given)
    assert found is not None
    return found, planted.places


FROM_SPIKES_ALONE = {
    "population of units: ten times the noise",
    "population of units: currents 30 % lower",
    "neuron of a memory: dead",
    "neuron of a memory: stuck",
    "neuron of units: dead",
    "neuron of units: stuck",
}
"""Faults that the states of eight samples do not show, or not with their index."""


@pytest.mark.parametrize(
    ("kind", "spikes"),
    [(kind, True) for kind in planted_chips.GRAPH_KINDS]
    + [(kind, False) for kind in planted_chips.GRAPH_KINDS if kind not in FROM_SPIKES_ALONE],
)
def test_a_fault_is_named_by_its_index(graph: SpikingGraph, kind: str, spikes: bool) -> None:
    found, places = faulty(graph, kind, 2, spikes)
    assert found.largest > 1.0 and found.beyond
    assert planted_chips.named(places, found.faults)
    assert all(fault.words.endswith(".") for fault in found.faults)


@pytest.mark.parametrize(
    ("kind", "spikes", "words"),
    [
        ("population of a memory: dead", True, "is dead: none of its neurons spikes"),
        ("population of a memory: dead", False, "does not contribute: it is dead"),
        ("population of units: dead", True, "is dead: none of its neurons spikes"),
        ("population of units: dead", False, "does not contribute: it is dead"),
        ("population of units: stuck", True, "fire whatever their drive is"),
        ("neuron of units: stuck", True, "times, as often as it can"),
        ("neuron of a memory: dead", True, "never spikes"),
        ("row of a connection: wrong sign", True, "has the wrong sign"),
        ("row of a connection: wrong sign", False, "has the wrong sign"),
        ("column of a connection: missing", True, "is missing"),
        ("rows of a connection exchanged", True, "are exchanged"),
        ("rows of a connection exchanged", False, "are exchanged"),
        ("weight of the input: missing", True, "The weight from value"),
        ("drives read exchanged", True, "The recorded"),
        ("drives read exchanged", False, "are exchanged"),
        ("drive read stuck", False, "is recorded as constant"),
        ("another chip", True, "the recording may be of another chip"),
        ("another chip", False, "the recording may be of another chip"),
    ],
)
def test_what_the_fault_is(graph: SpikingGraph, kind: str, spikes: bool, words: str) -> None:
    found, _ = faulty(graph, kind, 2, spikes)
    assert any(words in fault.words for fault in found.faults[:3])


def test_a_dead_population_is_told_from_a_column_of_one_connection(graph: SpikingGraph) -> None:
    """Population 2 of m1 drives m1 and u1; a missing column keeps it from u1 alone."""
    u1 = graph["u1"]
    weights = u1.connections[0].weights.copy()
    weights[:, :, 32:48] = 0.0
    column = replace(u1, connections=(replace(u1.connections[0], weights=weights),))
    neurons = graph["m1"].populations
    faults = np.zeros(neurons.encoders.shape)
    faults[2] = -1.0
    dead = replace(graph["m1"], populations=replace(neurons, faults=faults))
    words = [
        replayed(graph, run_of(planted_chips.with_part(graph, part)), spikes=False).faults[0].words
        for part in (column, dead)
    ]
    assert words[0] == "What population 2 of m1 sends to u1 is missing."
    assert words[1].startswith("Population 2 of m1 does not contribute")


def test_a_chip_with_another_seed_is_another_chip(graph: SpikingGraph) -> None:
    """Its own calibration makes states right that the spikes show to be of other neurons."""
    run = run_of(made(two_blocks("tanh"), chip_seed=4))
    found = replayed(graph, run)
    assert found.faults[0].words == (
        "The synapses of 5 of 5 ensembles do not follow the file: the recording may be of another "
        "chip, or of another calibration."
    )
    assert replayed(graph, run, spikes=False).largest > 1.0


@pytest.mark.parametrize(
    ("network", "target", "options"),
    [
        (two_blocks(), "brian2", {}),
        (two_blocks("tanh"), "spiking", {"neuron": "dpi", "chip_seed": 5}),
        (two_blocks(lstm=True), "brian2", {"membrane_noise": 0.0, "weight_bits": 6}),
        (two_blocks(lstm=True), "spiking", {"chip_seed": 6, "calibration": "none"}),
        (two_blocks("tanh"), "spiking", {"mismatch": 0.0, "calibration": "static"}),
    ],
)
def test_a_healthy_graph_has_no_statement(
    network: Network, target: str, options: dict[str, object]
) -> None:
    chip = made(network, **options)
    run = run_of(chip, target, 0)
    for spikes in (True, False):
        found = replayed(chip, run, spikes)
        assert found.largest < 1.0 and not found.beyond and not found.faults
        assert found.samples == 8 and found.steps == 8


def test_a_long_recording_of_a_healthy_graph_has_no_statement() -> None:
    """What residuals share with the drives from which they are predicted adds up over 40 steps."""
    inputs = np.cumsum(np.random.default_rng(3).normal(size=(8, 40, 3)), axis=1).clip(-2, 2) / 2
    chip = made(two_blocks(), calibration="none", membrane_noise=0.0)
    run = get_target("spiking").run(chip, inputs, record=True, seed=1)
    assert run.states is not None
    for given in ((), (run.rasters, 0, run.counts)):
        found = replay_graph(chip, inputs, run.states.parts, *given)
        assert found is not None and found.largest < 1.0 and found.steps == 40


@pytest.fixture(scope="module")
def quiet() -> SpikingGraph:
    """Return a calibrated graph of little noise."""
    return made(two_blocks(), neurons_per_state=24, neurons_per_unit=24, membrane_noise=0.02)


def seen_in_counts_alone(graph: SpikingGraph, bad: SpikingGraph) -> list[str]:
    """Return the statements on a fault that states and the spikes of a sample do not show."""
    run = run_of(bad, inputs=LONG)
    assert run.states is not None
    without = replay_graph(graph, LONG, run.states.parts, run.rasters)
    assert without is not None and without.largest < 1.0
    return [fault.words for fault in replayed(graph, run, inputs=LONG).faults]


@pytest.mark.parametrize(("name", "j"), [("m1", 2), ("u1", 2), ("m2", 2), ("u2", 1)])
def test_counts_of_all_samples_show_ten_times_a_small_noise(
    quiet: SpikingGraph, name: str, j: int
) -> None:
    neurons = quiet[name].populations
    factors = np.ones(neurons.encoders.shape)
    factors[j] = 10.0
    noisy = replace(quiet[name], populations=replace(neurons, noise_factors=factors))
    words = seen_in_counts_alone(quiet, planted_chips.with_part(quiet, noisy))
    assert words == [
        f"Population {j} of {name} does not fire as specified: noise, or other curves."
    ]


@pytest.mark.parametrize("name", ["u1", "m2"])
def test_counts_of_all_samples_show_a_dead_neuron_that_rarely_spikes(
    quiet: SpikingGraph, name: str
) -> None:
    counts = run_of(quiet, inputs=LONG).counts[name].sum(axis=1).reshape(8, quiet[name].size, -1)
    rare = (counts[0] == 0) & (counts.sum(axis=0) >= 12) & (counts.sum(axis=0) < 40)
    j, n = np.argwhere(rare)[0]
    faults = np.zeros(rare.shape)
    faults[j, n] = -1.0
    dead = replace(quiet[name], populations=replace(quiet[name].populations, faults=faults))
    (words,) = seen_in_counts_alone(quiet, planted_chips.with_part(quiet, dead))
    assert words.startswith(f"Neuron {n} of population {j} of {name} never spikes, and about ")
    assert words.endswith(" times are expected in 8 samples.")


@pytest.mark.parametrize("seed", range(3))
def test_counts_of_a_healthy_quiet_graph_have_no_statement(quiet: SpikingGraph, seed: int) -> None:
    found = replayed(quiet, run_of(quiet, seed=seed, inputs=LONG), inputs=LONG)
    assert found.largest < 1.0 and not found.faults and not found.blind
    neurons = sum(each.populations.encoders.size for each in quiet.ensembles)
    drives = sum(each.size for each in quiet.parts)
    assert found.values == 8 * 24 * drives + 2 * neurons


def test_too_few_spikes_to_show_more_noise_leave_the_verdict_undecided() -> None:
    """Of few neurons that spike a few times, ten times a small noise shows in none of these."""
    chip = made(two_blocks("tanh"), neurons_per_state=12, neurons_per_unit=12, membrane_noise=0.02)
    for samples, blind in ((1, True), (2, True), (8, False)):
        inputs = TEST[:samples]
        found = replayed(chip, run_of(chip, inputs=inputs), inputs=inputs)
        assert found.largest < 1.0 and bool(found.blind) == blind
        for words in found.blind:
            assert words.startswith("The recorded spikes are too few to detect ten times the noise")
            assert words.endswith(": record more samples.")


def test_counts_are_those_of_the_raster_and_of_events(graph: SpikingGraph) -> None:
    spiking, brian2 = run_of(replace_noise(graph)), run_of(replace_noise(graph), "brian2")
    for each in graph.ensembles:
        counts = spiking.counts[each.name]
        assert counts.shape == (8, 8, each.neurons) and counts.dtype == np.uint16
        assert (counts == brian2.counts[each.name]).all()
        assert (counts.sum(axis=2) == spiking.events[each.name]).all()
        raster = spiking.rasters[each.name].reshape(8, 20, -1)
        assert (counts[0] == raster.sum(axis=1)).all()
    assert get_target("spiking").run(graph, TEST[:1]).counts == {}


def replace_noise(graph: SpikingGraph) -> SpikingGraph:
    """Return a graph without noise, which both targets run spike for spike alike."""
    return replace(graph, device=replace(graph.device, membrane_noise=0.0))


@pytest.mark.parametrize("kept", [4, 7, 24])
def test_counts_of_first_samples_are_kept_when_a_run_is_streamed(
    graph: SpikingGraph, tmp_path: Path, kept: int
) -> None:
    """In parts and from a file, as validate runs targets and keeps what is finished."""
    inputs = np.concatenate([TEST, TEST, TEST])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("targets.spiking.graph._MOST_SAMPLES", 5)
        whole = get_target("brian2").run(graph, inputs, record=True)
        found = run_streamed(get_target("brian2"), graph, inputs, kept)
    parts = Parts(tmp_path)
    for run in (found, parts.run(lambda: found), Parts(tmp_path).run(lambda: found)):
        assert run.counts.keys() == whole.counts.keys()
        for name, counts in run.counts.items():
            assert len(counts) == min(kept, 16) and len(whole.counts[name]) == 16
            assert (counts == whole.counts[name][:kept]).all()


def test_recorded_spikes_give_all_drives(graph: SpikingGraph) -> None:
    """Brian2 integrates the synapses; the replay computes them from spikes and inputs alone."""
    run, host = run_of(graph, "brian2"), {"input": TEST, "": np.ones((8, 8, 1))}
    assert run.states is not None
    names = {"m1": "m1", "u1": "u1/drive", "m2": "m2", "u2": "u2/drive", "out": "out/read"}
    for each in graph.parts:
        recorded = run.states.parts[names[each.name]]
        forced = Forced.of_ensemble(graph, each, host, recorded, 16).open_loop()
        steps = iter(range(160))

        def fire(_: object, steps: object = steps) -> dict[str, np.ndarray]:
            step = next(steps)  # type: ignore[call-overload]
            return {
                name: run.rasters[name][step].reshape(1, graph[name].size, -1)
                for name in ("m1", "u1", "m2", "u2")
            }

        (moved,) = move([forced.first(8, samples=1)], 1, fire)
        assert np.abs(moved.x[0] - forced.x[0]).max() < 1e-9
        for link, sent, rows in zip(forced.links, moved.sent, moved.rows, strict=True):
            by_row = rows[0].sum(axis=1) if not link.local else rows[0].reshape(8, 2, 3, 3).sum(2)
            of_all = sent[0].sum(axis=1) if not link.local else sent[0].reshape(8, 2, 3, 3).sum(2)
            assert by_row.reshape(8, -1).sum() == pytest.approx(of_all.sum(), abs=1e-9)


def test_units_without_recorded_drives_follow_from_what_is_before_them(
    graph: SpikingGraph,
) -> None:
    """A recording of version 0.2 has the values of units, from which drives do not follow."""
    run = run_of(graph)
    assert run.states is not None
    parts = {name: x for name, x in run.states.parts.items() if "/" not in name}
    for given in ((), (run.rasters,), (run.rasters, 0, run.counts)):
        found = replay_graph(graph, TEST, parts, *given)
        assert found is not None and found.largest < 1.0
    planted = planted_chips.GRAPH_KINDS["population of a memory: dead"]
    bad = planted(graph, np.random.default_rng(4))
    recorded, _ = planted_chips.record_graph(bad, TEST, 9)
    left = {name: recorded[name] for name in parts}
    found = replay_graph(graph, TEST, left)
    assert found is not None and planted_chips.named(bad.places, found.faults)


def test_drives_are_recorded_beside_the_values_of_units(graph: SpikingGraph) -> None:
    run = run_of(graph)
    assert run.states is not None
    parts = run.states.parts
    assert {*parts} == {"m1", "u1", "u1/drive", "m2", "u2", "u2/drive", "out/read"}
    assert (parts["u1"] == np.tanh(parts["u1/drive"])).all()
    assert (parts["u1/drive"] < 0.0).any()
    assert (parts["out/read"] == run.states.y).all()


def test_the_verdict_of_a_graph_with_a_dead_population(graph: SpikingGraph) -> None:
    planted = planted_chips.GRAPH_KINDS["population of units: dead"]
    bad = planted(graph, np.random.default_rng(4))
    ((place, index),) = bad.places
    task = Task("signals", "regression", 3, 3, 8, load=lambda: None, every_step=True)
    for ran, equal in ((graph, True), (bad.network, False)):
        run = run_of(ran)
        found = judge(run, None, task, run.outputs, network=graph, inputs=TEST)
        assert found.specification is not None and found.specification.equal is equal
        assert _check_equal("spiking", found.specification).passed is equal
        words = wording.specification(found.specification)
        if equal:
            assert "no state or spike count deviates" in words[0]
            assert judged(found)[1].startswith("follows the specification")
            continue
        assert judged(found)[0] == "worse"
        assert judged(found)[1].startswith("differs from the specification")
        assert f"Population {index} of {place} is dead" in words[1]


def test_graphs_that_their_file_does_not_determine(graph: SpikingGraph) -> None:
    run = run_of(graph)
    board = replace(graph, device=replace(graph.device, board="lab"))
    assert examine(run, board, TEST) is None
    assert examine(replace(run, states=None), graph, TEST) is None
    assert replay_graph(graph, TEST, {}) is None
