"""Arguments and options of the commands; those of conversions come from their dataclasses."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from lmu_deploy.core.options import Option, Options, options_of

File = Annotated[Path, typer.Argument(help="A .safetensors network file.", show_default=False)]
Out = Annotated[Path, typer.Option("--out", help="File to write.", show_default=False)]
Profile = Annotated[str, typer.Option(help="Chip profile.")]
TaskName = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="Task, or an .npz file or a folder of .npy files with your own data. By default the "
        "task that the network file records.",
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        help="Number of test samples: the first of a built-in task, a stratified random choice of "
        "your own data. By default all."
    ),
]
First = Annotated[
    int | None,
    typer.Option(help="Run only so many test samples, the first in the order of the file."),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler", help="Address of a dask scheduler. By default this machine does the work."
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of the random numbers.")]

_EARLIER_VALUES = {"discretiser=": "discretizer="}
"""Earlier spellings of what the values of options begin with."""

_Command = Callable[..., None]


def with_options(
    options: type[Options], exclude: Iterable[str] = ()
) -> Callable[[_Command], _Command]:
    """Return a decorator that gives a command every option of a conversion.

    The command's parameter `options` receives the instance; all other parameters stay.

    Parameters
    ----------
    options : type of Options
    exclude : iterable of str
        Options that the command sets itself.
    """
    offered = {name: one for name, one in options_of(options).items() if name not in set(exclude)}

    def decorate(command: _Command) -> _Command:
        own = inspect.signature(command).parameters
        hints = typing.get_type_hints(command, include_extras=True)
        parameters = [
            p.replace(annotation=hints[name]) for name, p in own.items() if name != "options"
        ]
        parameters += [_parameter(one) for one in offered.values()]

        @functools.wraps(command)
        def run(**arguments: Any) -> None:
            values = {name: arguments.pop(name) for name in offered}
            command(**arguments, options=options(**values))

        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


def _parameter(one: Option) -> inspect.Parameter:
    """Return the parameter from which typer makes an option."""
    name = one.name.replace("_", "-")
    declared = [f"--{name}/--no-{name}"] if one.type is bool else [f"--{name}"]
    metavar = "LOW HIGH" if one.type is tuple else None
    info = typer.Option(*declared, help=one.description, metavar=metavar)
    return inspect.Parameter(
        one.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=one.default,
        annotation=Annotated[one.annotation, info],
    )


def accepting_earlier_names(options: type[Options] | None = None) -> type[TyperCommand]:
    """Return a class of commands that accept earlier names of options and values.

    Parameters
    ----------
    options : type of Options, optional
        Options whose aliases are accepted.
    """
    aliases = {
        f"--{alias.replace('_', '-')}": f"--{name.replace('_', '-')}"
        for name, one in (options_of(options) if options else {}).items()
        for alias in one.aliases
    }

    class Command(TyperCommand):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            return super().parse_args(ctx, [_current(argument, aliases) for argument in args])

    return Command


def _current(argument: str, aliases: dict[str, str]) -> str:
    for earlier, current in _EARLIER_VALUES.items():
        if argument.startswith(earlier):
            return current + argument.removeprefix(earlier)
    name, equals, value = argument.partition("=")
    return f"{aliases.get(name, name)}{equals}{value}"
