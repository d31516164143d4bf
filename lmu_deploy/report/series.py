"""Line style of each target in all plots: color, marker and dashes, and its legend swatch.

Colors are CSS variables; style.css defines a light and a dark value of each, after the palette of
Okabe and Ito (2008) for color-blind readers. Matplotlib accepts hexadecimal colors only, so each
variable has a placeholder color that svg.py replaces.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from markupsafe import Markup

INK, MUTED, GRID = "#010101", "#020202", "#030303"
_SERIES = tuple(f"#0a000{number}" for number in range(1, 7))
VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    **{token: f"var(--series-{number})" for number, token in enumerate(_SERIES, start=1)},
}

_MARKERS = ("o", "s", "^", "D", "v", "P")
_DASHES = ((0, ()), (0, (5, 2)), (0, (1.5, 1.5)), (0, (7, 2, 1.5, 2)), (0, (3, 1.5)), (0, (9, 3)))
_KNOWN = {"integer": 0, "lava": 1, "brian2": 2, "onnxruntime": 3, "spiking": 4, "lava-lif": 5}


@dataclass(frozen=True)
class Series:
    """Line style of one target.

    Attributes
    ----------
    label : str
    color : str
        A placeholder, a key of :data:`VARIABLES`.
    marker : str
        A marker of Matplotlib.
    dash : tuple
        A line style of Matplotlib.
    hollow : bool
        Whether markers are outlines, as those of variants are.
    """

    label: str
    color: str
    marker: str
    dash: tuple[float, tuple[float, ...]]
    hollow: bool = False

    @property
    def variable(self) -> str:
        """Color as a CSS value."""
        return VARIABLES[self.color]


FLOAT = Series("float", MUTED, "|", (0, ()))


def assign(targets: Iterable[str]) -> dict[str, Series]:
    """Assign a style to each target; known targets always have the same one."""
    targets = list(targets)
    taken = {_KNOWN[name] for name in targets if name in _KNOWN}
    free = [number for number in range(len(_SERIES)) if number not in taken] or [0]
    looks, others = {}, 0
    for name in targets:
        number = _KNOWN.get(name)
        if number is None:
            number, others = free[others % len(free)], others + 1
        looks[name] = Series(name, _SERIES[number], _MARKERS[number], _DASHES[number])
    return looks


def variant(series: Series, name: str) -> Series:
    """Return the style of a variant: that of its target, hollow and finely dashed."""
    return replace(series, label=f"{series.label} · {name}", hollow=True, dash=(0, (1.5, 2.5)))


_SHAPES = {
    "o": "M 17 3 a 4 4 0 1 0 0.01 0 z",
    "s": "M 13 3 h 8 v 8 h -8 z",
    "^": "M 17 2 l 4.6 8.6 h -9.2 z",
    "D": "M 17 2 l 5 5 l -5 5 l -5 -5 z",
    "v": "M 17 12 l 4.6 -8.6 h -9.2 z",
    "P": "M 15 2.5 h 4 v 2.5 h 2.5 v 4 h -2.5 v 2.5 h -4 v -2.5 h -2.5 v -4 h 2.5 z",
}


def swatch(series: Series) -> Markup:
    """Draw a line and a marker, 34 by 14 pixels, hidden from screen readers."""
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
