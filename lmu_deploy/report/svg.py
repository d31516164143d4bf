"""Figures as compact inline SVG: selectable text, colors of the page, reproducible bytes.

Each plot is drawn twice, for wide and for narrow pages, and style.css shows the one that fits, so
that text has a readable size on both. The SVG of Matplotlib is about twice as large as necessary,
with or without gzip; ARCHITECTURE.md has the measurement. Therefore path data become relative
coordinates in tenths of a pixel, and redundant styles and groups are removed. The picture stays the
same.
"""

from __future__ import annotations

import io
import json
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, ScalarFormatter

from lmu_deploy.report.series import GRID, INK, MUTED, VARIABLES

_UNITS_PER_PIXEL = 10
_TOKEN = re.compile(r"[A-Za-z]|-?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?")
_NUMBERS = {"M": 2, "L": 2, "C": 6, "Q": 4, "Z": 0}

Point = tuple[int, int]
Pieces = list[tuple[str, list[int]]]


def compact_path(data: str) -> str:
    """Convert absolute path data to relative coordinates in tenths of a pixel.

    The absolute points are rounded, not the differences, so that errors do not accumulate along a
    line. Successive segments along one axis in the same direction are joined.

    Parameters
    ----------
    data : str
        Path data with the commands M, L, C, Q and z, as Matplotlib writes them.
    """
    here = start = (0, 0)
    pieces: Pieces = []
    for command, points in _commands(data):
        steps = [n for x, y in points for n in (x - here[0], y - here[1])]
        if command == "L":
            _add_line(pieces, *steps)
        else:
            pieces.append((command.lower(), steps))
        here = points[-1] if points else start
        start = here if command == "M" else start
    return _written(pieces)


def _commands(data: str) -> Iterator[tuple[str, list[Point]]]:
    tokens = _TOKEN.findall(data)
    at = 0
    while at < len(tokens):
        command = tokens[at].upper()
        end = at + 1 + _NUMBERS[command]
        values = [round(_UNITS_PER_PIXEL * float(token)) for token in tokens[at + 1 : end]]
        yield command, list(zip(values[::2], values[1::2], strict=True))
        at = end


def _add_line(pieces: Pieces, dx: int, dy: int) -> None:
    """Append a straight segment, or extend the previous one."""
    last, steps = pieces[-1]
    if dx and dy:
        pieces.append(("l", [dx, dy]))
        return
    command, step = ("v", dy) if dy else ("h", dx)
    if last == command and (steps[0] > 0) == (step > 0):
        steps[0] += step
    elif step or last == "m":  # a first segment of zero length may be a dot
        pieces.append((command, [step]))


def _written(pieces: Pieces) -> str:
    text, last = "", ""
    for command, steps in pieces:
        numbers = "".join(f" {_number(step)}" for step in steps).replace(" -", "-")
        repeated = command == last and command in "lcq"
        text += numbers if repeated else command + numbers.lstrip(" ")
        last = command
    return text


def _number(tenths: int) -> str:
    """Format 15 as 1.5, -5 as -.5 and 30 as 3."""
    whole, rest = divmod(abs(tenths), _UNITS_PER_PIXEL)
    text = (str(whole) if whole or not rest else "") + (f".{rest}" if rest else "")
    return f"-{text}" if tenths < 0 else text


USUAL_TEXT = {"font-size": "11.5px", "fill": "var(--muted)", "text-anchor": "start"}
"""Default style of texts, as in style.css and in SVG; it need not be repeated."""


def compact(drawing: str) -> str:
    """Shorten paths and styles; remove groups without attributes and invisible paths.

    Only the content of tags is changed. Paths with an id (markers, which are reused) are small and
    keep their precision.
    """
    drawing = re.sub(r'<path d="[^"]*" style="fill: none"/>', "", drawing)
    drawing = re.sub(r'(?<=<path d=")[^"]*', lambda data: compact_path(data[0]), drawing)
    drawing = re.sub(r'(<[^>]* style=")([^"]*)', _style, drawing)
    drawing = _texts_of_usual_style(_marks_styled_once(drawing))
    return re.sub(r">\s+<", ">\n<", _without_plain_groups(drawing))


