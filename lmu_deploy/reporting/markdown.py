"""report.md: the verdict of a report in a page that fits a pull request."""

from __future__ import annotations

from html import escape

from lmu_deploy.fidelity.schema import Fidelity
from lmu_deploy.reporting import wording
from lmu_deploy.reporting.costs import on_chip
from lmu_deploy.reporting.robustness_file import Robustness
from lmu_deploy.reporting.tables import Table, comparison, with_variants
from lmu_deploy.reporting.yields import on_many_chips

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
