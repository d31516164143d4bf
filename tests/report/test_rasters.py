"""Rasters as dashes: they cover every event and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lmu_deploy.fidelity.measures.events import RasterExcerpt, excerpt
from lmu_deploy.report.plots.events import cells
from lmu_deploy.report.plots.lines import thinned


@pytest.mark.parametrize("chip_steps", [6, 121])
@given(data=st.data())
def test_dashes_cover_the_events(chip_steps, data):
    shape = (chip_steps, data.draw(st.integers(1, 5)))
    raster = data.draw(arrays(np.uint8, shape, elements=st.integers(0, 1)))
    raster[0, 0] = 1
    steps = 12
    lines = list(cells(excerpt(raster), steps))
    assert [strength for *_, strength in lines] == [1.0]
    x, y, _ = lines[0]
    drawn = np.zeros(raster.shape)
    middles = (np.arange(chip_steps) + 0.5) * steps / chip_steps
    for begin, end, row in zip(x[::3], x[1::3], y[::3], strict=True):
        drawn[(middles > begin) & (middles < end), int(row)] += 1
    assert (drawn == raster).all()
    assert np.isnan(x[2::3]).all()


@given(arrays(np.bool_, (900, 2)))
def test_dashes_of_many_steps_are_as_long_as_the_shortest_and_do_not_overlap(raster):
    """Every run of events is covered by a mark of at least three steps, and nothing else is."""
    raster[0, 0] = True
    ((x, y, _),) = cells(RasterExcerpt(900, np.arange(2), raster.T.astype(np.int32)), 900)
    wanted = np.pad(raster, ((0, 4), (0, 0)))
    begins = raster & ~np.pad(raster, ((1, 0), (0, 0)))[:-1]
    for later in range(3):
        wanted[later : later + 900] |= begins
    drawn = np.zeros((904, 2), int)
    for begin, end, row in zip(x[::3], x[1::3], y[::3], strict=True):
        drawn[round(begin) : round(end), int(row)] += 1
    assert (drawn == wanted).all()


def test_shades_follow_the_counts():
    counts = np.array([[0, 1, 2, 8]], np.int32)
    found = [(x[0], s) for x, _, s in cells(RasterExcerpt(400, np.array([3]), counts), 4)]
    assert found == [(pytest.approx(1.06), 0.25), (pytest.approx(3.06), 1.0)]
    both = [len(x) // 3 for x, _, _ in cells(RasterExcerpt(400, np.array([3]), counts), 4)]
    assert both == [2, 1]


@pytest.mark.parametrize("length", [1, 7, 240, 241, 5000])
def test_thinned_keeps_means_and_squares(length):
    values = np.random.default_rng(0).random(length)
    x, y = thinned(values)
    assert len(x) == min(length, 240)
    assert np.mean(y) == pytest.approx(values.mean(), rel=0.01)
    assert x[0] >= 0
    assert x[-1] <= length - 1
    assert np.mean(thinned(values, squares=True)[1] ** 2) == pytest.approx(
        np.mean(values**2), rel=0.01
    )
