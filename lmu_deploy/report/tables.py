"""Tables of a report as rows of text: comparison, memory error, events, sizes, NeuroBench, costs.

Estimated energy and time on a chip also have sentences for the verdict, and their sources.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lmu_deploy.core.network import default_names
from lmu_deploy.fidelity.gate import against_float, against_float_here, in_words, margin_of
from lmu_deploy.fidelity.schema import (
    Costs,
    Estimate,
    Fidelity,
    NetworkSummary,
    NeuroBench,
    Sizes,
    TargetFidelity,
)
from lmu_deploy.report import wording
from lmu_deploy.report.series import Series, swatch
from lmu_deploy.report.wording import (
    NOTHING,
    TIMES,
    count,
    metric_interval,
    metric_value,
    plural,
    quantities,
    share,
    significant,
    size,
)


@dataclass(frozen=True)
class Table:
    """A table whose first column contains the row headers.

    Attributes
    ----------
    caption : str
    columns : sequence of str
        Column headers; the first belongs to the row headers.
    rows : sequence of sequence of str
        One text for each column.
    numeric : bool
        Whether all columns except the first are right-aligned.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: bool = True


Named = tuple[str, TargetFidelity]


@dataclass(frozen=True)
class Section:
    """Part of a section that belongs to one target.

    Attributes
    ----------
    name : str
    swatch : Markup
    sentences : sequence of str
        Summary in words.
    plots : sequence of Markup
    tables : sequence of Table
    """

    name: str
    swatch: Markup
    sentences: Sequence[str]
    plots: Sequence[Markup]
    tables: Sequence[Table]


def with_variants(fidelity: Fidelity) -> Iterator[Named]:
    """Iterate over all targets, each followed by its variants, with their names in the report."""
    for name, found in fidelity.targets.items():
        yield name, found
        for variant, other in found.variants.items():
            yield f"{name} · {variant}", other


@dataclass(frozen=True)
class Shipping:
    """Answer to "can this be shipped?", from the verdicts on all targets.

    Attributes
    ----------
    answer : str
    tone : {"same", "worse", "unknown"}
        Selects the sign and the color of the answer.
    rule : str
        What a yes needs.
    reasons : sequence of (str, str)
        Targets that stand in the way of a yes, and why.
    table : Table
        What each target satisfies.
    """

    answer: str
    tone: str
    rule: str
    reasons: Sequence[tuple[str, str]]
    table: Table


def shipping(fidelity: Fidelity) -> Shipping | None:
    """Summarize the verdicts on all targets; None without targets.

    The answer is yes only if every target is equivalent to float or better, differs from no
    specification, has no damage, and fits its chip.
    """
    if not fidelity.targets:
        return None
    judged = {name: _verdict(fidelity, name) for name in fidelity.targets}
    worse = [name for name, (_, tone) in judged.items() if tone == "worse"]
    unknown = [name for name, (_, tone) in judged.items() if tone == "unknown"]
    if worse:
        answer, tone = f"No: see {wording.listed(worse)}.", "worse"
    elif unknown:
        answer, tone = f"Not decided: see {wording.listed(unknown)}.", "unknown"
    else:
        answer, tone = "Yes: every target satisfies all of these.", "same"
    metric, reference = "accuracy" if _is_accuracy(fidelity) else "NRMSE", fidelity.reference.metric
    rows = [
        (
            name,
            against_float_here(fidelity, name, margin_of(found))[1],
            wording.metric_value(found.metric.name, found.metric.value),
            _specified(found),
            _fits(found),
        )
        for name, found in fidelity.targets.items()
    ]
    theirs = wording.metric_value(reference.name, reference.value)
    heads = ("target", "as good as float?", f"{metric} (float: {theirs})")
    columns = (*heads, "equal to its specification?", "fits its chip?")
    table = Table("What each target satisfies", columns, rows, False)
    fits = "; fits its chip"  # a verdict's good news is no reason
    reasons = [(name, judged[name][0].removesuffix(fits)) for name in [*worse, *unknown]]
    return Shipping(answer, tone, _rule(fidelity, metric), reasons, table)


def _verdict(fidelity: Fidelity, name: str) -> tuple[str, str]:
    """Return the verdict on a target; one of few samples counts as what it is bit-identical to."""
    found = fidelity.targets[name]
    words, tone = wording.verdict(found)
    alone = against_float(found, margin_of(found))[0]
    here, theirs = against_float_here(fidelity, name, margin_of(found))
    blind = found.specification is not None and found.specification.blind
    if tone == alone == "unknown" and not blind:
        return (words, tone) if here == "unknown" else (theirs, here)
    return words, tone


def _is_accuracy(fidelity: Fidelity) -> bool:
    return fidelity.reference.metric.name == "accuracy"


