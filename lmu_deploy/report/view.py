"""What the template shows, in its order: cards, tables, plots and legends made from a Fidelity.

Settings as names and values that stand beside each other, however deep they were nested.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from lmu_deploy.fidelity.measures.events import RasterExcerpt
from lmu_deploy.fidelity.schema import Fidelity, TargetFidelity
from lmu_deploy.report import tables, wording
from lmu_deploy.report.costs import cost_sources, costs, on_chip
from lmu_deploy.report.losses import Section, first_cause, insides, losses, partings
from lmu_deploy.report.plots.events import (
    MOST_DASHES,
    Activity,
    activity_plot,
    excerpts_told,
    shared,
)
from lmu_deploy.report.plots.losses import intervals_plot
from lmu_deploy.report.plots.memory import error_plot, window_plot
from lmu_deploy.report.plots.metric import Dot, metric_plot
from lmu_deploy.report.robustness import robustness
from lmu_deploy.report.robustness_file import Robustness
from lmu_deploy.report.series import FLOAT, Series, assign, swatch, variant
from lmu_deploy.report.tables import Table, neurobench
from lmu_deploy.report.wording import on_many_chips, setting

Pairs = list[tuple[str, str]]


def pairs(settings: Mapping[str, Any], path: str = "") -> Pairs:
    """List settings; those inside others get the names of both, with a dot between."""
    found: Pairs = []
    for name, value in settings.items():
        found += _entry(f"{path}{name}", value)
    return found


def unfolded(text: str) -> str | Pairs:
    """Read a text that holds a JSON object as settings; any other stays a text."""
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
    """One target's verdict."""

    name: str
    swatch: Markup
    value: str
    interval: str
    words: str
    tone: str
    sentences: Sequence[str]


@dataclass(frozen=True)
class Key:
    """A line of a legend."""

    name: str
    swatch: Markup


@dataclass(frozen=True)
class Speaker:
    """A target's events; `twin` names the target that it equals bit for bit, if there is one.

    `excerpts` says what the plot leaves out, if it leaves anything out.
    """

    name: str
    twin: str
    swatch: Markup
    tables: Sequence[Table]
    plot: Markup
    excerpts: str
    intervals: Markup | None


@dataclass(frozen=True)
class View:
    """Everything that the template needs."""

    fidelity: Fidelity
    verdicts: Sequence[Verdict]
    date: str
    comparison: Table
    metric: Markup
    losses: Sequence[Section]
    partings: Sequence[Section]
    layer_sections: Sequence[Section]
    robustness: Sequence[Section]
    errors: Sequence[Markup]
    error_keys: Sequence[Key]
    memory: Table | None
    window: Markup | None
    window_keys: Sequence[Key]
    speakers: Sequence[Speaker]
    costs: Sequence[Section]
    cost_sources: Sequence[tuple[str, Sequence[str]]]
    violations: Sequence[tuple[str, Sequence[str]]]
    saturations: Table | None
    sizes: Table | None
    neurobench: Table | None
    layers: Table
    notes: Sequence[tuple[str, Sequence[str]]]
    settings: Sequence[tuple[str, Pairs]]
    provenance: Sequence[tuple[str, str | Pairs]]


def make_view(
    fidelity: Fidelity, excerpts: Mapping[str, RasterExcerpt], elsewhere: Robustness
) -> View:
    """Work out all that the page shows."""
    looks = _looks(fidelity)
    everything = list(tables.with_variants(fidelity))
    recorded = [(n, f) for n, f in everything if f.memory_error is not None]
    window = fidelity.reference.window
    decoded = [(looks[n], f.window.decoded) for n, f in everything if f.window is not None]
    return View(
        fidelity=fidelity,
        verdicts=[
            _float(fidelity),
            *(_verdict(n, f, looks[n], on_many_chips(elsewhere, n, f)) for n, f in everything),
        ],
        date=wording.readable_date(fidelity.date),
        comparison=tables.comparison(fidelity),
        metric=metric_plot(_dots(fidelity, looks)).svg(),
        losses=losses(fidelity, looks),
        partings=partings(fidelity, looks),
        layer_sections=insides(fidelity, looks),
        robustness=robustness(elsewhere, fidelity, looks),
        errors=_errors(recorded, looks),
        error_keys=[_key(looks[name]) for name, _ in recorded],
        memory=tables.memory(fidelity),
        window=None
        if window is None
        else window_plot(
            window.delays, fidelity.reference.true_window, window.decoded, decoded
        ).svg(),
        window_keys=[_key(FLOAT), *(_key(series) for series, _ in decoded)],
        speakers=_speakers(everything, looks, excerpts),
        costs=costs(fidelity, looks),
        cost_sources=cost_sources(fidelity),
        violations=[(n, f.fit.violations) for n, f in everything if f.fit and f.fit.violations],
        saturations=tables.saturations(fidelity),
        sizes=tables.sizes(fidelity),
        neurobench=neurobench(fidelity),
        layers=tables.layers(fidelity.network),
        notes=_notes(fidelity),
        settings=[(n, pairs(f.settings)) for n, f in everything if f.settings],
        provenance=[(n, unfolded(text)) for n, text in fidelity.network.provenance.items()],
    )


def _looks(fidelity: Fidelity) -> dict[str, Series]:
    looks = assign(fidelity.targets)
    for name, found in fidelity.targets.items():
        for other in found.variants:
            looks[f"{name} · {other}"] = variant(looks[name], other)
    return looks


def _notes(fidelity: Fidelity) -> list[tuple[str, Sequence[str]]]:
    """List what a reader has to know of each target; a variant's only where it says more."""
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
    if found.equal_to is not None:
        sentences.append(wording.equality(found.equal_to))
    if (cause := first_cause(found)) is not None:
        sentences.append(cause)
    there = on_chip(found)
    if found.fit is not None and found.fit.violations:
        sentences.insert(0, there.pop(0))  # what stops it comes before how well it would do
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
        sentences=[f"The trained network itself, in float64, on {samples}."],
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


def _speakers(
    everything: Sequence[tables.Named],
    looks: Mapping[str, Series],
    excerpts: Mapping[str, RasterExcerpt],
) -> list[Speaker]:
    speaking = [(n, name, f) for n, (name, f) in enumerate(everything) if f.populations]
    most = MOST_DASHES // max(1, len(speaking))
    return [_speaker(n, name, f, looks[name], excerpts, most) for n, name, f in speaking]


def _speaker(
    number: int,
    name: str,
    found: TargetFidelity,
    series: Series,
    excerpts: Mapping[str, RasterExcerpt],
    most_dashes: int,
) -> Speaker:
    path = name.replace(" · ", "/", 1) if " · " in name else f"{name}/"
    rasters = shared([excerpts.get(f"{path}/{p}") for p in found.populations], most_dashes)
    activities = [
        Activity(p, population.neurons, raster, population.by_step)
        for (p, population), raster in zip(found.populations.items(), rasters, strict=True)
    ]
    shown = [tables.populations(found), tables.classes(found)]
    apart = {n: p.intervals for n, p in found.populations.items() if p.intervals}
    return Speaker(
        name=name,
        twin=found.equal_to.target if found.equal_to and found.equal_to.equal else "",
        swatch=swatch(series),
        tables=[table for table in shown if table is not None],
        plot=activity_plot(number, series, activities).svg(),
        excerpts=excerpts_told(activities),
        intervals=intervals_plot(number, series, apart).svg() if apart else None,
    )
