"""Write the command-line reference from the command line itself when the site is built."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer

from lmu_deploy.cli import app
from lmu_deploy.core.options import options_of
from lmu_deploy.studies.settings import TABLES

PLACE = "<!-- commands -->"
OPTIONS = re.compile(r"<!-- options: (\w+) -->")
_VALUES = {bool: "", int: "N", float: "X", str: "TEXT", Path: "PATH"}


def on_page_markdown(markdown: str, **_: object) -> str:
    """Insert the reference into its page; MkDocs calls this with the text of each page."""
    markdown = OPTIONS.sub(lambda found: options_table(found[1]), markdown)
    return markdown.replace(PLACE, reference()) if PLACE in markdown else markdown


def options_table(table: str) -> str:
    """Return the options that a sweep may vary in one table of settings."""
    lines = [f"| `{table}.*` | meaning | default |", "|---|---|---|"]
    for name, one in options_of(TABLES[table]).items():
        if one.sweep:
            default = "" if one.default is None else f"`{one.default}`"
            lines.append(f"| `{name}` | {one.description} | {default} |")
    return "\n".join(lines)


def commands() -> dict[str, Any]:
    """Return every command of `lmu-deploy`, in the order in which its help lists them."""
    group: Any = typer.main.get_command(app)
    return {name: found for name, found in group.commands.items() if not found.hidden}


def reference() -> str:
    """Describe every command: what it does, an example, its arguments and options."""
    return "\n\n".join(_command(name, found) for name, found in commands().items())


def _command(name: str, command: Any) -> str:
    words, _, example = inspect.cleandoc(command.help or "").partition("Example:")
    parts = [f"### {name}", words.strip()]
    if example.strip():
        parts.append(f"    {example.strip()}")
    types = get_type_hints(command.callback)
    rows = [_row(parameter, types[parameter.name]) for parameter in command.params]
    if rows:
        parts.append("\n".join(["| | | by default |", "|---|---|---|", *rows]))
    return "\n\n".join(parts)


def _row(parameter: Any, kind: Any) -> str:
    if parameter.param_type_name == "option":
        name = f"{', '.join(parameter.opts)} {_value(kind)}".strip()
    else:
        name = parameter.name.upper()
    default = parameter.default
    shown = "" if default is None or default is False else f"`{default}`"
    return f"| `{name}` | {parameter.help or ''} | {'required' if parameter.required else shown} |"


def _value(kind: Any) -> str:
    """Return what an option of type `kind` takes, such as N for `int | None`."""
    if kind in _VALUES:
        return _VALUES[kind]
    return next((value for part in get_args(kind) if (value := _value(part))), "")
