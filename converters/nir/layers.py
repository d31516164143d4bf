r"""Convert chains of layers and memories on spiking neurons to NIR; read float arrays from nodes.

**Float networks.** A memory becomes leaky integrators with recurrent weights. With the integration
rule of the simulator, they compute the same at every step by the discrete Principle 3 of the Neural
Engineering Framework (Voelker, Eliasmith 2018, "Improving spiking dynamical networks", section 3):

.. math:: A' = (\bar A - a I) / (1 - a), \qquad B' = \bar B / (1 - a)

so that :math:`m \leftarrow a m + (1 - a)(A' m + B' u) = \bar A m + \bar B u`. Channels are blocks
on the diagonal, because a NIR node has one input vector.

**Spiking networks.** Memories become LIF populations with factored connections. Each memory is a
separate graph from its channels u to its states m; the host computes the rest, as for every target
of a SpikingNetwork:

    LAYER_input -> LAYER_memory_input -> LAYER_memory -> LAYER_scales -> LAYER_output
                                          |        ^
                               LAYER_encoders   LAYER_decoders
                                          v        |
                                         LAYER_neurons (LIF)

LAYER is the name of the layer. `LAYER_memory` are the synapses as leaky integrators, one for each
state; encoders are an Affine (including the mismatch of the chip), decoders a Linear. A spike is
the number 1 for one step, as in simulators with fixed steps, so decoders are W / dt. For Euler
steps the time constants are chosen so that a step keeps exactly exp(-dt / tau), so that either rule
computes the equations of :mod:`lmu_deploy.core.spiking.network`. NIR cannot represent the initial
membrane potentials.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import nir
import numpy as np

from converters.nir.plan import Segment, Stepping, is_whole, segments, time_constant
from converters.sandbox.process import ARRAY_BYTES
from converters.spiking.closed_loop import behind_synapse
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, Memory
from lmu_deploy.core.spiking.network import SpikingMemory, SpikingNetwork


def check_size(name: str, rows: int, columns: int, itemsize: int) -> None:
    """Raise InputError for a dense matrix that is too large to be imported again."""
    if rows * columns * itemsize > ARRAY_BYTES // 2:
        raise InputError(
            f"{name} would be a dense matrix of {rows} x {columns}, more than the "
            f"{ARRAY_BYTES // 2} bytes that a matrix in a NIR file may have; export a network with "
            "fewer states, or as onnx."
        )


def leaky_integrators(states: int, tau: float) -> nir.LI:
    """Return `states` leaky integrators of time constant `tau` (seconds) with zero rest."""
    return nir.LI(tau=np.full(states, tau), r=np.ones(states), v_leak=np.zeros(states))


def blocks(block: np.ndarray, copies: int) -> np.ndarray:
    """Return a block-diagonal matrix of copies of a matrix."""
    rows, columns = block.shape
    whole = np.zeros((copies, rows, copies, columns), dtype=block.dtype)
    for number in range(copies):
        whole[number, :, number] = block
    return whole.reshape(copies * rows, copies * columns)


def memory_nodes(name: str, memory: Memory, stepping: Stepping) -> dict[str, nir.NIRNode]:
    """Return the nodes of a memory by name: NAME, NAME_input and NAME_recurrent.

    The metadata of the first describes the memory and, where the matrices cannot be recovered
    bit-identically from the weights because of rounding, contains the matrices too.
    """
    kind = np.result_type(memory.a_bar.dtype, np.float32)
    check_size(f"{name}_recurrent", memory.size, memory.size, kind.itemsize)
    recurrent, into = _encode(memory.a_bar, memory.b_bar, stepping)
    node = leaky_integrators(memory.size, stepping.tau)
    node.metadata = _describe(memory, stepping)
    found: dict[str, nir.NIRNode] = {
        f"{name}_input": nir.Linear(blocks(into[:, None], memory.channels)),
        name: node,
        f"{name}_recurrent": nir.Linear(blocks(recurrent, memory.channels)),
    }
    a_bar, b_bar = _decode(recurrent, into, stepping)
    exact = np.array_equal(a_bar.astype(memory.a_bar.dtype), memory.a_bar)
    if not exact or not np.array_equal(b_bar.astype(memory.b_bar.dtype), memory.b_bar):
        node.metadata |= {"a_bar": np.array(memory.a_bar), "b_bar": np.array(memory.b_bar)}
    return found


def memory_matrices(
    name: str, nodes: dict[str, Any], order: int, stepping: Stepping
) -> tuple[np.ndarray, np.ndarray]:
    """Read a_bar, shape (order, order), and b_bar, shape (order,), from the nodes of a memory.

    Matrices in the metadata are used only while they agree with the weights.
    """
    recurrent = np.asarray(nodes[f"{name}_recurrent"].weight)[:order, :order]
    into = np.asarray(nodes[f"{name}_input"].weight)[:order, 0]
    stored = nodes[name].metadata
    if "a_bar" in stored and "b_bar" in stored:
        a_bar, b_bar = np.asarray(stored["a_bar"]), np.asarray(stored["b_bar"])
        if a_bar.shape == recurrent.shape and b_bar.shape == into.shape:
            again = _encode(a_bar, b_bar, stepping)
            if np.array_equal(again[0], recurrent) and np.array_equal(again[1], into):
                return a_bar, b_bar
    return _decode(recurrent, into, stepping)


def _encode(
    a_bar: np.ndarray, b_bar: np.ndarray, stepping: Stepping
) -> tuple[np.ndarray, np.ndarray]:
    primes = behind_synapse(a_bar.astype(np.float64), b_bar.astype(np.float64), stepping.decay)
    a_prime, b_prime = (
        prime.astype(np.result_type(bar.dtype, np.float32))
        for prime, bar in zip(primes, (a_bar, b_bar), strict=True)
    )
    return a_prime, b_prime


def _decode(
    recurrent: np.ndarray, into: np.ndarray, stepping: Stepping
) -> tuple[np.ndarray, np.ndarray]:
    taken = 1.0 - stepping.decay
    kept = stepping.decay * np.eye(len(into))
    return kept + taken * recurrent.astype(np.float64), taken * into.astype(np.float64)


def _describe(memory: Memory, stepping: Stepping) -> dict[str, Any]:
    return {
        "order": memory.order,
        "channels": memory.channels,
        "theta": memory.theta * stepping.dt,
        "discretizer": memory.discretizer,
        "dt": stepping.dt,
        "integrator": stepping.integrator,
    }


Edges = list[tuple[str, str]]


def float_nodes(network: LMUNetwork, stepping: Stepping) -> tuple[dict[str, nir.NIRNode], Edges]:
    """Return the nodes and edges of a network; NIR adds the inputs of a node.

    The names of nodes begin with those of the layers and of the readout.

    Parameters
    ----------
    network : LMUNetwork
    stepping : Stepping

    Raises
    ------
    InputError
        When two nodes would have one name, or a name cannot be in a NIR file.
    """
    check_names(network.node_names)
    builder = _GraphBuilder(network, stepping)
    for segment in segments(network):
        builder.segment(segment)
    return builder.nodes, builder.edges


def check_names(names: Sequence[str]) -> None:
    """Raise InputError for a name with a slash."""
    for name in names:
        if "/" in name:
            raise InputError(
                f"node {name} has a slash in its name, which separates groups in a NIR file; "
                "rename it."
            )


def _readout_name(names: Sequence[str]) -> str:
    """Return the name of the readout's node, which is neither that of an Input nor an Output."""
    return f"{names[-1]}_" if names[-1] in ("input", "output") else names[-1]


