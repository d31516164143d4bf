r"""One memory in Brian2's own objects alone, which its C++ device can make a program of.

States and what is counted are all moved by one equation once a step, between thresholds and resets,
as in spiking_network.py:

.. math:: x \leftarrow k\, x + q\,(\text{what spikes bring} + r\, u)

with :math:`k = a`, :math:`q = 1 - a` and r of :math:`S^{-1} B'` for a state. Each channel has two
more "states" with :math:`k = q = 1`, r = 0, that count its spikes and the synapses these meet.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lmu_deploy.spiking_network import SpikingMemory, SpikingNetwork
from targets.brian2.library import brian2_library
from targets.brian2.neurons import Curves, neuron_group
from targets.brian2.standalone.arriving import arriving
from targets.brian2.standalone.exchange import PROGRESS, Job, Outcome
from targets.brian2.standalone.records import Records

_COUNTERS = 2
_STATES = """
x : 1
kept : 1 (constant)
share : 1 (constant)
reach : 1 (constant)
channel : integer (constant)
"""
_UPDATE = "x = kept * x + share * (lmu_arriving(i) + reach * lmu_held(t, channel))"
_SECONDS_BETWEEN_REPORTS = 0.5
_Seconds = Mapping[str, tuple[float, float]]


def simulate(job: Job, folder: Path) -> Outcome:
    """Write, compile and run the program of a job; Brian2 is spent in this process afterwards.

    Parameters
    ----------
    job : Job
    folder : Path
        For the program's folder, and the files that it writes beside it: its records, and how far
        it is, if the job asks for that.
    """
    b2 = brian2_library()
    b2.set_device("cpp_standalone", build_on_run=False)
    b2.prefs.devices.cpp_standalone.extra_make_args_unix = [f"-j{_processors()}"]
    device, network, begun = b2.get_device(), job.network, os.times()
    records = Records(folder, network.steps_per_hold, job.memory.neurons, job.raster)
    states, *others = _objects(b2, job, records)
    simulation = b2.Network(states, *others)
    b2.seed(job.noise_seed)
    simulation.run(
        job.channels.shape[1] * network.hold_ms * b2.ms,
        namespace={},
        report=f'std::ofstream("../{PROGRESS}") << completed;' if job.tell else None,
        report_period=_SECONDS_BETWEEN_REPORTS * b2.second,
    )
    device.build(directory=str(folder / "program"), compile=True, run=False)
    built = os.times()
    device.run(with_output=False)
    seconds = {"build": _spent(begun, built), "run": _spent(built, os.times())}
    ends = records.read_ends(np.asarray(states.x))
    return _outcome(job, ends, records.read_raster(len(ends) * network.steps_per_hold), seconds)


def _objects(b2: Any, job: Job, records: Records) -> tuple[Any, Any, Any]:
    """Give the states, the neurons, and the states' update."""
    network, memory, (samples, holds, _) = job.network, job.memory, job.channels.shape
    clock = b2.Clock(dt=network.dt_ms * b2.ms, name="lmu_clock")
    states = _state_group(b2, network, memory, samples, clock)
    neurons = _neuron_group(b2, network, memory, states, job.membranes, clock)
    values = job.channels.transpose(1, 0, 2).reshape(holds, -1)
    held = b2.TimedArray(values, network.hold_ms * b2.ms, "lmu_held")
    effects, recording = _effects(network, memory), records.code(b2, states)
    function = arriving(b2, neurons, effects, memory.channels, recording)
    states.namespace.update({"lmu_held": held, "lmu_arriving": function})
    update = states.run_regularly(_UPDATE, clock=clock, when="synapses", name="lmu_update")
    return states, neurons, update


def _outcome(job: Job, x: np.ndarray, raster: np.ndarray, seconds: _Seconds) -> Outcome:
    """Part states from counters; `x` has the ends of all holds, shape (holds, all of them)."""
    memory, (samples, holds, _) = job.memory, job.channels.shape
    x = x.reshape(holds, samples, memory.channels, -1).swapaxes(0, 1)
    counted = np.rint(x[..., memory.order :].sum(axis=2)).astype(np.int64)
    return Outcome(
        m=(x[..., : memory.order] * memory.scales).reshape(samples, holds, -1),
        counts=np.diff(counted[..., 0], axis=1, prepend=0),
        synops=int(counted[:, -1, 1].sum()),
        raster=raster,
        seconds=seconds,
        version=str(brian2_library().__version__),
    )


def _effects(network: SpikingNetwork, memory: SpikingMemory) -> np.ndarray:
    """Give what one spike brings to a channel's states and counters, shape (neurons, order + 2)."""
    per_spike = 1.0 / (network.dt_ms * 1e-3)
    effects = memory.weights.transpose(0, 2, 1).reshape(memory.neurons, memory.order) * per_spike
    return np.column_stack([effects, np.ones(memory.neurons), memory.synapses])


def _state_group(
    b2: Any, network: SpikingNetwork, memory: SpikingMemory, samples: int, clock: Any
) -> Any:
    """Give the states of all samples, two counters behind those of each channel."""
    channels, order, decay = memory.channels, memory.order, network.decay
    copies, width = samples * channels, order + _COUNTERS
    counter = np.arange(width) >= order
    reach = np.zeros((channels, width))
    reach[:, :order] = memory.scaled_input
    group = b2.NeuronGroup(copies * width, _STATES, clock=clock, name="lmu_states", namespace={})
    group.kept = np.tile(np.where(counter, 1.0, decay), copies)
    group.share = np.tile(np.where(counter, 1.0, 1.0 - decay), copies)
    group.reach = np.tile(reach.reshape(-1), samples)
    group.channel = np.repeat(np.arange(copies), width)
    return group


def _neuron_group(
    b2: Any,
    network: SpikingNetwork,
    memory: SpikingMemory,
    states: Any,
    membranes: np.ndarray,
    clock: Any,
) -> Any:
    """Give the neurons of all samples, each linked to the state that it encodes."""
    samples, curves = len(membranes), memory.populations
    numbers = np.arange(len(states)).reshape(-1, memory.order + _COUNTERS)[:, : memory.order]
    return neuron_group(
        b2,
        network,
        Curves.of_copies([curves], samples),
        (states, np.repeat(numbers.reshape(-1), curves.neurons)),
        membranes.reshape(-1),
        clock,
        "lmu_neurons",
    )


def _spent(start: os.times_result, end: os.times_result) -> tuple[float, float]:
    """Give seconds of the clock, and of the processor in this process and those it waited for."""
    return end.elapsed - start.elapsed, sum(end[:4]) - sum(start[:4])


def _processors() -> int:
    """Processors that this process may use, to compile on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
