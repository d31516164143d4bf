"""How much a simulation has to do, said in one line before it starts."""

from __future__ import annotations

import sys

import numpy as np

from lmu_deploy.fidelity.sizes import network_sizes
from lmu_deploy.integer_network import IntegerNetwork
from lmu_deploy.loihi_network import LoihiNetwork
from lmu_deploy.representations import Network
from lmu_deploy.spiking_network import SpikingNetwork
from targets.base import Target


def announce(label: str, runner: Target, network: Network, inputs: np.ndarray) -> None:
    """Print to standard error what a target that simulates neurons is about to do.

    How long it takes grows with all of these, and nobody can tell before the first samples are
    done; then the progress says what is left. Targets of floats, and the integer twin, are quick
    and say nothing.

    Parameters
    ----------
    label : str
        What the progress is called.
    runner : Target
    network : Network
    inputs : ndarray, shape (samples, steps, n_in)
    """
    neurons, sizes = neurons_of(network), network_sizes(network)
    simulated = not isinstance(network, IntegerNetwork) or runner.name.startswith("lava")
    if not neurons or sizes is None or not simulated:
        return
    samples, steps, _ = inputs.shape
    hold = getattr(network, "steps_per_hold", 1)
    held = f" of {hold:,} chip steps" if hold > 1 else ""
    print(
        f"{label}: {_counted(neurons, 'neuron')}, {_counted(sizes.synapses, 'synapse')}; "
        f"{_counted(samples, 'sample')} of {_counted(steps, 'step')}{held}",
        file=sys.stderr,
        flush=True,
    )


def neurons_of(network: Network) -> int:
    """Count the neurons that a network has on its chip; 0 of a float network."""
    if isinstance(network, SpikingNetwork):
        return network.neurons
    if isinstance(network, LoihiNetwork):
        return sum(memory.size for memory in network.memories if memory is not None)
    if not isinstance(network, IntegerNetwork):
        return 0
    layers = [layer for _, layer in network.on_chip]
    units = sum(layer.hidden.units for layer in layers if layer.hidden is not None)
    return units + sum(layer.memory.size for layer in layers)


def _counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
