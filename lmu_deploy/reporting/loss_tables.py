"""Tables of what was lost: sources, causes, partings, ranges, accumulators and weights."""

from __future__ import annotations

from collections.abc import Mapping

from lmu_deploy.fidelity.schema_losses import Attribution, Divergence, LayerRanges
from lmu_deploy.reporting.tables import Table
from lmu_deploy.reporting.wording import (
    NOTHING,
    SPACE,
    TIMES,
    count,
    metric_difference,
    metric_value,
    share,
    significant,
)


def sources(found: Attribution, accuracy: bool) -> Table:
    """List every source in the order in which it was switched on, and what remains between them."""
    name, unit = ("accuracy", "accuracy") if accuracy else ("nrmse", "NRMSE")
    rows, before, alone = [], found.reference, 0.0
    for step in found.steps:
        if step.places:
            rows.append(
                [
                    step.source,
                    metric_value(name, step.after.metric),
                    metric_difference(name, step.after.metric - before.metric),
                    significant(step.after.output),
                    share(step.share_in_turn),
                    significant(step.after.memory),
                    metric_difference(name, step.alone.metric - found.reference.metric),
                    share(step.share_alone),
                    significant(step.alone.memory),
                ]
            )
            alone += step.alone.metric - found.reference.metric
        before = step.after
    change = before.metric - found.reference.metric
    rows.append(
        ["interaction", *[NOTHING] * 5, metric_difference(name, change - alone),
         share(found.interaction), NOTHING]
    )  # fmt: skip
    whole = None if found.interaction is None else 1.0
    rows.append(
        ["all", metric_value(name, before.metric), metric_difference(name, change),
         significant(before.output), share(whole), significant(before.memory),
         metric_difference(name, change), share(whole), significant(before.memory)]
    )  # fmt: skip
    columns = ["source", f"{unit} with it and all above", "change", "output error"]
    columns += ["of its square", "memory error"]
    columns += [f"{unit} change alone", "of the squared output error alone", "memory error alone"]
    return Table("Sources of error, switched on from top to bottom", columns, rows)


def causes(found: Attribution, remedies: Mapping[str, str]) -> Table:
    """List the places that cost most, and what could be done."""
    rows = [
        [
            cause.place,
            cause.source,
            NOTHING if cause.row is None else f"row {cause.row} ({share(cause.row_share)})",
            share(cause.share),
            NOTHING if cause.saturations is None else count(cause.saturations),
            remedies.get(cause.source, NOTHING),
        ]
        for cause in found.causes
    ]
    columns = ["place", "source", "mostly in", "of the squared output error", "saturations"]
    return Table("Where it comes from", [*columns, "what may mend it"], rows, numeric=False)


def partings(found: Divergence) -> Table:
    """List the first step and variable at which each sample leaves float."""
    rows = [
        [
            f"sample {parting.sample}",
            NOTHING if parting.step is None else str(parting.step),
            parting.variable,
            significant(parting.target),
            significant(parting.reference),
            share(parting.error),
        ]
        for parting in found.partings
    ]
    columns = ["sample", "first step", "variable", "there", "in float", "difference, of its rms"]
    bound = f"{100 * found.bound:g}{SPACE}%"
    caption = f"First step at which a variable is more than {bound} of its rms off"
    return Table(caption, columns, rows)


def signals(found: LayerRanges) -> Table:
    """List what each population holds."""
    rows = [
        [
            signal.place,
            str(signal.bits),
            _range(signal.before),
            _range(signal.after),
            significant(signal.limit),
            share(signal.used),
            count(signal.saturations),
        ]
        for signal in found.signals
    ]
    columns = ["signal", "bits", "range in float", "range in integers", "limit", "used"]
    return Table("Values of each population", [*columns, "saturations"], rows)


def accumulators(found: LayerRanges) -> Table:
    """List the bits that sums need."""
    rows = [
        [
            f"{each.place}/slice{number}",
            f"{each.rows} {TIMES} {each.columns}",
            str(one.available),
            f"{one.measured:.1f}",
            f"{one.proved:.1f}",
            _headroom(one.available, one.measured, one.proved),
            count(one.saturations),
        ]
        for each in found.connections
        for number, one in enumerate(each.accumulators)
    ]
    columns = ["accumulator", "sums", "bits there", "bits needed here", "at most"]
    caption = f"Bits of the accumulators, on {found.accumulator_samples:,} samples"
    return Table(caption, [*columns, "room", "saturations"], rows)


def weights(found: LayerRanges) -> Table:
    """List what rounding did to each connection's weights."""
    rows = [
        [
            each.place,
            f"{len(each.accumulators)} {TIMES} {each.weight_bits}",
            significant(each.largest),
            share(each.error),
            f"row {each.worst_row}: {share(each.worst_error)}",
        ]
        for each in found.connections
        if each.histogram is not None
    ]
    columns = ["connection", "slices and bits", "largest weight", "rms error", "worst row"]
    return Table("Weights after rounding", columns, rows)


def accumulators_too_narrow(found: LayerRanges) -> list[tuple[str, float, int]]:
    """Give place, bits needed and bits there of all accumulators that saturated."""
    return [
        (f"{each.place}/slice{number}", one.measured, one.available)
        for each in found.connections
        for number, one in enumerate(each.accumulators)
        if one.saturations
    ]


def _headroom(available: int, measured: float, proved: float) -> str:
    if measured > available:
        return "too narrow"
    return "proved" if proved <= available else f"{available - measured:.1f}{SPACE}bits left"


def _range(pair: tuple[float, float]) -> str:
    return f"{significant(pair[0])} to {significant(pair[1])}"
