r"""Damage of an integer network: weights that no rounding of its float network can have given.

Rounding is exact: a weight or bias of a healthy file is the integer nearest to that of its float
network, and a weight that is off by more than half a unit of the last slice is damage, of the file
or of the program that wrote it. Large damage (a row or column that is off by 40 % of its norm or
more, a slice without weights) is named first, with the pattern of change. Named are also functions
that are much less exact than they could be, shifts that contradict units, messages with too few
bits for their unit, which saturate at a small part of what they should show, and edges that read
other frames. A memory whose basis was fitted after it was rounded is compared in the coordinates in
which it was rounded.
"""

from __future__ import annotations

import numpy as np

from converters.quantize.connections import HALF, off_rounding
from converters.quantize.lowering.lower import function_of
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.pointwise import Activation
from lmu_deploy.core.integer.graph import biases
from lmu_deploy.core.integer.memories import Integrators, Series
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.parts import Edge, largest
from lmu_deploy.core.integer.populations import Input, Pointwise
from lmu_deploy.fidelity.attribution.counterpart import rounded_counterpart
from lmu_deploy.fidelity.replay.integers import MOST_NEURONS, Fault

LARGE = 0.4
"""Smallest relative error of a row or column that is damage."""
_UNITS, _SHARE, _SPARSE, _TIMES = 6.0, 0.03, 0.2, 20.0
_LIKE, _EQUAL, _ALONE, _NEARLY = 0.2, 0.01, 0.8, 0.98
_EXACT = 0.1
_LINES, _NEAR, _POINTS = 3.0, 6.0, 2001
"""Error of a function in units of its messages that is no damage; where it is tested, in real
units."""
_BOUNDED = {"tanh": 1.0, "sigmoid": 1.0, "hard_tanh": 1.0, "hard_sigmoid": 1.0, "softsign": 1.0}
"""Largest values of functions that have one."""
_BACK = ("recurrent", "feedback", "hidden")
"""Edges of a memory that read the frame before."""
_OF_STATE, _REACHED = 0.25, 0.35
"""Range of a memory's messages as a share of that of its states; the smallest share of the range of
messages or states that is no damage."""


def damage(network: IntegerNetwork) -> list[Fault]:
    """Return statements on the damage of a network, in the order of its edges.

    Parameters
    ----------
    network : IntegerNetwork
        Compared with the float network that it holds; without one nothing is found.
    """
    if network.source is None:
        return []
    try:
        counterpart = rounded_counterpart(network)
    except InputError as error:  # its weights or biases do not follow from the float network
        return [Fault("source", "", (), f"The integers are not those of the network: {error}")]
    found: list[Fault] = []
    for edge in network.edges:
        truth, refitted = counterpart.matrices[edge.place], edge.target in counterpart.refitted
        off = off_rounding(edge.connection, truth, whole=edge.place in counterpart.whole)
        found += _of_frames(edge, counterpart.frames.get(edge.place))
        if off.any():
            found += _of_edge(edge, truth, refitted) or ([] if refitted else _few(edge, truth, off))
    for place, integers in biases(network).items():
        if place not in counterpart.refitted:
            found += _of_bias(str(place), integers, counterpart.biases[f"{place}/bias"])
    entry = network.populations[0]
    if counterpart.units is not None and isinstance(entry, Input):
        found += _of_input(entry, counterpart.units)
    for population in network.on_chip:
        if isinstance(population, Pointwise) and population.place in counterpart.functions:
            function = counterpart.functions[population.place]
            found += _of_function(population, function)
            if function.name in _BOUNDED:
                found += _of_range(population, population.message.scale / _BOUNDED[function.name])
        if isinstance(population, Integrators | Series):
            found += _of_shift(population)
        if isinstance(population, Integrators) and not _for_its_bias(population):
            whole = population.state.scale * population.state.limit
            whole *= 1.0 if population.realization == "fir" else _OF_STATE
            found += _of_range(population, population.message.scale / whole)
    return found


