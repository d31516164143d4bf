"""The metrics that NeuroBench defines, under its names, of the part of a network on the chip.

Definitions are those of NeuroBench 2.3 (Yik et al. 2025, "The NeuroBench framework for benchmarking
neuromorphic computing algorithms and systems", Nature Communications 16, 1545); a network that
both can run gives equal figures (benchmarks/neurobench_oracle.py). A layer of theirs is a
connection here, each slice of it one of its own, and an activation is a message or a spike.

- ``footprint``: bytes of all parameters, at the widths of the representation; of what changes from
  step to step nothing.
- ``connection_sparsity``: share of weights that are zero.
- ``activation_sparsity``: share of messages that are zero, over populations, steps and samples;
  what the host sends (inputs, LSTM layers) is no activation.
- ``synaptic_operations``: of a mean sample, with messages and weights that are not zero: with
  graded messages ``Effective_MACs``, with spikes ``Effective_ACs``; ``Dense`` counts zeros too.
"""

from __future__ import annotations

from lmu_deploy.fidelity.schema_costs import NeuroBench, SynapticOperations
from lmu_deploy.fidelity.sizes import network_sizes
from lmu_deploy.fidelity.streamed import counted_of
from lmu_deploy.integer_network import IntegerNetwork, SeriesMemory
from lmu_deploy.loihi_network import LoihiNetwork
from lmu_deploy.spiking_network import SpikingNetwork
from lmu_deploy.wiring import outlets, wires
from targets.base import Run

INPUT = "input"
_OF_HOST = (INPUT, "host")


def neurobench_of(run: Run, network: object) -> NeuroBench | None:
    """Give NeuroBench's metrics of a run; None of a network without widths of its own.

    Parameters
    ----------
    run : Run
    network : LMUNetwork, IntegerNetwork, LoihiNetwork or SpikingNetwork
        What was run. A float network sends nothing, so that of it only the first two are known.
    """
    sizes = network_sizes(network)
    if sizes is None or not sizes.weights:
        return None
    return NeuroBench(
        footprint=sizes.weight_bytes + sizes.neuron_bytes,
        connection_sparsity=(sizes.weights - sizes.synapses) / sizes.weights,
        activation_sparsity=_activation_sparsity(run, network),
        synaptic_operations=_operations(run, network),
    )


def _activation_sparsity(run: Run, network: object) -> float | None:
    """Share of messages that were not sent, of those that could have been."""
    counted = {n: c for n, c in counted_of(run).items() if not _by_host(n)}
    possible = _messages(run, network)
    if not counted or possible is None:
        return None
    most = sum(possible.values()) * len(run.outputs)
    sent = sum(counts.total for name, counts in counted.items() if name in possible)
    return (most - sent) / most if most else None


def _messages(run: Run, network: object) -> dict[str, int] | None:
    """Count the messages of one sample by population, zeros included."""
    if isinstance(network, IntegerNetwork):
        found: dict[str, int] = {}
        for outlet in outlets(network):
            if not _by_host(outlet.source):
                sent = run.neurons[outlet.source] * _applied(network, outlet.source)
                found[outlet.source] = found.get(outlet.source, 0) + sent * run.steps
        return found
    if isinstance(network, SpikingNetwork | LoihiNetwork):
        senders = {name: n for name, n in run.neurons.items() if not _by_host(name)}
        return {name: neurons * run.chip_steps for name, neurons in senders.items()}
    return None


def _operations(run: Run, network: object) -> SynapticOperations | None:
    """Count what a mean sample takes; None of a float network, or one that counted no events."""
    if not counted_of(run):
        return None
    effective = run.synops / len(run.outputs)
    if isinstance(network, IntegerNetwork):
        dense = sum(w.connection.slices.size * _applied(network, w.source) for w in wires(network))
        return _synaptic(effective, 0.0, dense * run.steps)
    if isinstance(network, SpikingNetwork):
        present = [memory for memory in network.memories if memory is not None]
        dense = sum(memory.weights.size * memory.populations.neurons for memory in present)
        if (units := network.units) is not None:
            dense += units.drive.size * units.populations.neurons + units.decoders.size
        return _synaptic(0.0, effective, dense * run.chip_steps)
    return _loihi_operations(run, network) if isinstance(network, LoihiNetwork) else None


def _loihi_operations(run: Run, network: LoihiNetwork) -> SynapticOperations | None:
    """Spikes are added, what relays and the host send is multiplied.

    None where relays do not all reach as many neurons: a run does not count the events of each.
    """
    graded, dense = 0, 0
    for number, memory in enumerate(network.memories):
        if memory is None:
            continue
        dense += memory.decoders.size + memory.neurons.encoders.size + memory.input_weights.size
        for kind in ("relay", INPUT):
            reached = memory.fan_out[kind]
            if reached.min() != reached.max():
                return None
            events = counted_of(run)[f"layer{number}/{kind}"].total
            graded += events * int(reached[0])
    samples = len(run.outputs)
    macs, acs = graded / samples, (run.synops - graded) / samples
    return _synaptic(macs, acs, dense * run.chip_steps)


def _by_host(population: str) -> bool:
    return population.rpartition("/")[2] in _OF_HOST


def _applied(network: IntegerNetwork, source: str) -> int:
    """Say how often a population sends in a step: a series once for each of its terms."""
    layer, _, part = source.partition("/")
    if part != "series":
        return 1
    memory = getattr(network.layers[int(layer.removeprefix("layer"))], "memory", None)
    return memory.applications if isinstance(memory, SeriesMemory) else 1


def _synaptic(macs: float, acs: float, dense: float) -> SynapticOperations:
    return SynapticOperations(Effective_MACs=macs, Effective_ACs=acs, Dense=dense)
