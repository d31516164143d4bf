"""Attribution of the errors of a graph of neurons to its ensembles."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import t as student

import lmu_deploy as ld
from converters.spiking import spike
from lmu_deploy.api.validate import explained
from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.spiking.graph import Ensemble, SpikeConnection, SpikingGraph
from lmu_deploy.fidelity import Result
from lmu_deploy.fidelity.attribution import Attribution, graphs
from lmu_deploy.fidelity.attribution.graphs import GraphChips, attribute_graph
from lmu_deploy.fidelity.attribution.shapley import Parts, parts_of
from lmu_deploy.fidelity.measures.entries import attribution_entry
from lmu_deploy.fidelity.store import Parts as Kept
from lmu_deploy.report.losses import first_cause, uncertain
from lmu_deploy.report.losses import shapley as table
from lmu_deploy.tasks.base import Split, Task
from lmu_deploy.tasks.selection import task_for
from targets.base import Run
from targets.spiking import SpikingTarget
from tests.converters.spiking.test_spiking_graph import QUICK, SMALL, STEPS, residual, two_blocks


@pytest.fixture(scope="module")
def network() -> Network:
    return two_blocks()


@pytest.fixture(scope="module")
def data(network: Network) -> ld.Dataset:
    """Return a regression to the float network's own outputs, so that its NRMSE is zero."""
    inputs = np.random.default_rng(1).normal(size=(100, STEPS, 3)) * 0.7
    outputs = run(network, inputs)
    return ld.Dataset(inputs[:80], outputs[:80], inputs[80:], outputs[80:])


@pytest.fixture(scope="module")
def task(network: Network, data: ld.Dataset) -> Task:
    return task_for(network, data)


OPTIONS: dict[str, Any] = {"units": "chip", "mismatch": 0.2, "calibration": "static", **SMALL}


@pytest.fixture(scope="module")
def known(task: Task) -> np.ndarray:
    """Return the inputs that all chips are calibrated on."""
    return task.load().train.inputs


@pytest.fixture(scope="module")
def graph(network: Network, known: np.ndarray) -> SpikingGraph:
    made = spike(network, known, **OPTIONS)
    assert isinstance(made, SpikingGraph)
    return made


def _attributed(graph: SpikingGraph, task: Task, **more: Any) -> Attribution:
    test = task.load().test
    return attribute_graph(graph, test.inputs, test.targets, task, **more)


@pytest.fixture(scope="module")
def over_chips(graph: SpikingGraph, task: Task, known: np.ndarray) -> Attribution:
    return _attributed(graph, task, chips=GraphChips(graph, known), budget=60.0)


def test_steps_lead_from_the_float_network_to_the_run(graph: SpikingGraph, task: Task) -> None:
    found, test = _attributed(graph, task), task.load().test
    assert [step.source for step in found.steps] == [
        *(f"drive of {name}" for name in ("m1", "u1", "m2", "u2")),
        "hidden units and readout",
    ]
    done = SpikingTarget().run(graph, test.inputs, record=True)
    assert found.whole.metric == pytest.approx(task.score(done.outputs, test.targets))
    before = found.reference.output
    for step in found.steps:
        added = max(step.after.output**2 - before**2, 0.0)
        assert step.alone.output**2 == pytest.approx(added)
        before = step.after.output
    # By hand, the output if all behind u2 were exact, and all behind m2.
    parts, float_outputs = done.states.parts, run(graph.host, test.inputs)  # type: ignore[union-attr]
    dense, readout = (graph.host[name].operator for name in ("d2", "out"))
    units = np.maximum(parts["m2"][:, -1] @ dense.kernel + dense.bias, 0.0)  # type: ignore[index,attr-defined]
    for step, known in zip(found.steps[2:4], (units, parts["u2"][:, -1]), strict=True):  # type: ignore[index]
        wrong = known @ readout.kernel + readout.bias - float_outputs  # type: ignore[attr-defined]
        nrmse = np.sqrt(np.mean(wrong**2) / np.mean(float_outputs**2))
        assert step.after.output == pytest.approx(nrmse, rel=1e-6)


