"""Networks to NIR graphs and back.

The graph of an :class:`LMUNetwork` is described in :mod:`converters.nir.plan`, that of a
:class:`SpikingNetwork` in :mod:`converters.nir.spiking`. In a float graph the nodes are the truth:
weights that another program changed come back changed. In a spiking graph nothing may be changed,
since a calibration fits the whole chip.

Whatever a damaged graph makes of NIR's library, NumPy and our own reading, as one InputError.

Only what data can lead to is taken for damage: a name that does not exist, or a library that
cannot be imported, is a fault of the program and is shown as one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import nir
import numpy as np

from converters.nir.floats import carried_arrays, float_nodes
from converters.nir.plan import STEPS_PER_TAU, Header, Stepping, read_header, write_header
from converters.nir.spiking import spiking_nodes, spiking_stepping
from converters.sandbox.limits import ARRAY_BYTES
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import from_tree, to_tree
from lmu_deploy.core.network import FLOAT_CLASSES, LMULayer, LMUNetwork
from lmu_deploy.core.spiking.network import SPIKING_CLASSES, SpikingNetwork

_OF_DATA = (
    ArithmeticError,
    AssertionError,  # with which the library checks
    AttributeError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
)


@contextmanager
def damage_refused() -> Iterator[None]:
    """Turn what data can lead to into an InputError; others are left as they are."""
    try:
        yield
    except _OF_DATA as error:
        raise InputError(
            f"the NIR graph is damaged ({type(error).__name__}); export it again."
        ) from error


_ROUNDING = 1e-5


def to_nir(
    network: LMUNetwork | SpikingNetwork,
    *,
    dt: float | None = None,
    tau: float | None = None,
    integrator: str = "euler",
) -> nir.NIRGraph:
    """Turn a network into a graph of NIR.

    A float memory is leaky integrators (LI) with recurrent weights by the discrete Principle 3,
    and so equals the network's own at every step of a simulator that steps as `integrator` says by
    `dt`. tanh, relu and hard-tanh units, LSTM layers, and what follows them up to the next memory
    are not in the graph (NIR has no node for them); its Output then gives the memory's states m,
    channel by channel, and :func:`left_to_host` names what is missing. A spiking network's graph
    holds its memories, from channels u to states m.

    Parameters
    ----------
    network : LMUNetwork or SpikingNetwork
    dt : float, optional
        Seconds that a step of the network lasts; 0.001 if absent. A spiking network has its own.
    tau : float, optional
        Time constant of the leaky integrators that hold a float memory, seconds; 8 dt if absent.
        A spiking network has its own.
    integrator : {"euler", "exponential"}
        How the simulator steps, see :mod:`converters.nir.plan`. Norse and snnTorch take Euler
        steps.

    Returns
    -------
    nir.NIRGraph
        With all that :func:`from_nir` needs in its metadata.

    Raises
    ------
    InputError
        When nothing of the network can be in a graph, the spiking neurons are none that NIR has,
        a matrix would be too large, or a value is out of range.
    """
    if not isinstance(network, LMUNetwork | SpikingNetwork):
        raise InputError(
            f"NIR takes a float or a spiking network, not {type(network).__name__}; give the float "
            "network that it was made from."
        )
    tree, tensors = to_tree(network)
    if isinstance(network, SpikingNetwork):
        if dt is not None or tau is not None:
            raise InputError("a spiking network has its own dt and tau; leave them away.")
        stepping = spiking_stepping(network, integrator)
        nodes, edges = spiking_nodes(network, stepping)
        return _graph(nodes, edges, write_header("spiking", stepping, tree, tensors, ()))
    dt = 1e-3 if dt is None else dt
    stepping = Stepping(integrator, dt, STEPS_PER_TAU * dt if tau is None else tau)
    nodes, edges = float_nodes(network, stepping)
    orders = {
        number: layer.memory.order
        for number, layer in enumerate(network.layers)
        if isinstance(layer, LMULayer)
    }
    carried = set(carried_arrays(nodes, orders, stepping)) & set(tensors)
    return _graph(nodes, edges, write_header("float", stepping, tree, tensors, carried))


def from_nir(graph: nir.NIRGraph) -> LMUNetwork | SpikingNetwork:
    """Give the network that `graph` was made from.

    Parameters
    ----------
    graph : nir.NIRGraph
        One of :func:`to_nir`. Other programs may have changed weights of a float network.

    Returns
    -------
    LMUNetwork or SpikingNetwork
        Equal to the last bit where the graph is unchanged.

    Raises
    ------
    InputError
        When the graph is another program's, its wiring was changed, or it is damaged.
    """
    with damage_refused():
        header = read_header(graph)
        if header.kind == "spiking":
            spiking = from_tree(header.tree, header.arrays, SPIKING_CLASSES)
            if isinstance(spiking, SpikingNetwork):
                again = to_nir(spiking, integrator=header.stepping.integrator)
                _check_same(graph, again, exactly=True)
                return spiking
        else:
            network = from_tree(header.tree, _tensors(graph, header), FLOAT_CLASSES)
            if isinstance(network, LMUNetwork):
                again = to_nir(network, **vars(header.stepping))
                _check_same(graph, again, exactly=False)
                return network
    raise InputError("the NIR graph holds no whole network; export it again.")


def _graph(
    nodes: dict[str, nir.NIRNode], edges: list[tuple[str, str]], metadata: dict[str, Any]
) -> nir.NIRGraph:
    graph = nir.NIRGraph(nodes, edges, metadata=metadata)
    if (size := _bytes(graph.to_dict())) > ARRAY_BYTES:
        raise InputError(
            f"the graph would hold {size} bytes of arrays, more than the {ARRAY_BYTES} that are "
            "read back; export a network with fewer states, or as onnx."
        )
    return graph


def _bytes(value: Any) -> int:
    """Size of all arrays in nested dictionaries."""
    if isinstance(value, dict):
        return sum(_bytes(item) for item in value.values())
    return value.nbytes if isinstance(value, np.ndarray) else 0


def _tensors(graph: nir.NIRGraph, header: Header) -> dict[str, np.ndarray]:
    """Arrays of the tree, from the nodes and from the metadata."""
    layers = header.tree["fields"]["layers"]
    orders = {
        number: int(layer["fields"]["memory"]["fields"]["order"])
        for number, layer in enumerate(layers)
        if "memory" in layer["fields"]
    }
    found = dict(header.arrays)
    for name, array in carried_arrays(graph.nodes, orders, header.stepping).items():
        if name in header.dtypes:
            found[name] = np.ascontiguousarray(array, dtype=header.dtypes[name])
    return found


def _check_same(graph: nir.NIRGraph, again: nir.NIRGraph, exactly: bool) -> None:
    """Compare with the graph that the network read from it would give.

    Raises
    ------
    InputError
        When nodes, edges, or what nodes hold besides rounding differ: the network would not be
        what the graph computes.
    """
    changed = set(graph.nodes) ^ set(again.nodes)
    for name in set(graph.nodes) & set(again.nodes):
        if not _same_node(graph.nodes[name], again.nodes[name], exactly):
            changed.add(name)
    wiring = sorted(map(tuple, graph.edges)) != sorted(map(tuple, again.edges))
    if changed or wiring:
        what = f"nodes {', '.join(sorted(changed))}" if changed else "edges"
        raise InputError(
            f"{what} of this NIR graph were changed into what lmu_deploy cannot read; export the "
            "network again."
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
