"""Recognize file formats from a file's first bytes, its archive entries and byte strings in it.

Importers use :class:`Sniff` to decide whether a file is theirs, without parsing it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from converters.sandbox import limits
from converters.sandbox.process import check_file
from lmu_deploy.core.errors import InputError

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


def refuse_foreign(path: Path) -> None:
    """Raise InputError for what is recognized by its content and cannot be imported.

    The sentence says what the file is, and how to get from there to one that can be imported.
    """
    if path.is_dir():
        saved = (path / "saved_model.pb").is_file() or (path / "keras_metadata.pb").is_file()
        raise InputError(
            f"{path} is a SavedModel folder of TensorFlow, which holds operations instead of "
            "layers; load it in the program that made it and write model.save('model.keras')."
            if saved
            else f"{path} is a folder; name the file that holds the network."
        )
    sniff = Sniff(path)
    for recognizes, sentence in _FOREIGN:
        if recognizes(sniff):
            raise InputError(f"{path} is {sentence}.")


def _is_lava_dl(sniff: Sniff) -> bool:
    """Whether an HDF5 file has the layout of lava-dl: layers by number, with neurons."""
    other = sniff.is_nir or sniff.holds(b"layer_names")
    if not sniff.head.startswith(HDF5_SIGNATURE) or other:
        return False
    return all(sniff.holds(name) for name in (b"layer", b"neuron", b"type"))


def _is_old_torch(sniff: Sniff) -> bool:
    """Whether a file begins with the number that torch wrote before its archives."""
    return _OLD_TORCH in sniff.head[:32]


_OLD_TORCH = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
_FOREIGN: tuple[tuple[Callable[[Sniff], bool], str], ...] = (
    (
        lambda sniff: sniff.head.startswith(b"version https://git-lfs"),
        "a pointer of Git LFS in place of the file itself; run git lfs pull in its repository",
    ),
    (
        _is_old_torch,
        "a file of torch before 1.6; load it with torch.load and write it again with "
        "torch.save(model.state_dict(), 'new.pt')",
    ),
    (
        lambda sniff: sniff.head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"),
        "a pickle of Python, which could run any code when it is read; load it in the program that "
        "made it and write the weights with torch.save(model.state_dict(), 'new.pt')",
    ),
    (
        lambda sniff: sniff.is_nir and not sniff.holds(b"lmu_deploy"),
        "a NIR graph that was not made by lmu_deploy, and no other graphs can be read; import the "
        "network from the program that trained it",
    ),
    (
        _is_lava_dl,
        "a lava-dl network of spiking neurons, which holds no LMU; import the float network that "
        "it was trained from",
    ),
)
"""What is recognized, and the sentence about it."""
