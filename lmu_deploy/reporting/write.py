"""report.html and report.md from a folder of results; the same figures give the same files."""

from __future__ import annotations

from pathlib import Path

from lmu_deploy.atomic import write_text
from lmu_deploy.fidelity.store import read_excerpts, read_fidelity
from lmu_deploy.reporting.markdown import make_markdown
from lmu_deploy.reporting.pages import missing, render

REPORT = "report.html"
MARKDOWN = "report.md"


def write_report(folder: Path | str) -> Path:
    """Write both into `folder` from its fidelity.json and plots.npz; give report.html's path.

    Raises
    ------
    InputError
        When the folder has no fidelity.json, one of another version, or a damaged file.
    MissingDependencyError
        When jinja2 or matplotlib is absent.
    """
    folder = Path(folder)
    fidelity, excerpts = read_fidelity(folder), read_excerpts(folder)
    try:
        from lmu_deploy.reporting.view import make_view
    except ImportError as error:
        raise missing(error) from error
    page = render("template.html", view=make_view(fidelity, excerpts))
    write_text(folder / MARKDOWN, make_markdown(fidelity))
    write_text(folder / REPORT, page)
    return folder / REPORT
