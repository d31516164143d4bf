"""Sections on errors: content, agreement with the figures, bounded size."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from layered import layered, relayered

from converters.quantize import quantize
from lmu_deploy.fidelity import Result, read_fidelity, write_fidelity
from lmu_deploy.fidelity.attribution import attribute
from lmu_deploy.fidelity.measures.ranges import layer_ranges
from lmu_deploy.fidelity.schema import ErrorMap, Histogram
from lmu_deploy.report import write_report
from lmu_deploy.report.losses import first_cause, where
from lmu_deploy.report.plots.losses import Bar, Panel, histogram_plot, waterfall_plot
from lmu_deploy.report.plots.memory import SHADES, error_map_plot, limits, shades
from lmu_deploy.report.series import assign
from lmu_deploy.report.wording import MINUS, share
from targets.integer import IntegerTarget

SERIES = assign(["integer"])["integer"]


@pytest.fixture(scope="module")
def folder(digits, assembled, tmp_path_factory):
    """Folder with a report of a network in which one row has gains twice too large."""
    integer = quantize(digits.network, digits.split.inputs, kernel_slices=2)
    hidden = layered(integer).layers[0].hidden
    multiplier = hidden.memory.multiplier.copy()
    multiplier[:, 5] *= 2
    memory = dataclasses.replace(hidden.memory, multiplier=multiplier)
    layer = dataclasses.replace(
        layered(integer).layers[0], hidden=dataclasses.replace(hidden, memory=memory)
    )
    bad = relayered(integer, layers=(layer,))
    inputs = digits.split.inputs[:40]
    run = IntegerTarget().run(bad, inputs, record=True)
    sources = attribute(bad, inputs, digits.split.targets, digits.task)
    ranges = layer_ranges(bad, inputs, sources.tally, sources.samples)
    made = tmp_path_factory.mktemp("losses")
    results = [Result(run, bad, {}, sources, ranges)]
    write_fidelity(made, *assembled(digits, results=results))
    write_report(made)
    return made


def text_of(folder):
    page = (folder / "report.html").read_text(encoding="utf-8")
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


def test_the_file_is_read_back_with_all_findings(folder):
    found = read_fidelity(folder).targets["integer"]
    assert found.attribution.samples == 40
    assert sum(step.share_in_turn for step in found.attribution.steps) == pytest.approx(1.0)
    first = found.attribution.causes[0]
    assert (first.source, first.place, first.row) == ("hidden weights", "layer0/hidden/memory", 5)
    assert {each.place for each in found.ranges.signals} >= {"input", "layer0/memory/state"}
    worst = next(each for each in found.ranges.connections if each.place == first.place)
    assert worst.worst_row == 5
    assert found.divergence.points[0].variable == "layer0/hidden[5]"


def test_the_page_names_the_first_cause_in_its_verdict(folder):
    text = text_of(folder)
    cause = read_fidelity(folder).targets["integer"].attribution.causes[0]
    verdict = text[text.index("float reference of one") : text.index("Comparison of float")]
    expected = f"output error is {where(cause)}; alone it causes {share(cause.share)} of"
    assert " ".join(expected.split()) in verdict
    assert where(cause).endswith("layer0/hidden/memory, row 5")
    for title in ("Sources of error", "Divergence from float", "Layer by layer"):
        assert title in text


def test_a_cause_larger_than_the_total_has_no_percentage(folder):
    found = read_fidelity(folder).targets["integer"]
    cause = found.attribution.causes[0].model_copy(update={"share": 1.8})
    attribution = found.attribution.model_copy(update={"causes": [cause]})
    text = first_cause(found.model_copy(update={"attribution": attribution}))
    assert text.endswith("row 5; alone it causes a larger error than all sources together.")
    assert "180" not in text


def test_sections_without_content_are_omitted(digits, folder_of):
    made = folder_of(digits, results=[])
    write_report(made)
    text = text_of(made)
    for title in ("Sources of error", "Divergence from float", "Layer by layer"):
        assert title not in text


def test_shades_divide_the_range_of_nearly_all_cells():
    values = np.geomspace(0.01, 0.1, 120).reshape(10, 12)
    values[0, 0], values[0, 1] = 0.0, 50.0  # one cell far beyond the others takes no shades away
    found = shades(values)
    assert found[0, 0] == 0 and found[0, 1] == SHADES
    counts = np.bincount(found.ravel(), minlength=SHADES + 1)
    assert counts[1:].min() >= 15
    low, high = limits(values)
    assert 0.01 <= low < 0.013 and 0.08 < high <= 0.1
    assert (np.diff(found.ravel()[2:]) >= 0).all()
    assert not shades(np.zeros((2, 3))).any()
    assert set(shades(np.full((2, 3), 0.5)).ravel()) == {SHADES}
    wide = np.geomspace(1e-12, 1.0, 100)
    assert limits(wide)[1] / limits(wide)[0] == pytest.approx(10.0**3)


def noise_map(rows, columns):
    values = 10.0 ** np.random.default_rng(1).uniform(-3, 0, (rows, columns))
    return ErrorMap(
        layer="layer0",
        orders=list(range(rows + 1)),
        times=list(range(columns + 1)),
        values=values.tolist(),
        growth=None,
        growth_by_order=[None] * rows,
    )


def test_a_map_of_noise_is_bounded_in_size():
    assert error_map_plot(0, SERIES, []) is None
    nothing = noise_map(2, 3).model_copy(update={"values": [[0.0] * 3] * 2})
    assert error_map_plot(0, SERIES, [nothing]) is None
    plot = error_map_plot(0, SERIES, [noise_map(32, 96)])
    assert 20_000 < len(plot.svg()) < 250_000
    assert "layer0: at most" in plot.description


def test_plots_describe_their_figures():
    bars = [Bar("message widths", 0.7, 0.6), Bar("readout", 0.35, 0.3), Bar("activation", -0.05, 0)]
    plot = waterfall_plot(0, SERIES, bars)
    assert "message widths 70.0" in plot.description
    assert plot.svg().count(f"{MINUS}5.0") == 4  # in words and drawn, wide and narrow
    histogram = Histogram(low=-1.0, high=1.0, before=[0, 5, 1], after=[1, 4, 1])
    assert histogram_plot("h", "title", SERIES, [Panel("readout", histogram)] * 5).svg()
