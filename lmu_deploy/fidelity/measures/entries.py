"""Conversion of attribution, divergence and layer ranges to entries of fidelity.json."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

import numpy as np

from lmu_deploy.fidelity import schema
from lmu_deploy.fidelity.attribution import Attribution, Errors
from lmu_deploy.fidelity.measures.divergence import Divergence
from lmu_deploy.fidelity.measures.memory_error import ErrorMap
from lmu_deploy.fidelity.measures.ranges import ConnectionRange, Histogram, LayerRanges, SignalRange

_MAP_DIGITS, _DIGITS = 3, 6
_NOTHING = 1e-12
_REPRODUCED = 1e-3
"""Relative difference of output errors up to which a simulation reproduces a target."""


def attribution_entry(found: Attribution, measured: float | None = None) -> schema.Attribution:
    """Return the entry of an attribution.

    Parameters
    ----------
    found : Attribution
    measured : float, optional
        Output error of the target on the same samples, relative to the reference.
    """
    unexplained = None
    if measured is not None:
        unexplained = 0.0
        if abs(measured - found.whole.output) > _REPRODUCED * measured:
            unexplained = max(1.0 - (found.whole.output / measured) ** 2, 0.0)
    parts = found.parts
    shares = zip(found.steps, found.shares_in_turn(), found.shares_alone(), strict=True)
    return schema.Attribution(
        samples=found.samples,
        reference=_errors(found.reference),
        steps=[
            schema.AttributionStep(
                source=step.source,
                places=list(step.places),
                after=_errors(step.after),
                alone=_errors(step.alone),
                share_in_turn=in_turn,
                share_alone=alone,
            )
            for step, in_turn, alone in shares
        ],
        interaction=found.interaction,
        causes=[schema.Cause(**asdict(cause)) for cause in found.causes],
        measured=measured,
        unexplained=unexplained,
        parts={p.source: (p.share, *_known(p.low, p.high)) for p in parts.parts} if parts else {},
        parts_samples=None if parts is None else parts.samples,
        parts_orders=None if parts is None else parts.orders,
        parts_chips=None if parts is None else parts.chips,
        parts_tied=[] if parts is None else list(parts.tied),
        parts_note=None if parts is None else parts.note or None,
        remedies=None if found.remedies is None else dict(found.remedies),
    )


def _known(low: float, high: float) -> tuple[float | None, float | None]:
    """Return an interval; None where it is infinite."""
    return (low, high) if np.isfinite([low, high]).all() else (None, None)


def divergence_entry(found: Divergence) -> schema.Divergence:
    """Return the entry of a divergence."""
    return schema.Divergence(
        samples=found.samples,
        bound=found.bound,
        points=[schema.DivergencePoint(**asdict(point)) for point in found.points],
        maps=[_map(each) for each in found.maps],
    )


def ranges_entry(found: LayerRanges) -> schema.LayerRanges:
    """Return the entry of layer ranges."""
    return schema.LayerRanges(
        samples=found.samples,
        accumulator_samples=found.accumulator_samples,
        signals=[_signal(signal) for signal in found.signals],
        connections=[_connection(connection) for connection in found.connections],
    )


def _errors(found: Errors) -> schema.Errors:
    """Return the entry of errors; rounding errors of float64 become zero."""
    output, memory = (0.0 if v < _NOTHING else v for v in (found.output, found.memory))
    return schema.Errors(metric=found.metric, output=output, memory=memory)


def _map(found: ErrorMap) -> schema.ErrorMap:
    return schema.ErrorMap(
        layer=found.layer,
        orders=found.orders.tolist(),
        times=found.times.tolist(),
        values=[_short(row, _MAP_DIGITS) for row in found.values],
        growth=found.growth,
        growth_by_order=list(found.growth_by_order),
    )


def _signal(found: SignalRange) -> schema.SignalRange:
    return schema.SignalRange(
        place=found.place,
        bits=found.bits,
        limit=found.limit,
        before=found.before,
        after=found.after,
        used=found.used,
        saturations=found.saturations,
        histogram=_histogram(found.histogram),
    )


def _connection(found: ConnectionRange) -> schema.ConnectionRange:
    return schema.ConnectionRange(
        place=found.place,
        rows=found.shape[0],
        columns=found.shape[1],
        weight_bits=found.weight_bits,
        largest=found.largest,
        error=found.error,
        worst_row=found.worst_row,
        worst_error=found.worst_error,
        histogram=None if found.histogram is None else _histogram(found.histogram),
        accumulators=[schema.Accumulator(**asdict(each)) for each in found.accumulators],
    )


def _histogram(found: Histogram) -> schema.Histogram:
    low, high = _short([found.low, found.high], _DIGITS)
    return schema.Histogram(
        low=low, high=high, before=found.before.tolist(), after=found.after.tolist()
    )


def _short(values: Iterable[float] | np.ndarray, digits: int) -> list[float]:
    return [float(f"{value:.{digits}g}") for value in values]
