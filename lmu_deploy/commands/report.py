"""`report`: report.html, made anew from a folder of results."""

from __future__ import annotations

from pathlib import Path


def report(folder: Path | str) -> Path:
    """Write report.html from the fidelity.json of `folder` and give its path.

    Raises
    ------
    InputError
        When the folder has no fidelity.json, or a damaged one.
    """
    from lmu_deploy.reporting import write_report

    return write_report(Path(folder))
