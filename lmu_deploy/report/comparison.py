"""Writer of comparison.html and comparison.md: the changes between two validations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lmu_deploy.core.files import write_text
from lmu_deploy.fidelity.comparison import Comparison, MetricChange, Pair, compare_runs
from lmu_deploy.fidelity.schema import TargetFidelity
from lmu_deploy.fidelity.store import read_fidelity
from lmu_deploy.report import wording
from lmu_deploy.report.tables import Table
from lmu_deploy.report.wording import NOTHING
from lmu_deploy.report.write import plain, render, table

PAGE = "comparison.html"
MARKDOWN = "comparison.md"

_SIGNS = {"better": "✅", "worse": "❌", "no clear change": "⚪"}
_TONES = {"better": "better", "worse": "worse", "no clear change": "unknown"}


@dataclass(frozen=True)
class Entry:
    """Change of one target; `tone` selects the sign of the headline."""

    name: str
    value: str
    was: str
    words: str
    tone: str
    sentence: str
    tables: Sequence[Table]


def write_comparison(folder: Path | str, other: Path | str) -> Path:
    """Write the changes of `folder` since `other` into `folder`; return the path of the page.

    Raises
    ------
    InputError
        When a folder has no fidelity.json, or the two belong to different tasks.
    MissingDependencyError
        When jinja2 is absent.
    """
    folder = Path(folder)
    found = compare_runs(read_fidelity(other), read_fidelity(folder))
    entries = [_reference(found), *(_entry(pair) for pair in found.pairs)]
    provenance = _changes("Changes of the provenance", found.provenance)
    notes = _notes(found)
    page = render(
        "comparison.html",
        task=found.after.task.name,
        dates=[wording.readable_date(run.date) for run in (found.before, found.after)],
        entries=entries,
        notes=notes,
        made=provenance,
    )
    write_text(folder / MARKDOWN, _markdown(found, entries, notes, provenance))
    write_text(folder / PAGE, page)
    return folder / PAGE


def _reference(found: Comparison) -> Entry:
    return _make_entry("float", found.reference, [])


def _entry(pair: Pair) -> Entry:
    shown = [_figures(pair), _changes(f"Settings of {pair.name}", pair.settings)]
    return _make_entry(pair.name, pair.metric, [t for t in shown if t is not None])


def _make_entry(name: str, change: MetricChange, tables: Sequence[Table]) -> Entry:
    kind = change.after.name
    before, after = (wording.metric_value(kind, m.value) for m in (change.before, change.after))
    words: str = change.outcome
    if change.after == change.before:
        words = "unchanged"
    elif change.ci95 is None:
        words = "undecided: too few samples"
    metric = "accuracy" if kind == "accuracy" else "NRMSE"
    sentence = f"The {metric} of {name} changed from {before} to {after}"
    if before == after:
        sentence = f"The {metric} of {name} is {after} in both runs"
    if change.ci95 is not None:
        low, high = (wording.metric_difference(kind, bound) for bound in change.ci95)
        difference = wording.metric_difference(kind, change.difference)
        sentence += f"; the difference is {difference} (95{wording.SPACE}% interval {low} to {high}"
        sentence += f"{_pairing(change)})"
    return Entry(
        name, after, f"was {before}", words, _TONES[change.outcome], f"{sentence}.", tables
    )


def _pairing(change: MetricChange) -> str:
    """Describe whether the interval is paired, and the paired test."""
    paired = change.paired
    if paired is None:
        return ", unpaired"
    if paired.p_value is None:
        return ", paired"
    test = f"McNemar's test: {wording.p_value(paired.p_value)}"
    return f", paired; {paired.lost:,} predictions lost, {paired.gained:,} gained; {test}"


def _figures(pair: Pair) -> Table | None:
    """Build the figures of a target that changed."""
    rows = []
    for name, write in _FIGURES.items():
        before, after = write(pair.before), write(pair.after)
        if before != after:
            rows.append([name, before, after])
    columns = ["figure", "before", "after"]
    return Table(f"Changes of {pair.name}", columns, rows) if rows else None


def _interval(found: TargetFidelity, field: str, unit: str) -> str:
    interval = None if found.costs is None else getattr(found.costs, field)
    return NOTHING if interval is None else wording.quantities(interval, unit)


def _fit(found: TargetFidelity) -> str:
    if found.fit is None:
        return NOTHING
    return f"{'no' if found.fit.violations else 'yes'}, {found.fit.profile}"


def _memory(found: TargetFidelity) -> str:
    errors = {} if found.memory_error is None else found.memory_error.overall
    known = [wording.significant(value) for value in errors.values() if value is not None]
    return " / ".join(known) or NOTHING


_FIGURES: Mapping[str, Callable[[TargetFidelity], str]] = {
    "samples": lambda f: wording.count(f.samples),
    "agreement with float": lambda f: wording.share(f.reference.agreement if f.reference else None),
    "memory error": _memory,
    "events per sample": lambda f: wording.count(f.events.per_sample),
    "synaptic operations per sample": lambda f: wording.count(f.synops_per_sample),
    "saturations": lambda f: wording.count(sum(f.saturations.values())),
    "chip steps": lambda f: wording.count(f.chip_steps),
    "energy per inference": lambda f: _interval(f, "energy", "J"),
    "time per inference": lambda f: _interval(f, "latency", "s"),
    "fits its chip": _fit,
    "parameters": lambda f: NOTHING if f.sizes is None else wording.count(f.sizes.parameters),
    "nonzero weights": lambda f: NOTHING if f.sizes is None else wording.count(f.sizes.synapses),
    "bits per weight": lambda f: NOTHING if f.sizes is None else str(f.sizes.weight_bits),
    "weights": lambda f: NOTHING if f.sizes is None else wording.size(f.sizes.weight_bytes),
}


def _changes(caption: str, changed: Mapping[str, tuple[str | None, str | None]]) -> Table | None:
    rows = [[name, *(NOTHING if v is None else v for v in both)] for name, both in changed.items()]
    return Table(caption, ["name", "before", "after"], rows, numeric=False) if rows else None


def _notes(found: Comparison) -> list[str]:
    notes = []
    if not found.same_samples:
        notes.append(
            "The runs used different samples, so a difference may come from the networks or from "
            "the samples."
        )
    elif alone := [name for name, change in _changed(found) if change.paired is None]:
        notes.append(
            f"The results of {', '.join(alone)} are not paired, because a run did not record the "
            "result of each sample or the numbers of samples differ."
        )
    if found.only_before:
        notes.append(f"Only the earlier run has {', '.join(found.only_before)}.")
    if found.only_after:
        notes.append(f"Only the later run has {', '.join(found.only_after)}.")
    return notes


def _changed(found: Comparison) -> list[tuple[str, MetricChange]]:
    return [("float", found.reference), *((pair.name, pair.metric) for pair in found.pairs)]


def _markdown(
    found: Comparison, entries: Sequence[Entry], notes: Sequence[str], made: Table | None
) -> str:
    since = wording.readable_date(found.before.date)
    lines = [
        f"## {plain(found.after.task.name)}: changes since {since}",
        "",
    ]
    outcomes = [found.reference, *(pair.metric for pair in found.pairs)]
    for entry, change in zip(entries, outcomes, strict=True):
        text = f"**{plain(entry.name)}**: {entry.words}. {plain(entry.sentence)}"
        lines.append(f"- {_SIGNS[change.outcome]} {text}")
    lines += [f"- {plain(note)}" for note in notes]
    tables = [t for entry in entries for t in entry.tables] + ([] if made is None else [made])
    for shown in tables:
        lines += ["", f"**{plain(shown.caption)}**", "", table(shown)]
    return "\n".join(lines) + "\n"