def _rule(fidelity: Fidelity, metric: str) -> str:
    """Return in one sentence what a yes needs."""
    margins = {margin_of(found) for found in fidelity.targets.values()}
    within = "the margin"
    if len(margins) == 1:
        within = in_words(margins.pop(), fidelity.reference.metric.name)
    return (
        f"Yes means for every target that, with statistical confidence, the {metric} is worse than "
        f"that of float by at most {within}; that every recorded value is the one that the network "
        "file specifies; and that no limit of the chip is exceeded."
    )


def _specified(found: TargetFidelity) -> str:
    """Return whether what a target recorded, and its weights, are as specified."""
    if found.specification is not None and not found.specification.equal:
        return "differs"
    if found.damage:
        return "file damaged"
    if found.specification is None:
        return "not compared"
    if found.specification.blind:
        return "not decided"
    return "equal" if found.specification.false_alarms is None else "statistically equal"


def _fits(found: TargetFidelity) -> str:
    if found.fit is None:
        return "no chip"
    violations = len(found.fit.violations)
    return f"exceeds {wording.plural(violations, 'limit')}" if violations else "fits"


def comparison(fidelity: Fidelity) -> Table:
    """Build the comparison of float and all targets; float comes first."""
    accuracy = fidelity.reference.metric.name == "accuracy"
    columns = [
        "target",
        "accuracy" if accuracy else "NRMSE",
        "95 % interval",
        "difference from float",
    ]
    columns += ["agreement" if accuracy else "output deviation", "memory error", "samples"]
    columns += ["events per sample", "SynOps per sample", "saturations", "run time"]
    truth = fidelity.reference
    first = ["float", metric_value(truth.metric.name, truth.metric.value)]
    first += [metric_interval(truth.metric), *[NOTHING] * 3, f"{truth.samples:,}"]
    first += [*[NOTHING] * 3, wording.seconds(truth.wall_seconds)]
    rows = [first]
    for name, found in with_variants(fidelity):
        metric, against = found.metric, found.reference
        row = [name, metric_value(metric.name, metric.value), metric_interval(metric)]
        row += [NOTHING] * 2
        if against is not None:
            row[-2] = wording.metric_difference(metric.name, against.difference)
            if against.agreement is not None:
                row[-1] = f"{100 * against.agreement:.2f}{wording.SPACE}%"
            elif against.deviation is not None:
                row[-1] = significant(against.deviation)
        row += [_memory(found), f"{found.samples:,}"]
        counted = bool(found.populations)
        row += [count(found.events.per_sample) if counted else NOTHING]
        row += [count(found.synops_per_sample) if counted else NOTHING]
        row += [count(sum(found.saturations.values())) if found.saturations else NOTHING]
        rows.append([*row, wording.seconds(found.wall_seconds)])
    return Table("Comparison of float and all targets", columns, rows)


def _memory(found: TargetFidelity) -> str:
    if found.memory_error is None:
        return NOTHING
    values = [v for v in found.memory_error.overall.values() if v is not None]
    return " / ".join(significant(value) for value in values) or NOTHING


def memory(fidelity: Fidelity) -> Table | None:
    """Build the memory error of each layer: overall, at the last step, and of the worst order."""
    rows = []
    for name, found in with_variants(fidelity):
        if (error := found.memory_error) is None:
            continue
        for layer, overall in error.overall.items():
            steps, orders = error.by_step[layer], error.by_order[layer]
            known = [(v, i) for i, v in enumerate(orders) if v is not None]
            worst = max(known) if known else None
            row = [name, layer, NOTHING if overall is None else significant(overall)]
            row += [significant(steps[-1]) if steps else NOTHING]
            row += [f"{significant(worst[0])} in order {worst[1]}" if worst else NOTHING]
            rows.append([*row, f"{error.samples:,}"])
    columns = ["target", "layer", "overall", "last step", "worst order", "samples"]
    return Table("Relative error of the memory", columns, rows) if rows else None


def populations(found: TargetFidelity) -> Table | None:
    """Build the events of one target by population."""
    if not found.populations:
        return None
    rows = [
        [
            name,
            NOTHING if p.neurons is None else f"{p.neurons:,}",
            count(p.events),
            count(p.per_sample),
            NOTHING if p.rate is None else significant(p.rate),
            NOTHING if p.silent is None else f"{p.silent:,}",
        ]
        for name, p in found.populations.items()
    ]
    columns = ["population", "neurons", "events", "events per sample"]
    columns += ["events per neuron and step", "silent in sample 0"]
    return Table("Events by population", columns, rows)


