"""Write the table of operators into docs/reference/operators.md, or check that it is up to date.

Run from anywhere: ``python tools/operator_table.py [--check]``. The table is made of what the
readers and writers register, so a page that is older than the code is an error of ``--check``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from converters.keras_lmu.network import READERS
from converters.onnx.emitter import EMITTERS
from converters.onnx.models import REGISTERED
from converters.pytorch.convert import from_torch  # noqa: F401 (its readers are registered)
from converters.pytorch.registry import coverage
from converters.quantize.lowering.operators import LOWERED
from lmu_deploy.core.graph.network import OPERATORS
from lmu_deploy.core.graph.operator import Operator
from lmu_deploy.core.graph.time import Mask
from lmu_deploy.core.graph.transforms import FITTING

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "operators.md"
BEGIN, END = "<!-- operators -->", "<!-- end of operators -->"
COLUMNS = ("operator", "computes", "Keras", "PyTorch", "ONNX", "integer", "spiking")


def row(operator: type[Operator]) -> tuple[str, ...]:
    """Return the cells of one operator."""
    keras = [name for name, reader in READERS.items() if operator in reader.operators]
    modules = [
        name
        for each in coverage()
        if operator.__name__ in each.operators
        for name in each.modules or each.functions
    ]
    first = (operator.__doc__ or "").split("\n\n", maxsplit=1)[0]
    integer = "yes" if operator in LOWERED else "on the host" if operator is not Mask else ""
    onnx = "yes" if operator in EMITTERS else ""
    computes = " ".join(first.split()).rstrip(".").replace(":math:", "").replace("``", "`")
    return (
        operator.__name__,
        computes,
        _names(keras),
        _names(modules),
        onnx,
        integer,
        FITTING.get(operator, ""),
    )


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted({f"`{name}`" for name in names}, key=str.lower))


def table() -> str:
    """Return the whole table as Markdown."""
    assert REGISTERED  # the modules that fill EMITTERS
    rows = [COLUMNS, ("---",) * len(COLUMNS), *map(row, OPERATORS)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def render(page: str) -> str:
    """Return the text of the page with the table between its comments."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END)[1]}"


def main() -> int:
    """Write the page; with --check return 1 if it is old."""
    before = PAGE.read_text(encoding="utf-8")
    after = render(before)
    if "--check" not in sys.argv:
        PAGE.write_text(after, encoding="utf-8")
    elif after != before:
        print(f"{PAGE.name} is old; run python {Path(__file__).name}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
