"""report.html and report.md from a folder of results; the same figures give the same files."""

from __future__ import annotations

from pathlib import Path

from lmu_deploy.atomic import write_text
from lmu_deploy.fidelity.store import read_excerpts, read_fidelity
from lmu_deploy.reporting.markdown import make_markdown
from lmu_deploy.reporting.pages import missing, render
from lmu_deploy.reporting.robustness_file import read_robustness

REPORT = "report.html"
MARKDOWN = "report.md"


def write_report(folder: Path | str) -> Path:
    """Write both into `folder` from the figures that stand in it; give report.html's path.

    They are fidelity.json, and where they are there plots.npz and robustness.json.

    Raises
    ------
    InputError
        When the folder has no fidelity.json, one of another version, or a damaged file.
    MissingDependencyError
        When jinja2 or matplotlib is absent.
    """
    folder = Path(folder)
    fidelity, excerpts = read_fidelity(folder), read_excerpts(folder)
    robustness = read_robustness(folder)
    try:
        from lmu_deploy.reporting.view import make_view
    except ImportError as error:
        raise missing(error) from error
    page = render("template.html", view=make_view(fidelity, excerpts, robustness))
    write_text(folder / MARKDOWN, make_markdown(fidelity, robustness))
    write_text(folder / REPORT, page)
    return folder / REPORT