def classes(found: TargetFidelity) -> Table | None:
    """Build the mean events per sample by population and class."""
    by_class = {n: p.by_class for n, p in found.populations.items() if p.by_class}
    labels = sorted({label for means in by_class.values() for label in means})
    if len(labels) < 2:
        return None
    rows = [
        [name, *(count(round(means[c])) if c in means else NOTHING for c in labels)]
        for name, means in by_class.items()
    ]
    columns = ["population", *(f"class {label}" for label in labels)]
    return Table("Mean events per sample, by class", columns, rows)


def saturations(fidelity: Fidelity) -> Table | None:
    """Build the saturation counts by place, for every target that has any."""
    counted = [(name, found.saturations) for name, found in with_variants(fidelity)]
    counted = [(name, places) for name, places in counted if any(places.values())]
    places = sorted({p for _, found in counted for p, n in found.items() if n})
    if not places:
        return None
    rows = [[p, *(count(found.get(p, 0)) for _, found in counted)] for p in places]
    return Table(
        "Values at or beyond the limits of their range",
        ["place", *(name for name, _ in counted)],
        rows,
    )


def sizes(fidelity: Fidelity) -> Table | None:
    """Build the sizes of each representation."""
    named = [("float", fidelity.reference.sizes)]
    named += [(name, found.sizes) for name, found in with_variants(fidelity)]
    rows = [_size_row(name, found) for name, found in named if found is not None]
    columns = ["target", "representation", "parameters", "nonzero weights", "bits per weight"]
    columns += ["weights", "biases and gains", "state per sample"]
    return Table("Size of each representation", columns, rows) if rows else None


def _size_row(name: str, found: Sizes) -> list[str]:
    return [
        name,
        found.representation,
        count(found.parameters),
        count(found.synapses),
        str(found.weight_bits),
        wording.size(found.weight_bytes),
        wording.size(found.neuron_bytes),
        wording.size(found.state_bytes),
    ]


def layers(network: NetworkSummary) -> Table:
    """Build the list of the layers of the network."""
    numbered = default_names(len(network.layers))  # files of version 0.1 have no names
    rows = [
        [
            layer.name or numbered[number],
            layer.kind.upper(),
            str(layer.inputs),
            NOTHING if layer.order is None else f"{layer.channels} {TIMES} {layer.order}",
            NOTHING if layer.theta is None else f"{layer.theta:g} steps",
            layer.discretizer or NOTHING,
            str(layer.units) if layer.units else NOTHING,
            layer.activation or NOTHING,
            ", ".join(layer.feedback) or "none",
        ]
        for number, layer in enumerate(network.layers)
    ]
    columns = ["layer", "kind", "inputs", f"channels {TIMES} order", "window", "discretizer"]
    return Table("Layers", [*columns, "units", "activation", "feedback"], rows, numeric=False)


def nodes(network: NetworkSummary) -> Table | None:
    """Build the list of all nodes of the network; None in files that do not have it."""
    rows = [
        [node.name, node.operator, ", ".join(node.inputs), node.shape, f"{node.parameters:,}"]
        for node in network.nodes
    ]
    columns = ["node", "operator", "inputs", "output shape", "parameters"]
    return Table("Nodes", columns, rows, numeric=False) if rows else None


def neurobench(fidelity: Fidelity) -> Table | None:
    """Build the metrics that NeuroBench defines, for each target with a known bit width."""
    rows = [
        _row(name, found.neurobench)
        for name, found in with_variants(fidelity)
        if found.neurobench is not None
    ]
    columns = ["target", "footprint", "connection sparsity", "activation sparsity"]
    columns += ["effective MACs", "effective ACs", "dense"]
    return Table("NeuroBench metrics of a mean sample", columns, rows) if rows else None


def _row(name: str, found: NeuroBench) -> list[str]:
    row = [name, size(found.footprint), share(found.connection_sparsity)]
    row += [share(found.activation_sparsity)]
    operations = found.synaptic_operations
    if operations is None:
        return [*row, *[NOTHING] * 3]
    figures = operations.effective_macs, operations.effective_acs, operations.dense
    return [*row, *(count(figure) for figure in figures)]


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
        sections.append(_cost_section(name, found.costs, looks[name]))
    return sections


def _cost_section(name: str, costs: Costs, series: Series) -> Section:
    sentence = (
        f"An inference takes {count(costs.synops)} synaptic operations, {count(costs.messages)} "
        f"messages and {count(costs.updates)} neuron updates in "
        f"{plural(costs.chip_steps, 'chip step')}."
    )
    shown = [
        _cost_table("Energy", "J", costs.energies, costs.energy),
        _cost_table("Time", "s", costs.latencies, costs.latency),
    ]
    return Section(name, swatch(series), [sentence], [], [t for t in shown if t is not None])


def _cost_table(
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
