"""Estimated energy and time of an inference on a chip, as ranges over published figures.

Each cost table gives one estimate: the sum of operation counts of a mean sample times published
costs, over the operations that the table covers. The result is the range over all tables, because
published figures disagree. Static power is not included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.graph import sources
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.spiking.graph import AnalogNetwork, LoihiGraph, OnLoihi, SpikingGraph
from lmu_deploy.core.spiking.loihi import LoihiNetwork
from lmu_deploy.core.spiking.network import SpikingNetwork
from lmu_deploy.fidelity import schema
from lmu_deploy.fidelity.streaming import counted_of
from lmu_deploy.hardware.placement import destinations
from lmu_deploy.hardware.profile import CostTable, DigitalProfile, Range, cost_tables, load_profile
from targets.base import Run

_KINDS: tuple[tuple[type, Literal["digital", "analog"]], ...] = (
    (IntegerNetwork, "digital"),
    (LoihiNetwork, "digital"),
    (LoihiGraph, "digital"),
    (SpikingNetwork, "analog"),
    (SpikingGraph, "analog"),
)
_PICO, _NANO = 1e-12, 1e-9


@dataclass(frozen=True)
class Counts:
    """Operations of a mean sample.

    Attributes
    ----------
    synops, messages, updates : float
        Synaptic operations, messages or spikes sent, neuron updates.
    deliveries : float or None
        Messages, each once for every core that receives it, and at least once; None counts each
        message once.
    steps, chip_steps : int
        Steps of the task and of the chip.
    seconds : float or None
        Simulated time of the neurons; None when a step has no duration.
    """

    synops: float
    messages: float
    updates: float
    steps: int
    chip_steps: int
    seconds: float | None = None
    deliveries: float | None = None

    @property
    def transfers(self) -> float:
        """Messages that the network of the chip carries."""
        return self.messages if self.deliveries is None else self.deliveries


def costs_of(run: Run, network: object) -> schema.Costs | None:
    """Estimate the energy and time of a run on a chip; None for a network without a chip.

    Parameters
    ----------
    run : Run
    network : IntegerNetwork, LoihiNetwork or SpikingNetwork
        The network that was run. The result is None for other types, or without events.
    """
    kind = next((kind for cls, kind in _KINDS if isinstance(network, cls)), None)
    if kind is None or not counted_of(run) or not len(run.outputs):
        return None
    tables = {name: table for name, table in cost_tables().items() if table.kind == kind}
    return estimate(count(run, network), tables)


def count(run: Run, network: object) -> Counts:
    """Count the operations of a mean sample; every neuron is updated at every chip step."""
    samples = len(run.outputs)
    outside = {"input"}
    if isinstance(network, IntegerNetwork):
        outside = {str(place) for place, source in sources(network).items() if source.outside}
    neurons = sum(n for name, n in run.neurons.items() if name not in outside)
    simulated = None
    if isinstance(network, AnalogNetwork | OnLoihi):
        simulated = run.steps * network.presentation_ms / 1000.0
    sent = {name: counts.total / samples for name, counts in counted_of(run).items()}
    deliveries = None
    if isinstance(network, IntegerNetwork | OnLoihi):
        cores = _cores_of(network)
        deliveries = sum(number * max(1.0, cores.get(name, 1.0)) for name, number in sent.items())
    return Counts(
        synops=run.synops / samples,
        messages=sum(sent.values()),
        updates=float(neurons * run.chip_steps),
        steps=run.steps,
        chip_steps=run.chip_steps,
        seconds=simulated,
        deliveries=deliveries,
    )


def _cores_of(network: IntegerNetwork | OnLoihi) -> dict[str, float]:
    """Return to how many cores a message of each population goes; empty for an unknown chip."""
    try:
        profile = load_profile(network.profile, kind="digital")
    except InputError:
        return {}
    assert isinstance(profile, DigitalProfile)
    return destinations(network, profile)


def estimate(counts: Counts, tables: Mapping[str, CostTable]) -> schema.Costs:
    """Compute the estimate of each cost table, and the range over all of them."""
    energies = {n: found for n, t in tables.items() if (found := _energy(counts, t)) is not None}
    latencies = {n: found for n, t in tables.items() if (found := _latency(counts, t)) is not None}
    return schema.Costs(
        synops=counts.synops,
        messages=counts.messages,
        updates=counts.updates,
        chip_steps=counts.chip_steps,
        energy=_over(energies),
        latency=_over(latencies),
        energies=energies,
        latencies=latencies,
    )


def _energy(counts: Counts, table: CostTable) -> schema.Estimate | None:
    return _sum(
        counts,
        table.title,
        {
            "synaptic operations": (counts.synops, _PICO, table.synop_pj),
            "messages": (counts.transfers, _PICO, table.message_pj),
            "neuron updates": (counts.updates, _PICO, table.update_pj),
        },
    )


def _latency(counts: Counts, table: CostTable) -> schema.Estimate | None:
    """Sum the operations and steps of a digital chip, or return the time of analog neurons."""
    if table.time_factor is not None:
        if counts.seconds is None:
            return None
        neurons = {"time of the neurons": (counts.seconds, 1.0, table.time_factor)}
        return _sum(counts, table.title, neurons)
    if table.step_ns is None:
        return None
    return _sum(
        counts,
        table.title,
        {
            "chip steps": (float(counts.chip_steps), _NANO, table.step_ns),
            "synaptic operations": (counts.synops, _NANO, table.synop_ns),
            "messages": (counts.messages, _NANO, table.message_ns),
            "neuron updates": (counts.updates, _NANO, table.update_ns),
        },
    )


def _sum(
    counts: Counts, title: str, parts: Mapping[str, tuple[float, float, Range | None]]
) -> schema.Estimate | None:
    known = {name: (n * unit, r) for name, (n, unit, r) in parts.items() if r is not None}
    if not known:
        return None
    low = sum(n * figure.low for n, figure in known.values())
    high = sum(n * figure.high for n, figure in known.values())
    return schema.Estimate(
        title=title,
        inference=(low, high),
        step=(low / counts.steps, high / counts.steps),
        counted=list(known),
        sources=[f"{name}: {figure.source}" for name, (_, figure) in known.items()],
    )


def _over(estimates: Mapping[str, schema.Estimate]) -> tuple[float, float] | None:
    if not estimates:
        return None
    ranges = [found.inference for found in estimates.values()]
    return min(low for low, _ in ranges), max(high for _, high in ranges)
