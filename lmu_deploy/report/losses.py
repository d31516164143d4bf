"""What was lost by which source, when, and in which layer: the sections of each target.

Tables of what was lost: sources, causes, partings, ranges, accumulators and weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lmu_deploy.fidelity.attribution.switches import (
    CALIBRATION,
    MISMATCH,
    NEURONS,
    NOISE,
    UNITS,
    WEIGHT_BITS,
)
from lmu_deploy.fidelity.schema import (
    Attribution,
    Cause,
    Divergence,
    Fidelity,
    LayerRanges,
    TargetFidelity,
)
from lmu_deploy.report import wording
from lmu_deploy.report.plots.losses import Bar, Panel, histogram_plot, waterfall_plot
from lmu_deploy.report.plots.memory import error_map_plot, largest
from lmu_deploy.report.series import Series, swatch
from lmu_deploy.report.tables import Table, with_variants
from lmu_deploy.report.wording import (
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


def partings_table(found: Divergence) -> Table:
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


NEGLIGIBLE = 1e-4
"""Relative error of a memory below which a map of it would show rounding errors of float32."""

REMEDIES = {
    "discretization": "more --taps, or another --realization",
    "memory weights": "one more slice (--slices), or --scales free",
    "memory state width": "choose a profile whose states have more bits",
    "message widths": "wider messages (--message-bits, --hidden-bits, --input-bits)",
    "message thresholds": "allow less loss for silence (--sparsity-loss)",
    "activation": "wider hidden messages get more lines (--hidden-bits)",
    "hidden weights": "give hidden weights one more slice (--kernel-slices)",
    "hidden drive width": "choose a profile whose states have more bits",
    "readout": "give the readout one more slice (--kernel-slices)",
    NEURONS: "more neurons for each state (spike --neurons-per-state)",
    MISMATCH: "more neurons for each state, or a chip with less mismatch",
    NOISE: "more neurons for each state, or slower synapses (--tau-ms)",
    WEIGHT_BITS: "choose a profile whose weights have more bits",
    CALIBRATION: "calibrate this chip anew (spike --calibration dynamic)",
    UNITS: "more neurons for each unit (--neurons-per-unit), or --units host",
    "saturation": "calibrate on inputs as large as these, or send narrower messages",
}
"""What a quantization, or a calibration, can do about each source."""


@dataclass(frozen=True)
class Section:
    """One target's part of a section.

    Attributes
    ----------
    name : str
    swatch : Markup
    sentences : sequence of str
        What it comes to, in plain words.
    plots : sequence of Markup
    tables : sequence of Table
    """

    name: str
    swatch: Markup
    sentences: Sequence[str]
    plots: Sequence[Markup]
    tables: Sequence[Table]


def losses(fidelity: Fidelity, looks: Mapping[str, Series]) -> list[Section]:
    """Say which source costs what, for each target that was taken apart."""
    accuracy = fidelity.reference.metric.name == "accuracy"
    return [
        _losses(number, looks[name], found.attribution, accuracy)
        for number, (name, found) in enumerate(with_variants(fidelity))
        if found.attribution is not None
    ]


def partings(fidelity: Fidelity, looks: Mapping[str, Series]) -> list[Section]:
    """Say when each target leaves the reference."""
    return [
        _parting(number, looks[name], found.divergence)
        for number, (name, found) in enumerate(with_variants(fidelity))
        if found.divergence is not None
    ]


def insides(fidelity: Fidelity, looks: Mapping[str, Series]) -> list[Section]:
    """Say what each layer holds."""
    return [
        _inside(number, looks[name], found.ranges)
        for number, (name, found) in enumerate(with_variants(fidelity))
        if found.ranges is not None
    ]


def first_cause(found: TargetFidelity) -> str | None:
    """Name the largest cause of a target's output error in one sentence; None if unknown."""
    if found.attribution is None or not found.attribution.causes:
        return None
    cause = found.attribution.causes[0]
    if cause.source == CALIBRATION:
        return (
            f"Calibrating {cause.place} anew would take away "
            f"{wording.share(cause.share)} of its squared output error."
        )
    if cause.share > 1.0:  # others make up for some of it, by skill or by chance
        return f"Its output error comes from {where(cause)}, which alone would make more of it."
    return (
        f"The largest part of its output error comes from {where(cause)} "
        f"({wording.share(cause.share)} by itself)."
    )


