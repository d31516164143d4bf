"""Results of benchmarks as JSON files, and the tables of the documentation made from them.

A benchmark writes one table with `Table.save`; the files are in ``docs/results/data``. A page shows
a table, and below it when and how it was measured, between two comments::

    <!-- results: digital/psmnist-lmu -->

    | ... |

    <small>Measured on ...</small>

    <!-- end of results -->

``python benchmarks/results.py`` writes the current tables into the pages; with ``--check`` it
changes nothing, prints the pages that differ from their files, and exits with 1 if there are any.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs/results"
DATA = PAGES / "data"
LIBRARIES = ("numpy", "scipy", "torch", "numba", "onnxruntime", "lava-nc", "brian2")
REGION = re.compile(r"<!-- results: (\S+) -->\n(.*?)<!-- end of results -->", re.DOTALL)

Cell = str | float | int | None
Columns = list[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """One table of results with the conditions under which it was measured.

    Parameters
    ----------
    columns : list of (title, format)
        The format is a format string such as ``"{:.2f} %"``; ``"{}"`` is for text. A format that
        begins with ``>`` aligns its column to the right.
    rows : list of lists
        Numbers and texts, one for each column. None is an empty cell. A text is shown as it is in
        every column.
    command : str
        What to type in order to measure it again.
    date : str
        ISO 8601, YYYY-MM-DD.
    machine : str
        The kind of the machine and what else it was doing.
    versions : dict
        Python and the libraries on which the figures depend.
    seed : int or None
        None where nothing is random, or where the seed was not recorded.
    commit : str
        Short hash of the commit that measured it, with a plus sign if files had changed since;
        empty in tables of the time before commits were recorded.
    chosen_on : str
        Data on which settings were chosen, such as "validation"; empty where nothing was chosen.
    """

    columns: Columns
    rows: list[list[Cell]]
    command: str
    date: str
    machine: str
    versions: dict[str, str] = field(default_factory=dict)
    seed: int | None = None
    commit: str = ""
    chosen_on: str = ""

    @classmethod
    def measured(
        cls,
        columns: Columns,
        rows: list[list[Cell]],
        seed: int | None = None,
        chosen_on: str = "",
    ) -> Table:
        """Build the table of the benchmark that is running, here and now."""
        script = Path(sys.argv[0]).resolve()
        name = script.relative_to(ROOT) if script.is_relative_to(ROOT) else script.name
        return cls(
            columns=columns,
            rows=rows,
            command=shlex.join(["python", str(name), *sys.argv[1:]]),
            date=datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat(),
            machine=machine(),
            versions=versions(),
            seed=seed,
            commit=commit(),
            chosen_on=chosen_on,
        )

    def after(self, earlier: Table) -> Table:
        """Return this table with the rows of an earlier run of the same benchmark before its own.

        Raises
        ------
        ValueError
            If the columns differ.
        """
        if [*map(tuple, earlier.columns)] != [*map(tuple, self.columns)]:
            raise ValueError(f"the columns {earlier.columns} are not {self.columns}")
        command = f"{earlier.command} && {self.command}"
        return replace(self, rows=[*earlier.rows, *self.rows], command=command)

    def save(self, name: str, folder: Path | None = None) -> Path:
        """Write the table to ``<folder>/<name>.json``, one row a line; return the path."""
        path = (folder or DATA) / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        fields = asdict(self)
        lines = []
        for key in ("command", "date", "commit", "machine", "seed", "chosen_on", "versions"):
            lines.append(f'  "{key}": {json.dumps(fields[key], ensure_ascii=False)}')
        for key in ("columns", "rows"):
            inner = ",\n".join(f"    {json.dumps(row, ensure_ascii=False)}" for row in fields[key])
            lines.append(f'  "{key}": [\n{inner}\n  ]')
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        return path

    def markdown(self) -> str:
        """Return the table in Markdown, without a final newline."""
        titles = " | ".join(title for title, _ in self.columns)
        rule = "|".join("--:" if form.startswith(">") else "---" for _, form in self.columns)
        lines = [f"| {titles} |", f"|{rule}|"]
        for row in self.rows:
            cells = (shown(cell, form) for cell, (_, form) in zip(row, self.columns, strict=True))
            lines.append("|" + "".join(f" {cell} |" if cell else " |" for cell in cells))
        return "\n".join(lines)

    def origin(self) -> str:
        """Return in one sentence when, from which commit, and with which seed it was measured."""
        parts = [f"Measured on {self.date}"]
        parts += [f"at commit {self.commit}" if self.commit else "before commits were recorded"]
        parts += [] if self.seed is None else [f"seed {self.seed}"]
        parts += [f"settings chosen on {self.chosen_on}"] if self.chosen_on else []
        return f"<small>{', '.join(parts)}; {self.machine.partition(';')[0]}.</small>"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `publish` reads."""
    parser.add_argument("--save", metavar="PAGE/NAME", help=f"write to {DATA.name}/PAGE/NAME.json")
    parser.add_argument("--append", action="store_true", help="keep the rows of the saved table")


