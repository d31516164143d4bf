"""Each example report in the page that tells of them: its link and the figures in its file."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig

from lmu_deploy.fidelity.store import FIDELITY, read_fidelity
from lmu_deploy.reporting.markdown import table
from lmu_deploy.reporting.tables import comparison

_PLACE = re.compile(r"<!-- report: ([\w-]+) -->")
_COLUMNS = 8  # of the comparison: what a page has room for


def on_page_markdown(markdown: str, *, config: MkDocsConfig, **_: object) -> str:
    """MkDocs calls this with each page's text."""
    folder = Path(config.docs_dir) / "reports"
    return _PLACE.sub(lambda found: _shown(folder / found[1]), markdown)


def _shown(folder: Path) -> str:
    """Link a report and show its targets side by side; say how to make one that is not there."""
    make = f"`python examples/reports/make_reports.py {folder.name}`"
    if not (folder / FIDELITY).is_file():
        return f"Not made here; {make} makes it."
    fidelity = read_fidelity(folder)
    size = (folder / "report.html").stat().st_size / 1e6
    return "\n\n".join(
        [
            table(comparison(fidelity), _COLUMNS),
            f"[Open the report](reports/{folder.name}/report.html) ({size:.1f} MB, one file), or "
            f"its figures in [{FIDELITY}](reports/{folder.name}/{FIDELITY}); made by {make} on "
            f"{fidelity.date[:10]}.",
        ]
    )
