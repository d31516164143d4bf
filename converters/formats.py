"""Recognize file formats from a file's first bytes, its archive entries and byte strings in it.

Importers use :class:`Sniff` to decide whether a file is theirs, without parsing it.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from converters.sandbox import limits
from converters.sandbox.process import check_file

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
NIR_GRAPH = b"NIRGraph"
"""Type of the root node, which every NIR file contains as a text."""
_BLOCK = 2**20


@dataclass(frozen=True)
class Sniff:
    """Properties of a file that can be read without parsing it.

    Attributes
    ----------
    path : path
    """

    path: Path

    def __post_init__(self) -> None:
        check_file(self.path)

    @cached_property
    def head(self) -> bytes:
        """First 64 bytes."""
        with self.path.open("rb") as file:
            return file.read(64)

    @cached_property
    def entries(self) -> tuple[str, ...]:
        """Names of the entries if the file is a ZIP archive; otherwise empty."""
        if not self.head.startswith(b"PK"):
            return ()
        try:
            with zipfile.ZipFile(self.path) as archive:
                return tuple(archive.namelist()[: limits.OBJECTS])
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
            return ()

    @cached_property
    def is_nir(self) -> bool:
        """Whether the file is an HDF5 file with a NIR graph."""
        return self.head.startswith(HDF5_SIGNATURE) and self.holds(NIR_GRAPH)

    def holds(self, text: bytes) -> bool:
        """Return whether the bytes of `text` occur anywhere in the file."""
        tail = b""
        with self.path.open("rb") as file:
            while block := file.read(_BLOCK):
                if text in tail + block:
                    return True
                tail = block[-len(text) :]
        return False
