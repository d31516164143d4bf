"""Writers of report.html, report.md and JUnit files; equal figures give identical files.

report.html is one file without external resources. report.md is a summary for a pull request. The
JUnit file, for continuous integration, has one test case for each check of a limit.
"""

from __future__ import annotations

import base64
import hashlib
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
from lmu_deploy.report.robustness_file import Robustness, read_robustness
from lmu_deploy.report.tables import Table, comparison, on_chip, shipping, with_variants
from lmu_deploy.report.wording import on_many_chips

_SIGNS = {"same": "✅", "better": "✅", "worse": "❌", "unknown": "❔"}
_COLUMNS = 8  # of the comparison; more do not fit into a pull request


def make_markdown(fidelity: Fidelity, studies: Robustness) -> str:
    """Return report.md: the verdict of every target, the comparison and the provenance."""
    lines = [f"## {plain(fidelity.task.name)}: fidelity report", ""]
    if (ship := shipping(fidelity)) is not None:
        lines += [f"**Can this be shipped?** {_SIGNS[ship.tone]} {plain(ship.answer)}", ""]
    for name, found in with_variants(fidelity):
        words, tone = wording.verdict(found)
        metric = plain(wording.sentence(name, found))
        lines.append(f"- {_SIGNS[tone]} **{plain(name)}**: {words}. {metric}")
        lines += [f"  - {plain(sentence)}" for sentence in found.damage]
        if found.specification is not None:
            about = wording.specification(found.specification)
            lines += [f"  - {plain(sentence)}" for sentence in about]
        if found.equal_to is not None:
            lines.append(f"  - {plain(wording.equality(found.equal_to))}")
        chips = on_many_chips(studies, name, found)
        lines += [f"  - {plain(sentence)}" for sentence in [*on_chip(found), *chips]]
    lines += ["", table(comparison(fidelity), _COLUMNS), "", _provenance(fidelity)]
    return "\n".join(lines) + "\n"


def table(content: Table, columns: int | None = None) -> str:
    """Format a table, or its first columns, as a Markdown table."""
    heads = list(content.columns)[:columns]
    rows = [heads, [":--", *["--:" if content.numeric else ":--"] * (len(heads) - 1)]]
    rows += [list(row)[:columns] for row in content.rows]
    return "\n".join(f"| {' | '.join(_cell(text) for text in row)} |" for row in rows)


def _cell(text: str) -> str:
    return plain(text).replace("|", "\\|")


def plain(text: str) -> str:
    """Escape HTML and join lines, so that foreign names cannot contain markup."""
    return " ".join(escape(text, quote=False).split("\n"))


def _provenance(fidelity: Fidelity) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in fidelity.versions.items())
    return (
        f"Generated on {fidelity.date} by `{plain(fidelity.command.replace('`', ''))}` "
        f"with seed {fidelity.seed}; {plain(versions)}."
    )


def missing(error: ImportError) -> MissingDependencyError:
    """Return an error that names the command to install the requirements of reports."""
    return MissingDependencyError(
        f"a report needs jinja2 and matplotlib ({error}); run: pip install 'lmu-deploy[report]'"
    )


def render(template: str, **values: object) -> str:
    """Render a template of this package, with escaped texts, the style sheet and the script.

    The policy of the page allows this one script by its hash, and nothing else that runs or is
    fetched: a text of a report that contains markup can do nothing, even if it were not escaped.

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
    style, script = (
        (files("lmu_deploy.report") / name).read_text(encoding="utf-8")
        for name in ("style.css", "page.js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    values |= {"style": style, "script": script, "script_hash": f"sha256-{digest}"}
    return environment.get_template(template).render(values)


def _breakable(name: str) -> str:
    """Allow line breaks after the slashes of a name."""
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
    """Write report.html and report.md into `folder`; return the path of report.html.

    The figures come from fidelity.json and, if present, plots.npz and robustness.json in `folder`.

    Raises
    ------
    InputError
        When the folder has no fidelity.json, one of an unknown version, or a damaged file.
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
    """Write the checks of limits as a JUnit file, with one class per task and target.

    Raises
    ------
    InputError
        When the file cannot be written.
    """
    failed = sum(not check.passed for check in checks)
    suite = Element(
        "testsuite", name="lmu-deploy", tests=str(len(checks)), failures=str(failed), errors="0"
    )
    for check in checks:
        case = SubElement(suite, "testcase", classname=f"{task}.{check.target}", name=check.name)
        if check.passed:
            SubElement(case, "system-out").text = check.sentence
        else:
            SubElement(case, "failure", message=check.sentence)
    indent(suite)
    text = tostring(suite, encoding="unicode", xml_declaration=False)
    write_text(Path(path), f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n')
