"""Attribution of the errors of a graph of neurons to its ensembles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import lmu_deploy as ld
from converters.spiking import spike
from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.spiking.graph import Ensemble, SpikeConnection, SpikingGraph
from lmu_deploy.fidelity.attribution import Attribution
from lmu_deploy.fidelity.attribution.graphs import attribute_graph
from lmu_deploy.tasks.base import Task
from lmu_deploy.tasks.selection import task_for
from targets.spiking import SpikingTarget
from tests.converters.spiking.test_spiking_graph import SMALL, STEPS, two_blocks


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


@pytest.fixture(scope="module")
def graph(network: Network, task: Task) -> SpikingGraph:
    known = task.load().train.inputs
    options = {"units": "chip", "mismatch": 0.2, "calibration": "static", **SMALL}
    made = spike(network, known, **options)  # type: ignore[arg-type]
    assert isinstance(made, SpikingGraph)
    return made


def _attributed(graph: SpikingGraph, task: Task) -> Attribution:
    test = task.load().test
    return attribute_graph(graph, test.inputs, test.targets, task)


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
