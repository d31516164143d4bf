r"""Convert the memories of a SpikingNetwork to LIF populations of NIR with factored connections.

Each memory is a graph of its own from its channels u to its states m; the host computes the rest,
as for every target of a SpikingNetwork:

    layerK_input -> layerK_memory_input -> layerK_memory -> layerK_scales -> layerK_output
                                            |         ^
                                layerK_encoders   layerK_decoders
                                            v         |
                                           layerK_neurons (LIF)

`layerK_memory` are the synapses as leaky integrators, one for each state; encoders are an Affine
(including the mismatch of the chip), decoders a Linear. A spike is the number 1 for one step, as in
simulators with fixed steps, so decoders are W / dt. For Euler steps the time constants are chosen
so that a step keeps exactly exp(-dt / tau), so that either rule computes the equations of
:mod:`lmu_deploy.core.spiking.network`. NIR cannot represent the initial membrane potentials.
"""

from __future__ import annotations

import nir
import numpy as np

from converters.nir.floats import blocks, check_size, leaky_integrators
from converters.nir.plan import Stepping, time_constant
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.spiking.network import SpikingMemory, SpikingNetwork

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
    """Return the nodes and edges of all memories."""
    check_spiking(network)
    nodes: dict[str, nir.NIRNode] = {}
    edges: list[tuple[str, str]] = []
    for number, memory in enumerate(network.memories):
        if memory is None:
            continue
        name = f"layer{number}"
        nodes |= _memory_nodes(name, memory, network, stepping)
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
    """Return a matrix in which each column of (columns, rows) values has rows of its own."""
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
