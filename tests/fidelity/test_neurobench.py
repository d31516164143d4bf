"""Figures equal those of NeuroBench on the same networks (tests/fixtures/neurobench.json)."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from layered import layered

from converters.loihi import loihi_spike
from converters.quantize import quantize
from lmu_deploy.core.graph.frames import LayerNorm
from lmu_deploy.core.graph.linear import Dense
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.integer.graph import edges
from lmu_deploy.core.network import LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.fidelity.measures.sizes import network_sizes, neurobench_of
from lmu_deploy.report.tables import neurobench
from targets.integer import IntegerTarget
from targets.reference import ReferenceTarget
from targets.spiking import SpikingTarget

ROOT = Path(__file__).resolve().parents[2]
RECORDS = json.loads((ROOT / "tests/fixtures/neurobench.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def oracle():
    """The script that wrote the file and builds its networks."""
    spec = importlib.util.spec_from_file_location(
        "neurobench_oracle", ROOT / "benchmarks/neurobench_oracle.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check(ours, theirs):
    """All counts with ==; theirs are rounded to four decimals in one case."""
    assert round(ours.connection_sparsity, 4) == theirs["ConnectionSparsity"]
    assert ours.activation_sparsity == theirs["ActivationSparsity"]
    found = ours.synaptic_operations.model_dump(by_alias=True)
    assert found == theirs["SynapticOperations"]


def test_an_integer_network_counts_as_neurobench_does(oracle):
    record = RECORDS["integer"]
    network = oracle.integer_network(record)
    run = IntegerTarget("numpy").run(network, np.array(record["inputs"], float))
    assert (run.outputs == np.array(record["outputs"])).all()
    ours = neurobench_of(run, network)
    check(ours, record["neurobench"])
    assert ours.synaptic_operations.effective_macs > 0


def test_a_spiking_network_counts_as_neurobench_does(oracle):
    pytest.importorskip("brian2", reason="Brian2 is not installed")
    from targets.brian2 import Brian2Target

    record = RECORDS["spiking"]
    network = oracle.spiking_network(record)
    run = Brian2Target().run(network, np.array(record["inputs"]))
    np.testing.assert_allclose(run.outputs, record["outputs"], rtol=0, atol=1e-12)
    ours = neurobench_of(run, network)
    check(ours, record["neurobench"])
    assert ours.synaptic_operations.effective_acs > 0


def test_a_float_network_has_the_footprint_of_neurobench(oracle):
    record = RECORDS["float"]
    network = oracle.float_network(record)
    sizes = network_sizes(network)
    run = ReferenceTarget().run(Network.from_layers(network), np.zeros((1, 3, 2)))
    ours, theirs = neurobench_of(run, network), record["neurobench"]
    assert ours.footprint == theirs["Footprint"]
    assert sizes.parameters == theirs["ParameterCount"]
    assert round(ours.connection_sparsity, 4) == theirs["ConnectionSparsity"]
    assert ours.activation_sparsity is None
    assert ours.synaptic_operations is None


@pytest.fixture(scope="module")
def memory_alone():
    rng = np.random.default_rng(41)
    layer = LMULayer(rng.normal(size=(2, 2)), None, None, None, Memory.legendre(3, 12.0, 2), None)
    network = LMUNetwork((layer,), Readout(rng.normal(size=(6, 2)), None), True)
    return network, rng.normal(size=(5, 7, 2))


def test_a_series_sends_once_for_each_term(memory_alone):
    network, inputs = memory_alone
    series = quantize(network, inputs, realization="sign-taylor")
    memory = layered(series).layers[0].memory
    run = IntegerTarget("numpy").run(series, inputs)
    found = neurobench_of(run, series)
    sent = sum(int(counts.sum()) for name, counts in run.events.items() if name != "input")
    assert memory.applications > 1
    possible = 5 * 7 * 6 * (memory.applications + 1)
    assert found.activation_sparsity == (possible - sent) / possible
    dense = 6 * 6 * memory.applications  # the signs, each application
    dense += sum(
        w.connection.slices.size for w in edges(series) if str(w.source) != "layer0/series"
    )
    assert found.synaptic_operations.dense == 7 * dense
    assert found.synaptic_operations.effective_macs == run.synops / 5


def test_graded_relays_multiply_and_spikes_add(memory_alone):
    network, inputs = memory_alone
    loihi = loihi_spike(network, inputs, neurons_per_state=8, presentation_ms=10.0)
    run = SpikingTarget().run(loihi, inputs)
    found = neurobench_of(run, loihi).synaptic_operations
    memory = loihi.memories[0]
    assert found is not None
    graded = int(run.events["layer0/relay"].sum()) * 8 + int(run.events["layer0/input"].sum()) * 3
    assert found.effective_macs == graded / 5
    assert found.effective_macs + found.effective_acs == pytest.approx(run.synops / 5)
    # If a relay reaches fewer neurons than the others, it is not known which relay sent.
    encoders = memory.neurons.encoders.copy()
    encoders[0, 0] = 0
    neurons = replace(memory.neurons, encoders=encoders)
    uneven = replace(loihi, memories=(replace(memory, neurons=neurons),))
    assert neurobench_of(run, uneven).synaptic_operations is None


def test_a_network_without_messages_has_sparsity_one(memory_alone):
    network, inputs = memory_alone
    integer = quantize(network, inputs)
    run = IntegerTarget("numpy").run(integer, inputs)
    sent = neurobench_of(run, integer)
    silent = replace(run, events={n: 0 * counts for n, counts in run.events.items()}, synops=0)
    found = neurobench_of(silent, integer)
    assert (found.activation_sparsity, found.synaptic_operations.effective_macs) == (1.0, 0.0)
    assert 0.0 <= sent.activation_sparsity < 0.5
    assert found.synaptic_operations.dense == sent.synaptic_operations.dense
    assert neurobench_of(run, None) is None


def test_messages_of_the_host_are_not_activations():
    rng = np.random.default_rng(42)
    memory = Memory.legendre(3, 12.0, 1)
    network = Network(
        (
            Node("first", LinearMemory(memory, rng.normal(size=(1, 1))), (INPUT,)),
            Node("norm", LayerNorm(np.ones(3), np.ones(3), 0.1), ("first",)),
            Node("last", LinearMemory(memory, rng.normal(size=(3, 1))), ("norm",)),
            Node("readout", Dense(rng.normal(size=(3, 1))), ("last",)),
        ),
        (1,),
        "readout",
    )
    inputs = rng.normal(size=(4, 6, 1))
    inputs[:, :3] = 0.0  # the first memory sends nothing yet, and the host does
    hybrid = quantize(network, inputs)
    run = IntegerTarget("numpy").run(hybrid, inputs)
    sent = sum(int(run.events[name].sum()) for name in ("first/memory", "last/memory"))
    assert int(run.events["norm"].sum()) == 4 * 6 * 3
    possible = 4 * 6 * 6
    assert sent < possible
    assert neurobench_of(run, hybrid).activation_sparsity == (possible - sent) / possible


def test_the_report_has_a_row_for_each_target(digits, assembled):
    fidelity, _ = assembled(digits)
    shown = neurobench(fidelity)
    assert [row[0] for row in shown.rows] == ["onnxruntime", "integer", "lava"]
    assert {len(row) for row in shown.rows} == {len(shown.columns)}
