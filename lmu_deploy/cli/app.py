"""The commands, in the order in which `--help` lists them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, TextIO

import typer

from converters.options import SpikeOptions, TaskQuantizeOptions
from lmu_deploy.cli.convert import chip_yield, quantize, spike
from lmu_deploy.cli.networks import export, import_network, train, vectors
from lmu_deploy.cli.options import accepting_earlier_names
from lmu_deploy.cli.run import check, deploy, report, targets, validate
from lmu_deploy.cli.setup import demo, doctor
from lmu_deploy.cli.studies import sweep

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
