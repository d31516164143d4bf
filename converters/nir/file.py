"""Read and write NIR graphs as HDF5 files, and the importer of NIR files.

Files are written atomically and read in a sandboxed subprocess.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nir
import numpy as np

from converters.importers import Sniff
from converters.nir.convert import from_nir, refuse_damage
from converters.sandbox import read_in_sandbox
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import atomic_write
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.network import LMUNetwork
from lmu_deploy.core.spiking.network import SpikingNetwork

_ROOT = "node"


def write_nir(graph: nir.NIRGraph, path: Path | str) -> None:
    """Write a graph in the file format of the NIR library.

    Raises
    ------
    InputError
        When `path` cannot be written. No partial file is left.
    """
    with atomic_write(path) as temporary:
        try:
            nir.write(temporary, graph)
        except OSError as error:
            raise InputError(f"cannot write {path}: {error}; give another place.") from error


def read_nir(path: Path | str) -> Network | LMUNetwork | SpikingNetwork:
    """Read a network from a NIR file that lmu_deploy wrote.

    Parameters
    ----------
    path : path

    Raises
    ------
    InputError
        When there is no such file, or it is not a NIR file, was written by another program, is
        damaged, or contains something that is not allowed (see :mod:`converters.sandbox.hdf5`).
    """
    contents = read_in_sandbox("nir", path)
    try:
        return from_nir(_build(_nest(contents.arrays, contents.header)))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _nest(arrays: dict[str, np.ndarray], header: dict[str, Any]) -> dict[str, Any]:
    """Return the nested groups of the file."""
    tree: dict[str, Any] = {}
    for where, value in {**header["texts"], **header["edges"], **arrays}.items():
        *groups, name = where.split("/")
        inside = tree
        for group in groups:
            inside = inside.setdefault(group, {})
        inside[name] = value
    return tree


def _build(tree: dict[str, Any]) -> nir.NIRGraph:
    """Build the graph; nested graphs are refused."""
    root = tree.get(_ROOT)
    if not isinstance(root, dict) or root.get("type") != "NIRGraph":
        raise InputError("it has no NIR graph; export it again.")
    with refuse_damage():
        nodes = {name: _node(fields) for name, fields in root["nodes"].items()}
        edges = [(str(a), str(b)) for a, b in root["edges"]]
        metadata = {name: _scalar(value) for name, value in root.get("metadata", {}).items()}
        return nir.NIRGraph(nodes, edges, metadata=metadata)


def _node(fields: dict[str, Any]) -> nir.NIRNode:
    if fields["type"] == "NIRGraph":
        raise InputError("the NIR graph has a nested graph, which lmu_deploy never writes.")
    fields = dict(fields)
    metadata = fields.pop("metadata", {})
    node = nir.dict2NIRNode(fields)
    node.metadata = {name: _scalar(value) for name, value in metadata.items()}
    return node


def _scalar(value: Any) -> Any:
    return value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value


class NIRImporter:
    """`.nir` files that `lmu-deploy export` wrote."""

    name = "nir"
    reads = "nir: .nir that lmu-deploy export wrote"

    def recognizes(self, sniff: Sniff) -> bool:
        """Return whether the file is an HDF5 file with a NIR graph."""
        return sniff.is_nir

    def read(self, path: Path, architecture: Path | None, options: dict[str, str]) -> Network:
        """Read a float network; there are no options."""
        if architecture is not None or options:
            raise InputError("a NIR file is complete; leave out --architecture and --option.")
        network = read_nir(path)
        if isinstance(network, LMUNetwork):
            network = Network.from_layers(network)
        if not isinstance(network, Network):
            raise InputError(
                f"{path} has a SpikingNetwork, and import returns float networks; read it with "
                "converters.nir.read_nir."
            )
        return network
