"""View of a report: verdicts, tables, plots and legends that the template shows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from lmu_deploy.fidelity.measures.events import RasterExcerpt
from lmu_deploy.fidelity.schema import Fidelity, TargetFidelity
from lmu_deploy.report import tables, wording
from lmu_deploy.report.losses import (
    divergences,
    first_cause,
    layer_sections,
    losses,
)
from lmu_deploy.report.plots.events import (
    MOST_DASHES,
    Activity,
    activity_plot,
    describe_excerpts,
    limit_dashes,
)
from lmu_deploy.report.plots.lines import Dot, metric_plot
from lmu_deploy.report.plots.losses import intervals_plot
from lmu_deploy.report.plots.memory import error_plot, window_plot
from lmu_deploy.report.robustness import robustness
from lmu_deploy.report.robustness_file import Robustness
from lmu_deploy.report.series import FLOAT, Series, assign, swatch, variant
from lmu_deploy.report.tables import Section, Table, cost_sources, costs, neurobench, on_chip
from lmu_deploy.report.wording import on_many_chips, setting

Pairs = list[tuple[str, str]]


def pairs(settings: Mapping[str, Any], path: str = "") -> Pairs:
    """Flatten settings; nested ones are named by their path, joined with dots."""
    found: Pairs = []
    for name, value in settings.items():
        found += _entry(f"{path}{name}", value)
    return found


def parse_settings(text: str) -> str | Pairs:
    """Parse a text that is a JSON object as settings; return any other text unchanged."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return pairs(value) if isinstance(value, dict) else text


def _entry(name: str, value: Any) -> Pairs:
    if isinstance(value, Mapping):
        return pairs(value, f"{name}.")
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        numbered = enumerate(value)
        return [pair for number, item in numbered for pair in _entry(f"{name}.{number}", item)]
    return [(name, setting(value))]


@dataclass(frozen=True)
class Verdict:
    """Verdict on one target."""

    name: str
    swatch: Markup
    value: str
    interval: str
    words: str
    tone: str
    sentences: Sequence[str]


@dataclass(frozen=True)
class Key:
    """Entry of a legend."""

    name: str
    swatch: Markup


@dataclass(frozen=True)
class EventSection:
    """Events of one target.

    Attributes
    ----------
    name : str
    same_as : str
        Target to which this one is bit-identical; empty when there is none.
    swatch : Markup
    tables : sequence of Table
    plot : Markup
    excerpts : str
        Description of what the rasters omit; empty when they are complete.
    intervals : Markup or None
    """

    name: str
    same_as: str
    swatch: Markup
    tables: Sequence[Table]
    plot: Markup
    excerpts: str
    intervals: Markup | None


@dataclass(frozen=True)
class View:
    """All content of a report, in the order of the template."""

    fidelity: Fidelity
    shipping: tables.Shipping | None
    verdicts: Sequence[Verdict]
    date: str
    comparison: Table
    metric: Markup
    losses: Sequence[Section]
    divergences: Sequence[Section]
    layer_sections: Sequence[Section]
    robustness: Sequence[Section]
    errors: Sequence[Markup]
    error_keys: Sequence[Key]
    memory: Table | None
    window: Markup | None
    window_keys: Sequence[Key]
    events: Sequence[EventSection]
    costs: Sequence[Section]
    cost_sources: Sequence[tuple[str, Sequence[str]]]
    violations: Sequence[tuple[str, Sequence[str]]]
    saturations: Table | None
    sizes: Table | None
    neurobench: Table | None
    layers: Table
    nodes: Table | None
    notes: Sequence[tuple[str, Sequence[str]]]
    settings: Sequence[tuple[str, Pairs]]
    provenance: Sequence[tuple[str, str | Pairs]]


def make_view(
    fidelity: Fidelity, excerpts: Mapping[str, RasterExcerpt], studies: Robustness
) -> View:
    """Build all content of a report."""
    looks = _looks(fidelity)
    everything = list(tables.with_variants(fidelity))
    recorded = [(n, f) for n, f in everything if f.memory_error is not None]
    window = fidelity.reference.window
    decoded = [(looks[n], f.window.decoded) for n, f in everything if f.window is not None]
    return View(
        fidelity=fidelity,
        shipping=tables.shipping(fidelity),
        verdicts=[
            _float(fidelity),
            *(_verdict(n, f, looks[n], on_many_chips(studies, n, f)) for n, f in everything),
        ],
        date=wording.readable_date(fidelity.date),
        comparison=tables.comparison(fidelity),
        metric=metric_plot(_dots(fidelity, looks)).svg(),
        losses=losses(fidelity, looks),
        divergences=divergences(fidelity, looks),
        layer_sections=layer_sections(fidelity, looks),
        robustness=robustness(studies, fidelity, looks),
        errors=_errors(recorded, looks),
        error_keys=[_key(looks[name]) for name, _ in recorded],
        memory=tables.memory(fidelity),
        window=None
        if window is None
        else window_plot(
            window.delays, fidelity.reference.true_window, window.decoded, decoded
        ).svg(),
        window_keys=[_key(FLOAT), *(_key(series) for series, _ in decoded)],
        events=_event_sections(everything, looks, excerpts),
        costs=costs(fidelity, looks),
        cost_sources=cost_sources(fidelity),
        violations=[(n, f.fit.violations) for n, f in everything if f.fit and f.fit.violations],
        saturations=tables.saturations(fidelity),
        sizes=tables.sizes(fidelity),
        neurobench=neurobench(fidelity),
        layers=tables.layers(fidelity.network),
        nodes=tables.nodes(fidelity.network),
        notes=_notes(fidelity),
        settings=[(n, pairs(f.settings)) for n, f in everything if f.settings],
        provenance=[(n, parse_settings(text)) for n, text in fidelity.network.provenance.items()],
    )


