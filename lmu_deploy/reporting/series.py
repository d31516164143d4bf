"""How each target looks in every plot: a colour, a mark and a dash, so that none rests on colour.

Colours are names of CSS variables (style.css gives each a light and a dark value, after Okabe and
Ito 2008, who chose them to differ for colour-blind readers). Matplotlib knows only hexadecimal
ones, so each variable has a stand-in that svg.py replaces.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

INK, MUTED, GRID = "#010101", "#020202", "#030303"
_SERIES = tuple(f"#0a000{number}" for number in range(1, 7))
VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    **{token: f"var(--series-{number})" for number, token in enumerate(_SERIES, start=1)},
}

_MARKERS = ("o", "s", "^", "D", "v", "P")
_DASHES = ((0, ()), (0, (5, 2)), (0, (1.5, 1.5)), (0, (7, 2, 1.5, 2)), (0, (3, 1.5)), (0, (9, 3)))
_KNOWN = {"integer": 0, "lava": 1, "brian2": 2, "onnxruntime": 3, "spiking": 4, "lava-lif": 5}


@dataclass(frozen=True)
class Series:
    """One target's look.

    Attributes
    ----------
    label : str
    color : str
        A stand-in of :data:`VARIABLES`.
    marker : str
        Matplotlib's name of it.
    dash : tuple
        Matplotlib's line style.
    hollow : bool
        Whether the marks are outlines; so are those of variants.
    """

    label: str
    color: str
    marker: str
    dash: tuple[float, tuple[float, ...]]
    hollow: bool = False

    @property
    def variable(self) -> str:
        """The colour as CSS."""
        return VARIABLES[self.color]


FLOAT = Series("float", MUTED, "|", (0, ()))


def assign(targets: Iterable[str]) -> dict[str, Series]:
    """Give each target its look: the known ones always the same, the others what is left."""
    targets = list(targets)
    taken = {_KNOWN[name] for name in targets if name in _KNOWN}
    free = [number for number in range(len(_SERIES)) if number not in taken] or [0]
    looks, others = {}, 0
    for name in targets:
        number = _KNOWN.get(name)
        if number is None:
            number, others = free[others % len(free)], others + 1
        looks[name] = Series(name, _SERIES[number], _MARKERS[number], _DASHES[number])
    return looks


def variant(series: Series, name: str) -> Series:
    """Give the look of a variant: its target's, hollow and finely dashed."""
    return replace(series, label=f"{series.label} · {name}", hollow=True, dash=(0, (1.5, 2.5)))
