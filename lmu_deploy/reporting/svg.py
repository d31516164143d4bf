"""Figures as inline SVG: text stays text, colours follow the page, the same bytes every time.

A plot is drawn twice, for wide and for narrow pages, and style.css shows the one that fits; so text
has its own size on both, and nothing is shrunk until it cannot be read.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lmu_deploy.reporting.compact import compact
from lmu_deploy.reporting.series import GRID, INK, MUTED, VARIABLES

_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "path.simplify": False,
    "font.size": 12,
    "axes.titlesize": 12,
    "axes.labelsize": 12,
    "xtick.labelsize": 11.5,
    "ytick.labelsize": 11.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "grid.color": GRID,
    "grid.linewidth": 1,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
}


@dataclass(frozen=True)
class Layout:
    """A width to draw for, in CSS pixels."""

    name: str
    width: int

    @property
    def narrow(self) -> bool:
        """Whether this is the one for phones."""
        return self.name == "narrow"


WIDE, NARROW = Layout("wide", 960), Layout("narrow", 340)


@dataclass(frozen=True)
class Plot:
    """A plot that can be drawn at either width.

    Attributes
    ----------
    name : str
        Unique on the page; letters, digits and hyphens.
    title, description : str
        For those who do not see it: what it is, and what it shows.
    draw : callable
        From a Layout to a Figure of that width.
    """

    name: str
    title: str
    description: str
    draw: Callable[[Layout], Figure]

    def svg(self) -> Markup:
        """Both drawings."""
        return Markup("\n").join(_render(self, layout) for layout in (WIDE, NARROW))


def blank(layout: Layout, height: int) -> Figure:
    """Make an empty figure whose points are CSS pixels."""
    return Figure(figsize=(layout.width / 72, height / 72), dpi=72)


def place(figure: Figure, left: float, top: float, right: float, bottom: float) -> Axes:
    """Add axes whose edges are so many pixels from the figure's edges."""
    width, height = figure.get_size_inches() * 72
    box = (left / width, bottom / height, (width - left - right) / width)
    return figure.add_axes((*box, (height - top - bottom) / height))


def _render(plot: Plot, layout: Layout) -> Markup:
    name = f"{plot.name}-{layout.name}"
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context({**_SETTINGS, "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        plot.draw(layout).savefig(buffer, format="svg", transparent=True, metadata=nothing)
    drawing = _inline(buffer.getvalue(), name)
    box = re.search(r'viewBox="[^"]*"', drawing)
    body = drawing[drawing.index(">") + 1 : drawing.rindex("</svg>")].strip()
    return Markup(
        '<svg class="{layout}" role="img" aria-labelledby="{name}-title {name}-desc" {box} '
        'style="max-width: {width}px">\n<title id="{name}-title">{title}</title>\n'
        '<desc id="{name}-desc">{description}</desc>\n{body}\n</svg>'
    ).format(
        layout=layout.name,
        name=name,
        box=Markup(box.group() if box else ""),
        width=layout.width,
        title=escape(plot.title),
        description=escape(plot.description),
        body=Markup(body),
    )


def _inline(text: str, name: str) -> str:
    """Make a stand-alone drawing part of a page: own ids, the page's fonts and colours.

    Only what stands inside tags is changed, so that every text comes out as it was drawn.
    """
    text = text[text.index("<svg") :]
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"<[^>]*>", lambda tag: _tag(tag.group(), name), text)
    return compact(text)


def _tag(tag: str, name: str) -> str:
    tag = re.sub(r'^<g id="[^"]*"', "<g", tag)
    tag = re.sub(r' id="([^"]*)"', rf' id="{name}-\1"', tag)
    tag = re.sub(r'(xlink:)?href="#', f'href="#{name}-', tag)
    tag = tag.replace("url(#", f"url(#{name}-")
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)
    tag = re.sub(r' ?transform="rotate\(-?0 [^"]*"', "", tag)
    tag = re.sub(r"(\.\d{2})\d+", r"\1", tag)
    tag = re.sub(r"\s*\n\s*", " ", tag)
    for token, variable in VARIABLES.items():
        tag = tag.replace(token, variable)
    return tag
