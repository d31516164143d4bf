"""Example reports in pages: their links, their figures, and what was lost, from their own files.

`<!-- report: NAME -->` becomes the targets of docs/reports/NAME side by side, with a link;
`<!-- losses: NAME -->` the sources of error of each target that was taken apart.
"""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig

from lmu_deploy.fidelity.schema import Fidelity
from lmu_deploy.fidelity.store import FIDELITY, read_fidelity
from lmu_deploy.report.losses import REMEDIES, causes, sources
from lmu_deploy.report.tables import comparison, with_variants
from lmu_deploy.report.wording import sentence
from lmu_deploy.report.write import plain, table

_PLACE = re.compile(r"<!-- (report|losses): ([\w-]+) -->")
_COLUMNS = 8  # of the comparison: what a page has room for


def on_page_markdown(markdown: str, *, config: MkDocsConfig, **_: object) -> str:
    """MkDocs calls this with each page's text."""
    folder = Path(config.docs_dir) / "reports"
    return _PLACE.sub(lambda found: _shown(found[1], folder / found[2]), markdown)


def _shown(what: str, folder: Path) -> str:
    """Show a part of a report; say how to make one that is not there."""
    make = f"`python examples/reports/make_reports.py {folder.name}`"
    if not (folder / FIDELITY).is_file():
        return f"Not made here; {make} makes it."
    fidelity = read_fidelity(folder)
    if what == "losses":
        return "\n\n".join(
            [f"{make} wrote the report on {fidelity.date[:10]}.", *_losses(fidelity)]
        )
    size = (folder / "report.html").stat().st_size / 1e6
    return "\n\n".join(
        [
            table(comparison(fidelity), _COLUMNS),
            f"[Open the report](../reports/{folder.name}/report.html) ({size:.1f} MB, one file), "
            f"or its figures in [{FIDELITY}](../reports/{folder.name}/{FIDELITY}). "
            f"{make} wrote it on {fidelity.date[:10]}.",
        ]
    )


def _losses(fidelity: Fidelity) -> list[str]:
    """Give a sentence and two tables for each target that was taken apart."""
    accuracy = fidelity.reference.metric.name == "accuracy"
    parts = []
    for name, found in with_variants(fidelity):
        if (losses := found.attribution) is not None:
            samples = f"Taken apart on {losses.samples:,} samples."
            parts += [plain(f"{sentence(name, found)} {samples}"), table(sources(losses, accuracy))]
            parts += [table(causes(losses, REMEDIES))] if losses.causes else []
    return parts
