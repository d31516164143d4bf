"""Import networks from files of other programs: the registry of importers.

Importers register in the entry-point group ``lmu_deploy.importers``; each entry is a class with the
attributes and methods of :class:`Importer`. The module also defines what the importers share: the
limits on the size of an imported network and the error that lists every problem at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from converters.formats import Sniff, refuse_foreign
from lmu_deploy.core.errors import InputError, MissingDependencyError
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.graph.transforms import prune
from lmu_deploy.core.loading import as_graph
from lmu_deploy.core.network import LMUNetwork
from lmu_deploy.core.plugins import make_plugin, plugin_names

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
