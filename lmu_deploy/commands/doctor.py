"""`doctor`: which libraries work here, and what mends those that do not."""

from __future__ import annotations

import sys

from lmu_deploy.dependencies import Finding, examine, mend, to_table
from lmu_deploy.progress import progress_bar


def doctor(*, fix: bool = False) -> list[Finding]:
    """Examine every library, print a table of them, and mend what does not work if asked to.

    Parameters
    ----------
    fix : bool
        Run the commands that mend what does not work, then look again.

    Returns
    -------
    list of Finding
        As they are at the end.

    Raises
    ------
    RunError
        When a command that mends failed.
    """
    findings = _examine()
    if fix and not all(finding.works for finding in findings):
        mend(findings)
        findings = _examine()
    return findings


def _examine() -> list[Finding]:
    with progress_bar("doctor", "libraries") as progress:
        findings = examine(progress=progress)
    _show(findings)
    return findings


def _show(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table

    header, *rows = to_table(findings)
    table = Table(*header, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console(file=sys.stdout, soft_wrap=not sys.stdout.isatty()).print(table, markup=False)