def _of_edge(edge: Edge, truth: np.ndarray, refitted: bool) -> list[Fault]:
    """Return the statements on one edge whose weights are far from those of float.

    Where the coordinates of a `refitted` memory are not known, its weights are near those of float.
    """
    place, connection = edge.place, edge.connection
    slices, now = connection.slices, connection.dequantized
    if not truth.any():
        return []
    empty = [k for k in range(len(slices)) if not slices[k].any()]
    if empty and len(slices) > 1:
        words = f"Slice {empty[0]} of the weights of {place} is empty."
        return [Fault("slice lost", place, (empty[0],), words)]
    rows = _off(edge, now, truth, 1, refitted)
    columns = _off(edge, now, truth, 0, refitted)
    if len(rows) > len(truth) / 2 and len(columns) > truth.shape[1] / 2:
        what = _change(now.reshape(1, -1), truth.reshape(1, -1), 0)
        if what is not None:
            return [Fault(f"edge {what[0]}", place, (), f"All weights of {place} {what[1]}.")]
    squares = (now - truth) ** 2
    if truth.shape[1] == 1 and len(rows):
        columns = columns[:0]  # the only column is the whole edge
    elif squares.max() >= _ALONE * squares.sum():
        return _of_largest(edge, now, truth, rows, columns, refitted)
    source = str(edge.source)
    of_rows = [_line("row", place, place, now, truth, int(i)) for i in rows]
    of_columns = [_line("column", place, source, now.T, truth.T, int(j)) for j in columns]
    if of_rows or of_columns:
        known = (_known(of_rows), _known(of_columns))
        first = _spread(squares.sum(axis=1)) <= _spread(squares.sum(axis=0))
        if known[0] != known[1]:
            first = known[0]
        return ((of_rows if first else of_columns) or of_rows or of_columns)[:MOST_NEURONS]
    return [] if refitted else _weights(edge, now, truth)


def _of_frames(edge: Edge, right: tuple[tuple[int, ...], int, int] | None) -> list[Fault]:
    """Return the statement on an edge that reads other frames than the float network."""
    if right is None:  # of a memory
        right = ((-1,) if edge.name in _BACK else (0,), 1, 0)
    if right == (edge.offsets, edge.stride, edge.after):
        return []
    words = (
        f"{edge.place} reads frames {_numbers(edge.offsets)} of every {edge.stride}, and "
        f"{_numbers(right[0])} of every {right[1]} in float."
    )
    return [Fault("frames", edge.place, (), words)]


def _numbers(offsets: tuple[int, ...]) -> str:
    return ", ".join(map(str, offsets))


def _of_largest(
    edge: Edge,
    now: np.ndarray,
    truth: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    refitted: bool,
) -> list[Fault]:
    """Return the statements where one weight has nearly all of the error.

    It may be the largest weight of a row or column that is wrong as a whole.
    """
    wrong, place = np.abs(now - truth), edge.place
    i, j = (int(n) for n in np.unravel_index(int(wrong.argmax()), wrong.shape))
    beyond = wrong > _UNITS * edge.connection.gains[-1][:, None]
    in_row, in_column = int(beyond[i].sum()), int(beyond[:, j].sum())
    if i in rows and in_row > 1 and in_row >= in_column:
        changed = _change(now, truth, i)
        known = changed is not None or not refitted
        return [_line("row", place, place, now, truth, i)] if known else []
    if j in columns and in_column > 1:
        changed = _change(now.T, truth.T, j)
        known = changed is not None or not refitted
        return [_line("column", place, str(edge.source), now.T, truth.T, j)] if known else []
    if refitted:
        return []
    if found := _weights(edge, now, truth):
        return found
    if i in rows or j in columns:
        return [_weight(edge, now, truth, i, j)]
    return []


def _few(edge: Edge, truth: np.ndarray, off: np.ndarray) -> list[Fault]:
    """Return the statements on weights that are not the nearest integers, however near they are.

    They are named by row or by column, whichever are fewer.
    """
    place, now, unit = edge.place, edge.connection.dequantized, edge.connection.gains[-1][:, None]
    units = np.abs(now - truth) / unit
    rows, columns = (np.flatnonzero(off.any(axis=axis)) for axis in (1, 0))
    if len(rows) == len(columns) == 1:
        return [_weight(edge, now, truth, int(rows[0]), int(columns[0]))]
    by = "off by up to {:.3g} units of the last slice, and rounding gives 0.5."
    if min(len(rows), len(columns)) > MOST_NEURONS:
        words = f"{off.sum():,} of {off.size:,} weights of {place} are {by.format(units.max())}"
        return [Fault("rounding", place, (), words)]
    if len(rows) <= len(columns):
        kind, at, lines, most = "row", place, rows, units.max(axis=1)
    else:
        kind, at, lines, most = "column", str(edge.source), columns, units.max(axis=0)
        now, truth = now.T, truth.T
    found = []
    for i in map(int, lines):
        fault = _line(kind, place, at, now, truth, i)
        if fault.kind != "exchanged":
            words = f"The weights of {kind} {i} of {place} are {by.format(most[i])}"
            fault = Fault(kind, at, (i,), words)
        found.append(fault)
    return found


