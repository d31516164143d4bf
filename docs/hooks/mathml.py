"""Formulas as MathML, which browsers draw by themselves: no script, and nothing from another host.

In: pages whose formulas pymdownx.arithmatex has set apart. Out: the same pages with `<math>` in
their place.
"""

from __future__ import annotations

import html
import re

from latex2mathml.converter import convert

_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)


def on_page_content(content: str, **_: object) -> str:
    """MkDocs calls this with each page's HTML."""
    content = _BLOCK.sub(_block, content)
    return _INLINE.sub(lambda found: convert(_latex(found[1])), content)


def _block(found: re.Match[str]) -> str:
    """Make one formula of each line, for the converter knows no aligned ones."""
    latex = _latex(found[1])
    lines = [latex] if "\\begin" in latex else re.split(r"\\\\", latex.replace("&", " "))
    shown = "".join(convert(line.strip(), display="block") for line in lines if line.strip())
    return f'<div class="formula">{shown}</div>'


def _latex(text: str) -> str:
    return html.unescape(text).strip()
