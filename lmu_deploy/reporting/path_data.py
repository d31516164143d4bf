"""Path data of a drawing, written shorter: relative, in tenths of a pixel, which nobody can see.

A report holds every plot twice, for wide and for narrow pages, and most of it are paths.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_UNITS_PER_PIXEL = 10
_TOKEN = re.compile(r"[A-Za-z]|-?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?")
_NUMBERS = {"M": 2, "L": 2, "C": 6, "Q": 4, "Z": 0}

Point = tuple[int, int]
Pieces = list[tuple[str, list[int]]]


def compact_path(data: str) -> str:
    """Write absolute path data relative, in tenths of a pixel.

    The absolute points are rounded, not the steps between them, so that errors do not add up along
    a line. Pieces along an axis that go on in one direction are joined, which draws the same.

    Parameters
    ----------
    data : str
        Path data of the commands M, L, C, Q and z, as matplotlib writes it.
    """
    here = start = (0, 0)
    pieces: Pieces = []
    for command, points in _commands(data):
        steps = [n for x, y in points for n in (x - here[0], y - here[1])]
        if command == "L":
            _add_line(pieces, *steps)
        else:
            pieces.append((command.lower(), steps))
        here = points[-1] if points else start
        start = here if command == "M" else start
    return _written(pieces)


def _commands(data: str) -> Iterator[tuple[str, list[Point]]]:
    tokens = _TOKEN.findall(data)
    at = 0
    while at < len(tokens):
        command = tokens[at].upper()
        end = at + 1 + _NUMBERS[command]
        values = [round(_UNITS_PER_PIXEL * float(token)) for token in tokens[at + 1 : end]]
        yield command, list(zip(values[::2], values[1::2], strict=True))
        at = end


def _add_line(pieces: Pieces, dx: int, dy: int) -> None:
    """Add a straight piece, or make the one before it longer."""
    last, steps = pieces[-1]
    if dx and dy:
        pieces.append(("l", [dx, dy]))
        return
    command, step = ("v", dy) if dy else ("h", dx)
    if last == command and (steps[0] > 0) == (step > 0):
        steps[0] += step
    elif step or last == "m":  # a first piece of no length may be a dot
        pieces.append((command, [step]))


def _written(pieces: Pieces) -> str:
    text, last = "", ""
    for command, steps in pieces:
        numbers = "".join(f" {_number(step)}" for step in steps).replace(" -", "-")
        repeated = command == last and command in "lcq"
        text += numbers if repeated else command + numbers.lstrip(" ")
        last = command
    return text


def _number(tenths: int) -> str:
    """Write 15 as 1.5, -5 as -.5 and 30 as 3."""
    whole, rest = divmod(abs(tenths), _UNITS_PER_PIXEL)
    text = (str(whole) if whole or not rest else "") + (f".{rest}" if rest else "")
    return f"-{text}" if tenths < 0 else text