def _known(lines: list[Fault]) -> bool:
    """Return whether all changes of lines follow a pattern; false without lines."""
    return bool(lines) and all(fault.kind not in ("row", "column") for fault in lines)


def _spread(parts: np.ndarray) -> tuple[int, float]:
    """Return how few parts hold nearly all of a sum, and less the share of the largest."""
    shares = np.sort(parts)[::-1] / max(float(parts.sum()), 1e-300)
    return int(np.searchsorted(np.cumsum(shares), _NEARLY)), -float(shares[0])


def _off(edge: Edge, now: np.ndarray, truth: np.ndarray, axis: int, refitted: bool) -> np.ndarray:
    """Return which rows (axis 1) or columns (axis 0) are off by more than rounding can be.

    The error is compared with the norm of the line, and with three times the norm that uniform
    errors of half a unit of the last slice have where the float weights are not zero. An error of
    twenty times that norm is damage too if other lines have no such errors, and one of a tenth of
    the line's norm if the others have none at all or the line is a multiple of the right one.
    Lines of a thousandth of the largest are left out; in a refitted memory, whose basis is a fit
    too, those of a hundredth.
    """
    wrong, size = (np.linalg.norm(each, axis=axis) for each in (now - truth, truth))
    units = np.broadcast_to(edge.connection.gains[-1][:, None], truth.shape)
    rounding = np.linalg.norm(units * (truth != 0.0), axis=axis) / np.sqrt(12.0)
    judged = size > (1e-2 if refitted else 1e-3) * size.max(initial=0.0)
    large = wrong >= np.maximum(LARGE * size, 3.0 * rounding)
    typical = np.median(wrong[judged] / np.maximum(rounding[judged], 1e-300)) if judged.any() else 0
    single = wrong >= _TIMES * np.maximum(typical, 1.0) * rounding
    if not typical:  # zeros and ones, or other numbers that need no rounding
        single |= wrong >= _EXACT * size
    products, powers = ((each * truth).sum(axis=axis) for each in (now, truth))
    factors = np.divide(products, powers, out=np.ones_like(powers), where=powers > 0.0)
    left = np.linalg.norm(now - np.expand_dims(factors, axis) * truth, axis=axis)
    scaled = (np.abs(factors - 1.0) >= _EXACT) & (left <= 3.0 * rounding) & (wrong > 3.0 * rounding)
    return np.flatnonzero(judged & (large | ((single | scaled) & (not refitted))))


def _change(now: np.ndarray, truth: np.ndarray, i: int) -> tuple[str, str] | None:
    """Return what happened to a line, as a kind and in words; None if it follows no pattern."""
    mine, right = now[i], truth[i]
    if not mine.any():
        return "lost", "are missing"
    factor = float(mine @ right) / max(float(right @ right), 1e-300)
    left = float(np.linalg.norm(mine - factor * right) / np.linalg.norm(mine))
    if left > _LIKE:
        return None
    if abs(factor + 1.0) < _LIKE:
        return "sign", "have the wrong sign"
    return "gain", f"are {factor:.3g} times those of float"


def _line(kind: str, edge: str, place: str, now: np.ndarray, truth: np.ndarray, i: int) -> Fault:
    """Return the statement on a row, or on a column of transposed arrays."""
    of = f"{kind} {i} of {edge}"
    distance = np.linalg.norm(truth - now[i], axis=1)
    like, size = int(distance.argmin()), float(np.linalg.norm(now[i]))
    what = _change(now, truth, i)
    same = like != i and distance[like] <= (_LIKE if what is None else _EQUAL) * size
    if same:
        words = f"The weights of {of} are those of {kind} {like}."
        return Fault("exchanged", place, (i, like), words)
    if what is not None:
        return Fault(f"{kind} {what[0]}", place, (i,), f"The weights of {of} {what[1]}.")
    off = float(np.linalg.norm(now[i] - truth[i])) / max(float(np.linalg.norm(truth[i])), 1e-300)
    return Fault(
        kind, place, (i,), f"The weights of {of} are off by {100 * off:.0f} % of their size."
    )


def _weights(edge: Edge, now: np.ndarray, truth: np.ndarray) -> list[Fault]:
    """Return statements on single weights; none where many were pruned."""
    connection, wrong = edge.connection, np.abs(now - truth)
    pruned = np.mean((now == 0.0) & (np.abs(truth) > connection.gains[-1][:, None]))
    if pruned > _SPARSE:
        return []
    size = np.abs(truth).max(axis=1, keepdims=True)
    allowed = np.maximum(_UNITS * connection.gains[-1][:, None], _SHARE * size)
    typical = np.median(wrong, axis=1, keepdims=True)
    bad = np.argwhere((wrong > allowed) & (wrong > _UNITS * typical))
    if len(bad) > MOST_NEURONS:
        return []
    return [_weight(edge, now, truth, int(i), int(j)) for i, j in bad]


