"""A raster as broken lines: a dash for each event, or shades of dashes where they were counted."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lmu_deploy.fidelity.excerpts import RasterExcerpt

_SHADES = 4
_GAPS_UNTIL = 60
_SHORTEST = 1.0 / 300.0


def cells(found: RasterExcerpt, steps: int) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """Give lines along the neurons' rows, one set for each shade.

    Few cells of time are set apart by gaps; many are joined where they follow each other, which
    looks the same and is far smaller.

    Parameters
    ----------
    found : RasterExcerpt
    steps : int
        Steps of the task, to which the chip's steps are scaled.

    Yields
    ------
    x, y : ndarray
        Ends of the dashes, with NaN between one and the next.
    strength : float
        How dark they are, up to 1; relative to the most events of a cell.
    """
    bins = found.counts.shape[1]
    most = int(found.counts.max())
    shades = np.ceil(found.counts * (min(most, _SHADES) / most)).astype(np.int64)
    for shade in range(1, min(most, _SHADES) + 1):
        mask = shades == shade
        if not mask.any():
            continue
        row, begin, end = _apart(mask) if bins <= _GAPS_UNTIL else _joined(mask)
        end = np.maximum(end, begin + _SHORTEST * bins)
        nothing = np.full(len(row), np.nan)
        x = np.stack([begin, end, nothing], axis=1).ravel() * (steps / bins)
        y = np.stack([row, row, nothing], axis=1).ravel()
        yield x, y, shade / min(most, _SHADES)


def _apart(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    row, cell = np.nonzero(mask)
    return row, cell + 0.06, cell + 0.94


def _joined(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find where runs of cells begin and end."""
    change = np.diff(mask.astype(np.int8), axis=1, prepend=0, append=0)
    row, begin = np.nonzero(change == 1)
    return row, begin.astype(np.float64), np.nonzero(change == -1)[1].astype(np.float64)