def _cut(each: SpikeConnection) -> SpikeConnection:
    return replace(each, weights=np.zeros(each.weights.shape))


def _planted(graph: SpikingGraph, name: str) -> SpikingGraph:
    """Cut all synapses from other ensembles, so that drives stay in the calibrated range."""

    def broken(each: Ensemble) -> Ensemble:
        if each.name != name:
            return each
        left = [c if c.source == name else _cut(c) for c in each.connections]
        return replace(each, connections=tuple(left))

    ensembles, probes = (tuple(map(broken, of)) for of in (graph.ensembles, graph.probes))
    return replace(graph, ensembles=ensembles, probes=probes)


@pytest.mark.parametrize("place", ["u1", "u2", "out"])
def test_a_planted_fault_is_found_where_it_is(graph: SpikingGraph, task: Task, place: str) -> None:
    found = _attributed(_planted(graph, place), task)
    cause = found.causes[0]
    assert cause.place == place and cause.share > 0.5
    assert cause.source == ("hidden units and readout" if place == "out" else "neurons")


def test_a_validation_attributes_graphs(
    graph: SpikingGraph, network: Network, data: ld.Dataset, tmp_path: Path
) -> None:
    pytest.importorskip("brian2")
    broken = _planted(graph, "u2")
    report = ld.validate(
        network, data, targets=["brian2"], use=[broken], limit=8, out=tmp_path / "report"
    )
    found = report["brian2"].attribution
    assert found is not None and found.samples == 8
    assert found.causes[0].place == "u2"
    text = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "neurons at u2" in text
    assert "because the weights of u2 are not those that spike makes" in text
    assert "what each ensemble adds to those before it" in text and "Shapley" not in text


def _parts(found: Attribution) -> Parts:
    assert found.parts is not None
    return found.parts


def test_intervals_are_over_the_chip_and_five_others(
    graph: SpikingGraph, network: Network, task: Task, known: np.ndarray, over_chips: Attribution
) -> None:
    parts, gains = _parts(over_chips), []
    assert (parts.chips, parts.samples, parts.orders, parts.note) == (6, 20, 1, "")
    for seed in range(6):
        one = graph if not seed else spike(network, known, **OPTIONS, seed=seed)
        assert isinstance(one, SpikingGraph)
        steps = _attributed(one, task, seed=seed).steps
        errors = [0.0, *(step.after.output**2 for step in steps)]
        gains.append(np.diff(errors))
    by_chip = np.array(gains)
    whole = by_chip.sum(axis=1)
    for number, step in enumerate(over_chips.steps):
        (part,) = (part for part in parts.parts if part.source == step.source)
        share = by_chip[:, number].sum() / whole.sum()
        residual = by_chip[:, number] - share * whole
        error = np.sqrt(6 / 5 * np.square(residual).sum()) / whole.sum()
        half = student.ppf(0.95, 5) * error
        assert part.share == pytest.approx(share)
        assert (part.low, part.high) == pytest.approx((share - half, share + half))


def test_the_chip_of_the_report_is_as_without_others(
    graph: SpikingGraph, task: Task, over_chips: Attribution
) -> None:
    alone = _attributed(graph, task, budget=60.0)
    assert over_chips.steps == alone.steps and over_chips.reference == alone.reference
    one, several = (
        {part.source: (part.low, part.high) for part in _parts(found).parts}
        for found in (alone, over_chips)
    )
    assert one.keys() == several.keys()
    assert all(one[name] != several[name] for name in one)
    assert _parts(alone).chips == 1
    assert _parts(alone).note.endswith("the inputs that it was calibrated on are not at hand.")


