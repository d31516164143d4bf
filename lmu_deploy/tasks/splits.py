"""Dividing labelled samples so that every part holds the classes in the same proportion."""

from __future__ import annotations

import numpy as np


def stratified_parts(labels: np.ndarray, shares: tuple[float, ...], seed: int) -> list[np.ndarray]:
    """Divide samples at random, class by class.

    Parameters
    ----------
    labels : ndarray of int, shape (samples,)
    shares : tuple of float
        Share of each part but the last, which takes the rest.
    seed : int
        Of NumPy's legacy generator, whose stream is frozen for good.

    Returns
    -------
    parts : list of ndarray of int
        Sorted indices; every sample is in exactly one of the ``len(shares) + 1`` parts.
    """
    rng = np.random.RandomState(seed)
    bounds = np.cumsum(shares)
    members: list[list[np.ndarray]] = [[] for _ in range(len(shares) + 1)]
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        cuts = np.rint(bounds * len(own)).astype(int)
        for part, chosen in zip(members, np.split(own, cuts), strict=True):
            part.append(chosen)
    return [np.sort(np.concatenate(part)) for part in members]
