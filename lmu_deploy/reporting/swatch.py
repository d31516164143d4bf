"""The sample of a target's line and mark that stands beside its name, drawn as plots draw it."""

from __future__ import annotations

from markupsafe import Markup

from lmu_deploy.reporting.series import FLOAT, Series

_SHAPES = {
    "o": "M 17 3 a 4 4 0 1 0 0.01 0 z",
    "s": "M 13 3 h 8 v 8 h -8 z",
    "^": "M 17 2 l 4.6 8.6 h -9.2 z",
    "D": "M 17 2 l 5 5 l -5 5 l -5 -5 z",
    "v": "M 17 12 l 4.6 -8.6 h -9.2 z",
    "P": "M 15 2.5 h 4 v 2.5 h 2.5 v 4 h -2.5 v 2.5 h -4 v -2.5 h -2.5 v -4 h 2.5 z",
}


def swatch(series: Series) -> Markup:
    """Draw a line and a mark, 34 by 14 pixels; hidden from screen readers, for a name follows."""
    if series is FLOAT:
        body = '<path d="M 2 7 H 32" style="stroke: var(--muted); stroke-width: 7; opacity: .35"/>'
        return _framed(body)
    color, (_, dash) = series.variable, series.dash
    pattern = f"; stroke-dasharray: {' '.join(str(2 * d) for d in dash)}" if dash else ""
    face = "var(--page)" if series.hollow else color
    return _framed(
        f'<path d="M 1 7 H 33" style="fill: none; stroke: {color}; stroke-width: 2{pattern}"/>'
        f'<path d="{_SHAPES[series.marker]}" '
        f'style="fill: {face}; stroke: {color}; stroke-width: 1.6"/>'
    )


def _framed(body: str) -> Markup:
    return Markup(
        '<svg class="swatch" viewBox="0 0 34 14" width="34" height="14" aria-hidden="true">'
        f"{body}</svg>"
    )
