"""What was lost by which source, when, and in which layer: the sections of each target."""

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
from lmu_deploy.fidelity.schema import Fidelity, TargetFidelity
from lmu_deploy.fidelity.schema_losses import Attribution, Cause, Divergence, LayerRanges
from lmu_deploy.reporting import loss_tables, wording
from lmu_deploy.reporting.plots.error_map import error_map_plot, largest
from lmu_deploy.reporting.plots.histograms import Panel, histogram_plot
from lmu_deploy.reporting.plots.waterfall import Bar, waterfall_plot
from lmu_deploy.reporting.series import Series
from lmu_deploy.reporting.swatch import swatch
from lmu_deploy.reporting.tables import Table, with_variants

NEGLIGIBLE = 1e-4
"""Relative error of a memory below which a map of it would show rounding errors of float32."""

REMEDIES = {
    "discretisation": "more --taps, or another --realisation",
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
"""What a quantisation, or a calibration, can do about each source."""


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
    tables = [loss_tables.sources(found, accuracy)]
    return Section(
        series.label, swatch(series), _told(found, accuracy), plots, [*tables, *_causes(found)]
    )


def _causes(found: Attribution) -> list[Table]:
    return [loss_tables.causes(found, REMEDIES)] if found.causes else []


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
        [loss_tables.partings(found)],
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
    title = f"of {series.label}: float in grey, integers as a line, counts on a logarithmic scale"
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
        for place, need, available in loss_tables.accumulators_too_narrow(found)
    ]
    return Section(
        series.label,
        swatch(series),
        sentences,
        [plot.svg() for plot in plots],
        [loss_tables.signals(found), loss_tables.accumulators(found), loss_tables.weights(found)],
    )
