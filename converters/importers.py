"""Import networks from files of other programs: the registry of importers.

Importers register in the entry-point group ``lmu_deploy.importers``; each entry is a class with the
attributes and methods of :class:`Importer`. The module also defines what the importers share:
:class:`Sniff`, which recognizes a format from a file's first bytes, its archive entries and byte
strings in it, without parsing it; the limits on the size of an imported network; and the error that
lists every problem at once.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

from converters.sandbox import process
from converters.sandbox.process import check_file
from lmu_deploy.core.errors import InputError, MissingDependencyError
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.graph.transforms import prune
from lmu_deploy.core.loading import as_graph
from lmu_deploy.core.network import LMUNetwork
from lmu_deploy.core.plugins import make_plugin, plugin_names

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
                return tuple(archive.namelist()[: process.OBJECTS])
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

    The sentence names the kind of the file, and how to make one from it that can be imported.
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
    """Return whether an HDF5 file has the layout of lava-dl: layers by number, with neurons."""
    other = sniff.is_nir or sniff.holds(b"layer_names")
    if not sniff.head.startswith(HDF5_SIGNATURE) or other:
        return False
    return all(sniff.holds(name) for name in (b"layer", b"neuron", b"type"))


def _is_checkpoint(sniff: Sniff) -> bool:
    """Return whether a file is the index or a shard that `save_weights` of TensorFlow writes."""
    name = sniff.path.name
    return name == "checkpoint" or name.endswith(".index") or ".data-0000" in name


def _is_own(sniff: Sniff) -> bool:
    """Return whether a .safetensors file holds a representation of lmu_deploy."""
    return sniff.head[8:9] == b"{" and sniff.holds(b'"lmu_deploy":')


def _is_old_torch(sniff: Sniff) -> bool:
    """Return whether a file begins with the number that torch wrote before its archives."""
    return _OLD_TORCH in sniff.head[:32]


_OLD_TORCH = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
_FOREIGN: tuple[tuple[Callable[[Sniff], bool], str], ...] = (
    (
        _is_own,
        "a file of lmu_deploy already and needs no import; give it to the other commands as it is",
    ),
    (
        lambda sniff: sniff.head[4:8] == b"TFL3",
        "a model of TensorFlow Lite, which holds operations instead of layers; load the model it "
        "was made from and write model.save('model.keras')",
    ),
    (
        _is_checkpoint,
        "part of a checkpoint of TensorFlow, which holds weights without layers; build the model, "
        "call model.load_weights, and write model.save('model.keras')",
    ),
    (
        lambda sniff: sniff.head.lstrip()[:1] == b"{" and sniff.holds(b"class_name"),
        "the configuration of a model without weights; import the file of weights and give this "
        "one with --architecture",
    ),
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
"""Tests of a file, and the sentence about files that pass."""


GROUP = "lmu_deploy.importers"

ASSUMED, LEFT_OUT = "assumed", "left out"
"""Keys of `provenance` under which an importer records what the file does not say (the activation,
the order of inputs, when the network answers), and what of the file is not in the network."""

ANNOUNCED = (ASSUMED, LEFT_OUT, "input", "output", "stateful")
"""Keys of `provenance` that an import logs: the form of input and output is recorded under their
names where it is not that of the file."""

MOST_ORDER = 1024
"""Largest order that is imported: the memory's matrices take a time that grows with its cube."""

MOST_STATES = 4096
"""Largest sum of the orders of all memories, however small the file is."""

_MOST_PROBLEMS = 20


def raise_problems(problems: list[str], what: str) -> None:
    """Raise one error that lists all problems; do nothing if there are none.

    Parameters
    ----------
    problems : list of str
        A clause for each; the first 20 are shown.
    what : str
        What failed, such as "the model cannot be imported".

    Raises
    ------
    InputError
        When there are problems.
    """
    if problems:
        shown = "; ".join(problems[:_MOST_PROBLEMS])
        more = len(problems) - _MOST_PROBLEMS
        raise InputError(f"{what}: {shown}{f'; and {more} more' if more > 0 else ''}.")


@runtime_checkable
class Importer(Protocol):
    """Reader of one family of files.

    Attributes
    ----------
    name : str
        Name under which it is registered.
    reads : str
        Description of the files that it reads, for messages.
    selects_output : bool, optional
        Whether `read` takes the option ``output``, because its files can have several outputs.
    """

    name: str
    reads: str

    def recognizes(self, sniff: Sniff) -> bool:
        """Return whether a file looks like one of this family, without parsing it."""

    def read(
        self, path: Path, architecture: Path | None, options: dict[str, str]
    ) -> Network | LMUNetwork:
        """Read a network, as a graph or as layers one behind the other.

        Parameters
        ----------
        path : path
        architecture : path, optional
            A file that describes what the weights do not.
        options : dict of str to str
            The same, by name.

        Raises
        ------
        InputError
            When the file is damaged or cannot be represented; all problems are listed.
        """


def importer_names() -> list[str]:
    """Return the names of all installed importers, sorted; no importer is imported."""
    return plugin_names(GROUP)


def get_importer(name: str) -> Importer:
    """Return the importer called `name`.

    Raises
    ------
    InputError
        When there is no importer of that name (the valid names are listed).
    MissingDependencyError
        When a library that it needs is not installed.
    """
    importer: Importer = make_plugin(GROUP, name, "importer", asked="format")
    return importer


def import_file(
    path: Path | str,
    format: str | None = None,  # noqa: A002 (the option's own name)
    *,
    architecture: Path | str | None = None,
    options: Mapping[str, str] | None = None,
    output: str | None = None,
    task: str | None = None,
) -> Network:
    """Read a network from a file of another program.

    Parameters
    ----------
    path : path
    format : str, optional
        Name of an importer; by default it is recognized from the file.
    architecture : path, optional
        A file that describes what a file of bare weights does not.
    options : mapping of str to str, optional
        The same, by name; the valid names depend on the importer.
    output : str, optional
        Name of one of several outputs, or of any node; what it does not need is left out.
    task : str, optional
        Task to record in the network.

    Raises
    ------
    InputError
        When the file is of an unknown format, damaged, or cannot be represented.
    """
    path = Path(path)
    refuse_foreign(path)
    sniff = Sniff(path)
    importer = _recognize(sniff) if format is None else get_importer(format)
    described = None if architecture is None else Path(architecture)
    given = dict(options or {})
    selects = getattr(importer, "selects_output", False)
    if output is not None and selects:
        given["output"] = output
    network: Network = as_graph(importer.read(path, described, given))
    if output is not None and not selects:
        network = replace(network, nodes=prune(network.nodes, output), output=output)
    return network if task is None else replace(network, task=task)


def _recognize(sniff: Sniff) -> Importer:
    importers = []
    for name in importer_names():
        with suppress(MissingDependencyError):  # the library of another format is not needed
            importers.append(get_importer(name))
    fitting = [importer for importer in importers if importer.recognizes(sniff)]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        known = "; ".join(importer.reads for importer in importers)
        raise InputError(f"{sniff.path} has no known format. These can be imported: {known}.")
    names = ", ".join(importer.name for importer in fitting)
    raise InputError(f"{sniff.path} could be read as {names}; choose one with --format.")
