"""Sections on the errors of each target: sources of error, divergence from float, layer ranges."""

from __future__ import annotations

from collections.abc import Mapping

from lmu_deploy.core.integer.parts import accumulator_place
from lmu_deploy.fidelity.attribution.switches import (
    CALIBRATION,
    DAMAGE,
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
from lmu_deploy.report.tables import Section, Table, with_variants
from lmu_deploy.report.wording import (
    NOTHING,
    SPACE,
    TIMES,
    count,
    metric_difference,
    metric_value,
    over,
    share,
    significant,
    uncertain,
    with_interval,
)


def sources(found: Attribution, accuracy: bool) -> Table:
    """Build the errors by source, in the order of enabling, and what their sum alone lacks."""
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
        ["total minus sum", *[NOTHING] * 5, metric_difference(name, change - alone),
         share(found.interaction), NOTHING]
    )  # fmt: skip
    whole = None if found.interaction is None else 1.0
    rows.append(
        ["all", metric_value(name, before.metric), metric_difference(name, change),
         significant(before.output), share(whole), significant(before.memory),
         metric_difference(name, change), share(whole), significant(before.memory)]
    )  # fmt: skip
    columns = ["source", f"cumulative {unit}", "change", "cumulative output error"]
    columns += ["share of squared error", "cumulative memory error"]
    columns += [f"{unit} change alone", "share of squared error alone", "memory error alone"]
    return Table("Sources of error, enabled from top to bottom", columns, rows)


UNEXPLAINED = 0.01
"""Share of a target's squared output error above which its attribution is not taken for it."""


def shapley(found: Attribution) -> list[Table]:
    """Build the Shapley values of the sources, the unexplained part first; none if there are none.

    Shares are of the target's squared output error where it was measured.
    """
    if not found.parts:
        return []
    missing = found.unexplained or 0.0
    rows = [["unexplained", share(missing), NOTHING]] if found.unexplained is not None else []
    for source, (part, *bounds) in found.parts.items():
        ends = [share((1.0 - missing) * bound) for bound in bounds if bound is not None]
        name = f"{source} (compensates for others)" if part < 0 else source
        rows.append([name, share((1.0 - missing) * part), " to ".join(ends) or NOTHING])
    how = "all subsets" if found.parts_orders is None else f"{found.parts_orders} orders"
    by = f"Shapley values over {how} of the sources"
    if found.parts_orders == 1:
        by = "what each ensemble adds to those before it"
    caption = (
        f"Parts of the squared output error: {by}, "
        f"{wording.plural(found.parts_samples or 0, 'sample')}"
    )
    if found.parts_chips == 1:
        caption += ", this chip alone"
        if found.parts_note is None:  # in files of older versions
            caption += " (it has changed, or --attribution-budget allows no others)"
    elif found.parts_chips is not None:
        caption += f", {found.parts_chips} chips with mismatch and tuning curves of their own"
        if found.parts_orders != 1:
            caption += ", each calibrated for every subset"
    interval = f"90{SPACE}% interval over {over(found)}"
    return [Table(caption, ["source", "share", interval], rows)]


def causes(found: Attribution, remedies: Mapping[str, str]) -> Table:
    """Build the largest causes, with a suggested fix for each."""
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
    columns = ["place", "source", "dominant row", "share of squared error", "saturations"]
    return Table(
        "Largest causes of the output error", [*columns, "suggested fix"], rows, numeric=False
    )


def divergence_table(found: Divergence) -> Table:
    """Build the first step and variable at which each sample diverges from float."""
    rows = [
        [
            f"sample {point.sample}",
            NOTHING if point.step is None else str(point.step),
            point.variable,
            significant(point.target),
            significant(point.reference),
            share(point.error),
        ]
        for point in found.points
    ]
    columns = ["sample", "first step", "variable", "target", "float", "difference relative to rms"]
    bound = f"{100 * found.bound:g}{SPACE}%"
    caption = f"First step at which a variable differs from float by more than {bound} of its rms"
    return Table(caption, columns, rows)


def signals(found: LayerRanges) -> Table:
    """Build the range of values of each population."""
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
    columns = [
        "signal",
        "bits",
        "range in float",
        "range in integers",
        "format limit",
        "share used",
    ]
    return Table("Values of each population", [*columns, "saturations"], rows)


