"""Convert networks to NIR graphs and back, read and write them as files; the importer of NIR files.

The graph of a chain of LMU layers and that of a :class:`SpikingNetwork` are described in
:mod:`converters.nir.layers`, that of any other :class:`Network` in :mod:`converters.nir.graphs`. In
a float graph the nodes are authoritative: weights that another program changed are read with their
new values. In a spiking graph nothing may be changed, since its calibration is for the whole chip.

Files are HDF5 as the NIR library writes them. They are written atomically and read in a sandboxed
subprocess.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import nir
import numpy as np

from converters.importers import Sniff
from converters.nir.graphs import write_graph
from converters.nir.layers import carried_arrays, float_nodes, spiking_nodes, spiking_stepping
from converters.nir.plan import STEPS_PER_TAU, Header, Stepping, read_header, write_header
from converters.sandbox import read_in_sandbox
from converters.sandbox.process import ARRAY_BYTES
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import atomic_write, from_tree, to_tree
from lmu_deploy.core.graph.network import GRAPH_CLASSES, Network
from lmu_deploy.core.graph.transforms import as_layers
from lmu_deploy.core.network import FLOAT_CLASSES, LMULayer, LMUNetwork, default_names
from lmu_deploy.core.spiking.network import SPIKING_CLASSES, SpikingNetwork

_DATA_ERRORS = (
    ArithmeticError,
    AssertionError,  # the library checks with assert
    AttributeError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
)


@contextmanager
def refuse_damage() -> Iterator[None]:
    """Turn errors that a damaged graph causes in any library into an InputError.

    Only errors that data can cause are caught: a missing name or library is a fault of the program.
    """
    try:
        yield
    except _DATA_ERRORS as error:
        raise InputError(
            f"the NIR graph is damaged ({type(error).__name__}); export it again."
        ) from error


_ROUNDING = 1e-5


def to_nir(
    network: Network | LMUNetwork | SpikingNetwork,
    *,
    dt: float | None = None,
    tau: float | None = None,
    integrator: str = "euler",
) -> nir.NIRGraph:
    """Convert a network to a NIR graph.

    A float memory becomes leaky integrators (LI) with recurrent weights by the discrete Principle
    3, so it equals the network's own at every step of a simulator with steps of `dt` by the rule
    `integrator`. tanh, relu and hard-tanh units, LSTM layers, and everything after them up to the
    next memory are not in the graph, since NIR has no node for them. The Output is then the
    memory's states m, channel by channel, and :func:`left_to_host` lists the missing parts. The
    graph of a spiking network has its memories, from channels u to states m.

    A network that is no chain of LMU and LSTM layers, or whose nodes have names by the user, is
    written node by node where NIR has nodes for all of its operators; see
    :mod:`converters.nir.graphs`.

    Parameters
    ----------
    network : Network, LMUNetwork or SpikingNetwork
    dt : float, optional
        Duration of a step of the network in seconds, by default 0.001. A spiking network has its
        own.
    tau : float, optional
        Time constant of the leaky integrators of a float memory in seconds, by default 8 dt. A
        spiking network has its own.
    integrator : {"euler", "exponential"}
        Integration rule of the simulator, see :mod:`converters.nir.plan`. Norse and snnTorch use
        Euler steps.

    Returns
    -------
    nir.NIRGraph
        Its metadata contains everything that :func:`from_nir` needs.

    Raises
    ------
    InputError
        When no part of the network can be in a graph, NIR has no node for an operator of a network
        that is no chain (all are named), NIR does not have the spiking neurons, a matrix would be
        too large, or a value is out of range.
    """
    if isinstance(network, SpikingNetwork):
        if dt is not None or tau is not None:
            raise InputError("a spiking network has its own dt and tau; leave them out.")
        stepping = spiking_stepping(network, integrator)
        nodes, edges = spiking_nodes(network, stepping)
        header = write_header("spiking", stepping, *to_tree(network), ())
        return _graph(nodes, edges, header)
    if not isinstance(network, Network | LMUNetwork):
        raise InputError(
            f"NIR takes a float or a spiking network, not {type(network).__name__}; give the float "
            "network that it was made from."
        )
    dt = 1e-3 if dt is None else dt
    stepping = Stepping(integrator, dt, STEPS_PER_TAU * dt if tau is None else tau)
    if isinstance(network, LMUNetwork):
        return _layers(network, stepping)
    chain = _as_chain(network, stepping)
    return _operators(network, stepping) if chain is None else _layers(chain, stepping)


def _layers(network: LMUNetwork, stepping: Stepping) -> nir.NIRGraph:
    """Return the graph of a chain of layers, with the names of these and of the readout."""
    tree, tensors = to_tree(network)
    nodes, edges = float_nodes(network, stepping)
    orders = {
        number: layer.memory.order
        for number, layer in enumerate(network.layers)
        if isinstance(layer, LMULayer)
    }
    carried = set(carried_arrays(nodes, network.node_names, orders, stepping)) & set(tensors)
    header = write_header("float", stepping, tree, tensors, carried, network.names)
    return _graph(nodes, edges, header)


def _as_chain(network: Network, stepping: Stepping) -> LMUNetwork | None:
    """Return the layers of a network, if it is a chain that cannot be written node by node.

    A network that was made from layers without names is written as layers in any case.
    """
    try:
        layers = as_layers(network, "export to nir")
    except InputError:
        return None
    if Network.from_layers(replace(layers, names=())).fingerprint() == network.fingerprint():
        return layers
    try:
        write_graph(network, stepping)
    except InputError:
        return layers
    return None


def _operators(network: Network, stepping: Stepping) -> nir.NIRGraph:
    """Return the graph of a network, node by node."""
    tree, tensors = to_tree(network)
    written = write_graph(network, stepping)
    header = write_header("graph", stepping, tree, tensors, written.places)
    return _graph(written.nodes, written.edges, header)


def from_nir(graph: nir.NIRGraph) -> Network | LMUNetwork | SpikingNetwork:
    """Convert a NIR graph of :func:`to_nir` back to the network.

    Parameters
    ----------
    graph : nir.NIRGraph
        Other programs may have changed the weights of a float network.

    Returns
    -------
    Network, LMUNetwork (a chain of layers without names) or SpikingNetwork
        Bit-identical where the graph is unchanged.

    Raises
    ------
    InputError
        When the graph was made by another program, its edges were changed, or it is damaged.
    """
    with refuse_damage():
        header = read_header(graph)
        if header.kind == "spiking":
            spiking = from_tree(header.tree, header.arrays, SPIKING_CLASSES)
            if isinstance(spiking, SpikingNetwork):
                again = to_nir(spiking, integrator=header.stepping.integrator)
                _check_same(graph, again, exactly=True)
                return spiking
        elif header.kind == "graph":
            whole = from_tree(header.tree, _placed(graph, header), GRAPH_CLASSES)
            if isinstance(whole, Network):
                _check_same(graph, _operators(whole, header.stepping), exactly=False)
                return whole
        else:
            network = from_tree(header.tree, _tensors(graph, header), FLOAT_CLASSES)
            if isinstance(network, LMUNetwork):
                network = replace(network, names=header.names)  # version 0.1 has them there alone
                _check_same(graph, _layers(network, header.stepping), exactly=False)
                return Network.from_layers(network) if header.names else network
    raise InputError("the NIR graph has no complete network; export it again.")


def _graph(
    nodes: dict[str, nir.NIRNode], edges: list[tuple[str, str]], metadata: dict[str, Any]
) -> nir.NIRGraph:
    graph = nir.NIRGraph(nodes, edges, metadata=metadata)
    if (size := _bytes(graph.to_dict())) > ARRAY_BYTES:
        raise InputError(
            f"the graph would have {size} bytes of arrays, more than the {ARRAY_BYTES} that can be "
            "imported; export a network with fewer states, or as onnx."
        )
    return graph


def _bytes(value: Any) -> int:
    """Return the size of all arrays in nested dictionaries, in bytes."""
    if isinstance(value, dict):
        return sum(_bytes(item) for item in value.values())
    return value.nbytes if isinstance(value, np.ndarray) else 0


def _tensors(graph: nir.NIRGraph, header: Header) -> dict[str, np.ndarray]:
    """Return the arrays of the tree, from the nodes and from the metadata."""
    layers = header.tree["fields"]["layers"]
    orders = {
        number: int(layer["fields"]["memory"]["fields"]["order"])
        for number, layer in enumerate(layers)
        if "memory" in layer["fields"]
    }
    found = dict(header.arrays)
    names = header.names or default_names(len(layers))
    if len(names) != len(layers) + 1:
        raise InputError("the names in this NIR graph are damaged; export it again.")
    for name, array in carried_arrays(graph.nodes, names, orders, header.stepping).items():
        if name in header.dtypes:
            found[name] = np.ascontiguousarray(array, dtype=header.dtypes[name])
    return found


def _placed(graph: nir.NIRGraph, header: Header) -> dict[str, np.ndarray]:
    """Return the arrays of the tree of a graph of operators."""
    found = dict(header.arrays)
    for path, (name, field, axes) in header.places.items():
        array = np.asarray(getattr(graph.nodes[name], field)).transpose(np.argsort(axes))
        found[path] = np.ascontiguousarray(array, dtype=header.dtypes[path])
    return found


def _check_same(graph: nir.NIRGraph, again: nir.NIRGraph, exactly: bool) -> None:
    """Compare a graph with the graph of the network that was read from it.

    Raises
    ------
    InputError
        When nodes, edges, or values beyond rounding differ: the network would not compute what
        the graph does.
    """
    changed = set(graph.nodes) ^ set(again.nodes)
    for name in set(graph.nodes) & set(again.nodes):
        if not _same_node(graph.nodes[name], again.nodes[name], exactly):
            changed.add(name)
    edges_changed = sorted(map(tuple, graph.edges)) != sorted(map(tuple, again.edges))
    if changed or edges_changed:
        what = f"nodes {', '.join(sorted(changed))}" if changed else "edges"
        raise InputError(
            f"{what} of this NIR graph were changed so that lmu_deploy cannot read them; export "
            "the network again."
        )


def _same_node(node: Any, other: Any, exactly: bool) -> bool:
    if type(node) is not type(other):
        return False
    ours, theirs = node.to_dict(), other.to_dict()
    ours.pop("metadata"), theirs.pop("metadata")
    if set(ours) != set(theirs):
        return False
    for key, value in ours.items():
        a, b = np.asarray(value), np.asarray(theirs[key])
        if a.shape != b.shape or a.dtype.kind not in "fiuU" or b.dtype.kind != a.dtype.kind:
            return False
        tolerance = 0.0 if exactly or a.dtype.kind != "f" else _ROUNDING
        if a.dtype.kind == "f":
            if not np.all(np.abs(a - b) <= tolerance * max(1.0, float(np.abs(b).max()))):
                return False
        elif not np.array_equal(a, b):
            return False
    return True


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