def carried_arrays(
    nodes: dict[str, Any], names: Sequence[str], orders: dict[int, int], stepping: Stepping
) -> Any:
    """Read the arrays that nodes contain, by their names in the tree.

    Parameters
    ----------
    nodes : dict of str to node
    names : sequence of str
        Names of the layers and of the readout.
    orders : dict of int to int
        Order of the memory of each LMU layer, by the number of the layer.
    stepping : Stepping

    Returns
    -------
    dict of str to ndarray
    """
    found: dict[str, np.ndarray] = {}
    for number, order in orders.items():
        name, path = names[number], f"layers.{number}"
        encoders = nodes[f"{name}_encoders"]
        features = int(encoders.metadata["features"])
        weights = np.asarray(encoders.weight).T
        found[f"{path}.input_encoders"] = weights[:features]
        found[f"{path}.hidden_encoders"] = weights[features:]
        _read_bias(encoders, f"{path}.memory_bias", found)
        matrices = memory_matrices(f"{name}_memory", nodes, order, stepping)
        found[f"{path}.memory.a_bar"], found[f"{path}.memory.b_bar"] = matrices
        for suffix, key in (
            ("memory_encoders", "memory_encoders"),
            ("kernel", "hidden.memory_kernel"),
            ("input_kernel", "hidden.input_kernel"),
        ):
            if (node := nodes.get(f"{name}_{suffix}")) is not None:
                found[f"{path}.{key}"] = np.asarray(node.weight).T
                _read_bias(node, f"{path}.hidden.bias", found)
    if (readout := nodes.get(_readout_name(names))) is not None:
        found["readout.kernel"] = np.asarray(readout.weight).T
        _read_bias(readout, "readout.bias", found)
    return found