def _style(found: re.Match[str]) -> str:
    return found[1] + _joined(_split(found[2]))


def _split(style: str) -> dict[str, str]:
    pairs = (each.partition(":") for each in style.split(";") if each.strip())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _joined(style: dict[str, str]) -> str:
    return ";".join(f"{name}:{value}" for name, value in style.items() if value)


def _left(style: str, known: dict[str, str]) -> str:
    """Return the style attribute without known entries; an empty string if nothing is left."""
    left = {name: value for name, value in _split(style).items() if known.get(name) != value}
    return f' style="{_joined(left)}"' if left else ""


def _marks_styled_once(drawing: str) -> str:
    """Remove from each use of a marker the styles of its definition."""
    defined = re.findall(r'<path id="([^"]*)"[^>]* style="([^"]*)"', drawing)
    known = {name: _split(style) for name, style in defined}
    return re.sub(
        r'(<use href="#([^"]*)"[^>]*?) style="([^"]*)"',
        lambda found: found[1] + _left(found[3], known.get(found[2], {})),
        drawing,
    )


def _texts_of_usual_style(drawing: str) -> str:
    return re.sub(
        r'<text style="([^"]*)"', lambda found: "<text" + _left(found[1], USUAL_TEXT), drawing
    )


def _without_plain_groups(drawing: str) -> str:
    """Remove groups without attributes, and their end tags."""
    dropped: list[bool] = []

    def tag(found: re.Match[str]) -> str:
        if found[0] == "</g>":
            return "" if dropped.pop() else "</g>"
        if not found[0].endswith("/>"):
            dropped.append(found[0] == "<g>")
        return "" if found[0] in ("<g>", "<g/>") else found[0]

    return re.sub(r"<g(?: [^>]*)?>|<g/>|</g>", tag, drawing)


SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "path.simplify": False,
    "font.size": 12,
    "axes.titlesize": 12,
    "axes.labelsize": 12,
    "axes.titley": 1.0,  # otherwise Matplotlib measures all labels to place each title
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
    """Width of a drawing in CSS pixels."""

    name: str
    width: int

    @property
    def narrow(self) -> bool:
        """Whether this is the layout for phones."""
        return self.name == "narrow"


WIDE, NARROW = Layout("wide", 960), Layout("narrow", 340)


@dataclass(frozen=True)
class Plot:
    """Plot that can be drawn at both widths.

    Attributes
    ----------
    name : str
        Unique on the page; letters, digits and hyphens.
    title, description : str
        Text alternatives for screen readers.
    draw : callable
        Function that draws a Figure for a Layout.
    """

    name: str
    title: str
    description: str
    draw: Callable[[Layout], Figure]

    def svg(self) -> Markup:
        """Return the drawings at both widths."""
        return Markup("\n").join(_render(self, layout) for layout in (WIDE, NARROW))


def blank(layout: Layout, height: int) -> Figure:
    """Build an empty figure in which a point is a CSS pixel."""
    return Figure(figsize=(layout.width / 72, height / 72), dpi=72)


def place(figure: Figure, left: float, top: float, right: float, bottom: float) -> Axes:
    """Add axes with distances in pixels from the edges of the figure."""
    width, height = figure.get_size_inches() * 72
    box = (left / width, bottom / height, (width - left - right) / width)
    return figure.add_axes((*box, (height - top - bottom) / height))


LINE = "line "
"""Beginning of the gid of a line whose values the page shows under the pointer, before its name."""
_CELLS = "cells "


