"""Write the report of a folder of results again, and check its figures against limits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lmu_deploy.core.errors import InputError, RunError
from lmu_deploy.fidelity.gate import Check, Limits, check_limits


def write_report(
    folder: Path | str,
    *,
    against: Path | str | None = None,
    yields: Sequence[Path | str] = (),
    sweeps: Sequence[Path | str] = (),
    fail_below: float | None = None,
    fail_above: float | None = None,
    max_loss: float | None = None,
    must_fit: bool = False,
    must_equal: bool = False,
    margin: float | None = None,
    junit: Path | str | None = None,
) -> Path:
    """Write report.html and report.md from the fidelity.json of a folder; return the former's path.

    Parameters
    ----------
    folder : path
    against : path, optional
        Folder of an earlier validation of the same task: what changed since goes to
        comparison.html and comparison.md.
    yields : sequence of path
        Files of `lmu-deploy yield` on the same task; the report shows them, and keeps a copy.
    sweeps : sequence of path
        Folders of `lmu-deploy sweep`; likewise.
    fail_below : float, optional
        Least accuracy of every target, in [0, 1].
    fail_above : float, optional
        Largest NRMSE of every target.
    max_loss : float, optional
        Most that a target may lose against float: accuracy in shares of all samples (0.002 is 0.2
        points), NRMSE in shares of float's.
    must_fit : bool
        Whether every network must fit the chip that it was made for; targets whose network is for
        no chip are not asked.
    must_equal : bool
        Whether every integer that a target recorded must be that of the specification, and every
        recorded analog chip must follow its network file.
    margin : float, optional
        Margin within which every target must be equivalent to float, or better: accuracy in shares
        of all samples (0.01 is one point), NRMSE in shares of float's.
    junit : path, optional
        Where to write these checks for continuous integration, held or not.

    Raises
    ------
    InputError
        When the folder has no fidelity.json, or a damaged one, a limit does not fit, or what else
        is given is of another task.
    RunError
        When a target does not keep to a limit; the reports and the JUnit file are written.
    """
    from lmu_deploy.fidelity.store import read_fidelity
    from lmu_deploy.report.comparison import write_comparison
    from lmu_deploy.report.robustness_file import gather
    from lmu_deploy.report.write import write_junit
    from lmu_deploy.report.write import write_report as write_pages

    limits = Limits(fail_below, fail_above, max_loss, must_fit, must_equal, margin)
    if junit is not None and not limits.asked:
        raise InputError(
            "--junit has nothing to tell without --fail-below, --fail-above, --max-loss, "
            "--must-fit, --must-equal or --margin."
        )
    fidelity = read_fidelity(folder)
    checks: list[Check] = check_limits(fidelity, limits)
    if yields or sweeps:
        gather(folder, fidelity.task.name, yields, sweeps)
    path = write_pages(folder)
    if against is not None:
        write_comparison(folder, against)
    if junit is not None:
        write_junit(junit, checks, fidelity.task.name)
    require(checks)
    return path


def require(checks: Sequence[Check]) -> None:
    """Raise a RunError that lists the checks that failed."""
    if failed := [check.sentence for check in checks if not check.passed]:
        raise RunError(f"{'; '.join(failed)}.")