def _read_bias(node: Any, key: str, found: dict[str, np.ndarray]) -> None:
    if isinstance(node, nir.Affine):
        found[key] = np.asarray(node.bias)


class _GraphBuilder:
    """Builds a graph segment by segment."""

    def __init__(self, network: LMUNetwork, stepping: Stepping) -> None:
        self.network, self.names, self.stepping = network, network.node_names, stepping
        self.nodes: dict[str, nir.NIRNode] = {}
        self.edges: Edges = []

    def segment(self, segment: Segment) -> None:
        layers = self.network.layers
        first, last = layers[segment.first], layers[segment.last]
        assert isinstance(first, LMULayer)
        assert isinstance(last, LMULayer)
        fed_back = 0 if first.hidden_encoders is None else len(first.hidden_encoders)
        self.add(segment.input, nir.Input({"input": np.array([first.n_in + fed_back])}), [])
        sources = [segment.input]
        for number in range(segment.first, segment.last + 1):
            layer = layers[number]
            assert isinstance(layer, LMULayer)
            sources = self.layer(self.names[number], layer, sources)
        width = last.n_out if is_whole(last) else last.memory.size
        if segment.has_readout:
            readout = self.network.readout
            name = _readout_name(self.names)
            self.add(name, affine(readout.kernel, readout.bias), sources)
            sources, width = [name], self.network.n_out
        self.add(segment.output, nir.Output({"output": np.array([width])}), sources)

    def layer(self, name: str, layer: LMULayer, sources: list[str]) -> list[str]:
        """Add a layer; return the nodes whose sum is its output, or its memory's states."""
        encoders = layer.input_encoders
        if layer.hidden_encoders is not None:
            encoders = np.concatenate([encoders, layer.hidden_encoders])
        node = affine(encoders, layer.memory_bias)
        node.metadata = {"features": layer.n_in}
        self.add(f"{name}_encoders", node, sources)
        memory = f"{name}_memory"
        for part, of_memory in memory_nodes(memory, layer.memory, self.stepping).items():
            self.add(part, of_memory, [])
        self.edges += [(f"{name}_encoders", f"{memory}_input"), (f"{memory}_input", memory)]
        self.edges += [(memory, f"{memory}_recurrent"), (f"{memory}_recurrent", memory)]
        if layer.memory_encoders is not None:
            self.add(f"{memory}_encoders", affine(layer.memory_encoders, None), [memory])
            self.edges.append((f"{memory}_encoders", f"{memory}_input"))
        if layer.hidden is None or not is_whole(layer):
            return [memory]
        return self.hidden(name, layer.hidden, sources)

    def hidden(self, name: str, hidden: Hidden, sources: list[str]) -> list[str]:
        self.add(f"{name}_kernel", affine(hidden.memory_kernel, hidden.bias), [f"{name}_memory"])
        if hidden.input_kernel is None:
            return [f"{name}_kernel"]
        self.add(f"{name}_input_kernel", affine(hidden.input_kernel, None), sources)
        return [f"{name}_kernel", f"{name}_input_kernel"]

    def add(self, name: str, node: nir.NIRNode, sources: list[str]) -> None:
        if name in self.nodes:
            raise _taken(name)
        self.nodes[name] = node
        self.edges += [(source, name) for source in sources]


def _taken(name: str) -> InputError:
    return InputError(f"two nodes of the NIR graph would have the name {name}; rename one.")


def affine(kernel: np.ndarray, bias: np.ndarray | None) -> nir.NIRNode:
    """Return a NIR node for a kernel, which networks apply from the right."""
    weight = np.array(kernel.T, order="C")  # a network's own arrays are read-only
    return nir.Linear(weight) if bias is None else nir.Affine(weight, np.array(bias))


_MS = 1e-3


def spiking_stepping(network: SpikingNetwork, integrator: str) -> Stepping:
    """Return the integration rule of the network's synapses, in seconds."""
    dt, tau = network.dt_ms * _MS, network.tau_ms * _MS
    return Stepping(integrator, dt, time_constant(integrator, dt, network.decay, tau))


