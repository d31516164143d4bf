"""Size of reports: bounded for any number of events; the compact drawings look the same."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lmu_deploy.fidelity import Result
from lmu_deploy.fidelity.measures.events import RasterExcerpt, excerpt
from lmu_deploy.report import write_report
from lmu_deploy.report.plots.events import (
    Activity,
    dashes,
    describe_excerpts,
    equal_share,
    limit_dashes,
)
from lmu_deploy.report.svg import compact, compact_path

NUMBERS = {"m": 2, "l": 2, "h": 1, "v": 1, "c": 6, "q": 4, "z": 0}
POINTS = st.tuples(st.integers(-99_999, 99_999), st.integers(-99_999, 99_999))
CORNERS = st.tuples(st.integers(0, 3), st.integers(0, 3)).map(lambda p: (100 * p[0], 100 * p[1]))


def corners(data):
    """Return command and end point, in tenths of a pixel, of each segment of relative path data."""
    found, command, x, y = [], "", 0, 0
    start = (0, 0)
    tokens = re.findall(r"[a-z]|-?\d*\.?\d+", data)
    while tokens:
        command = tokens.pop(0) if tokens[0].isalpha() else command
        values = [round(10 * float(tokens.pop(0))) for _ in range(NUMBERS[command])]
        pairs = {"h": [(values[:1] or [0])[0], 0], "v": [0, (values[:1] or [0])[0]]}
        dx, dy = pairs.get(command, values[-2:] or [start[0] - x, start[1] - y])
        x, y = x + dx, y + dy
        start = (x, y) if command == "m" else start
        found.append((command, (x, y)))
    return found


@given(st.lists(st.one_of(POINTS, CORNERS), min_size=2, max_size=30), st.booleans())
def test_compact_paths_pass_through_the_same_points(points, closed):
    data = "M " + " L ".join(f"{x / 100} {y / 100}" for x, y in points) + (" z" if closed else "")
    rounded = [(round(x / 10), round(y / 10)) for x, y in points]
    found = corners(compact_path(data))
    assert [c for c, _ in found].count("m") == 1
    assert (found[-1][0] == "z") == closed
    ends = [end for command, end in found if command != "z"]
    assert (ends[0], ends[-1]) == (rounded[0], rounded[-1])
    at = 0
    for point in rounded:  # each lies on the piece that is drawn now, or on one that follows
        while not between(ends[at], point, ends[min(at + 1, len(ends) - 1)]):
            at += 1
            assert at < len(ends), point


def between(a, point, b):
    (ax, ay), (x, y), (bx, by) = a, point, b
    straight = (x - ax) * (by - ay) == (y - ay) * (bx - ax)
    return straight and min(ax, bx) <= x <= max(ax, bx) and min(ay, by) <= y <= max(ay, by)


def test_curves_and_segments_of_zero_length_are_kept():
    assert compact_path("M 1 2 L 1 2 ") == "m1 2h0"
    assert compact_path("M 0 0 C 0.79 3 1.55 2.68 -2.12 2.12 z") == "m0 0c.8 3 1.6 2.7-2.1 2.1z"
    assert compact_path("M 1 1 L 2 1 L 2.5 1 L 2 1 L 2 4 z M 9 9 L 8 8 L 7 6") == (
        "m1 1h1.5h-.5v3zm8 8l-1-1-1-2"
    )


def test_only_redundant_parts_are_removed():
    drawing = (
        '<g><g clip-path="url(#a)"><defs>'
        '<path id="m" d="M 0 0 L 0 3 " style="stroke: red; stroke-width: 0.8"/></defs><g>'
        '<use href="#m" x="1" style="fill: red; stroke: red; stroke-width: 0.8"/>'
        '<use href="#m" x="2" style="stroke: red"/></g></g>'
        '<path d="M 0 0 L 1 0 z " style="fill: none"/>'
        '<path d="M 0 0 L 1 0 " style="fill: none; stroke-dasharray: ; stroke: red"/>'
        '<g><text style="font-size: 12px; fill: var(--muted)" x="1">of " style="a: b" &lt;g></text>'
        "</g><g/></g>"
    )
    assert compact(drawing) == (
        '<g clip-path="url(#a)"><defs>'
        '<path id="m" d="M 0 0 L 0 3 " style="stroke:red;stroke-width:0.8"/></defs>'
        '<use href="#m" x="1" style="fill:red"/><use href="#m" x="2"/></g>'
        '<path d="m0 0h1" style="fill:none;stroke:red"/>'
        '<text style="font-size:12px" x="1">of " style="a: b" &lt;g></text>'
    )


@given(st.lists(st.integers(0, 50), max_size=8), st.integers(0, 200))
def test_equal_shares_use_the_whole_budget(needs, most):
    share = equal_share(needs, most)
    got = [min(need, share) for need in needs]
    assert sum(got) <= most
    if sum(needs) <= most:
        assert got == needs
    else:  # the limit cannot be raised by one
        assert sum(min(need, share + 1) for need in needs) > most


@given(
    st.lists(st.tuples(st.integers(1, 40), st.sampled_from([8, 79, 400]), st.floats(0, 1))),
    st.integers(100, 3000),
)
def test_rasters_share_a_budget(shapes, most):
    rng = np.random.default_rng(3)
    rasters = [None, *(excerpt(rng.random((t, n)) < rate) for n, t, rate in shapes)]
    cut = limit_dashes(rasters, most)
    needs = [dashes(raster) for raster in cut]
    one_row = 80 * len(rasters)  # at least one neuron of each population is drawn
    assert sum(needs) <= max(most, one_row)
    if sum(map(dashes, rasters)) <= most:
        assert all(a is b for a, b in zip(cut, rasters, strict=True))
    assert cut[0] is None
    for before, after in zip(rasters[1:], cut[1:], strict=True):
        rows = np.isin(before.neurons, after.neurons)
        assert rows.sum() == len(after.neurons) >= 1
        assert after.chip_steps == before.chip_steps
        assert (before.counts[rows].sum(axis=1) == after.counts.sum(axis=1)).all()


def test_excerpts_are_described():
    def activity(name, neurons, shape, steps):
        counts = np.ones(shape, np.int32)
        raster = RasterExcerpt(steps, np.arange(shape[0], dtype=np.int32), counts)
        return Activity(name, neurons, raster, [1.0] * steps)

    whole = activity("whole", 3, (3, 9), 9)
    assert describe_excerpts([whole, Activity("none", 5, None, [0.0])]) == ""
    some = [activity(name, 1200, (4, 80), 400) for name in ("a", "b")]
    assert describe_excerpts([whole, *some, activity("c", None, (4, 80), 400)]) == (
        "The rasters are excerpts. a, b: 4 of 1,200 neurons, evenly spaced; events counted in 80 "
        "time bins. c: events counted in 80 time bins. The means cover all neurons and samples."
    )


def test_a_report_has_one_budget_for_all_targets(digits, folder_of, monkeypatch):
    monkeypatch.setattr("lmu_deploy.report.view.MOST_DASHES", 600)
    rng = np.random.default_rng(8)
    names = ["layer0/memory", "layer0/hidden"]
    run = replace(
        digits.results[1].run,
        chip_steps=2000,
        neurons=dict.fromkeys(names, 600),
        rasters={n: (rng.random((2000, 600)) < 0.5).astype(np.uint8) for n in names},
    )
    results = [Result(replace(run, target=name)) for name in ("one", "two", "three")]
    page = write_report(folder_of(SimpleNamespace(**{**vars(digits), "results": results})))
    text = page.read_text(encoding="utf-8")
    figures = re.findall(r'<svg class="wide"[^>]*"events-.*?</svg>', text, flags=re.DOTALL)
    drawn = [re.sub(r"<defs>.*?</defs>", "", figure, flags=re.DOTALL) for figure in figures]
    moves = [path.count("m") for figure in drawn for path in re.findall(r' d="([^"]*)', figure)]
    assert 500 < sum(n for n in moves if n > 1) <= 600  # frames and means are paths of one move
    assert text.count("The rasters are excerpts. ") == 3
    assert re.search(r"\b\d of 600 neurons, evenly spaced", text)
