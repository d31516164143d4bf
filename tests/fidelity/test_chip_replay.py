"""Statistical replay of virtual analog chips: healthy ones, and one fault at a time by index."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planted import planted_chips

from converters.spiking import spike
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.core.spiking.network import SpikingNetwork
from lmu_deploy.fidelity.gate import _check_equal, judged
from lmu_deploy.fidelity.judge import judge
from lmu_deploy.fidelity.replay.chip_replay import ChipFindings, replay_chip
from lmu_deploy.fidelity.specification import examine
from lmu_deploy.report import wording
from lmu_deploy.tasks.base import Task
from targets.base import Run, get_target
from targets.spiking.forced import Forced, move

INPUTS = np.cumsum(np.random.default_rng(5).normal(size=(40, 8, 3)), axis=1).clip(-2, 2) / 2


def small(layers: int = 1) -> LMUNetwork:
    """Return a float network of two channels of order three, and hidden units."""
    rng = np.random.default_rng(2)
    found, n_in = [], 3
    for _ in range(layers):
        hidden = Hidden(rng.normal(size=(6, 5)) * 0.6, None, None, rng.normal(size=5) * 0.1, "tanh")
        encoders = rng.normal(size=(n_in, 2)) / n_in**0.5
        found.append(LMULayer(encoders, None, None, None, Memory.legendre(3, 6.0, 2), hidden))
        n_in = 5
    readout = Readout(rng.normal(size=(5, 2)), None)
    return LMUNetwork(tuple(found), readout)


@pytest.fixture(scope="module")
def chip() -> SpikingNetwork:
    """Return a calibrated chip with mismatch and noise."""
    return spike(
        small(),
        INPUTS[:24],
        neurons_per_state=24,
        presentation_ms=20.0,
        tau_ms=40.0,
        mismatch=0.2,
        membrane_noise=0.05,
        chip_seed=4,
    )


def replayed(
    chip: SpikingNetwork, planted: object, spikes: bool = True, seed: int = 9
) -> ChipFindings:
    """Run a chip with a fault, and replay its recording against the healthy one."""
    m, of = planted_chips.record(planted, INPUTS[24:30], seed)
    given = (of.rasters, 0, of.counts) if spikes else ()
    found = replay_chip(chip, INPUTS[24:30], m, *given)
    assert found is not None
    return found


@pytest.mark.parametrize("rasters", [True, False])
def test_a_recording_of_another_chip_is_said_to_be_one(chip: SpikingNetwork, rasters: bool) -> None:
    options = {"neurons_per_state": 24, "presentation_ms": 20.0, "tau_ms": 40.0}
    other = spike(small(), INPUTS[:24], mismatch=0.2, membrane_noise=0.05, chip_seed=5, **options)
    m, of = planted_chips.record(planted_chips.PlantedChip(other, []), INPUTS[24:30], 9)
    found = replay_chip(chip, INPUTS[24:30], m, of.rasters if rasters else None, 0, of.counts)
    assert found is not None and found.faults[0].kind == "chip"
    what = (
        "Most synapses of layer0/memory do not follow the file" if rasters else "of 6 populations"
    )
    assert what in found.faults[0].words
    assert "the recording may be of another chip" in found.faults[0].words


FROM_STATES = [
    "population: dead",
    "population: stuck",
    "population: ten times the noise",
    "row of W: wrong sign",
    "column of W: wrong sign",
    "columns of W exchanged",
    "input of a channel: missing",
    "states read exchanged",
]


@pytest.mark.parametrize(
    ("kind", "spikes"),
    [(kind, True) for kind in planted_chips.CHIP_KINDS] + [(kind, False) for kind in FROM_STATES],
)
def test_a_fault_is_named_by_its_index(chip: SpikingNetwork, kind: str, spikes: bool) -> None:
    planted = planted_chips.CHIP_KINDS[kind](chip, np.random.default_rng(4))
    found = replayed(chip, planted, spikes)
    assert found.largest > 1.0 and found.beyond
    first = found.faults[0]
    assert any(place == first.place and index in first.index for place, index in planted.places)
    assert first.words.endswith(".")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("population: dead", "is dead: none of its neurons spikes"),
        ("population: stuck", "is stuck"),
        ("neuron: dead", "never spikes"),
        ("row of W: wrong sign", "has the wrong sign"),
        ("column of W: double", "counts twice"),
        ("input of a channel: missing", "of the input of layer0/memory is missing"),
        ("states read exchanged", "of layer0/memory are exchanged"),
    ],
)
def test_what_the_fault_is(chip: SpikingNetwork, kind: str, words: str) -> None:
    planted = planted_chips.CHIP_KINDS[kind](chip, np.random.default_rng(1))
    assert words in replayed(chip, planted).faults[0].words


@pytest.mark.parametrize("seed", range(4))
def test_a_healthy_chip_has_no_statement(chip: SpikingNetwork, seed: int) -> None:
    found = replayed(chip, planted_chips.PlantedChip(chip, []), seed=seed)
    assert found.largest < 1.0 and not found.beyond and not found.faults
    assert found.samples == 6 and found.steps == 8
    assert found.values == 6 * 8 * 6 + 6 * 24 + 6 * 24


def test_the_spikes_of_brian2_give_its_states(chip: SpikingNetwork) -> None:
    """Brian2 integrates the synapses; the replay computes them from spikes and inputs alone."""
    run = get_target("brian2").run(chip, INPUTS[24:26], record=True)
    assert run.states is not None
    raster = run.rasters["layer0/memory"]
    layer = chip.host.layers[0]
    assert isinstance(layer, LMULayer) and chip.memories[0] is not None
    x = run.states.m[:1] / chip.memories[0].scales.reshape(-1)
    forced = Forced.of_layer(chip, 0, INPUTS[24:25] @ layer.input_encoders, x).open_loop()
    spikes = iter(raster)
    shape = 1, 6, 24
    (moved,) = move([forced], 1, lambda _: {forced.place: next(spikes).reshape(shape)})
    assert np.abs(moved.x - x).max() < 1e-12
    (sent,), (by_row,) = moved.sent, moved.rows
    parts = sent.reshape(1, 8, 2, 3, 3).sum(axis=3).reshape(1, 8, 6)
    rows = by_row.reshape(1, 8, 2, 3, 3).sum(axis=3).reshape(1, 8, 6)
    assert parts == pytest.approx(rows, abs=1e-12)  # all columns together are all rows


def test_a_second_layer_is_replayed_from_what_the_first_recorded() -> None:
    network = spike(
        small(2), INPUTS[:24], neurons_per_state=20, presentation_ms=20.0, tau_ms=40.0, chip_seed=1
    )
    second = network.memories[1]
    assert second is not None
    m, of = planted_chips.record(planted_chips.PlantedChip(network, []), INPUTS[24:30], 3)
    healthy = replay_chip(network, INPUTS[24:30], m, of.rasters, counts=of.counts)
    assert healthy is not None and healthy.largest < 1.0
    weights = second.weights.copy()
    weights[1, 2] *= -1.0
    bad = replace(network, memories=(network.memories[0], replace(second, weights=weights)))
    m, of = planted_chips.record(planted_chips.PlantedChip(bad, []), INPUTS[24:30], 3)
    found = replay_chip(network, INPUTS[24:30], m, of.rasters, counts=of.counts)
    assert found is not None
    assert [f.words for f in found.faults] == [
        "Row 5 of the weights of layer1/memory has the wrong sign."
    ]


def test_counts_are_those_of_brian2(chip: SpikingNetwork) -> None:
    """Two simulators count the same spikes, in which the chip follows its file."""
    run = run_of(chip, chip)
    _, of = planted_chips.record(planted_chips.PlantedChip(chip, []), INPUTS[24:30], 0)
    assert (run.counts["layer0/memory"] == of.counts["layer0/memory"]).all()
    assert get_target("brian2").run(chip, INPUTS[24:25]).counts == {}


def run_of(chip: SpikingNetwork, ran: SpikingNetwork) -> Run:
    run = get_target("brian2").run(ran, INPUTS[24:30], record=True)
    return replace(run, target="brian2")


def test_the_verdict_of_a_chip_with_a_dead_population(chip: SpikingNetwork) -> None:
    planted = planted_chips.CHIP_KINDS["population: dead"](chip, np.random.default_rng(0))
    ((place, index), *_) = planted.places
    run, healthy = run_of(chip, planted.network), run_of(chip, chip)
    task = Task("signs", "classification", 3, 2, 8, load=lambda: None)
    answers = np.zeros(6, np.int64)
    for ran, equal in ((healthy, True), (run, False)):
        found = judge(ran, None, task, answers, network=chip, inputs=INPUTS[24:30])
        assert found.specification is not None and found.specification.equal is equal
        words = wording.specification(found.specification)
        if equal:
            assert "no state or spike count deviates" in words[0]
            assert judged(found)[1].startswith("follows the specification")
            continue
        assert judged(found)[0] == "worse"
        assert f"Population {index} of {place} is dead" in words[1]


def test_states_that_would_not_show_more_noise_leave_the_verdict_undecided() -> None:
    """Of a quiet chip, ten times the noise is in the spikes, and lost in the states."""
    options = {"presentation_ms": 20.0, "tau_ms": 40.0, "mismatch": 0.2, "chip_seed": 4}
    quiet = spike(small(), INPUTS[:24], neurons_per_state=24, membrane_noise=0.01, **options)
    run, task = run_of(quiet, quiet), Task("signs", "classification", 3, 2, 8, load=lambda: None)
    answers = np.zeros(6, np.int64)
    tones = []
    for ran in (run, replace(run, rasters={}, counts={})):
        found = judge(ran, None, task, answers, network=quiet, inputs=INPUTS[24:30])
        specified = found.specification
        assert specified is not None and specified.equal
        tones.append(bool(specified.blind))
        if specified.blind:
            assert "ten times the noise in populations" in wording.specification(specified)[1]
            assert judged(found)[0] == "unknown"
            assert judged(found)[1].startswith("undecided whether it follows its network file")
            assert not _check_equal("brian2", specified).passed
    assert tones == [False, True]


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_noise_that_the_states_show_or_that_is_absent_leaves_nothing_undecided(
    noise: float,
) -> None:
    options = {"presentation_ms": 20.0, "tau_ms": 40.0, "chip_seed": 4}
    chip = spike(small(), INPUTS[:24], neurons_per_state=24, membrane_noise=noise, **options)
    assert not replayed(chip, planted_chips.PlantedChip(chip, []), spikes=False).blind


def test_chips_that_their_file_does_not_determine(chip: SpikingNetwork) -> None:
    run = run_of(chip, chip)
    board = replace(chip, device=replace(chip.device, board="lab"))
    assert examine(run, board, INPUTS[24:30]) is None
    assert examine(replace(run, states=None), chip, INPUTS[24:30]) is None