def check_spiking(network: SpikingNetwork) -> None:
    """Check that NIR's LIF can represent the neurons.

    Raises
    ------
    InputError
        For another neuron model than LIF, DPI synapses, a refractory time of more than one step,
        noise, units on neurons, or no memory at all; all problems are listed.
    """
    if network.units is not None:
        raise InputError(
            "the spiking network has its hidden units on neurons, and only memories are exported; "
            "make it with --units host."
        )
    neuron, wrong = network.neuron, []
    if neuron.kind != "lif":
        wrong.append(f"the neuron model {neuron.kind}")
    if network.synapse is not None:
        wrong.append("pairs of DPI synapses")
    if round(neuron.refractory_ms / network.dt_ms) > 1:
        wrong.append(
            f"the refractory time of {neuron.refractory_ms:g} ms, more than the step of "
            f"{network.dt_ms:g} ms"
        )
    if network.device.membrane_noise:
        wrong.append(f"the membrane noise of {network.device.membrane_noise:g}")
    if network.device.threshold_noise:
        wrong.append(f"the threshold noise of {network.device.threshold_noise:g}")
    memories = [memory for memory in network.memories if memory is not None]
    if any(memory.populations.tau_factors is not None for memory in memories):
        wrong.append("time constants that differ from neuron to neuron")
    if wrong:
        raise InputError(
            f"NIR has no node for {' and '.join(wrong)}; make the spiking network with neurons of "
            "kind lif, without noise, and with a dt_ms of at least the refractory time."
        )
    if not memories:
        raise InputError("the spiking network has no memory, so there is nothing to export.")


def spiking_nodes(
    network: SpikingNetwork, stepping: Stepping
) -> tuple[dict[str, nir.NIRNode], list[tuple[str, str]]]:
    """Return the nodes and edges of all memories; their names begin with those of the layers."""
    check_spiking(network)
    names = network.host.node_names
    check_names(names)
    nodes: dict[str, nir.NIRNode] = {}
    edges: list[tuple[str, str]] = []
    for name, memory in zip(names, network.memories, strict=False):
        if memory is None:
            continue
        of_memory = _memory_nodes(name, memory, network, stepping)
        if taken := sorted(set(of_memory) & set(nodes)):
            raise _taken(taken[0])
        nodes |= of_memory
        edges += [
            (f"{name}_input", f"{name}_memory_input"),
            (f"{name}_memory_input", f"{name}_memory"),
            (f"{name}_memory", f"{name}_encoders"),
            (f"{name}_encoders", f"{name}_neurons"),
            (f"{name}_neurons", f"{name}_decoders"),
            (f"{name}_decoders", f"{name}_memory"),
            (f"{name}_memory", f"{name}_scales"),
            (f"{name}_scales", f"{name}_output"),
        ]
    return nodes, edges


def _memory_nodes(
    name: str, memory: SpikingMemory, network: SpikingNetwork, stepping: Stepping
) -> dict[str, nir.NIRNode]:
    states, neurons = memory.states, memory.neurons
    check_size(f"{name}_encoders", neurons, states, 8)
    synapses = leaky_integrators(states, stepping.tau)
    synapses.metadata = {
        "order": memory.order,
        "channels": memory.channels,
        "dt": stepping.dt,
        "hold": network.presentation_ms * _MS,
    }
    return {
        f"{name}_input": nir.Input({"input": np.array([memory.channels])}),
        f"{name}_memory_input": nir.Linear(_columns(memory.scaled_input)),
        f"{name}_memory": synapses,
        f"{name}_encoders": nir.Affine(
            _columns(memory.populations.slopes), memory.populations.offsets.reshape(-1)
        ),
        f"{name}_neurons": _neurons(neurons, network, stepping),
        f"{name}_decoders": nir.Linear(_decoders(memory) / stepping.dt),
        f"{name}_scales": nir.Linear(np.diag(memory.scales.reshape(-1))),
        f"{name}_output": nir.Output({"output": np.array([states])}),
    }


def _columns(values: np.ndarray) -> np.ndarray:
    """Return a matrix in which each column of (columns, rows) values has separate rows."""
    columns, rows = values.shape
    return np.asarray(blocks(np.ones((rows, 1)), columns) * values.reshape(-1, 1))


def _decoders(memory: SpikingMemory) -> np.ndarray:
    """Return W of all channels, shape (states, neurons), block-diagonal by channel."""
    channels, order, columns = memory.weights.shape
    whole = np.zeros((channels, order, channels, columns))
    for channel in range(channels):
        whole[channel, :, channel] = memory.weights[channel]
    return whole.reshape(channels * order, channels * columns)


def _neurons(neurons: int, network: SpikingNetwork, stepping: Stepping) -> nir.LIF:
    """Return LIF neurons in units of threshold: tau dv/dt = -v + J, a spike above 1, then v = 0."""
    tau = network.neuron.membrane_tau_ms * _MS
    decay = float(np.exp(-stepping.dt / tau))
    ones = np.ones(neurons)
    return nir.LIF(
        tau=ones * time_constant(stepping.integrator, stepping.dt, decay, tau),
        r=ones,
        v_leak=np.zeros(neurons),
        v_threshold=ones.copy(),
        v_reset=np.zeros(neurons),
    )
