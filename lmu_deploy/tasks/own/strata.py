"""Stratified random choices: orders of samples and validation parts, with classes in proportion."""

from __future__ import annotations

import numpy as np

VALIDATION_SHARE = 10
"""Of this many training samples one validates."""

_TRIES = 200


def stratified_order(targets: np.ndarray, seed: int) -> np.ndarray:
    """Return a random order of samples whose every beginning has the classes in proportion.

    Parameters
    ----------
    targets : ndarray
        Classes of samples, shape (samples,); targets of another form have no classes, and the order
        is random.
    seed : int

    Returns
    -------
    order : ndarray of int64, shape (samples,)

    Examples
    --------
    >>> classes = np.repeat([0, 1], [75, 25])
    >>> np.bincount(classes[stratified_order(classes, 0)[:20]])
    array([15,  5])
    """
    order = np.random.default_rng(seed).permutation(len(targets))
    if targets.ndim != 1 or targets.dtype.kind != "i" or not len(targets):
        return order
    _, classes = np.unique(targets[order], return_inverse=True)
    counts = np.bincount(classes)
    by_class = np.argsort(classes, kind="stable")
    rank = np.empty(len(order))
    rank[by_class] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.asarray(order[np.argsort((rank + 0.5) / counts[classes], kind="stable")])


def validation_rows(
    samples: int, classes: np.ndarray | None, groups: np.ndarray | None, seed: int
) -> np.ndarray:
    """Return which training samples validate: a stratified tenth, or whole groups of about that.

    Parameters
    ----------
    samples : int
    classes : ndarray of int, shape (samples,), or None
    groups : ndarray, shape (samples,), or None
    seed : int

    Returns
    -------
    rows : ndarray of int64
        Sorted; empty with fewer than ten samples, or with a single group.
    """
    wanted = samples // VALIDATION_SHARE
    if not wanted:
        return np.zeros(0, np.int64)
    labels = np.zeros(samples, np.int64) if classes is None else classes
    if groups is None:
        return np.sort(stratified_order(labels, seed)[:wanted])
    return _whole_groups(wanted, labels, groups, seed)


def _whole_groups(wanted: int, labels: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """Return the samples of some groups, the best of many random choices in size and classes."""
    _, numbers = np.unique(groups, return_inverse=True)
    _, classes = np.unique(labels, return_inverse=True)
    table = np.zeros((numbers.max() + 1, classes.max() + 1))
    np.add.at(table, (numbers, classes), 1)
    ideal = table.sum(axis=0) * wanted / len(labels)
    rng = np.random.default_rng(seed)
    best, least = np.zeros(0, np.int64), np.inf
    for _ in range(_TRIES if len(table) > 1 else 0):
        order = rng.permutation(len(table))
        totals = table[order].cumsum(axis=0)[:-1]  # some group stays to be trained on
        errors = ((totals - ideal) ** 2 / np.maximum(ideal, 1)).sum(axis=1)
        number = int(errors.argmin())
        if errors[number] < least:
            best, least = order[: number + 1], errors[number]
    return np.flatnonzero(np.isin(numbers, best))