def accumulators(found: LayerRanges) -> Table:
    """Build the bits that accumulators have and need."""
    rows = [
        [
            accumulator_place(each.place, number),
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
    columns = ["accumulator", "size", "bits available", "bits needed", "upper bound"]
    caption = f"Bits of the accumulators, on {found.accumulator_samples:,} samples"
    return Table(caption, [*columns, "headroom", "saturations"], rows)


def weights(found: LayerRanges) -> Table:
    """Build the rounding error of the weights of each connection."""
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
    """Return place, bits needed and bits available of each accumulator that saturated."""
    return [
        (accumulator_place(each.place, number), one.measured, one.available)
        for each in found.connections
        for number, one in enumerate(each.accumulators)
        if one.saturations
    ]


def _headroom(available: int, measured: float, proved: float) -> str:
    if measured > available:
        return "too narrow"
    return "safe for any input" if proved <= available else f"{available - measured:.1f}{SPACE}bits"


def _range(pair: tuple[float, float]) -> str:
    return f"{significant(pair[0])} to {significant(pair[1])}"


NEGLIGIBLE = 1e-4
"""Relative memory error below which a map would show only rounding errors of float32."""

REMEDIES = {
    "discretization": "use more --taps or another --realization",
    "memory weights": "use one more slice (--slices) or --scales free",
    "memory state width": "choose a profile whose states have more bits",
    "message widths": "use wider messages (--message-bits, --hidden-bits, --input-bits)",
    "message thresholds": "reduce the loss allowed for sparsity (--sparsity-loss)",
    "activation": "use wider hidden messages (--hidden-bits)",
    "hidden weights": "give hidden weights one more slice (--kernel-slices)",
    "hidden drive width": "choose a profile whose states have more bits",
    "readout": "give the readout one more slice (--kernel-slices)",
    NEURONS: "use more neurons per state (spike --neurons-per-state)",
    MISMATCH: "use more neurons per state or a chip with less mismatch",
    NOISE: "use more neurons per state or slower synapses (--tau-ms)",
    WEIGHT_BITS: "choose a profile whose weights have more bits",
    DAMAGE: "recalibrate, which works around it, or use other neurons of the chip",
    CALIBRATION: "recalibrate this chip (spike --calibration dynamic)",
    UNITS: "use more --neurons-per-unit or --units host",
    "saturation": "calibrate on larger inputs or use narrower messages",
}
"""Suggested fix for each source of error."""


def losses(fidelity: Fidelity, looks: Mapping[str, Series]) -> list[Section]:
    """Build the sources of error of each target that has an attribution."""
    accuracy = fidelity.reference.metric.name == "accuracy"
    return [
        _losses(number, looks[name], found.attribution, accuracy)
        for number, (name, found) in enumerate(with_variants(fidelity))
        if found.attribution is not None
    ]


def divergences(fidelity: Fidelity, looks: Mapping[str, Series]) -> list[Section]:
    """Build the divergence of each target from float."""
    return [
        _divergence(number, looks[name], found.divergence)
        for number, (name, found) in enumerate(with_variants(fidelity))
        if found.divergence is not None
    ]


def layer_sections(fidelity: Fidelity, looks: Mapping[str, Series]) -> list[Section]:
    """Build the ranges of values of each layer, for each target."""
    return [
        _layers(number, looks[name], found.ranges)
        for number, (name, found) in enumerate(with_variants(fidelity))
        if found.ranges is not None
    ]


def first_cause(found: TargetFidelity) -> str | None:
    """Describe the largest cause of the output error; return None if unknown."""
    if found.attribution is None:
        return None
    sentences = [_first_cause(found.attribution), *uncertain(found.attribution)[:1]]
    return " ".join(sentence for sentence in sentences if sentence) or None


def _first_cause(attribution: Attribution) -> str | None:
    if not attribution.causes:
        return None
    if (unexplained := attribution.unexplained or 0.0) > UNEXPLAINED:
        return (
            f"The simulation of this network reproduces an output error of "
            f"{significant(attribution.steps[-1].after.output)}, and the target's is "
            f"{significant(attribution.measured or 0.0)}: {wording.share(unexplained)} of "
            "its square is caused by something other than the operations of the network."
        )
    cause = attribution.causes[0]
    if cause.source == CALIBRATION:
        return (
            f"Recalibrating {cause.place} would remove "
            f"{wording.share(cause.share)} of the squared output error."
        )
    if cause.source == DAMAGE:
        return (
            f"Repairing {cause.place} and recalibrating would remove "
            f"{wording.share(cause.share)} of the squared output error."
        )
    interval = with_interval(attribution, cause)
    if cause.share > 1.0:  # other sources compensate for part of it
        return (
            f"The largest cause of the output error is {where(cause)}{interval}; alone it causes a "
            "larger error than all sources together."
        )
    return (
        f"The largest cause of the output error is {where(cause)}{interval}; alone it causes "
        f"{wording.share(cause.share)} of the squared error."
    )


def where(cause: Cause) -> str:
    """Name a cause: source, place, and the row if one dominates."""
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
    tables = [*shapley(found), sources(found, accuracy)]
    return Section(
        series.label, swatch(series), _summary(found, accuracy), plots, [*tables, *_causes(found)]
    )


def _causes(found: Attribution) -> list[Table]:
    return [causes(found, fixes(found))] if found.causes else []


def fixes(found: Attribution) -> Mapping[str, str]:
    """Return suggested fixes by source: those that were tried and help, else untried ones."""
    if found.remedies is not None:
        return found.remedies
    if (found.unexplained or 0.0) > UNEXPLAINED:
        return {}
    return {source: f"not tried: {words}" for source, words in REMEDIES.items()}


def _summary(found: Attribution, accuracy: bool) -> list[str]:
    """Describe the total error, and the part that the sources cause independently."""
    whole, samples = found.steps[-1].after, wording.plural(found.samples, "sample")
    if not whole.output:
        return [f"On {samples} the outputs equal those of float, so there is no error."]
    name = "accuracy" if accuracy else "nrmse"
    change = wording.metric_difference(name, whole.metric - found.reference.metric)
    changed = whole.metric != found.reference.metric
    total = (
        f"On {samples} the NRMSE of the outputs with respect to float is "
        f"{wording.significant(whole.output)}, the memory error is "
        f"{wording.significant(whole.memory)}, and the {'accuracy' if accuracy else 'NRMSE'} "
        f"{f'changes by {change}' if changed else 'does not change'}."
    )
    sentences = [total]
    if (found.unexplained or 0.0) > UNEXPLAINED:
        sentences.insert(
            0,
            f"Unexplained: {wording.share(found.unexplained)} of the target's squared output error "
            f"({wording.significant(found.measured or 0.0)} on these samples) is not reproduced by "
            "the simulation. The rest of this section is about the simulation, not the target.",
        )
    sentences += [found.parts_note] if found.parts_note else []
    sentences += uncertain(found)
    if found.interaction is not None:
        sentences.append(
            f"The sources acting alone add up to {wording.share(1.0 - found.interaction)} of the "
            "squared output error; more than 100 % means that they compensate for each other."
        )
    return sentences


def _divergence(number: int, series: Series, found: Divergence) -> Section:
    maps = [each for each in found.maps if largest(each) >= NEGLIGIBLE]
    plot = error_map_plot(number, series, maps)
    sentences = [sentence for each in maps if (sentence := _growth(each.layer, each.growth))]
    if not maps and found.maps:
        worst = wording.significant(max(largest(each) for each in found.maps), 2)
        sentences = [f"The memory error never exceeds {worst}, relative to the rms of the memory."]
    return Section(
        series.label,
        swatch(series),
        sentences,
        [] if plot is None else [plot.svg()],
        [divergence_table(found)],
    )


def _growth(layer: str, exponent: float | None) -> str:
    """Describe the growth of an error from its exponent."""
    if exponent is None:
        return ""
    power = f"as time to the power {wording.significant(exponent, 2)}"
    change = f"grows {power}, so it accumulates"
    if exponent <= 0.75:
        change = f"grows {power}, like a random walk"
    if exponent <= 0.25:
        change = "is constant"
    if exponent <= -0.25:
        change = "decreases"
    return f"Over the second half of the run, the error of {layer} {change}."


def _layers(number: int, series: Series, found: LayerRanges) -> Section:
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
        f"Accumulator {place} needs {need:.1f} bits but has {available}, so it saturates."
        for place, need, available in accumulators_too_narrow(found)
    ]
    return Section(
        series.label,
        swatch(series),
        sentences,
        [plot.svg() for plot in plots],
        [signals(found), accumulators(found), weights(found)],
    )
