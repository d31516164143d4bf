r"""Plan a NIR graph: which parts of a network it has, its metadata, and its integration rule.

**Parts.** NIR has nodes for linear maps and leaky integrators, and none for tanh, relu or hard-tanh
units or LSTM layers. So every memory and its encoders are in the graph; hidden units are if they
are linear and have no feedback, and the readout is if all of the last layer is. Consecutive layers
in the graph form a segment, which begins with an Input and ends with an Output. If it ends before
the network does, the Output is the states m of the last memory, from which the host continues.
Hidden units with feedback into their memory enter through the same Input after the features:
[x[t], h[t-1]].

**Metadata.** ``metadata["lmu_deploy"]`` is a JSON text with the format, the kind of network, the
integration rule, and the tree of `lmu_deploy.core.files.to_tree`. ``metadata["lmu_deploy_arrays"]``
has the arrays of the tree that are in no node, by name. Other entries are for human readers.

**Integration.** NIR's leaky integrator is :math:`\tau \dot v = -v + I` (Pedersen et al. 2024,
"Neuromorphic intermediate representation", Nature Communications 15, 8122). A simulator with steps
of dt keeps a share a of v in each step and adds 1 - a of I, whichever rule it uses, so the rule
determines the weights of a memory:

.. math:: v \leftarrow a\, v + (1 - a)\, I, \qquad
          a = 1 - dt / \tau \;\text{(euler)} \quad\text{or}\quad
          a = e^{-dt/\tau} \;\text{(exponential)}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import nir
import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.graph.transforms import as_layers
from lmu_deploy.core.network import LMULayer, LMUNetwork, LSTMLayer
from lmu_deploy.core.validation import check_choice, check_number


@dataclass(frozen=True)
class Segment:
    """Consecutive layers without a part on the host.

    Attributes
    ----------
    first, last : int
        Numbers of the first and the last layer, both inclusive.
    input, output : str
        Names of its Input and Output node.
    has_readout : bool
    """

    first: int
    last: int
    input: str
    output: str
    has_readout: bool


def is_whole(layer: LMULayer | LSTMLayer) -> bool:
    """Return whether NIR has nodes for all of a layer."""
    if isinstance(layer, LSTMLayer):
        return False
    hidden = layer.hidden
    if hidden is None:
        return True
    return (
        hidden.activation == "linear"
        and hidden.recurrent_kernel is None
        and layer.hidden_encoders is None
    )


def segments(network: LMUNetwork) -> list[Segment]:
    """Divide a network into segments.

    Raises
    ------
    InputError
        When it has no memory.
    """
    found: list[Segment] = []
    first: int | None = None
    names = network.node_names

    def add(first: int, last: int, has_readout: bool) -> None:
        into = "input" if first == 0 else f"{names[first]}_input"
        out = "output" if has_readout else f"{names[last]}_output"
        found.append(Segment(first, last, into, out, has_readout))

    for number, layer in enumerate(network.layers):
        if is_whole(layer):
            first = number if first is None else first
            continue
        if first is not None:
            add(first, number - 1, False)
            first = None
        if isinstance(layer, LMULayer):
            add(number, number, False)
    if first is not None:
        add(first, len(network.layers) - 1, True)
    if not found:
        raise InputError(
            "the network has only LSTM layers, for which NIR has no node; export it as onnx."
        )
    return found


def left_to_host(network: Network | LMUNetwork) -> list[str]:
    """List the parts of a float network that are not in its NIR graph.

    Parameters
    ----------
    network : Network or LMUNetwork
        One that is no chain of layers is in the graph as a whole.

    Returns
    -------
    list of str
        Such as "lmu_1: 212 hidden units (tanh)"; empty if the graph is the whole network.
    """
    try:
        network = as_layers(network, "export to nir")
    except InputError:
        return []
    parts, names = [], network.node_names
    for name, layer in zip(names, network.layers, strict=False):
        if is_whole(layer):
            continue
        if isinstance(layer, LSTMLayer):
            parts.append(f"{name}: LSTM of {layer.n_out} units")
        elif layer.hidden is not None:
            kind = layer.hidden.activation
            fed_back = layer.hidden.recurrent_kernel is not None or layer.feeds_back
            kind += " with feedback" if kind == "linear" and fed_back else ""
            parts.append(f"{name}: {layer.hidden.units} hidden units ({kind})")
    if not is_whole(network.layers[-1]):
        parts.append(names[-1])
    return parts


INTEGRATORS = ("euler", "exponential")
STEPS_PER_TAU = 8.0
"""A power of two, so that dividing by 1 - a and multiplying by it are exact."""


@dataclass(frozen=True)
class Stepping:
    """Integration rule of the simulator.

    Attributes
    ----------
    integrator : {"euler", "exponential"}
    dt, tau : float
        Step, and time constant of the memory's leaky integrators, in seconds.
    """

    integrator: str
    dt: float
    tau: float

    def __post_init__(self) -> None:
        check_choice("integrator", self.integrator, INTEGRATORS)
        check_number("dt", self.dt, 1e-9, 1e3)
        check_number("tau", self.tau, 1e-9, 1e6)
        if self.tau < self.dt:
            raise InputError(
                f"tau is {self.tau:g} s, shorter than the step of {self.dt:g} s; give a longer tau."
            )

    @property
    def decay(self) -> float:
        """Share a of its state that a leaky integrator keeps in a step."""
        share = self.dt / self.tau
        return 1.0 - share if self.integrator == "euler" else float(np.exp(-share))


def time_constant(integrator: str, dt: float, decay: float, tau: float) -> float:
    """Return the time constant with which a rule keeps exactly the share `decay` in a step.

    Parameters
    ----------
    integrator : {"euler", "exponential"}
    dt : float
        Seconds.
    decay : float
        Share that is kept.
    tau : float
        Seconds; the result for exponential steps, for which ``decay = exp(-dt / tau)``.
    """
    return tau if integrator == "exponential" else dt / (1.0 - decay)


Place = tuple[str, str, tuple[int, ...]]
"""A NIR node, its field, and the order of axes in which the field holds an array."""

KEY = "lmu_deploy"
ARRAYS = "lmu_deploy_arrays"
FORMAT = 1
_FLOATS = ("float16", "float32", "float64")


@dataclass(frozen=True)
class Header:
    """Metadata of a graph.

    Attributes
    ----------
    kind : {"float", "graph", "spiking"}
    stepping : Stepping
    tree : JSON value
    dtypes : mapping of str to str
        Types of the arrays in nodes, by name in the tree.
    arrays : mapping of str to ndarray
        The arrays that are in no node.
    places : mapping of str to (node, field, axes)
        Of a graph of operators, where the arrays in nodes are.
    names : tuple of str
        Of a chain of layers, their names and that of the readout; empty if they have none.
    """

    kind: str
    stepping: Stepping
    tree: Any
    dtypes: Mapping[str, str]
    arrays: Mapping[str, np.ndarray]
    places: Mapping[str, Place]
    names: tuple[str, ...] = ()


def write_header(
    kind: str,
    stepping: Stepping,
    tree: Any,
    tensors: Mapping[str, np.ndarray],
    carried: Iterable[str] | Mapping[str, Place],
    names: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the metadata of a graph.

    Parameters
    ----------
    kind : {"float", "graph", "spiking"}
    stepping : Stepping
    tree, tensors : from :func:`lmu_deploy.core.files.to_tree`
    carried : iterable of str, or mapping of str to (node, field, axes)
        Names of the tensors that are in nodes, and of a graph of operators where they are.
    names : sequence of str
        Names of layers and readout, where a network has them.
    """
    for name, array in tensors.items():
        if array.size == 0:
            raise InputError(
                f"{name} is empty, and a NIR file cannot have empty arrays; correct the network."
            )
    places = carried if isinstance(carried, Mapping) else {}
    carried = set(carried)
    text = {
        "format": FORMAT,
        "kind": kind,
        "integrator": stepping.integrator,
        "dt": stepping.dt,
        "tau": stepping.tau,
        "structure": tree,
        "dtypes": {name: tensors[name].dtype.name for name in sorted(carried)},
    }
    rest = {name: np.array(array) for name, array in tensors.items() if name not in carried}
    if kind == "graph":
        text["places"] = dict(places)
    if names:
        text["names"] = list(names)
    found: dict[str, Any] = {KEY: json.dumps(text), "dt": stepping.dt}
    return found | ({ARRAYS: rest} if rest else {})