def test_parts_over_chips_depend_on_the_seed_alone(
    graph: SpikingGraph, task: Task, known: np.ndarray, over_chips: Attribution
) -> None:
    seen = list[float]()
    chips = GraphChips(graph, known, as_made=True)

    def progress(done: int, total: int) -> None:
        seen.append(done / total)

    again = _attributed(graph, task, chips=chips, budget=60.0, progress=progress)
    assert again == over_chips
    assert seen == sorted(seen) and seen[-1] == 1.0
    other = _attributed(graph, task, chips=chips, budget=60.0, seed=1)
    assert _parts(other) != _parts(over_chips)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return the settings of all chips that are converted again."""
    found, again = list[dict[str, Any]](), graphs.spike_again

    def recorded(*given: Any, **more: Any) -> SpikingGraph:
        found.append(more)
        return again(*given, **more)

    monkeypatch.setattr(graphs, "spike_again", recorded)
    return found


def _least(note: str) -> float:
    found = re.search(r"at least (\d+) s on one core", note)
    assert found is not None
    return float(found[1])


def test_a_short_budget_takes_fewer_samples_and_then_no_others(
    network: Network, task: Task, known: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = spike(network, known, units="chip", membrane_noise=0.02, **QUICK)  # type: ignore[arg-type]
    assert isinstance(graph, SpikingGraph)
    chips = GraphChips(graph, known, as_made=True)
    assert graph.calibration.samples == 72
    whole, one = chips.seconds(72), graphs.seconds_of_run(graph, 1, STEPS)

    made = list[dict[str, Any]]()
    monkeypatch.setattr(graphs, "spike_again", lambda *_, **more: made.append(more) or graph)

    def attributed(budget: float) -> Parts:
        made.clear()
        return _parts(_attributed(graph, task, chips=chips, budget=budget))

    fewer = attributed(5 * (whole + 10.5 * one))
    assert (fewer.chips, fewer.samples) == (6, 10)
    assert {each["calibration_samples"] for each in made} == {72}
    assert fewer.note == (
        "To keep to --attribution-budget, the chips are compared on 10 of 20 samples."
    )
    half = attributed(5 * (whole + 7.5 * one))
    assert (half.chips, half.samples) == (6, 20)
    assert {each["calibration_samples"] for each in made} == {36}
    assert "calibrated on 36 samples instead of 72, which makes their errors larger" in half.note
    none = attributed(5 * (chips.seconds(36) + 7.5 * one))
    assert (none.chips, none.samples, made) == (1, 20, [])
    alone = _parts(_attributed(graph, task, budget=60.0))
    assert none.parts == alone.parts
    assert none.note.startswith("The intervals are over the samples of this chip alone, because")
    assert attributed(_least(none.note)).chips == 6
    assert attributed(_least(none.note) - 1.0).chips == 1


def _dead(graph: SpikingGraph, name: str) -> SpikingGraph:
    """Let all neurons of an ensemble be silent."""

    def broken(each: Ensemble) -> Ensemble:
        if each.name != name or each.populations is None:
            return each
        faults = -np.ones(each.populations.encoders.shape)
        return replace(each, populations=replace(each.populations, faults=faults))

    return replace(graph, ensembles=tuple(map(broken, graph.ensembles)))


@pytest.mark.parametrize(
    ("damage", "place", "note"),
    [
        (lambda graph: _planted(graph, "u1"), "u1", "the weights of u1 are not those that spike"),
        (lambda graph: _planted(graph, "out"), "out", "the weights of out are not those that"),
        (lambda graph: _dead(graph, "u2"), "out", "the neurons of u2 were damaged, or have"),
    ],
)
def test_healthy_chips_do_not_hide_a_damaged_one(
    graph: SpikingGraph,
    task: Task,
    known: np.ndarray,
    damage: Callable[[SpikingGraph], SpikingGraph],
    place: str,
    note: str,
) -> None:
    broken = damage(graph)
    found = _attributed(broken, task, chips=GraphChips(broken, known), budget=60.0)
    alone, parts = _attributed(broken, task, budget=60.0), _parts(found)
    assert note in parts.note
    assert (parts.chips, parts.parts) == (1, _parts(alone).parts)
    largest = "hidden units and readout" if place == "out" else f"drive of {place}"
    assert parts.parts[0].source == largest
    assert found.causes[0].place == place and found.causes[0].share > 0.5
    # A single sample has no interval, and the other chips say nothing about the damage.
    one = _attributed(broken, task, samples=1, chips=GraphChips(broken, known), budget=60.0)
    assert _parts(one).excluded(largest)
    assert one.causes[0].place == place
    assert not any("No source" in sentence for sentence in uncertain(attribution_entry(one)))
    assert not _attributed(
        broken, task, samples=1, budget=60.0
    ).causes  # nothing is known of the damage


def test_a_graph_of_other_inputs_or_settings_is_alone(
    graph: SpikingGraph, task: Task, known: np.ndarray
) -> None:
    for chips, note in (
        (GraphChips(graph, known[:70]), "it is not what spike makes with the seeds and settings"),
        (GraphChips(graph, known[:, :, :2]), "the network cannot be converted again: "),
    ):
        found = _attributed(graph, task, chips=chips, budget=60.0)
        assert note in _parts(found).note and _parts(found).chips == 1
        one = _attributed(graph, task, samples=1, chips=chips, budget=60.0)
        assert not one.causes  # no ensemble stands out, so that the interval decides


def test_a_stopped_attribution_goes_on_with_the_chips_that_it_has(
    graph: SpikingGraph,
    task: Task,
    known: np.ndarray,
    tmp_path: Path,
    over_chips: Attribution,
    made: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted, again = graphs.spike_again, Kept(tmp_path)

    def stopped(*given: Any, **more: Any) -> SpikingGraph:
        if len(made) == 3:
            raise KeyboardInterrupt
        return counted(*given, **more)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(graphs, "spike_again", stopped)
        chips = GraphChips(graph, known, Kept(tmp_path))
        _attributed(graph, task, chips=chips, budget=60.0)
    assert [each["seed"] for each in made] == [0, 1, 2]
    found = _attributed(graph, task, chips=GraphChips(graph, known, again), budget=60.0)
    assert [each["seed"] for each in made] == [0, 1, 2, 3, 4, 5]
    assert found == over_chips


def test_the_report_says_what_the_intervals_are_over(over_chips: Attribution) -> None:
    entry = attribution_entry(over_chips)
    (shown,) = table(entry)
    assert shown.caption == (
        "Parts of the squared output error: what each ensemble adds to those before it, 20 "
        "samples, 6 chips with mismatch and tuning curves of their own"
    )
    assert shown.columns[-1].endswith("interval over 6 chips")
    text = first_cause(SimpleNamespace(attribution=entry))  # type: ignore[arg-type]
    assert text is not None and ", over 6 chips)" in text and "Shapley" not in text
    rng = np.random.default_rng(0)
    gains = {"drive of a": rng.normal(2, 1, 6), "drive of b": rng.normal(2, 1, 6)}
    parts = parts_of(gains, sum(gains.values(), np.zeros(6)), 20, 1, 6)
    (sentence,) = uncertain(attribution_entry(replace(over_chips, parts=parts)))
    assert re.match("Which of drive of . and drive of . adds most is uncertain: ", sentence)


def test_a_validation_does_not_compare_what_it_made(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("brian2")
    seeds = list[int]()
    monkeypatch.setattr(
        graphs, "spike_again", lambda graph, *_, **more: seeds.append(more["seed"]) or graph
    )
    network = residual()
    inputs = np.random.default_rng(2).normal(size=(60, STEPS, 3))
    outputs = run(network, inputs)
    data = ld.Dataset(inputs[:40], outputs[:40], inputs[40:], outputs[40:])
    report = ld.validate(
        network, data, targets=["brian2"], limit=2, attribution=2, attribution_budget=200.0
    )
    found = report["brian2"]
    for each in (found, found.variants["uncalibrated"]):
        assert each.attribution is not None and each.attribution.parts_chips == 6
    assert sorted(seeds) == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_what_belongs_to_a_device_is_not_attributed(graph: SpikingGraph, task: Task) -> None:
    test = task.load().test
    board = replace(graph, device=replace(graph.device, board="board 7"))
    done = Run("mine", np.zeros((20, 3)), {}, {}, 0, {}, STEPS, STEPS, 0.0, 0)
    (found,) = explained([Result(done, board)], Split(test.inputs, test.targets), task, 8, 60.0)
    assert found.attribution is None
    assert found.run.notes == (
        "The errors of device board 7 were not attributed to their sources, because the file of "
        "the network does not hold the neurons of the device.",
    )