def _looks(fidelity: Fidelity) -> dict[str, Series]:
    looks = assign(fidelity.targets)
    for name, found in fidelity.targets.items():
        for other in found.variants:
            looks[f"{name} · {other}"] = variant(looks[name], other)
    return looks


def _notes(fidelity: Fidelity) -> list[tuple[str, Sequence[str]]]:
    """List the notes of each target; of a variant only the notes that its target does not have."""
    found: list[tuple[str, Sequence[str]]] = []
    for name, target in fidelity.targets.items():
        found.append((name, target.notes))
        for other, there in target.variants.items():
            more = [note for note in there.notes if note not in target.notes]
            found.append((f"{name} · {other}", more))
    return [(name, notes) for name, notes in found if notes]


def _key(series: Series) -> Key:
    return Key(series.label, swatch(series))


def _verdict(name: str, found: TargetFidelity, series: Series, on_chips: Sequence[str]) -> Verdict:
    words, tone = wording.verdict(found)
    sentences = [wording.sentence(name, found)]
    sentences += found.damage
    if found.specification is not None:
        sentences += wording.specification(found.specification)
    if found.equal_to is not None:
        sentences.append(wording.equality(found.equal_to))
    if (cause := first_cause(found)) is not None:
        sentences.append(cause)
    there = on_chip(found)
    if found.fit is not None and found.fit.violations:
        sentences.insert(0, there.pop(0))  # a violation matters more than the metric
    sentences += [*there, *on_chips]
    return Verdict(
        name=name,
        swatch=swatch(series),
        value=wording.metric_value(found.metric.name, found.metric.value),
        interval=wording.metric_interval(found.metric),
        words=words,
        tone=tone,
        sentences=sentences,
    )


def _float(fidelity: Fidelity) -> Verdict:
    reference = fidelity.reference
    samples = wording.plural(reference.samples, "sample")
    return Verdict(
        name="float",
        swatch=swatch(FLOAT),
        value=wording.metric_value(reference.metric.name, reference.metric.value),
        interval=wording.metric_interval(reference.metric),
        words="the reference",
        tone="unknown",
        sentences=[f"The trained network in float64 on {samples}."],
    )


def _dots(fidelity: Fidelity, looks: Mapping[str, Series]) -> list[Dot]:
    reference = fidelity.reference
    dots = [Dot(FLOAT, reference.metric, None, reference.samples)]
    for name, found in tables.with_variants(fidelity):
        theirs = None if found.reference is None else found.reference.value
        dots.append(Dot(looks[name], found.metric, theirs, found.samples))
    return dots


def _errors(recorded: Sequence[tables.Named], looks: Mapping[str, Series]) -> list[Markup]:
    errors = [(looks[name], f.memory_error) for name, f in recorded if f.memory_error]
    layers = list(dict.fromkeys(layer for _, error in errors for layer in error.by_order))
    plots = [
        error_plot(
            layer,
            [(s, steps) for s, e in errors if (steps := e.by_step.get(layer))],
            [(s, e.by_order[layer]) for s, e in errors if layer in e.by_order],
        )
        for layer in layers
    ]
    return [plot.svg() for plot in plots if plot is not None]


def _event_sections(
    everything: Sequence[tables.Named],
    looks: Mapping[str, Series],
    excerpts: Mapping[str, RasterExcerpt],
) -> list[EventSection]:
    sending = [(n, name, f) for n, (name, f) in enumerate(everything) if f.populations]
    most = MOST_DASHES // max(1, len(sending))
    return [_event_section(n, name, f, looks[name], excerpts, most) for n, name, f in sending]


def _event_section(
    number: int,
    name: str,
    found: TargetFidelity,
    series: Series,
    excerpts: Mapping[str, RasterExcerpt],
    most_dashes: int,
) -> EventSection:
    path = name.replace(" · ", "/", 1) if " · " in name else f"{name}/"
    rasters = limit_dashes([excerpts.get(f"{path}/{p}") for p in found.populations], most_dashes)
    activities = [
        Activity(p, population.neurons, raster, population.by_step)
        for (p, population), raster in zip(found.populations.items(), rasters, strict=True)
    ]
    shown = [tables.populations(found), tables.classes(found)]
    intervals = {n: p.intervals for n, p in found.populations.items() if p.intervals}
    return EventSection(
        name=name,
        same_as=found.equal_to.target if found.equal_to and found.equal_to.equal else "",
        swatch=swatch(series),
        tables=[table for table in shown if table is not None],
        plot=activity_plot(number, series, activities).svg(),
        excerpts=describe_excerpts(activities),
        intervals=intervals_plot(number, series, intervals).svg() if intervals else None,
    )
