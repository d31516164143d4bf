"""Tags of a drawing, written shorter: the same picture without what is said twice or not seen."""

from __future__ import annotations

import re

from lmu_deploy.reporting.path_data import compact_path

USUAL_TEXT = {"font-size": "11.5px", "fill": "var(--muted)", "text-anchor": "start"}
"""Style of a text that says nothing of it; style.css and SVG have the same."""


def compact(drawing: str) -> str:
    """Shorten paths and styles, and leave out groups without attributes and paths without ink.

    Only what stands inside tags is changed. Paths with an id, the marks that stand at many places,
    are small and keep their fractions.
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
    """Give the attribute for what is not known of a style; none if that is nothing."""
    left = {name: value for name, value in _split(style).items() if known.get(name) != value}
    return f' style="{_joined(left)}"' if left else ""


def _marks_styled_once(drawing: str) -> str:
    """Take from each mark that is used what its definition says already."""
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
    """Drop groups without attributes, with their ends."""
    dropped: list[bool] = []

    def tag(found: re.Match[str]) -> str:
        if found[0] == "</g>":
            return "" if dropped.pop() else "</g>"
        if not found[0].endswith("/>"):
            dropped.append(found[0] == "<g>")
        return "" if found[0] in ("<g>", "<g/>") else found[0]

    return re.sub(r"<g(?: [^>]*)?>|<g/>|</g>", tag, drawing)
