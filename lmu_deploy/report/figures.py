"""Plots of reports and runs as matplotlib figures, for notebooks and scripts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lmu_deploy.core.errors import InputError
from lmu_deploy.fidelity.measures.events import RasterExcerpt
from lmu_deploy.fidelity.schema import Fidelity, TargetFidelity
from lmu_deploy.report.plots.events import Activity, activity_plot
from lmu_deploy.report.plots.lines import Dot, metric_plot, thinned
from lmu_deploy.report.plots.losses import Bar, waterfall_plot
from lmu_deploy.report.plots.memory import error_plot
from lmu_deploy.report.series import FLOAT, VARIABLES, Series, assign, variant
from lmu_deploy.report.svg import SETTINGS, WIDE, Plot
from lmu_deploy.report.tables import with_variants

_LIGHT = {
    "var(--ink)": "#16191d",
    "var(--muted)": "#5b6470",
    "var(--grid)": "#e3e6ea",
    "var(--series-1)": "#0072b2",
    "var(--series-2)": "#c8500a",
    "var(--series-3)": "#00856a",
    "var(--series-4)": "#a3528a",
    "var(--series-5)": "#2b8cbe",
    "var(--series-6)": "#9a6b00",
}
"""The colors of style.css on a light page."""
_COLORS = {token: _LIGHT[variable] for token, variable in VARIABLES.items()}
_LEGEND_INCHES = 0.4
_PROPERTIES = ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor")


def to_figure(plot: Plot) -> Figure:
    """Draw a plot of a report at its full width, in the colors of a light page."""
    with mpl.rc_context(SETTINGS):
        figure = plot.draw(WIDE)
        figure.canvas.draw()  # ticks take their colors when they are drawn first
    for artist in figure.findobj():
        _recolor(artist)
    return figure


def _recolor(artist: Artist) -> None:
    """Replace the stand-ins for CSS variables by colors; transparency stays."""
    for name in _PROPERTIES:
        getter, setter = (getattr(artist, f"{verb}_{name}", None) for verb in ("get", "set"))
        if getter is None or setter is None:
            continue
        value = getter()
        if isinstance(value, np.ndarray):
            if len(value) and value.ndim == 2 and (color := _COLORS.get(to_hex(value[0]))):
                setter(to_rgba(color, value[0][3]))
        elif value is not None and not (isinstance(value, str) and value in ("none", "auto")):
            rgba = to_rgba(value)
            if color := _COLORS.get(to_hex(rgba)):
                setter(to_rgba(color, rgba[3]))


def _add_legend(figure: Figure, shown: Sequence[Series]) -> None:
    """Name the lines above the plot, where a report has its legend beside it."""
    handles = [
        Line2D(
            [],
            [],
            color=_COLORS[series.color],
            linestyle=series.dash,
            marker=series.marker,
            markerfacecolor="none" if series.hollow else _COLORS[series.color],
            label=series.label,
        )
        for series in shown
    ]
    width, height = figure.get_size_inches()
    share = height / (height + _LEGEND_INCHES)
    for axes in figure.axes:
        box = axes.get_position()
        axes.set_position((box.x0, share * box.y0, box.width, share * box.height))
    figure.set_size_inches(width, height + _LEGEND_INCHES)
    figure.legend(handles=handles, loc="upper left", ncols=len(handles), frameon=False, fontsize=11)


def looks_of(fidelity: Fidelity) -> dict[str, Series]:
    """Return the color, mark and dash of every target and variant."""
    looks = assign(fidelity.targets)
    for name, found in fidelity.targets.items():
        for other in found.variants:
            looks[f"{name} · {other}"] = variant(looks[name], other)
    return looks


def metric_figure(fidelity: Fidelity) -> Figure:
    """Draw the metric of every target on its 95 % interval."""
    looks, reference = looks_of(fidelity), fidelity.reference
    dots = [Dot(FLOAT, reference.metric, None, reference.samples)]
    for name, found in with_variants(fidelity):
        expected = None if found.reference is None else found.reference.value
        dots.append(Dot(looks[name], found.metric, expected, found.samples))
    return to_figure(metric_plot(dots))


def memory_error_figure(fidelity: Fidelity, layer: str | None = None) -> Figure:
    """Draw the error of a layer's memory over time and by Legendre order, of every target.

    Parameters
    ----------
    fidelity : Fidelity
    layer : str, optional
        By default the first layer with a memory.

    Raises
    ------
    InputError
        When no target recorded states of such a layer, or none has an error.
    """
    looks = looks_of(fidelity)
    errors = [
        (looks[n], f.memory_error) for n, f in with_variants(fidelity) if f.memory_error is not None
    ]
    layers = list(dict.fromkeys(name for _, error in errors for name in error.by_order))
    if layer is None and layers:
        layer = layers[0]
    if layer is None or layer not in layers:
        known = ", ".join(layers) or "none"
        raise InputError(
            f"no target recorded the memory of {layer or 'any layer'}; known: {known}."
        )
    plot = error_plot(
        layer,
        [(s, steps) for s, error in errors if (steps := error.by_step.get(layer))],
        [(s, error.by_order[layer]) for s, error in errors if layer in error.by_order],
    )
    if plot is None:
        raise InputError(f"the memory of {layer} has no error on any target.")
    figure = to_figure(plot)
    _add_legend(figure, [series for series, error in errors if layer in error.by_order])
    return figure


def activity_figure(
    fidelity: Fidelity, excerpts: Mapping[str, RasterExcerpt], target: str | None = None
) -> Figure:
    """Draw the raster of sample 0 and the mean events at each step, of one target.

    Parameters
    ----------
    fidelity : Fidelity
    excerpts : mapping of "target/variant/population" to RasterExcerpt
    target : str, optional
        By default the first target that sends events.

    Raises
    ------
    InputError
        When no such target sends events.
    """
    name, found = _target(fidelity, target, "sends events", lambda f: bool(f.populations))
    path = name.replace(" · ", "/", 1) if " · " in name else f"{name}/"
    activities = [
        Activity(p, population.neurons, excerpts.get(f"{path}/{p}"), population.by_step)
        for p, population in found.populations.items()
    ]
    return to_figure(activity_plot(0, looks_of(fidelity)[name], activities))


def error_sources_figure(fidelity: Fidelity, target: str | None = None) -> Figure:
    """Draw what each source of error adds to a target's squared output error.

    Parameters
    ----------
    fidelity : Fidelity
    target : str, optional
        By default the first target with an attribution.

    Raises
    ------
    InputError
        When no such target has an attribution, or its output has no error.
    """
    name, found = _target(fidelity, target, "has an attribution", lambda f: bool(_bars(f)))
    return to_figure(waterfall_plot(0, looks_of(fidelity)[name], _bars(found)))


def _bars(found: TargetFidelity) -> list[Bar]:
    return [
        Bar(step.source, step.share_in_turn, step.share_alone)
        for step in (found.attribution.steps if found.attribution else [])
        if step.places and step.share_in_turn is not None and step.share_alone is not None
    ]


def _target(
    fidelity: Fidelity, target: str | None, condition: str, fits: Callable[[TargetFidelity], bool]
) -> tuple[str, TargetFidelity]:
    """Return the named target, or the first one, that fits."""
    fitting = {name: found for name, found in with_variants(fidelity) if fits(found)}
    name = next(iter(fitting), None) if target is None else target
    if name is None or name not in fitting:
        known = ", ".join(fitting) or "none"
        raise InputError(f"{name or 'no target'}: no such target {condition}; known: {known}.")
    return name, fitting[name]


def states_figure(memories: Mapping[str, np.ndarray], most: int = 6) -> Figure:
    """Draw the first states of a memory over time, one panel for each source.

    Parameters
    ----------
    memories : mapping of name to ndarray, shape (steps, states)
    most : int
        How many states are drawn.
    """
    figure = Figure(figsize=(8.0, 2.4 * len(memories)), layout="constrained")
    panels = figure.subplots(len(memories), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, (name, values) in zip(panels, memories.items(), strict=True):
        axes.plot(values[:, :most], linewidth=1.4)
        axes.set_title(name, loc="left", fontsize=10)
        axes.set_ylabel("memory state")
        axes.grid(alpha=0.3)
    panels[-1].set_xlabel("step")
    return figure


def events_figure(by_step: Mapping[str, np.ndarray]) -> Figure:
    """Draw the mean events at each step, by population.

    Parameters
    ----------
    by_step : mapping of population to ndarray, shape (steps,)

    Raises
    ------
    InputError
        When there are no populations, as on a float target.
    """
    if not by_step:
        raise InputError("this target sends no events; run an integer or spiking network.")
    figure = Figure(figsize=(8.0, 3.0), layout="constrained")
    axes = figure.subplots()
    for name, values in by_step.items():
        axes.plot(*thinned(values.tolist()), label=name, linewidth=1.4)
    axes.set_xlabel("step")
    axes.set_ylabel("events of a mean sample")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9)
    return figure