def read_header(graph: nir.NIRGraph) -> Header:
    """Read the metadata of a graph.

    Raises
    ------
    InputError
        When it was made by another program, or is damaged.
    """
    text = graph.metadata.get(KEY)
    if not isinstance(text, str):
        raise InputError("this NIR graph was not made by lmu_deploy; no other graphs can be read.")
    read = json.loads(text)
    if not isinstance(read, dict) or read.get("format") != FORMAT:
        raise InputError("this NIR graph has a format that this version cannot read; update it.")
    arrays = graph.metadata.get(ARRAYS, {})
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise InputError("the arrays of this NIR graph are damaged; export it again.")
    if not all(dtype in _FLOATS for dtype in read["dtypes"].values()):
        raise InputError("the types of this NIR graph are damaged; export it again.")
    stepping = Stepping(read["integrator"], read["dt"], read["tau"])
    places = {name: _place(value) for name, value in read.get("places", {}).items()}
    names = tuple(read.get("names", ()))
    if not all(isinstance(name, str) for name in names):
        raise InputError("the names in this NIR graph are damaged; export it again.")
    kind, tree = str(read["kind"]), read["structure"]
    return Header(kind, stepping, tree, read["dtypes"], arrays, places, names)


def _place(value: Any) -> Place:
    node, field, axes = value
    if field not in ("weight", "bias") or sorted(axes) != list(range(len(axes))):
        raise InputError("the places of arrays in this NIR graph are damaged; export it again.")
    return str(node), field, tuple(axes)