def where(cause: Cause) -> str:
    """Name a cause: source, place, and the row if one stands out."""
    if cause.place == cause.source:  # such as the readout, which is a source and a place
        return f"the {cause.place}" if cause.row is None else f"the {cause.place}, row {cause.row}"
    named = f"{cause.source} at {cause.place}"
    return named if cause.row is None else f"{named}, row {cause.row}"


def _losses(number: int, series: Series, found: Attribution, accuracy: bool) -> Section:
    bars = [
        Bar(step.source, step.share_in_turn, step.share_alone)
        for step in found.steps
        if step.places and step.share_in_turn is not None and step.share_alone is not None
    ]
    plots = [waterfall_plot(number, series, bars).svg()] if bars else []
    tables = [sources(found, accuracy)]
    return Section(
        series.label, swatch(series), _told(found, accuracy), plots, [*tables, *_causes(found)]
    )


def _causes(found: Attribution) -> list[Table]:
    return [causes(found, REMEDIES)] if found.causes else []


def _told(found: Attribution, accuracy: bool) -> list[str]:
    """Say what the whole is, and how far the sources act by themselves."""
    whole, samples = found.steps[-1].after, wording.plural(found.samples, "sample")
    if not whole.output:
        return [f"On {samples} its outputs are those of float: nothing was lost."]
    name = "accuracy" if accuracy else "nrmse"
    change = wording.metric_difference(name, whole.metric - found.reference.metric)
    changed = whole.metric != found.reference.metric
    told = (
        f"On {samples} its outputs are {wording.significant(whole.output)} (NRMSE) from float's, "
        f"its memory {wording.significant(whole.memory)}, and the "
        f"{'accuracy' if accuracy else 'NRMSE'} "
        f"{f'changes by {change}' if changed else 'is the same'}."
    )
    if found.interaction is None:
        return [told]
    return [
        told,
        f"Alone, the sources make {wording.share(1.0 - found.interaction)} of the squared output "
        f"error; the remaining {wording.share(found.interaction)} is how they act on each other.",
    ]


def _parting(number: int, series: Series, found: Divergence) -> Section:
    maps = [each for each in found.maps if largest(each) >= NEGLIGIBLE]
    plot = error_map_plot(number, series, maps)
    sentences = [sentence for each in maps if (sentence := _growth(each.layer, each.growth))]
    if not maps and found.maps:
        worst = wording.significant(max(largest(each) for each in found.maps), 2)
        sentences = [f"No part of its memory is ever more than {worst} off, relative to its rms."]
    return Section(
        series.label,
        swatch(series),
        sentences,
        [] if plot is None else [plot.svg()],
        [partings_table(found)],
    )


def _growth(layer: str, exponent: float | None) -> str:
    """Say what an exponent of growth means."""
    if exponent is None:
        return ""
    power = f"time to the power of {wording.significant(exponent, 2)}"
    if exponent > 0.75:
        return f"The error of {layer} adds up: over the second half it grows as {power}."
    if exponent > 0.25:
        return f"The error of {layer} wanders: over the second half it grows as {power}."
    if exponent > -0.25:
        return f"The error of {layer} neither grows nor shrinks over the second half of the steps."
    return f"The error of {layer} shrinks over the second half of the steps."


def _inside(number: int, series: Series, found: LayerRanges) -> Section:
    signal_panels = [Panel(signal.place, signal.histogram) for signal in found.signals]
    weight_panels = [
        Panel(each.place, each.histogram)
        for each in found.connections
        if each.histogram is not None
    ]
    title = f"of {series.label}: float in gray, integers as a line, counts on a logarithmic scale"
    plots = [
        histogram_plot(
            f"signals-{number}", f"Values of each population {title}", series, signal_panels
        ),
        histogram_plot(
            f"weights-{number}", f"Weights of each connection {title}", series, weight_panels
        ),
    ]
    sentences = [
        f"{place} would need {need:.1f} bits and has {available}; it saturates."
        for place, need, available in accumulators_too_narrow(found)
    ]
    return Section(
        series.label,
        swatch(series),
        sentences,
        [plot.svg() for plot in plots],
        [signals(found), accumulators(found), weights(found)],
    )
