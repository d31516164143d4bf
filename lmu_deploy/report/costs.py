"""Estimated energy and time on a chip: sentences for the verdict, a section, its sources."""

from __future__ import annotations

from collections.abc import Mapping

from lmu_deploy.fidelity.schema import Costs, Estimate, Fidelity, TargetFidelity
from lmu_deploy.report.losses import Section
from lmu_deploy.report.series import Series, swatch
from lmu_deploy.report.tables import Table, with_variants
from lmu_deploy.report.wording import count, plural, quantities


def on_chip(found: TargetFidelity) -> list[str]:
    """Describe whether a network fits its chip, and the cost of an inference there."""
    sentences = []
    if (fit := found.fit) is not None:
        sentences.append(f"The network fits {fit.title} (profile {fit.profile}).")
        if fit.violations:
            more = len(fit.violations) - 1
            others = ""
            if more:
                others = f" Limits and sizes lists {plural(more, 'further violation')}."
            sentences[-1] = (
                f"The network does not fit {fit.title} (profile {fit.profile}): "
                f"{fit.violations[0]}{others}"
            )
    if (costs := found.costs) is not None:
        sentences.append(_sentence(costs))
    return sentences


def _sentence(costs: Costs) -> str:
    text = (
        f"An inference takes {count(costs.messages)} events and {count(costs.synops)} synaptic "
        "operations."
    )
    if costs.energy is not None:
        text += f" Its estimated dynamic energy is {quantities(costs.energy, 'J')}"
        text += f" ({plural(len(costs.energies), 'published source')})."
    if costs.latency is not None:
        text += f" Its estimated time on a chip is {quantities(costs.latency, 's')}."
    return text


def costs(fidelity: Fidelity, looks: Mapping[str, Series]) -> list[Section]:
    """Build the energy and time of each target by source.

    A target that is bit-identical to another and ran fewer samples is left out.
    """
    sections = []
    for name, found in with_variants(fidelity):
        repeats = found.equal_to is not None and found.equal_to.equal
        if found.costs is None or (repeats and found.samples < fidelity.reference.samples):
            continue
        sections.append(_section(name, found.costs, looks[name]))
    return sections


def _section(name: str, costs: Costs, series: Series) -> Section:
    sentence = (
        f"An inference takes {count(costs.synops)} synaptic operations, {count(costs.messages)} "
        f"messages and {count(costs.updates)} neuron updates in "
        f"{plural(costs.chip_steps, 'chip step')}."
    )
    shown = [
        _table("Energy", "J", costs.energies, costs.energy),
        _table("Time", "s", costs.latencies, costs.latency),
    ]
    return Section(name, swatch(series), [sentence], [], [t for t in shown if t is not None])


def _table(
    what: str, unit: str, estimates: Mapping[str, Estimate], whole: tuple[float, float] | None
) -> Table | None:
    if whole is None:
        return None
    rows = [
        [
            found.title,
            quantities(found.inference, unit),
            quantities(found.step, unit),
            ", ".join(found.counted),
        ]
        for found in estimates.values()
    ]
    if len(rows) > 1:
        rows.append(["all sources", quantities(whole, unit), "", ""])
    columns = ["source", "per inference", "per task step", "operations counted"]
    return Table(f"{what}, by published source", columns, rows, numeric=False)


def cost_sources(fidelity: Fidelity) -> list[tuple[str, list[str]]]:
    """List the sources of all estimates, each source once."""
    found: dict[str, dict[str, None]] = {}
    for _, target in with_variants(fidelity):
        if target.costs is None:
            continue
        for group in (target.costs.energies, target.costs.latencies):
            for estimate in group.values():
                found.setdefault(estimate.title, {}).update(dict.fromkeys(estimate.sources))
    return [(title, list(sources)) for title, sources in found.items()]
