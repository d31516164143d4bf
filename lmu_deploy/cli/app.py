"""All commands, in the order in which a network passes through them; `--help` shows this order."""

from __future__ import annotations

from typing import Annotated

import typer

from lmu_deploy.cli.networks import export, import_network, train
from lmu_deploy.cli.quantize import quantize
from lmu_deploy.cli.run import check, deploy, report, targets, validate
from lmu_deploy.cli.setup import demo, doctor
from lmu_deploy.cli.spike import chip_yield, spike
from lmu_deploy.cli.studies import sweep

app = typer.Typer(
    name="lmu-deploy",
    help="Take a trained Legendre Memory Unit to neuromorphic hardware, and prove what survived.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _settings(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Only declares what holds for every command; main() reads --debug before all else."""


app.command()(demo)
app.command()(train)
app.command("import")(import_network)
app.command()(quantize)
app.command()(spike)
app.command("yield")(chip_yield)
app.command()(export)
app.command()(check)
app.command()(deploy)
app.command()(validate)
app.command()(report)
app.command()(sweep)
app.command()(targets)
app.command()(doctor)