def _weight(edge: Edge, now: np.ndarray, truth: np.ndarray, i: int, j: int) -> Fault:
    """Return the statement on one weight."""
    words = (
        f"The weight in row {i}, column {j} of {edge.place} is {now[i, j]:.3g}, and "
        f"{truth[i, j]:.3g} in float, in units of the integers."
    )
    return Fault("weight", edge.place, (i, j), words)


def _of_function(p: Pointwise, activation: Activation) -> list[Fault]:
    """Return the statement on a function that is not nearly as good as one that is fitted now."""
    limit, near = p.drive.limit, min(_NEAR / p.drive.scale, p.drive.limit)
    z = np.concatenate([np.linspace(-end, end, _POINTS) for end in (limit, near)]).astype(np.int64)
    most = p.message.limit
    right = np.clip(activation.apply(z * p.drive.scale) / p.message.scale, -most, most)
    size = float(np.abs(right).max())
    wrong, usual = (
        np.abs(np.clip(function(z), -most, most) - right)
        for function in (p.function, function_of(activation, p.drive, p.message))
    )
    if wrong.max() <= max(2.0 * usual.max(), _LINES):
        return []
    words = (
        f"The function of {p.place} is off by up to {100 * wrong.max() / size:.0f} % of its range."
    )
    return [Fault("function", str(p.place), (), words)]


def _of_input(entry: Input, units: tuple[np.ndarray | None, np.ndarray | None]) -> list[Fault]:
    """Return the statement on an input whose channels have other units or zeros than in float."""
    found = []
    for what, mine, right in zip(("unit", "zero"), (entry.gain, entry.offset), units, strict=True):
        default = 1.0 if what == "unit" else 0.0
        one, other = (np.full(entry.size, default) if a is None else a for a in (mine, right))
        wrong = np.flatnonzero(np.abs(one - other) > 1e-9 * (1.0 + np.abs(other)))
        for i in wrong[:MOST_NEURONS]:
            words = f"The {what} of channel {i} of {entry.place} is {one[i]:.6g}, and in float"
            found.append(Fault(what, str(entry.place), (int(i),), f"{words} {other[i]:.6g}."))
    return found


def _for_its_bias(p: Integrators) -> bool:
    """Return whether the range of the states is the least that represents a bias."""
    return p.bias is not None and 2 * np.abs(p.bias).max() > largest(min(p.state.bits, 24))


def _of_range(p: Integrators | Pointwise, unit: float) -> list[Fault]:
    """Return the statement on messages, or states, that end at a small part of their range.

    Parameters
    ----------
    p : Population
    unit : float
        Of the messages, as a share of the range that they have in any network of `quantize`.
    """
    reached, what = unit * p.message.limit, f"Messages of {p.place}"
    kind, bits = "message width", p.message.bits
    if not isinstance(p, Pointwise) and reached > 1.0 / _REACHED:
        reached, what, kind, bits = (
            1.0 / reached,
            f"States of {p.place}",
            "state width",
            p.state.bits,
        )
    elif reached > _REACHED:
        return []
    words = (
        f"{what} have {bits} bits and end at {100 * reached:.2g} % of their range: "
        "their width does not match their unit."
    )
    return [Fault(kind, str(p.place), (bits,), words)]


def _of_shift(p: Integrators | Series) -> list[Fault]:
    """Return the statement on a shift that does not give messages their unit."""
    shift = float(np.log2(p.message.scale / p.state.scale))
    if abs(shift - p.message_shift) < 1e-6:
        return []
    words = f"Messages of {p.place} are shifted by {p.message_shift} bits, and their unit needs"
    return [Fault("shift", str(p.place), (p.message_shift,), f"{words} {shift:.3g}.")]


def _of_bias(place: str, integers: np.ndarray, truth: np.ndarray) -> list[Fault]:
    limit = largest(24)
    wrong = np.abs(integers - np.clip(truth, -limit, limit))
    return [
        Fault(
            "bias",
            f"{place}/bias",
            (int(i),),
            f"The bias of neuron {i} of {place} is {integers[i]:,} and {truth[i]:,.1f} in float.",
        )
        for i in np.flatnonzero(wrong > HALF)[:MOST_NEURONS]
    ]
