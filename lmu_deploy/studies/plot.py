"""Plots of studies as stand-alone SVG with a light and a dark color scheme."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from lmu_deploy.core.files import write_text
from lmu_deploy.studies.records import Point

WIDTH, HEIGHT = 760, 480
LEFT, RIGHT, TOP, BOTTOM = 76, 24, 40, 56
_LOG_FROM = 20.0
"""An axis whose values differ by more than this factor is logarithmic."""

_STYLE = """
svg { background: #fff; color: #1d2733; font: 13px system-ui, sans-serif; }
.grid { stroke: #dfe4ea; } .axis { stroke: #8794a3; } text { fill: currentColor; }
.muted { fill: #566371; } .trial { fill: #8fa3b8; } .front { fill: #0b67b2; }
.line { stroke: #0b67b2; stroke-width: 2; fill: none; }
@media (prefers-color-scheme: dark) {
 svg { background: #14191f; color: #e8edf2; } .grid { stroke: #2b343e; }
 .muted { fill: #a9b5c1; } .trial { fill: #66788b; } .front { fill: #6db3f2; }
 .line { stroke: #6db3f2; } }
"""


@dataclass(frozen=True)
class Axis:
    """Mapping from values to pixels.

    Attributes
    ----------
    low, high : float
        Range of values.
    start, end : float
        Position of these, in pixels.
    log : bool
    """

    low: float
    high: float
    start: float
    end: float
    log: bool

    def __call__(self, value: float) -> float:
        """Return the position of a value in pixels."""
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 1)

    def ticks(self) -> list[float]:
        """Return at most nine tick values: 1, 2 and 5 times powers of ten."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            every = [d * 10.0**p for p in powers for d in (1, 2, 5)]
            within = [tick for tick in every if self.low <= tick <= self.high]
            if len(within) > 9:
                within = [tick for tick in within if f"{tick:e}"[0] == "1"]
            return within
        span = self.high - self.low
        power = 10.0 ** math.floor(math.log10(span))
        step = next(s * power for s in (0.1, 0.2, 0.5, 1.0, 2.0) if span / (s * power) <= 8)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(i * step, 12) for i in range(first, last + 1)]


def draw(points: Sequence[Point], labels: tuple[str, str], hints: Mapping[int, str]) -> str:
    """Return an SVG with a dot for each trial and a line for the front.

    Parameters
    ----------
    points : sequence of Point
        At least one.
    labels : (str, str)
        Labels of the vertical and the horizontal axis.
    hints : mapping of int to str
        Tooltip of each point, by its index.
    """
    x = _axis([p.horizontal for p in points], LEFT, WIDTH - RIGHT)
    y = _axis([p.vertical for p in points], HEIGHT - BOTTOM, TOP)
    front = sorted((p for p in points if p.on_front), key=lambda p: (p.horizontal, p.vertical))
    many = (
        f"{labels[0]} against {labels[1]}: {len(points)} trials, {len(front)} on the Pareto front"
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(many)}">',
        f"<title>{escape(many)}</title>",
        f"<style>{_STYLE}</style>",
        f'<text x="{LEFT}" y="24">{escape(many)}</text>',
        *_scales(x, y, labels),
        '<polyline class="line" points="'
        + " ".join(f"{x(p.horizontal)},{y(p.vertical)}" for p in front)
        + '"/>',
    ]
    for place, point in sorted(enumerate(points), key=lambda item: item[1].on_front):
        kind, size = ("front", 5.5) if point.on_front else ("trial", 4)
        parts.append(
            f'<circle class="{kind}" cx="{x(point.horizontal)}" cy="{y(point.vertical)}" '
            f'r="{size}"><title>{escape(hints.get(place, ""))}</title></circle>'
        )
    return "\n".join([*parts, "</svg>", ""])


def write_plot(
    points: Sequence[Point], labels: tuple[str, str], hints: Mapping[int, str], path: Path
) -> None:
    """Write the plot atomically; see :func:`draw`."""
    write_text(path, draw(points, labels, hints))


@dataclass(frozen=True)
class Curve:
    """One curve of a plot.

    Attributes
    ----------
    label : str
    x, y : sequence of float
    solid : bool
        False for a dashed line.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    solid: bool = True


_COLORS = ("#0b67b2", "#b8460b", "#2e7d32", "#8e3ba8", "#9a7400", "#00838f")


def draw_curves(curves: Sequence[Curve], labels: tuple[str, str], title: str) -> str:
    """Return an SVG of curves with dots at their points; a solid and a dashed one share a color.

    Parameters
    ----------
    curves : sequence of Curve
        At least one point in all.
    labels : (str, str)
        Labels of the vertical and the horizontal axis.
    title : str
    """
    x = _axis([value for curve in curves for value in curve.x], LEFT, WIDTH - RIGHT)
    y = _axis([value for curve in curves for value in curve.y], HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        *_scales(x, y, labels),
    ]
    for number, curve in enumerate(curves):
        color = _COLORS[number // 2 % len(_COLORS)]
        dashes = "" if curve.solid else ' stroke-dasharray="5 4"'
        points = " ".join(f"{x(h)},{y(v)}" for h, v in zip(curve.x, curve.y, strict=True))
        parts.append(
            f'<polyline fill="none" stroke="{color}" stroke-width="2"{dashes} points="{points}"/>'
        )
        parts += [
            f'<circle cx="{x(h)}" cy="{y(v)}" r="4" fill="{color}">'
            f"<title>{escape(f'{curve.label}: {v:.4g} at {h:g}')}</title></circle>"
            for h, v in zip(curve.x, curve.y, strict=True)
        ]
        left, top = LEFT + 12 + 190 * (number % 3), 18 + 16 * (number // 3)
        parts += [
            f'<path fill="none" stroke="{color}" stroke-width="2"{dashes} '
            f'd="M{left} {top - 4}h22"/>',
            f'<text x="{left + 28}" y="{top}">{escape(curve.label)}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def write_curves(curves: Sequence[Curve], labels: tuple[str, str], title: str, path: Path) -> None:
    """Write the plot atomically; see :func:`draw_curves`."""
    write_text(path, draw_curves(curves, labels, title))


def _axis(values: Sequence[float], start: float, end: float) -> Axis:
    low, high = min(values), max(values)
    if low > 0 and high / low > _LOG_FROM:
        margin = (high / low) ** 0.04
        return Axis(low / margin, high * margin, start, end, log=True)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
    return Axis(low - margin, high + margin, start, end, log=False)


def _scales(x: Axis, y: Axis, labels: tuple[str, str]) -> list[str]:
    floor = HEIGHT - BOTTOM
    parts = []
    for tick in x.ticks():
        parts.append(f'<path class="grid" d="M{x(tick)} {TOP}V{floor}"/>')
        parts.append(
            f'<text class="muted" x="{x(tick)}" y="{floor + 18}" text-anchor="middle">'
            f"{_number(tick)}</text>"
        )
    for tick in y.ticks():
        parts.append(f'<path class="grid" d="M{LEFT} {y(tick)}H{WIDTH - RIGHT}"/>')
        parts.append(
            f'<text class="muted" x="{LEFT - 8}" y="{y(tick) + 4}" text-anchor="end">'
            f"{_number(tick)}</text>"
        )
    middle_x, middle_y = (LEFT + WIDTH - RIGHT) / 2, (TOP + floor) / 2
    return [
        *parts,
        f'<path class="axis" fill="none" d="M{LEFT} {TOP}V{floor}H{WIDTH - RIGHT}"/>',
        f'<text x="{middle_x}" y="{HEIGHT - 14}" text-anchor="middle">{escape(labels[1])}</text>',
        f'<text transform="translate(18 {middle_y}) rotate(-90)" text-anchor="middle">'
        f"{escape(labels[0])}</text>",
    ]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"
