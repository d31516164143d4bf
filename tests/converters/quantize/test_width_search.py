"""Widths chosen for a budget: it is met, and the result is better than uniform widths."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
from layered import layered

from converters.options import QuantizeOptions
from converters.quantize import quantize
from converters.quantize.calibration import calibrate
from converters.quantize.settings import settings_for
from converters.quantize.widths import NARROWER, WIDEST, memory_of, search_widths
from lmu_deploy.api.quantize import quantize as command
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import load
from lmu_deploy.core.integer.graph import edges, with_connections
from lmu_deploy.core.network import FLOAT_CLASSES
from lmu_deploy.hardware.placement import demands
from lmu_deploy.tasks.base import get_task
from targets.integer import IntegerTarget

DIGITS = "examples/models/digits.safetensors"


def run(network, inputs):
    return IntegerTarget("numpy").run(network, inputs)


@pytest.fixture(scope="module")
def digits():
    """The trained network, its calibration, and a few inputs to choose by."""
    network, data = load(DIGITS, FLOAT_CLASSES), get_task("digits").load()
    return network, calibrate(network, data.train.inputs[:256]), data.validation.inputs[:48]


def search(digits, kib, **options):
    network, signals, inputs = digits
    settings = settings_for(network, "loihi2", QuantizeOptions(**options))
    return search_widths(network, signals, settings, int(kib * 1024), inputs, run)


@pytest.fixture(scope="module")
def by_budget(digits):
    return {kib: search(digits, kib) for kib in (100.0, 5.0, 3.0, 2.5)}


def test_budgets_are_met_and_counted_as_on_the_chip(by_budget):
    for kib, found in by_budget.items():
        assert found.total <= kib * 1024
        assert set(found.widths) == {edge.place for edge in edges(found.network)}
        placed = sum(demand.synaptic_bytes.sum() for demand in demands(found.network))
        assert placed <= found.total < placed + len(found.widths)
    totals = [found.total for found in by_budget.values()]
    assert totals == sorted(totals, reverse=True)
    assert len(set(totals)) == len(totals)


def test_a_large_budget_takes_the_widest(digits, by_budget):
    network, signals, inputs = digits
    widest = quantize(network, signals, slices=2, kernel_slices=2)
    assert set(by_budget[100.0].widths.values()) == {WIDEST}
    assert np.array_equal(
        run(widest, inputs).outputs, run(by_budget[100.0].network, inputs).outputs
    )


def test_each_connection_has_its_width(digits, by_budget):
    network, signals, _ = digits
    found = by_budget[3.0]
    assert len(set(found.widths.values())) > 2
    for edge in edges(found.network):
        slices, bits = found.widths[edge.place]
        assert (slices, bits) in (WIDEST, *NARROWER)
        assert (len(edge.connection.slices), edge.connection.weight_bits) == (slices, bits)
        if not edge.place.startswith("layer0/memory/") and bits < 8:
            uniform = quantize(network, signals, slices=2, kernel_slices=slices, kernel_bits=bits)
            (same,) = (w.connection for w in edges(uniform) if w.place == edge.place)
            assert np.array_equal(same.slices, edge.connection.slices)
            assert np.array_equal(same.shift, edge.connection.shift)
    needs = json.loads(found.network.provenance["accumulators"])
    slices = found.widths.items()
    assert set(needs) == {f"{place}/slice{k}" for place, (n, _) in slices for k in range(n)}


def test_mixed_widths_are_better_than_one_width_of_the_same_size(digits, by_budget):
    network, signals, inputs = digits
    truth = run(by_budget[100.0].network, inputs).outputs
    uniform = quantize(network, signals, slices=1, kernel_slices=1, kernel_bits=4)
    budget = sum(memory_of(edge.connection) for edge in edges(uniform))
    found = search(digits, budget / 1024)
    assert found.total <= budget

    def error(made):
        return float(np.mean((run(made, inputs).outputs - truth) ** 2))

    assert error(found.network) < error(uniform)


def test_exact_matrices_are_unchanged(digits):
    found = search(digits, 2.5, realization="sign-taylor")
    assert found.widths["layer0/series/recurrent"] == (1, 2)
    assert found.total <= 2.5 * 1024


def test_an_impossible_budget_is_refused(digits, by_budget):
    with pytest.raises(InputError, match=r"narrowest weights take \d\.\d KiB"):
        search(digits, 0.1)
    with pytest.raises(InputError, match="name one with --realization"):
        search(digits, 3.0, realization="auto")
    with pytest.raises(InputError, match="leave out slices, kernel_bits"):
        command(DIGITS, budget_kib=3.0, slices=2, kernel_bits=4)
    with pytest.raises(InputError, match="use method ptq"):
        command(DIGITS, budget_kib=3.0, method="qat")
    with pytest.raises(InputError, match="budget_kib is 0"):
        command(DIGITS, budget_kib=0.0)


def test_connections_of_another_shape_or_place_are_refused(by_budget):
    network = by_budget[100.0].network
    connection = layered(network).readout.connection
    small = replace(
        connection,
        slices=connection.slices[:, :, :-1],
    )
    with pytest.raises(InputError, match="readout"):
        with_connections(network, {"readout": small})
    with pytest.raises(InputError, match="no connection layer9/memory"):
        with_connections(network, {"layer9/memory": connection})


def test_the_command_prints_each_width(tmp_path, caplog):
    caplog.set_level(logging.INFO, "lmu_deploy")
    path = tmp_path / "narrow.safetensors"
    network = command(DIGITS, budget_kib=3.0, out=path)
    lines = caplog.messages
    for place in json.loads(network.provenance["widths"]):
        assert any(line.startswith(f"width {place}: ") for line in lines)
    assert any(line.startswith("budget: 2.") and "lost on 180" in line for line in lines)
    data = get_task("digits").load().test
    assert np.mean(run(network, data.inputs).outputs.argmax(axis=1) == data.targets) > 0.97