def set_cells(axes: Axes, x: np.ndarray, y: np.ndarray, values: np.ndarray) -> None:
    """Let the page show the cell of a map that is under the pointer.

    Parameters
    ----------
    axes : Axes
        Row n of the map is at n on its vertical axis.
    x, y : ndarray, shapes (columns,) and (rows,)
        Numbers of the columns and rows.
    values : ndarray, shape (rows, columns)
    """
    short = [[float(f"{value:.2g}") for value in row] for row in values]
    axes.set_gid(_CELLS + json.dumps({"x": x.tolist(), "y": y.tolist(), "rows": short}))


def _axes(figure: Figure, layout: Layout) -> str:
    """Return the place and scale of all axes as JSON, for the script of the page."""
    height, found = figure.get_size_inches()[1] * 72, list[dict[str, Any]]()
    for axes in figure.axes:
        if not axes.axison:
            continue
        box, gid = axes.get_window_extent(), axes.get_gid() or ""
        corners = (box.x0, height - box.y1, box.x1, height - box.y0)
        each: dict[str, Any] = {"box": [round(float(value)) for value in corners]}
        for name, axis, ends in (
            ("x", axes.xaxis, axes.get_xlim()),
            ("y", axes.yaxis, axes.get_ylim()),
        ):
            each[name] = [*(float(f"{end:.4g}") for end in ends), *_kind(axis)]
        each["names"] = [axes.get_xlabel(), axes.get_ylabel()]
        if gid.startswith(_CELLS):
            axes.set_gid(None)  # it is for the script, and no id of the page
            if not layout.narrow:
                each["cells"] = json.loads(gid.removeprefix(_CELLS))
        found.append(each)
    text = json.dumps(found, separators=(",", ":"))
    # For an attribute between single quotes: an escape for each double one would be half of it.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("'", "&#39;")


def _kind(axis: Axis) -> tuple[Any, ...]:
    """Return whether an axis is logarithmic, whether its values are shares, and its own labels."""
    logarithmic, form = int(axis.get_scale() == "log"), axis.get_major_formatter()
    if "%" in str(form(0.5, 0)):
        return logarithmic, 1
    if isinstance(axis.get_major_locator(), FixedLocator) and not isinstance(form, ScalarFormatter):
        texts = [label.get_text() for label in axis.get_majorticklabels()]
        named = zip(axis.get_majorticklocs(), texts, strict=True)
        return logarithmic, 0, [[round(float(at), 3), text] for at, text in named]
    return logarithmic, 0


def _render(plot: Plot, layout: Layout) -> Markup:
    name = f"{plot.name}-{layout.name}"
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context({**SETTINGS, "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        figure = plot.draw(layout)
        axes = _axes(figure, layout)
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    drawing = _inline(buffer.getvalue(), name)
    box = re.search(r'viewBox="[^"]*"', drawing)
    body = drawing[drawing.index(">") + 1 : drawing.rindex("</svg>")].strip()
    return Markup(
        '<svg class="{layout}" role="img" aria-labelledby="{name}-title {name}-desc" {box} '
        "style=\"max-width: {width}px\" data-axes='{axes}'>\n"
        '<title id="{name}-title">{title}</title>'
        '<desc id="{name}-desc">{description}</desc>{body}</svg>'
    ).format(
        layout=layout.name,
        name=name,
        box=Markup(box.group() if box else ""),
        width=layout.width,
        axes=Markup(axes),
        title=escape(plot.title),
        description=escape(plot.description),
        body=Markup(body),
    )


def _inline(text: str, name: str) -> str:
    """Convert a stand-alone drawing to a part of a page: unique ids, fonts and colors of the page.

    Only the content of tags is changed, so that texts stay as they were drawn.
    """
    text = text[text.index("<svg") :]
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"<[^>]*>", lambda tag: _tag(tag.group(), name), text)
    return compact(text)


def _tag(tag: str, name: str) -> str:
    tag = re.sub(rf'^<g id="{LINE}([^"]*)"', r'<g data-line="\1"', tag)
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
