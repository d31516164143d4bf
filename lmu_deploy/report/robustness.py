"""Robustness section: the metric on many virtual chips and with other settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lmu_deploy.core.metrics import reached_by
from lmu_deploy.fidelity.schema import Fidelity
from lmu_deploy.report.plots.trials import (
    Chips,
    Marks,
    Trial,
    Varied,
    chips_plot,
    front_plot,
    trials_plot,
)
from lmu_deploy.report.robustness_file import (
    CALIBRATED,
    UNCALIBRATED,
    Robustness,
    SweepTable,
    YieldStudy,
)
from lmu_deploy.report.series import Series, assign, swatch, variant
from lmu_deploy.report.tables import Section, Table
from lmu_deploy.report.wording import (
    METHODS,
    NOTHING,
    count,
    good,
    metric_value,
    plural,
    setting,
    significant,
)

_SHARES = {"worst chip": 1.0, "99 % of chips": 0.99, "95 % of chips": 0.95, "median chip": 0.5}
_MOST_ROWS = 12


def robustness(found: Robustness, fidelity: Fidelity, looks: Mapping[str, Series]) -> list[Section]:
    """Build the sections of all yield studies and all sweeps."""
    chip = next((looks[n] for n, t in fidelity.targets.items() if n == "brian2"), None)
    chip = chip or assign(["brian2"])["brian2"]
    front = assign(["sweep"])["sweep"]
    sections = [_yield(number, study, chip) for number, study in enumerate(found.yields)]
    return sections + [_sweep(number, sweep, front) for number, sweep in enumerate(found.sweeps)]


def _yield(number: int, study: YieldStudy, series: Series) -> Section:
    before = variant(series, METHODS[UNCALIBRATED])
    rows = [
        Chips(METHODS[UNCALIBRATED], before, study.values[UNCALIBRATED]),
        Chips(METHODS[CALIBRATED], series, study.values[CALIBRATED]),
    ]
    marks = Marks(study.reference, study.ideal)
    plot = chips_plot(number, study.metric, study.samples, rows, marks)
    sentences = [
        f"Each chip of profile {study.profile} ran {plural(study.samples, 'sample')} of "
        f"{plural(study.steps, 'step')}. Settings: {_options(study.settings)}.",
        *(good(study, method) for method in METHODS),
        "The solid line is float. The dashed line is an ideal chip, without mismatch, noise and "
        "weight rounding.",
    ]
    title = f"{plural(study.chips, 'virtual chip')} of {study.profile}"
    return Section(title, swatch(series), sentences, [plot.svg()], [_reached(study)])


def _options(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {setting(v)}" for name, v in settings.items())


def _reached(study: YieldStudy) -> Table:
    rows = []
    for method, name in METHODS.items():
        chips = study.values[method]
        values = [reached_by(chips, share, study.metric) for share in _SHARES.values()]
        spikes = study.spikes.get(method)
        fired = count(round(float(np.mean(spikes)))) if spikes else NOTHING
        rows.append([name, *(metric_value(study.metric, value) for value in values), fired])
    for name, value in (("ideal chip", study.ideal), ("float", study.reference)):
        rows.append([name, *[metric_value(study.metric, value)] * len(_SHARES), NOTHING])
    unit = "Accuracy" if study.metric == "accuracy" else "NRMSE"
    return Table(
        f"{unit} that a share of the chips reaches or exceeds",
        ["chips", *_SHARES, "spikes per sample"],
        rows,
    )


def _sweep(number: int, found: SweepTable, series: Series) -> Section:
    done, trials = found.done, len(found.values("status"))
    metric = str(found.values("metric_name")[done[0]])
    measured = [found.values("metric")[n] for n in done]
    varied = [
        Varied(name, [found.values(name)[n] for n in done], measured) for name in found.varied
    ]
    varied = [each for each in varied if len(each.choices) > 1]
    references = {found.values("reference")[n] for n in done}
    reference = references.pop() if len(references) == 1 else None
    sentences = [f"{len(done):,} of {plural(trials, 'trial')} could be run."]
    if len(done) == trials:
        sentences = [f"The sweep has {plural(trials, 'trial')}."]
    plots, tables = [], []
    if varied:
        sentences[0] += " Each dot is a trial; the colored line joins the best trial at each value."
        sentences[0] += "" if reference is None else " The horizontal line is float."
        plots.append(trials_plot(number, series, metric, varied, reference).svg())
    if shown := _shown(found):
        labels = _labels(found, metric)
        plots.append(front_plot(number, series, labels, shown).svg())
        tables.append(_front_table(found, labels, metric))
    return Section(f"Sweep {found.name}", swatch(series), sentences, plots, tables)


def _labels(found: SweepTable, metric: str) -> tuple[str, str]:
    vertical, horizontal = (
        metric if name == "metric" else name.replace("_", " ") for name in found.objectives
    )
    return vertical, horizontal


def _shown(found: SweepTable) -> list[Trial]:
    vertical, horizontal = (found.values(name) for name in found.objectives)
    return [
        Trial(float(vertical[n]), float(horizontal[n]), n in found.front)
        for n in found.done
        if vertical[n] is not None and horizontal[n] is not None and found.front
    ]


def _front_table(found: SweepTable, labels: tuple[str, str], metric: str) -> Table:
    """Build the Pareto front, cheapest trial first."""
    first, second = found.objectives
    rows = sorted(found.front, key=lambda n: found.values(second)[n])
    texts = [
        [
            _figure(first, found.values(first)[n], metric),
            _figure(second, found.values(second)[n], metric),
            *(
                NOTHING if (v := found.values(name)[n]) is None else setting(v)
                for name in found.varied
            ),
        ]
        for n in rows
    ]
    caption = "Trials on the Pareto front"
    if len(texts) > _MOST_ROWS:
        caption += f", the first {_MOST_ROWS} of {len(texts)}"
    return Table(caption, [*labels, *found.varied], texts[:_MOST_ROWS])


def _figure(name: str, value: float, metric: str) -> str:
    if name == "metric":
        return metric_value(metric, value)
    return significant(value) if abs(value) < 1 else count(value)
