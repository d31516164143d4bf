"""report.html and report.md from a folder of results; the same figures give the same files.

report.md: the verdict of a report in a page that fits a pull request.

Checks as a JUnit file, which continuous integration reads: one test case for each check.

A template and what it shows, as one HTML file that needs no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from lmu_deploy.core.errors import MissingDependencyError
from lmu_deploy.core.files import write_text
from lmu_deploy.fidelity.gate import Check
from lmu_deploy.fidelity.measures.events import RasterExcerpt
from lmu_deploy.fidelity.schema import Fidelity
from lmu_deploy.fidelity.store import read_excerpts, read_fidelity
from lmu_deploy.report import wording
from lmu_deploy.report.costs import on_chip
from lmu_deploy.report.robustness_file import Robustness, read_robustness
from lmu_deploy.report.tables import Table, comparison, with_variants
from lmu_deploy.report.wording import on_many_chips

_SIGNS = {"same": "✅", "close": "✅", "better": "✅", "worse": "❌", "unknown": "❔"}
_COLUMNS = 8  # of the comparison: what a pull request has room for


def make_markdown(fidelity: Fidelity, elsewhere: Robustness) -> str:
    """Write the verdict of every target, the comparison, and what made it."""
    lines = [f"## {plain(fidelity.task.name)}: what survived", ""]
    for name, found in with_variants(fidelity):
        words, tone = wording.verdict(found)
        said = wording.sentence(name, found)
        lines.append(f"- {_SIGNS[tone]} **{plain(name)}**: {words}. {plain(said)}")
        if found.equal_to is not None:
            lines.append(f"  - {plain(wording.equality(found.equal_to))}")
        chips = on_many_chips(elsewhere, name, found)
        lines += [f"  - {plain(said)}" for said in [*on_chip(found), *chips]]
    lines += ["", table(comparison(fidelity), _COLUMNS), "", _provenance(fidelity)]
    return "\n".join(lines) + "\n"


def table(content: Table, columns: int | None = None) -> str:
    """Write a table, or its first columns, in the form that GitHub and GitLab show."""
    heads = list(content.columns)[:columns]
    rows = [heads, [":--", *["--:" if content.numeric else ":--"] * (len(heads) - 1)]]
    rows += [list(row)[:columns] for row in content.rows]
    return "\n".join(f"| {' | '.join(_cell(text) for text in row)} |" for row in rows)


def _cell(text: str) -> str:
    return plain(text).replace("|", "\\|")


def plain(text: str) -> str:
    """Let names of others be text, never tags; a line stays a line."""
    return " ".join(escape(text, quote=False).split("\n"))


def _provenance(fidelity: Fidelity) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in fidelity.versions.items())
    return (
        f"Made on {fidelity.date} by `{plain(fidelity.command.replace('`', ''))}` "
        f"with seed {fidelity.seed}; {plain(versions)}."
    )


def missing(error: ImportError) -> MissingDependencyError:
    """Say which command brings what a report needs."""
    return MissingDependencyError(
        f"a report needs jinja2 and matplotlib ({error}); run: pip install 'lmu-deploy[report]'"
    )


def render(template: str, **values: object) -> str:
    """Fill a template of this package in; texts are escaped, and the style is part of the page.

    Raises
    ------
    MissingDependencyError
        When jinja2 is absent.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise missing(error) from error
    environment = Environment(
        loader=PackageLoader("lmu_deploy.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    style = (files("lmu_deploy.report") / "style.css").read_text(encoding="utf-8")
    return environment.get_template(template).render(style=style, **values)


def _breakable(name: str) -> str:
    """Let a long name break after its slashes."""
    from markupsafe import Markup, escape

    return Markup("/<wbr>").join(escape(part) for part in name.split("/"))


REPORT = "report.html"
MARKDOWN = "report.md"


def make_html(
    fidelity: Fidelity, excerpts: Mapping[str, RasterExcerpt], robustness: Robustness
) -> str:
    """Return report.html.

    Raises
    ------
    MissingDependencyError
        When jinja2 or matplotlib is absent.
    """
    try:
        from lmu_deploy.report.view import make_view
    except ImportError as error:
        raise missing(error) from error
    return render("template.html", view=make_view(fidelity, excerpts, robustness))


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
    page = make_html(fidelity, excerpts, robustness)
    write_text(folder / MARKDOWN, make_markdown(fidelity, robustness))
    write_text(folder / REPORT, page)
    return folder / REPORT


def write_junit(path: Path | str, checks: Sequence[Check], task: str) -> None:
    """Write the checks; a class for each target, named after the task.

    Raises
    ------
    InputError
        When the file cannot be written.
    """
    failed = sum(not check.held for check in checks)
    suite = Element(
        "testsuite", name="lmu-deploy", tests=str(len(checks)), failures=str(failed), errors="0"
    )
    for check in checks:
        case = SubElement(suite, "testcase", classname=f"{task}.{check.target}", name=check.name)
        if check.held:
            SubElement(case, "system-out").text = check.sentence
        else:
            SubElement(case, "failure", message=check.sentence)
    indent(suite)
    text = tostring(suite, encoding="unicode", xml_declaration=False)
    write_text(Path(path), f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n')
