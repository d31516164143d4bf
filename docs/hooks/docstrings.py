"""Convert docstrings to Markdown: Sphinx's roles and formulas become code and `$...$`."""

from __future__ import annotations

import inspect
import re
from typing import Any

import griffe

_MATH_BLOCK = re.compile(r"^\.\. math::[ ]*(.*(?:\n(?:[ ]+.*|[ ]*$))*)", re.MULTILINE)
_MATH = re.compile(r":math:`([^`]+)`")
_ROLE = re.compile(r":(?:class|func|meth|mod|data):`~?([^`]+)`")


def to_markdown(text: str) -> str:
    """Return one docstring as Markdown.

    Parameters
    ----------
    text : str
        Without its indentation.
    """
    text = _MATH_BLOCK.sub(lambda found: f"$$\n{_formula(found[1])}\n$$\n\n", text)
    text = _MATH.sub(lambda found: f"${' '.join(found[1].split())}$", text)
    return _ROLE.sub(lambda found: f"`{found[1]}`", text)


def _formula(text: str) -> str:
    """Join the first line of the directive and its indented lines to one formula."""
    return re.sub(r"\n\s*", "\n", inspect.cleandoc(text)).strip()


class MarkdownDocstrings(griffe.Extension):
    """Convert the docstrings of a package; Griffe calls this extension for each object."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the object's docstring, if it has one."""
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)
