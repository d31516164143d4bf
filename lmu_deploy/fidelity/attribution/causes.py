r"""Where a source of error sits: the place that costs most, and the row if one stands out.

The sources that cost most alone are taken apart: each of their places is switched on alone. Of a
connection whose weights cost most, the local error of its rows on the messages that they really
get, :math:`\overline{(\sum_j (W - \hat W)_{ij} X_j)^2}`, says which row to suspect; a last run with
the integers of that row alone says what it costs. Of saturations, counts say it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lmu_deploy.fidelity.attribution.exact import biases
from lmu_deploy.fidelity.attribution.measure import Bench
from lmu_deploy.fidelity.attribution.simulator import Hybrid
from lmu_deploy.fidelity.attribution.switches import Switch, Switches
from lmu_deploy.fidelity.attribution.synapses import Tally, dequantised
from lmu_deploy.wiring import wires

_WORTH = 0.05
_MOST_SOURCES = 3
_STANDS_OUT = 0.5
_ROW_SAMPLES = 16


@dataclass(frozen=True)
class Cause:
    """One place where error enters.

    Attributes
    ----------
    source : str
    place : str
    row : int or None
        Named when it alone makes at least half of the place's squared error, or of its
        saturations.
    output : float
        Output error with this place alone.
    share : float
        Of the squared output error of the whole network.
    row_share : float or None
        Of the squared output error of the place, or of its saturations.
    saturations : int or None
        Values limited in the whole network at this place.
    """

    source: str
    place: str
    row: int | None
    output: float
    share: float
    row_share: float | None
    saturations: int | None


def find_causes(
    bench: Bench,
    groups: Mapping[str, Sequence[Switch]],
    alone: Mapping[str, float],
    whole: float,
    tally: Tally,
) -> list[Cause]:
    """Name the places where the output error comes from, the largest first.

    Parameters
    ----------
    bench : Bench
    groups : mapping of source to its switches
    alone : mapping of source to its output error alone
    whole : float
        Output error of the integer network.
    tally : Tally
        What the integer network's run met.
    """
    total = sum(error**2 for error in alone.values())
    ranked = sorted((n for n in alone if groups[n]), key=lambda name: -alone[name])
    worth = [name for name in ranked if alone[name] ** 2 > _WORTH * total][:_MOST_SOURCES]
    switches = {name: [s for s in groups[name] if _acts(s, tally)] for name in worth}
    variants = {
        f"{name} {switch.place}": Switches.of([switch])
        for name in worth
        if len(switches[name]) > 1
        for switch in switches[name]
    }
    errors = {name: found.output for name, found in bench.errors(variants).items()}
    causes = []
    for name in worth:
        for switch in switches[name]:
            output = errors.get(f"{name} {switch.place}", alone[name])
            if output**2 > _WORTH * total:
                causes.append((output, name, switch))
    causes.sort(key=lambda cause: -cause[0])
    return [
        _cause(bench, name, switch, output, whole, tally, first=number == 0)
        for number, (output, name, switch) in enumerate(causes)
    ]


def _acts(switch: Switch, tally: Tally) -> bool:
    """Whether a switch can change anything: a limit that nothing reached cannot."""
    if switch.kind != "saturation":
        return True
    counts = tally.saturations.get(switch.place)
    return counts is not None and bool(counts.any())


def _cause(
    bench: Bench,
    source: str,
    switch: Switch,
    output: float,
    whole: float,
    tally: Tally,
    first: bool,
) -> Cause:
    share = output**2 / whole**2 if whole else 0.0
    if switch.kind == "saturation":
        counts = tally.saturations[switch.place]
        part = float(counts.max() / counts.sum())
        named = int(counts.argmax()) if part >= _STANDS_OUT and len(counts) > 1 else None
        return Cause(source, switch.place, named, output, share, part, int(counts.sum()))
    suspect = first and switch.kind == "weights" and output > 0
    row, row_share = _row(bench, switch, output) if suspect else (None, None)
    return Cause(source, switch.place, row, output, share, row_share, None)


def _row(bench: Bench, switch: Switch, output: float) -> tuple[int | None, float | None]:
    """Give the suspected row and its part of the place's squared error, if that is large."""
    local = row_errors(bench, switch.place)
    if local is None or not local.any():
        return None, None
    row = int(local.argmax())
    only = Switches.of([Switch("weights", switch.place, row)])
    part = bench.errors({"row": only})["row"].output ** 2 / output**2
    return (row, part) if part >= _STANDS_OUT else (None, part)


def row_errors(bench: Bench, place: str) -> np.ndarray | None:
    """Mean square of what wrong weights add to each row of a connection or bias, on float messages.

    Returns
    -------
    errors : ndarray, shape (n_out,), in squared units of the target
        None for the matrix of signs of a series.
    """
    if place in (integers := biases(bench.network)):
        return np.asarray((bench.exact.biases[place] - integers[place]) ** 2)
    wire = next((w for w in wires(bench.network) if w.place == place), None)
    if wire is None or wire.source.endswith("/series"):
        return None
    wrong = (bench.exact.matrices[place] - dequantised(wire.connection)).T
    total, rows = np.zeros(wrong.shape[1]), 0
    hybrid = Hybrid(bench.network, Switches.of(), bench.exact)
    for moment in hybrid.steps(bench.inputs[:_ROW_SAMPLES]):
        messages = moment.sent(wire.source)
        total += ((messages @ wrong) ** 2).sum(axis=0)
        rows += len(messages)
    return total / max(rows, 1)
