"""Energy and time as ranges: counts times published figures, each with a source."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from lmu_deploy.api.quantize import quantize
from lmu_deploy.core.integer.graph import sources
from lmu_deploy.fidelity.judge import fit_of
from lmu_deploy.fidelity.measures.energy import Counts, costs_of, count, estimate
from lmu_deploy.hardware.placement import destinations, place
from lmu_deploy.hardware.profile import CostTable, Range, cost_tables, load_profile
from lmu_deploy.report.tables import on_chip
from lmu_deploy.report.wording import quantities, verdict
from lmu_deploy.tasks.digits import TASK
from targets.integer import IntegerTarget

COUNTS = Counts(synops=1000, messages=100, updates=50, steps=10, chip_steps=20, seconds=0.4)
FIGURES = ("synop_pj", "message_pj", "update_pj", "step_ns", "synop_ns", "message_ns", "update_ns")


def table(kind="digital", **figures):
    ranges = {
        name: Range(low=low, high=high, source="a paper, Table 1, page 2")
        for name, (low, high) in figures.items()
    }
    return CostTable(kind=kind, title="a chip", **ranges)


def test_each_operation_is_counted_once_with_its_own_figure():
    """Powers of ten apart, so that no mistaken pairing can give the same sum."""
    chip = table(synop_pj=(1, 2), message_pj=(1e4, 2e4), update_pj=(1e7, 3e7))
    found = estimate(COUNTS, {"chip": chip})
    low = 1000 * 1 + 100 * 1e4 + 50 * 1e7
    high = 1000 * 2 + 100 * 2e4 + 50 * 3e7
    assert found.energies["chip"].inference == pytest.approx((low * 1e-12, high * 1e-12))
    assert found.energies["chip"].step == pytest.approx((low * 1e-13, high * 1e-13))
    assert found.energies["chip"].counted == ["synaptic operations", "messages", "neuron updates"]
    assert found.latency is None


def test_time_is_that_of_chip_steps_and_of_operations_on_top():
    chip = table(step_ns=(200, 300), synop_ns=(1, 2), message_ns=(1e5, 1e5), update_ns=(1e7, 2e7))
    low = 20 * 200 + 1000 * 1 + 100 * 1e5 + 50 * 1e7
    high = 20 * 300 + 1000 * 2 + 100 * 1e5 + 50 * 2e7
    assert estimate(COUNTS, {"chip": chip}).latency == pytest.approx((low * 1e-9, high * 1e-9))


def test_analog_neurons_take_the_simulated_time():
    slow, fast = table("analog", time_factor=(1, 1)), table("analog", time_factor=(1e-3, 1e-3))
    found = estimate(COUNTS, {"slow": slow, "fast": fast})
    assert found.latency == pytest.approx((0.4e-3, 0.4))
    assert estimate(replace(COUNTS, seconds=None), {"slow": slow}).latency is None


def test_the_range_covers_all_sources():
    tables = {"one": table(synop_pj=(5, 6)), "other": table(synop_pj=(1, 2))}
    assert estimate(COUNTS, tables).energy == pytest.approx((1e-9, 6e-9))


def test_operations_without_figures_are_not_counted():
    found = estimate(COUNTS, {"chip": table(message_pj=(1, 1))})
    assert found.energies["chip"].counted == ["messages"]
    assert estimate(COUNTS, {"none": table()}).energy is None


@pytest.mark.parametrize("name", cost_tables())
def test_published_tables_name_a_source_for_each_figure(name):
    shown = cost_tables()[name]
    figures = [f for f in (getattr(shown, n) for n in (*FIGURES, "time_factor")) if f is not None]
    assert figures
    for figure in figures:
        assert any(str(year) in figure.source for year in range(2010, 2027))


def test_loihis_figures_are_those_of_its_paper():
    loihi = cost_tables()["loihi"]
    assert (loihi.synop_pj.low, loihi.message_pj.low) == (23.6, 1.7)
    assert (loihi.update_pj.low, loihi.update_pj.high) == (52.0, 81.0)


def test_figures_of_one_chip_do_not_contradict_those_of_another():
    """Loihi 2 is as many times faster as its maker says; bounds on time are 128 cores apart."""
    loihi, second = cost_tables()["loihi"], cost_tables()["loihi2"]
    for name, faster in (("synop_ns", 5), ("message_ns", 10), ("update_ns", 2)):
        old, new = getattr(loihi, name), getattr(second, name)
        for end in ("low", "high"):
            assert getattr(new, end) == pytest.approx(getattr(old, end) / faster, rel=0.01)
        assert old.high / old.low == pytest.approx(128, rel=0.01)
    energies = [t.synop_pj for t in cost_tables().values() if t.kind == "digital" and t.synop_pj]
    assert max(e.high for e in energies) / min(e.low for e in energies) < 100
    assert min(e.low for e in energies) <= loihi.synop_pj.low <= max(e.high for e in energies)


def test_the_model_is_of_the_order_of_a_measured_network(monkeypatch):
    """MNIST on Loihi: 2.5 microjoule, 0.17 ms; the operations are counted here once more."""
    root = Path(__file__).parents[2] / "benchmarks"
    monkeypatch.syspath_prepend(root)
    spec = importlib.util.spec_from_file_location("published", root / "published_energy.py")
    published = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(published)
    pixels, hidden = 100, 200
    spikes = np.zeros((4, 814))  # input layer, hidden, output, gates; four steps of a digit
    spikes[0, :pixels] = spikes[1, 400 : 400 + hidden] = 1
    spikes[range(4), range(810, 814)] = 1
    fan_out = np.repeat([400, 10, 0], [400, 400, 10])
    synops = pixels + (spikes[:, :810] @ fan_out).sum() + 814
    counts = published.counts(pixels, hidden)
    assert counts.synops == synops
    assert counts.updates == spikes.size
    assert counts.messages == pixels + spikes.sum()
    assert counts.transfers == counts.messages + pixels  # to the second core
    low, high = estimate(counts, {"loihi": cost_tables()["loihi"]}).energy
    assert low == pytest.approx(1e-12 * (23.6 * synops + 1.7 * counts.transfers + 52 * 814 * 4))
    assert 0.1 < low * 1e6 / published.ENERGY_UJ < high * 1e6 / published.ENERGY_UJ < 10
    fast, slow = estimate(counts, {"loihi": cost_tables()["loihi"]}).latency
    assert fast * 1e6 < published.LATENCY_US < 10 * slow * 1e6


def test_a_figure_needs_a_source_and_an_order():
    with pytest.raises(ValidationError):
        Range(low=1, high=2, source="")
    with pytest.raises(ValidationError, match="above high"):
        Range(low=2, high=1, source="a paper, Table 1, page 2")


@pytest.fixture(scope="module")
def quantized():
    return quantize("examples/models/digits.safetensors")


def test_a_run_is_counted_from_its_own_events(quantized):
    inputs = TASK.load().test.inputs[:6]
    run = IntegerTarget().run(quantized, inputs)
    found = costs_of(run, quantized)
    neurons = sum(n for name, n in run.neurons.items() if name != "input")
    assert found.synops == run.synops / 6
    assert found.messages == sum(e.sum() for e in run.events.values()) / 6
    assert found.updates == neurons * run.chip_steps
    low, high = found.energy
    assert 1e-9 < low < 23.6e-12 * found.synops < high < 1e-4
    assert low < high
    assert costs_of(run, None) is None


def test_a_message_to_several_cores_takes_the_energy_of_each(quantized):
    """Counted from the placement's input axons: each is a sender with a synapse on the core."""
    chip = load_profile("loihi2")
    few = chip.neurons_per_core.model_copy(update={"value": 8})
    small = chip.model_copy(update={"neurons_per_core": few})
    whole, split = destinations(quantized, chip), destinations(quantized, small)
    assert set(whole.values()) <= {0.0, 1.0}
    assert max(split.values()) > 5.0
    inputs = TASK.load().test.inputs[:6]
    counts = count(IntegerTarget().run(quantized, inputs), quantized)
    assert counts.deliveries == counts.messages  # one core holds it all
    found = estimate(
        replace(counts, deliveries=3.0 * counts.messages), {"a": table(message_pj=(1, 1))}
    )
    assert found.energy[0] == pytest.approx(3e-12 * counts.messages)
    axons = sum(core.in_axons for core in place(quantized, small))
    senders = {str(p): s.neurons for p, s in sources(quantized).items()}
    assert sum(split[name] * senders[name] for name in split) == axons


