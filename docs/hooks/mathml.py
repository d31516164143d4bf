"""Convert formulas to MathML, which browsers draw without a script from another host.

The input are pages whose formulas pymdownx.arithmatex has marked; the output has `<math>` elements
instead.
"""

from __future__ import annotations

import html
import re

from latex2mathml.converter import convert

_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)


def on_page_content(content: str, **_: object) -> str:
    """Convert all formulas of a page; MkDocs calls this with the HTML of each page."""
    content = _BLOCK.sub(_block, content)
    return _INLINE.sub(lambda found: convert(_latex(found[1])), content)


def _block(found: re.Match[str]) -> str:
    """Return one formula per line, because the converter does not know aligned ones."""
    latex = _latex(found[1])
    lines = [latex] if "\\begin" in latex else re.split(r"\\\\", latex.replace("&", " "))
    shown = "".join(convert(line.strip(), display="block") for line in lines if line.strip())
    return f'<div class="formula">{shown}</div>'


def _latex(text: str) -> str:
    return html.unescape(text).strip()
