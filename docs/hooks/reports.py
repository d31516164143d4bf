"""Insert figures of the example reports into pages.

`<!-- report: NAME -->` becomes a table of the targets of docs/reports/NAME with a link, and
`<!-- losses: NAME -->` the sources of error of each target with an attribution.
"""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig

from lmu_deploy.fidelity.schema import Fidelity
from lmu_deploy.fidelity.store import FIDELITY, read_fidelity
from lmu_deploy.report.losses import causes, fixes, sources
from lmu_deploy.report.tables import comparison, with_variants
from lmu_deploy.report.wording import sentence
from lmu_deploy.report.write import plain, table

_PLACE = re.compile(r"<!-- (report|losses): ([\w-]+) -->")
_COLUMNS = 8  # of the comparison, as many as fit a page


def on_page_markdown(markdown: str, *, config: MkDocsConfig, **_: object) -> str:
    """Replace the marks of a page; MkDocs calls this with the text of each page."""
    folder = Path(config.docs_dir) / "reports"
    return _PLACE.sub(lambda found: _shown(found[1], folder / found[2]), markdown)


def _shown(what: str, folder: Path) -> str:
    """Return a part of a report, or the command that makes a missing one."""
    make = f"`python examples/reports/make_reports.py {folder.name}`"
    if not (folder / FIDELITY).is_file():
        return f"This report is missing; {make} makes it."
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
    """Return a sentence and two tables for each target with an attribution."""
    accuracy = fidelity.reference.metric.name == "accuracy"
    parts = []
    for name, found in with_variants(fidelity):
        if (losses := found.attribution) is not None:
            samples = f"The attribution uses {losses.samples:,} samples."
            parts += [plain(f"{sentence(name, found)} {samples}"), table(sources(losses, accuracy))]
            parts += [table(causes(losses, fixes(losses)))] if losses.causes else []
    return parts
