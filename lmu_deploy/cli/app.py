"""The commands in the order in which `--help` lists them; `demo`, `doctor`, `sweep` are here."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TextIO

import typer

from converters.options import SpikeOptions, TaskQuantizeOptions
from lmu_deploy.cli.convert import chip_yield, quantize, spike
from lmu_deploy.cli.networks import export, import_network, train, vectors
from lmu_deploy.cli.options import Scheduler, Seed, accepting_earlier_names
from lmu_deploy.cli.run import check, deploy, report, targets, validate


def doctor(
    fix: Annotated[
        bool, typer.Option("--fix", help="Run the commands that repair the installation.")
    ] = False,
) -> None:
    """Show each library, its version, whether it works, and the command that repairs it.

    Example: lmu-deploy doctor --fix
    """
    from lmu_deploy.api.doctor import doctor

    if not all(finding.works for finding in doctor(fix=fix)):
        raise typer.Exit(1)


def demo(
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("demo-report"),
    seed: Seed = 0,
) -> None:
    """Train a small network, convert it, run it on every target, and write a report.

    Example: lmu-deploy demo --out my-report
    """
    from lmu_deploy.api.train import demo

    print(demo(out=out, seed=seed).path)


Spec = Annotated[
    Path, typer.Argument(help="TOML file with the settings to vary.", show_default=False)
]


def sweep(
    spec: Spec,
    out: Annotated[Path, typer.Option("--out", help="Folder of the results.", show_default=False)],
    scheduler: Scheduler = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Number of processes of the local cluster. By default the number of cores."
        ),
    ] = None,
) -> None:
    """Run many trials with different settings, and write a table and a Pareto plot.

    Trials that an earlier run in the same folder finished are not repeated.

    Example: lmu-deploy sweep examples/sweeps/digits-widths.toml --out widths
    """
    from lmu_deploy.api.sweep import describe, sweep
    from lmu_deploy.studies.spec import read_spec

    result = sweep(spec, out=out, scheduler=scheduler, workers=workers)
    objectives = read_spec(spec).objectives
    print(f"{len(result.rows)} trials: {result.done} done, {result.found} of them earlier")
    for point in sorted(result.front, key=lambda point: point.horizontal):
        print(f"on the Pareto front: {describe(point, objectives)}")
    for row in result.rows:
        if row.record.error:
            print(f"{row.record.status}: {dict(row.trial.varied)}: {row.record.error}")
    for file in result.files:
        print(file)


app = typer.Typer(
    name="lmu-deploy",
    help="Convert trained Legendre Memory Units (LMUs) for neuromorphic hardware, run them on "
    "simulators, and compare the results with the float network.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


class _ToStandardError(logging.StreamHandler[TextIO]):
    """Write to what standard error is when a message comes, which a test may have replaced."""

    @property
    def stream(self) -> TextIO:
        """Standard error."""
        return sys.stderr

    @stream.setter
    def stream(self, _value: TextIO) -> None:
        """Ignore the stream that the base class wants to keep."""


@contextmanager
def messages_to_standard_error() -> Iterator[None]:
    """Show the messages of the library as plain lines on standard error."""
    logger, handler = logging.getLogger("lmu_deploy"), _ToStandardError()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)


@app.callback()
def _settings(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Set up what all commands share; main() reads --debug itself."""
    context.with_resource(messages_to_standard_error())


_Quantize = accepting_earlier_names(TaskQuantizeOptions)
_Spike = accepting_earlier_names(SpikeOptions)

app.command()(demo)
app.command(cls=_Spike)(train)
app.command("import", cls=accepting_earlier_names())(import_network)
app.command(cls=_Quantize)(quantize)
app.command("quantise", cls=_Quantize, hidden=True)(quantize)
app.command(cls=_Spike)(spike)
app.command("yield", cls=_Spike)(chip_yield)
app.command()(export)
app.command()(vectors)
app.command()(check)
app.command()(deploy)
app.command()(validate)
app.command()(report)
app.command()(sweep)
app.command()(targets)
app.command()(doctor)
