"""Networks from the files of other programs: which importers there are, and which file is whose.

Importers register by the entry-point group ``lmu_deploy.importers``; a name leads to a class with
`name`, `reads`, `recognizes` and `read`, as :class:`Importer` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from converters.formats import Sniff
from lmu_deploy.core.errors import InputError, MissingDependencyError
from lmu_deploy.core.network import LMUNetwork
from lmu_deploy.core.plugins import make_plugin, plugin_names

GROUP = "lmu_deploy.importers"


@runtime_checkable
class Importer(Protocol):
    """Something that reads one family of files.

    Attributes
    ----------
    name : str
        As it is registered.
    reads : str
        What it reads, for a person.
    """

    name: str
    reads: str

    def recognizes(self, sniff: Sniff) -> bool:
        """Whether a file looks like one of this family; it is not parsed for that."""

    def read(self, path: Path, architecture: Path | None, options: dict[str, str]) -> LMUNetwork:
        """Read a network.

        Parameters
        ----------
        path : path
        architecture : path, optional
            A file that says what the weights do not.
        options : dict of str to str
            The same, by name.

        Raises
        ------
        InputError
            When the file is damaged or cannot be represented; everything is named at once.
        """


def importer_names() -> list[str]:
    """Names of all importers that are installed, sorted; nothing is imported."""
    return plugin_names(GROUP)


def get_importer(name: str) -> Importer:
    """Import and make the importer called `name`.

    Raises
    ------
    InputError
        When there is none of that name (the valid names are listed).
    MissingDependencyError
        When it cannot be imported.
    """
    importer: Importer = make_plugin(GROUP, name, "importer", asked="format")
    return importer


def import_file(
    path: Path | str,
    format: str | None = None,  # noqa: A002 (the option's own name)
    *,
    architecture: Path | str | None = None,
    options: Mapping[str, str] | None = None,
    task: str | None = None,
) -> LMUNetwork:
    """Read a network from a file of another program.

    Parameters
    ----------
    path : path
    format : str, optional
        Name of an importer; recognized from the file when absent.
    architecture : path, optional
        A file that says what a file of bare weights does not.
    options : mapping of str to str, optional
        The same, by name; which names there are depends on the importer.
    task : str, optional
        Task to record in the network.

    Raises
    ------
    InputError
        When the file is of no known format, damaged, or cannot be represented.
    """
    path = Path(path)
    sniff = Sniff(path)
    importer = _recognize(sniff) if format is None else get_importer(format)
    described = None if architecture is None else Path(architecture)
    network = importer.read(path, described, dict(options or {}))
    return network if task is None else replace(network, task=task)


def _recognize(sniff: Sniff) -> Importer:
    importers = []
    for name in importer_names():
        with suppress(MissingDependencyError):  # another format's library is no matter here
            importers.append(get_importer(name))
    fitting = [importer for importer in importers if importer.recognizes(sniff)]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        known = "; ".join(importer.reads for importer in importers)
        raise InputError(f"{sniff.path} is of no format that can be imported. Known are: {known}.")
    names = ", ".join(importer.name for importer in fitting)
    raise InputError(f"{sniff.path} could be read as {names}; choose one with --format.")