def publish(
    columns: Columns, rows: list[list[Cell]], options: argparse.Namespace, seed: int | None = None
) -> None:
    """Print the table of the benchmark that is running, and save it if `--save` was given."""
    table = Table.measured(columns, rows, seed)
    if options.append and options.save and (DATA / f"{options.save}.json").exists():
        table = table.after(load(options.save))
    print(f"{table.date}, {table.machine}", file=sys.stderr)
    print(table.markdown())
    if options.save:
        print(f"written to {table.save(options.save)}", file=sys.stderr)


def load(name: str, folder: Path | None = None) -> Table:
    """Read the table that `Table.save` wrote under this name."""
    read = json.loads(((folder or DATA) / f"{name}.json").read_text(encoding="utf-8"))
    read["columns"] = [(title, form) for title, form in read["columns"]]
    return Table(**read)


def shown(cell: Cell, form: str) -> str:
    """Return a cell as the page shows it."""
    if cell is None or isinstance(cell, str):
        return cell or ""
    return form.removeprefix(">").format(cell)


def machine() -> str:
    """Describe the kind of this machine and its load, without its name."""
    load_average = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return (
        f"{os.cpu_count()} {platform.machine()} cores, {platform.system()}, no GPU used; "
        f"load average {load_average}"
    )


def commit() -> str:
    """Return the short hash of the commit, with a plus sign after changes; empty without git."""
    found = []
    for arguments in (["rev-parse", "--short=10", "HEAD"], ["status", "--porcelain", "-uno"]):
        asked = ["git", "-C", str(ROOT), *arguments]
        ran = subprocess.run(asked, capture_output=True, text=True, check=False)
        found.append(ran.stdout.strip() if not ran.returncode else "")
    return found[0] + ("+" if found[0] and found[1] else "")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed libraries that compute."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def render(page: str, folder: Path | None = None) -> str:
    """Return the text of a page with the tables of its results files between its comments."""

    def region(match: re.Match[str]) -> str:
        table = load(match[1], folder)
        shown = f"{table.markdown()}\n\n{table.origin()}"
        return f"<!-- results: {match[1]} -->\n\n{shown}\n\n<!-- end of results -->"

    return REGION.sub(region, page)


def main() -> int:
    """Write the tables into the pages, or check that they are there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if old")
    check = parser.parse_args().check
    old = []
    for path in sorted(PAGES.glob("*.md")):
        before = path.read_text(encoding="utf-8")
        after = render(before)
        if after != before:
            old.append(path)
            if not check:
                path.write_text(after, encoding="utf-8")
    for path in old:
        print(
            f"{path.relative_to(ROOT)} {'differs from its results files' if check else 'written'}"
        )
    return int(check and bool(old))


if __name__ == "__main__":
    raise SystemExit(main())
