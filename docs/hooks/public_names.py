"""Entries of the Python page by their public names.

A line ``::: lmu_deploy.NAME`` names a public object; mkdocstrings needs the module that defines it,
which `lmu_deploy` itself knows.
"""

from __future__ import annotations

import re

import lmu_deploy

_ENTRY = re.compile(r"^::: lmu_deploy\.(\w+)$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: object) -> str:
    """Replace each entry; MkDocs calls this with the text of each page."""
    return _ENTRY.sub(lambda found: _entry(found[1]), markdown)


def _entry(name: str) -> str:
    module = lmu_deploy._NAMES.get(name)
    if module is None:
        return ""
    heading = f"lmu_deploy.{name}"
    return f"::: {module}.{name}\n    options: {{ heading: {heading}, toc_label: {name} }}"
