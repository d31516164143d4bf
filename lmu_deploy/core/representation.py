"""Common parts of all representations: one-line reprs, a printed table, saving.

A representation compares and hashes by identity, because an elementwise comparison of its arrays
has no single answer; compare :meth:`Representation.fingerprint` to ask whether two networks compute
the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

REPR_LENGTH = 100
"""Characters that the repr of a network or of a part of one has at most."""


def shortened(text: str, length: int = REPR_LENGTH) -> str:
    """Return `text` with its middle left out where it is longer than `length`.

    Examples
    --------
    >>> shortened("abcdefghijkl", 9)
    'abc...jkl'
    """
    if len(text) <= length:
        return text
    kept = length - 3
    return f"{text[: kept - kept // 2]}...{text[len(text) - kept // 2 :]}"


def counted(number: int, noun: str) -> str:
    """Return a count with its noun in the singular or plural.

    Examples
    --------
    >>> counted(1, "input"), counted(2048, "neuron")
    ('1 input', '2,048 neurons')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class Summary:
    """The table that a network prints.

    Attributes
    ----------
    facts : sequence of str
        Short statements about the whole network.
    columns : sequence of str
    rows : sequence of sequence of str
        One row for each node, in the order of computation.
    """

    facts: Sequence[str]
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self, title: str) -> str:
        """Return the table as aligned plain text, numbers at the right."""
        table = [list(self.columns), *(list(row) for row in self.rows)]
        widths = [max(len(row[i]) for row in table) for i in range(len(self.columns))]
        right = [all(_is_number(row[i]) for row in self.rows) for i in range(len(self.columns))]
        lines = [
            "  ".join(
                cell.rjust(width) if to_right else cell.ljust(width)
                for cell, width, to_right in zip(row, widths, right, strict=True)
            ).rstrip()
            for row in table
        ]
        rule = "-" * max(map(len, lines))
        return "\n".join([f"{title}: {', '.join(self.facts)}", rule, lines[0], rule, *lines[1:]])

    def html(self, title: str) -> str:
        """Return the table as HTML, for notebooks."""

        def row(cells: Sequence[str], tag: str) -> str:
            style = ' style="text-align: left"'
            return "".join(f"<{tag}{style}>{escape(cell)}</{tag}>" for cell in cells)

        body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in self.rows)
        return (
            f"<div><p><strong>{escape(title)}</strong>: {escape(', '.join(self.facts))}</p>"
            f"<table><thead><tr>{row(self.columns, 'th')}</tr></thead>"
            f"<tbody>{body}</tbody></table></div>"
        )


def _is_number(text: str) -> bool:
    return text.replace(",", "").isdigit()


class Part:
    """A dataclass that holds arrays; its repr is one line that shows shapes instead of values."""

    def __repr__(self) -> str:
        """Return one line of at most 100 characters."""
        assert dataclasses.is_dataclass(self)
        fields = ", ".join(
            f"{f.name}={_brief(getattr(self, f.name))}" for f in dataclasses.fields(self)
        )
        return shortened(f"{type(self).__name__}({fields})")


def _brief(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"<{value.dtype} {'x'.join(map(str, value.shape)) or 'scalar'}>"
    if isinstance(value, Part):
        return type(value).__name__
    if isinstance(value, tuple):
        return f"({', '.join(_brief(item) for item in value)})"
    return shortened(repr(value), 40)


class Representation(Part):
    """A whole network in one of its representations."""

    def summary(self) -> Summary:
        """Return the nodes of the network with their shapes and sizes, as a table."""
        raise NotImplementedError

    def save(self, path: Path | str) -> Path:
        """Write the network as one ``.safetensors`` file; see :func:`lmu_deploy.save`.

        Parameters
        ----------
        path : path

        Returns
        -------
        path
            The file that was written.

        Raises
        ------
        InputError
            When `path` cannot be written.
        """
        from lmu_deploy.core import files  # only here: importing a target loads no file library

        files.save(self, path)
        return Path(path)

    def fingerprint(self) -> str:
        """Return the SHA-256 of every number; networks that compute the same have the same."""
        from lmu_deploy.core import files

        return files.fingerprint(self)

    def __repr__(self) -> str:
        """Return one line of at most 100 characters."""
        return shortened(f"{type(self).__name__}({', '.join(self.summary().facts)})")

    def __str__(self) -> str:
        """Return the table of nodes, shapes and sizes."""
        return self.summary().text(type(self).__name__)

    def _repr_html_(self) -> str:
        """Return the table of nodes for notebooks."""
        return self.summary().html(type(self).__name__)
