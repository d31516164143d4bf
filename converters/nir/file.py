"""NIR graphs as HDF5 files: written whole or not at all, read in a process of its own.

Our own NIR files, as the registry of importers knows them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nir
import numpy as np

from converters.formats import Sniff
from converters.nir.convert import damage_refused, from_nir
from converters.sandbox import read_in_sandbox
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import atomic_write
from lmu_deploy.core.network import LMUNetwork
from lmu_deploy.core.spiking.network import SpikingNetwork

_ROOT = "node"


def write_nir(graph: nir.NIRGraph, path: Path | str) -> None:
    """Write a graph as every library of NIR reads it.

    Raises
    ------
    InputError
        When `path` cannot be written. Nothing is left half-written.
    """
    with atomic_write(path) as temporary:
        try:
            nir.write(temporary, graph)
        except OSError as error:
            raise InputError(f"cannot write {path}: {error}; give another place.") from error


def read_nir(path: Path | str) -> LMUNetwork | SpikingNetwork:
    """Read a network from a NIR file that lmu_deploy wrote.

    Parameters
    ----------
    path : path

    Raises
    ------
    InputError
        When there is no such file, or it is no NIR file, another program's, damaged, or asks for
        what is not allowed (see :mod:`converters.sandbox.hdf5`).
    """
    contents = read_in_sandbox("nir", path)
    try:
        return from_nir(_build(_nest(contents.arrays, contents.header)))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _nest(arrays: dict[str, np.ndarray], header: dict[str, Any]) -> dict[str, Any]:
    """Give the tree of groups whose leaves lie in the file under the root."""
    tree: dict[str, Any] = {}
    for where, value in {**header["texts"], **header["edges"], **arrays}.items():
        *groups, name = where.split("/")
        inside = tree
        for group in groups:
            inside = inside.setdefault(group, {})
        inside[name] = value
    return tree


def _build(tree: dict[str, Any]) -> nir.NIRGraph:
    """Make the graph; a graph in a graph is none of ours."""
    root = tree.get(_ROOT)
    if not isinstance(root, dict) or root.get("type") != "NIRGraph":
        raise InputError("it holds no NIR graph; export it again.")
    with damage_refused():
        nodes = {name: _node(fields) for name, fields in root["nodes"].items()}
        edges = [(str(a), str(b)) for a, b in root["edges"]]
        metadata = {name: _scalar(value) for name, value in root.get("metadata", {}).items()}
        return nir.NIRGraph(nodes, edges, metadata=metadata)


def _node(fields: dict[str, Any]) -> nir.NIRNode:
    if fields["type"] == "NIRGraph":
        raise InputError("a graph lies in the NIR graph, which lmu_deploy never writes.")
    fields = dict(fields)
    kept = fields.pop("metadata", {})
    node = nir.dict2NIRNode(fields)
    node.metadata = {name: _scalar(value) for name, value in kept.items()}
    return node


def _scalar(value: Any) -> Any:
    return value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value


class NIRImporter:
    """`.nir` files that `lmu-deploy export` wrote."""

    name = "nir"
    reads = "nir: .nir that lmu-deploy export wrote"

    def recognizes(self, sniff: Sniff) -> bool:
        """Whether the file is an HDF5 file with a graph of NIR."""
        return sniff.is_nir

    def read(self, path: Path, architecture: Path | None, options: dict[str, str]) -> LMUNetwork:
        """Read a float network; there is nothing to choose."""
        if architecture is not None or options:
            raise InputError("a NIR file says it all; leave --architecture and --option away.")
        network = read_nir(path)
        if not isinstance(network, LMUNetwork):
            raise InputError(
                f"{path} holds a SpikingNetwork, and import gives float networks; read it with "
                "converters.nir.read_nir."
            )
        return network
