"""Check that every figure in the README's table of measurements stands in a results file.

A cell of the column "here" links to a page of results. Its figures must stand in a table of that
page, which ``benchmarks/results.py`` renders from its file: as they are, as a fraction where the
README has a percentage, or in millions as the sum of a column. ``python tools/readme_figures.py``
prints what is nowhere and exits with 1.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import results  # noqa: E402

HEADING = "## Measurements"
LINK = re.compile(r"\[([^\]]+)\]\(([^)#]+)[^)]*\)")
FIGURE = re.compile(r"(\d[\d,]*(?:\.\d+)?)( %| million)?")


def figures(readme: str) -> list[tuple[str, str, str, Path]]:
    """Return measurement, number, unit and page of every figure in the column "here"."""
    table = readme.split(HEADING)[1].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    found = []
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        links = LINK.findall(cells[2])
        if not links:
            raise SystemExit(f"README.md: {cells[0]!r} links to no page of results")
        for label, page in links:
            for number, unit in FIGURE.findall(label):
                found.append((cells[0], number, unit.strip(), ROOT / page))
    return found


def stands(number: str, unit: str, page: Path) -> bool:
    """Return whether a figure stands in a table that the page has from a results file."""
    regions = results.REGION.finditer(page.read_text(encoding="utf-8"))
    tables = [results.load(match[1]) for match in regions]
    text = "\n".join(table.markdown() for table in tables)
    if unit == "million":
        sums = [
            sum(v for v in column if isinstance(v, int))
            for table in tables
            for column in zip(*table.rows, strict=True)
        ]
        return any(round(total / 1e6) == int(number) for total in sums)
    wanted = [number]
    if unit == "%":
        decimals = len(number.partition(".")[2])
        wanted.append(f"{float(number) / 100:.{decimals + 2}f}")
    return any(re.search(rf"(?<![\d.]){re.escape(each)}(?![\d]|\.\d)", text) for each in wanted)


def main() -> int:
    """Print the figures that stand nowhere."""
    missing = [
        f"README.md: {number} {unit} ({measurement}) is in no table of {page.relative_to(ROOT)}"
        for measurement, number, unit, page in figures((ROOT / "README.md").read_text("utf-8"))
        if not stands(number, unit, page)
    ]
    print("\n".join(missing), end="\n" if missing else "")
    return int(bool(missing))


if __name__ == "__main__":
    sys.exit(main())