def test_a_silent_network_still_updates_its_neurons(quantized):
    run = IntegerTarget().run(quantized, np.zeros((2, 8, 8), np.float32))
    silent = replace(run, synops=0, events={n: 0 * e for n, e in run.events.items()})
    found = costs_of(silent, quantized)
    assert found.energies["loihi"].inference[0] == pytest.approx(52e-12 * found.updates)


def test_a_network_is_checked_against_its_own_chip(quantized):
    assert fit_of(quantized).violations == []
    unfit = fit_of(replace(quantized, profile="loihi1")).violations
    assert any(text.startswith("messages of input, bits: 12, and at most 1") for text in unfit)
    assert fit_of(replace(quantized, profile="unknown")) is None
    assert fit_of(replace(quantized, profile="braindrop")) is None
    assert fit_of(None) is None


def test_the_verdict_names_violations(digits, assembled, quantized):
    fidelity, _ = assembled(digits)
    target = fidelity.targets["integer"]
    unfit = fit_of(replace(quantized, profile="loihi1"))
    sentences = on_chip(target.model_copy(update={"fit": unfit}))
    assert sentences[0].startswith("The network does not fit Intel Loihi (profile loihi1): ")
    assert unfit.violations[0] in sentences[0]
    words, tone = verdict(target.model_copy(update={"fit": unfit}))
    assert (words, tone) == (f"does not fit its chip; {verdict(target)[0]}", "worse")
    assert on_chip(target) == []


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        ((1.0e-9, 2.345e-6), "1 nJ to 2.3 µJ"),
        ((3.81e-13, 3.81e-13), "0.38 pJ"),
        ((0.0, 12.0), "0 J to 12 J"),
        ((9.999e-7, 1e-3), "1 µJ to 1 mJ"),
    ],
)
def test_quantities_have_an_si_prefix(interval, text):
    assert quantities(interval, "J").replace("\u202f", " ") == text
