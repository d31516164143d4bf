"""What a run would cost on a chip: sentences for the verdict, a section, and its sources."""

from __future__ import annotations

from collections.abc import Mapping

from lmu_deploy.fidelity.schema import Costs, Estimate, Fidelity, TargetFidelity
from lmu_deploy.report.losses import Section
from lmu_deploy.report.series import Series, swatch
from lmu_deploy.report.tables import Table, with_variants
from lmu_deploy.report.wording import count, plural, quantities


def on_chip(found: TargetFidelity) -> list[str]:
    """Say whether a target's network fits its chip, and what an inference takes there."""
    said = []
    if (fit := found.fit) is not None:
        said.append(f"Fits {fit.title} (profile {fit.profile}).")
        if fit.violations:
            more = len(fit.violations) - 1
            others = f" And {plural(more, 'violation')} more: see Limits and sizes." if more else ""
            said[-1] = (
                f"Does not fit {fit.title} (profile {fit.profile}): {fit.violations[0]}{others}"
            )
    if (costs := found.costs) is not None:
        said.append(_sentence(costs))
    return said


def _sentence(costs: Costs) -> str:
    text = (
        f"{count(costs.messages)} events and {count(costs.synops)} synaptic operations an inference"
    )
    if costs.energy is not None:
        text += f": {quantities(costs.energy, 'J')} of dynamic energy"
        text += f" by {plural(len(costs.energies), 'published source')}"
    if costs.latency is not None:
        text += f"; {quantities(costs.latency, 's')} on a chip"
    return f"{text}."


def costs(fidelity: Fidelity, looks: Mapping[str, Series]) -> list[Section]:
    """Each target's energy and time by source; one that only repeats another's has none."""
    sections = []
    for name, found in with_variants(fidelity):
        twin = found.equal_to is not None and found.equal_to.equal
        if found.costs is None or (twin and found.samples < fidelity.reference.samples):
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
        rows.append(["all of them", quantities(whole, unit), "", ""])
    columns = ["figures of", "an inference", "a step of the task", "what is counted"]
    return Table(f"{what}, by published source", columns, rows, numeric=False)


def cost_sources(fidelity: Fidelity) -> list[tuple[str, list[str]]]:
    """List every source that any target's estimates rest on, once."""
    found: dict[str, dict[str, None]] = {}
    for _, target in with_variants(fidelity):
        if target.costs is None:
            continue
        for group in (target.costs.energies, target.costs.latencies):
            for estimate in group.values():
                found.setdefault(estimate.title, {}).update(dict.fromkeys(estimate.sources))
    return [(title, list(sources)) for title, sources in found.items()]
