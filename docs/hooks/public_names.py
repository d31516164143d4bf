"""Entries of the Python page by their public names.

A line ``::: lmu_deploy.NAME`` names a public object; mkdocstrings needs the module that defines it,
which `lmu_deploy` itself knows.
"""

from __future__ import annotations

import re

import lmu_deploy

_ENTRY = re.compile(r"^::: lmu_deploy\.(\w+)$(?:\n    options: \{ (.*) \}$)?", re.MULTILINE)


def on_page_markdown(markdown: str, **_: object) -> str:
    """Replace each entry; MkDocs calls this with the text of each page."""
    return _ENTRY.sub(lambda found: _entry(found[1], found[2]), markdown)


def _entry(name: str, options: str | None) -> str:
    """Return the entry of one public name; an unknown name stays, and the build reports it."""
    if name not in lmu_deploy._NAMES:
        return f"::: lmu_deploy.{name}"
    shown = [f"heading: lmu_deploy.{name}", f"toc_label: {name}", *([options] if options else [])]
    return f"::: {lmu_deploy._NAMES[name]}.{name}\n    options: {{ {', '.join(shown)} }}"
