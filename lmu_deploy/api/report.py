"""FidelityReport: what a validation found, with figures and plots; reports of stored results."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lmu_deploy.core.errors import InputError, RunError
from lmu_deploy.core.files import write_text
from lmu_deploy.core.loading import AnyNetwork
from lmu_deploy.core.representation import counted, shortened
from lmu_deploy.fidelity.gate import Check, Limits, check_limits
from lmu_deploy.fidelity.measures.events import RasterExcerpt
from lmu_deploy.fidelity.schema import Fidelity, TargetFidelity
from lmu_deploy.fidelity.store import (
    canonical_json,
    read_excerpts,
    read_fidelity,
    write_fidelity,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lmu_deploy.report.robustness_file import Robustness


class Verdict(NamedTuple):
    """How a target compares with the float reference.

    Attributes
    ----------
    words : str
        The verdict, such as "equivalent to float within 1 point".
    tone : {"same", "better", "worse", "unknown"}
    sentence : str
        The figures behind it.
    """

    words: str
    tone: str
    sentence: str

    def __str__(self) -> str:
        """Return the verdict in words."""
        return self.words


@dataclass(frozen=True, eq=False, repr=False)
class FidelityReport:
    """The result of a validation.

    ``report["lava"]`` is everything about one target, such as ``report["lava"].metric.value``; a
    variant is named as in the report, ``report["brian2 · uncalibrated"]``.

    Attributes
    ----------
    fidelity : Fidelity
        All figures, as in fidelity.json.
    excerpts : mapping of "target/variant/population" to RasterExcerpt
        Events of sample 0.
    networks : mapping of str to Network
        The representations that ran, by form; empty when the report was loaded.
    robustness : Robustness or None
        Yields and sweeps shown beside them.
    folder : path or None
        Where the report was written, or loaded from.
    """

    fidelity: Fidelity
    excerpts: Mapping[str, RasterExcerpt] = field(default_factory=dict)
    networks: Mapping[str, AnyNetwork] = field(default_factory=dict)
    robustness: Robustness | None = None
    folder: Path | None = None

    @classmethod
    def load(cls, folder: Path | str) -> FidelityReport:
        """Return the report in a folder that ``lmu-deploy validate`` or :meth:`save` wrote.

        Raises
        ------
        InputError
            When the folder has no fidelity.json, one of another version, or a damaged file.
        """
        from lmu_deploy.report.robustness_file import read_robustness

        folder = Path(folder)
        return cls(
            read_fidelity(folder),
            read_excerpts(folder),
            robustness=read_robustness(folder),
            folder=folder,
        )

    @property
    def path(self) -> Path | None:
        """The file report.html, if the report was written to a folder."""
        return None if self.folder is None else self.folder / "report.html"

    @property
    def targets(self) -> Mapping[str, TargetFidelity]:
        """Everything about each target, by name, without variants."""
        return self.fidelity.targets

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """How each target and variant compares with the float reference."""
        from lmu_deploy.report import wording

        return {
            name: Verdict(*wording.verdict(found), wording.sentence(name, found))
            for name, found in self._named()
        }

    def _named(self) -> Iterator[tuple[str, TargetFidelity]]:
        """Yield targets, each followed by its variants, by the names of the report."""
        for name, found in self.targets.items():
            yield name, found
            for variant, other in found.variants.items():
                yield f"{name} · {variant}", other

    def __getitem__(self, name: str) -> TargetFidelity:
        """Return everything about one target or variant."""
        known = dict(self._named())
        if name not in known:
            raise InputError(f"no target {name!r} in this report; it has {', '.join(known)}.")
        return known[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of targets and variants."""
        return (name for name, _ in self._named())

    def __len__(self) -> int:
        """Return the number of targets and variants."""
        return sum(1 for _ in self)

    def to_html(self, path: Path | str) -> Path:
        """Write the report as one HTML file that needs no other.

        Raises
        ------
        InputError
            When the file cannot be written.
        MissingDependencyError
            When jinja2 or matplotlib is absent.
        """
        from lmu_deploy.report.write import make_html

        write_text(path, make_html(self.fidelity, self.excerpts, self._robustness()))
        return Path(path)

    def to_markdown(self, path: Path | str | None = None) -> str:
        """Return verdicts and comparison as Markdown; also write them if a path is given."""
        from lmu_deploy.report.write import make_markdown

        text = make_markdown(self.fidelity, self._robustness())
        if path is not None:
            write_text(path, text)
        return text

    def to_json(self, path: Path | str | None = None) -> str:
        """Return all figures as JSON, as in fidelity.json; also write them if a path is given."""
        text = canonical_json(self.fidelity.model_dump(mode="json", by_alias=True))
        if path is not None:
            write_text(path, text)
        return text

    def save(self, folder: Path | str) -> Path:
        """Write fidelity.json, plots.npz, report.html and report.md into a folder.

        Returns
        -------
        path
            Of report.html.

        Raises
        ------
        InputError
            When the folder cannot be made or written.
        """
        from lmu_deploy.report.write import write_report

        folder = make_folder(folder)
        write_fidelity(folder, self.fidelity, dict(self.excerpts))
        return write_report(folder)

    def _robustness(self) -> Robustness:
        from lmu_deploy.report.robustness_file import Robustness

        return Robustness() if self.robustness is None else self.robustness

    def plot_metric(self) -> Figure:
        """Return a figure of the metric of every target on its 95 % interval."""
        from lmu_deploy.report.figures import metric_figure

        return metric_figure(self.fidelity)

    def plot_memory_error(self, layer: str | None = None) -> Figure:
        """Return a figure of a memory's error over time and by Legendre order.

        Parameters
        ----------
        layer : str, optional
            By default the first layer with a memory.

        Raises
        ------
        InputError
            When no target recorded that layer, or none has an error there.
        """
        from lmu_deploy.report.figures import memory_error_figure

        return memory_error_figure(self.fidelity, layer)

    def plot_events(self, target: str | None = None) -> Figure:
        """Return a figure of a target's events: raster of sample 0, and means at each step.

        Parameters
        ----------
        target : str, optional
            By default the first target that sends events.

        Raises
        ------
        InputError
            When there is no such target, or it sends no events.
        """
        from lmu_deploy.report.figures import activity_figure

        return activity_figure(self.fidelity, self.excerpts, target)

    def plot_error_sources(self, target: str | None = None) -> Figure:
        """Return a figure of what each source adds to a target's squared output error.

        Parameters
        ----------
        target : str, optional
            By default the first target whose errors were attributed.

        Raises
        ------
        InputError
            When there is no such target, or its errors were not attributed.
        """
        from lmu_deploy.report.figures import error_sources_figure

        return error_sources_figure(self.fidelity, target)

    def __repr__(self) -> str:
        """Return one line of at most 100 characters."""
        targets = ", ".join(
            f"{name} {found.metric.value:.4f}" for name, found in self.targets.items()
        )
        metric = self.fidelity.reference.metric
        return shortened(
            f"FidelityReport({self.fidelity.task.name}, {metric.name}: float {metric.value:.4f}, "
            f"{targets})"
        )

    def __str__(self) -> str:
        """Return the report as Markdown."""
        return self.to_markdown()

    def _repr_html_(self) -> str:
        """Return verdicts and plots for notebooks."""
        task, reference = self.fidelity.task, self.fidelity.reference
        rows = "".join(
            f"<tr><td><strong>{escape(name)}</strong></td><td>{escape(verdict.words)}</td>"
            f"<td>{escape(verdict.sentence)}</td></tr>"
            for name, verdict in self.verdicts.items()
        )
        plots = [self.plot_metric()]
        with suppress(InputError):  # no target may have recorded states
            plots.append(self.plot_memory_error())
        return (
            f"<div><p><strong>{escape(task.name)}</strong>: float {reference.metric.name} "
            f"{reference.metric.value:.4f} on {counted(reference.samples, 'sample')}</p>"
            f"<table><tbody>{rows}</tbody></table>{''.join(map(_image, plots))}</div>"
        )


def _image(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img style="max-width: 100%" src="data:image/svg+xml;base64,{data}">'


def make_folder(out: Path | str) -> Path:
    """Make a folder of results if it is not there.

    Raises
    ------
    InputError
        When it cannot be made.
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make the folder {folder}: {error.strerror}; choose another name."
        ) from error
    return folder


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
            "--junit writes the results of checks, and none was asked for; give --fail-below, "
            "--fail-above, --max-loss, --must-fit, --must-equal or --margin."
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
