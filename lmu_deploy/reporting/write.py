"""report.html and report.md from a folder of results; the same figures give the same files."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from lmu_deploy.atomic import write_text
from lmu_deploy.errors import MissingDependencyError
from lmu_deploy.fidelity.store import read_excerpts, read_fidelity
from lmu_deploy.reporting.markdown import make_markdown

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
        from jinja2 import Environment, PackageLoader, StrictUndefined

        from lmu_deploy.reporting.view import make_view
    except ImportError as error:
        raise MissingDependencyError(
            f"a report needs jinja2 and matplotlib ({error}); run: pip install 'lmu-deploy[report]'"
        ) from error
    environment = Environment(
        loader=PackageLoader("lmu_deploy.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    style = (files("lmu_deploy.reporting") / "style.css").read_text(encoding="utf-8")
    page = environment.get_template("template.html").render(
        view=make_view(fidelity, excerpts), style=style
    )
    write_text(folder / MARKDOWN, make_markdown(fidelity))
    write_text(folder / REPORT, page)
    return folder / REPORT


def _breakable(name: str) -> str:
    """Let a long name break after its slashes."""
    from markupsafe import Markup, escape

    return Markup("/<wbr>").join(escape(part) for part in name.split("/"))
