r"""One memory in Brian2's own objects alone, which its C++ device can make a program of.

States and what is counted are all moved by one equation once a step, between thresholds and resets,
as in spiking_network.py:

.. math:: x \leftarrow k\, x + q\,(\text{what spikes bring} + r\, u)

with :math:`k = a`, :math:`q = 1 - a` and r of :math:`S^{-1} B'` for a state. Each channel has two
more "states" with :math:`k = q = 1`, r = 0, that count its spikes and the synapses these meet.

What spikes bring to the states in one step, as a function in C++ that Brian2's equations call.

Brian2's own Synapses look up each of a spike's synapses by number, in a queue; here a spike's row
of W is added at once, and all samples share one W.

What a program writes down as it runs: states at the ends of holds, and the spikes of sample 0.

Brian2's monitors do not fit. One of states would need a clock of its own for the holds, which is
compared with that of the steps to 1e-14 s, whatever the time: beyond 64 s the last bits of two
clocks differ by more, and a state would be taken a step late. One of spikes cannot watch a part of
a group that has linked variables, and would keep all samples.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmu_deploy.core.spiking.network import SpikingMemory, SpikingNetwork
from targets.brian2.library import brian2_library
from targets.brian2.neurons import Curves, neuron_group
from targets.brian2.standalone.process import PROGRESS, Job, Outcome

_CODE = """
static double lmu_arrived[WIDTH];
static double lmu_arriving(const int state)
{
    static const int32_t* spike;
    static const int32_t* end;
    if (state == 0) {
        spike = SPIKES;
        end = spike + SPIKES[FIRING];RECORDING
    }
    if (state % WIDTH == 0) {
        const int32_t beyond = (state / WIDTH + 1) * SENDING;
        for (int k = 0; k < WIDTH; k++) lmu_arrived[k] = 0.0;
        for (; spike < end && *spike < beyond; spike++) {
            const double* effect = _namespacelmu_effects + (size_t)(*spike % NEURONS) * WIDTH;
            for (int k = 0; k < WIDTH; k++) lmu_arrived[k] += effect[k];
        }
    }
    return lmu_arrived[state % WIDTH];
}
"""


def arriving(b2: Any, neurons: Any, effects: np.ndarray, channels: int, recording: str) -> Any:
    """Give the function of a state's number, for code that goes through all states in order.

    Parameters
    ----------
    b2 : module
        Brian2, with the device of C++ programs.
    neurons : NeuronGroup
        Samples one after the other, each of `len(effects)` neurons.
    effects : ndarray, shape (neurons of a sample, states of a channel)
        What a spike adds to the states of its own channel. Neurons are ordered channel by channel,
        as many in each.
    channels : int
        Of a sample. States are ordered alike: samples, channels, states of a channel.
    recording : str
        C++ that is run once a step, before any state has moved.

    Returns
    -------
    brian2.Function
        Of one integer; spikes are those of the same step, so it belongs after thresholds. A spike
        list is sorted, so that each is read once, by the first state of its sample and channel.
    """
    count, width = effects.shape
    spikes = b2.get_device().get_array_name(neurons.variables["_spikespace"])
    values = {
        "SPIKES": f"brian::{spikes}",
        "FIRING": len(neurons),
        "SENDING": count // channels,
        "NEURONS": count,
        "WIDTH": width,
        "RECORDING": recording,
    }
    code = _CODE
    for name, value in values.items():
        code = code.replace(name, str(value))
    function = b2.Function(
        _never_in_python, arg_units=[1], return_unit=1, arg_types=["integer"], stateless=False
    )
    function.implementations.add_implementation(
        "cpp", code, namespace={"lmu_effects": effects.reshape(-1)}, name="lmu_arriving"
    )
    return function


def _never_in_python(state: Any) -> Any:
    raise NotImplementedError("it runs in the compiled program alone")


ENDS, SPIKES = "ends.bin", "spikes.bin"
_ENDS_CODE = """
        static std::ofstream ends("../FILE", std::ios::binary);
        static int64_t step = 0;
        if (step > 0 && step % HOLD == 0) ends.write((const char*)STATES, COUNT * sizeof(double));
        step++;"""

_SPIKES_CODE = """
        static std::ofstream record("../FILE", std::ios::binary);
        int32_t fired = 0;
        while (spike + fired < end && spike[fired] < NEURONS) fired++;
        record.write((const char*)&fired, sizeof(fired));
        record.write((const char*)spike, fired * sizeof(fired));"""


@dataclass(frozen=True)
class Records:
    """Two files that a program fills.

    Attributes
    ----------
    folder : Path
        The program's own is in it.
    hold : int
        Steps of one.
    neurons : int
        Of a sample.
    raster : bool
        Whether spikes are written down.
    """

    folder: Path
    hold: int
    neurons: int
    raster: bool

    def code(self, b2: Any, states: Any) -> str:
        """Give the C++ for the moment of a step when its spikes are known and no state has moved.

        There, `spike` and `end` are pointers to the first of the step's sorted spikes and behind
        the last. The states are those of the step before, so that the last hold's are left out.
        """
        x = b2.get_device().get_array_name(states.variables["x"])
        values = {
            "HOLD": self.hold,
            "STATES": f"brian::{x}",
            "COUNT": len(states),
            "NEURONS": self.neurons,
        }
        code = _ENDS_CODE.replace("FILE", ENDS)
        if self.raster:
            code += _SPIKES_CODE.replace("FILE", SPIKES)
        for name, value in values.items():
            code = code.replace(name, str(value))
        return code

    def read_ends(self, last: np.ndarray) -> np.ndarray:
        """Give the states at the ends of all holds, shape (holds, states); `last` is the last."""
        return np.vstack([np.fromfile(self.folder / ENDS).reshape(-1, len(last)), last])

    def read_raster(self, steps: int) -> np.ndarray:
        """Give which neurons fired, shape (steps, neurons), uint8; no steps if not recorded."""
        if not self.raster:
            return np.zeros((0, self.neurons), np.uint8)
        raster = np.zeros((steps, self.neurons), np.uint8)
        numbers, place = np.fromfile(self.folder / SPIKES, np.int32), 0
        for step in raster:  # how many fired, and which
            beyond = place + 1 + numbers[place]
            step[numbers[place + 1 : beyond]] = 1
            place = beyond
        return raster


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
    records = Records(folder, network.steps_per_presentation, job.memory.neurons, job.raster)
    states, *others = _objects(b2, job, records)
    simulation = b2.Network(states, *others)
    b2.seed(job.noise_seed)
    simulation.run(
        job.channels.shape[1] * network.presentation_ms * b2.ms,
        namespace={},
        report=f'std::ofstream("../{PROGRESS}") << completed;' if job.tell else None,
        report_period=_SECONDS_BETWEEN_REPORTS * b2.second,
    )
    device.build(directory=str(folder / "program"), compile=True, run=False)
    built = os.times()
    device.run(with_output=False)
    seconds = {"build": _spent(begun, built), "run": _spent(built, os.times())}
    ends = records.read_ends(np.asarray(states.x))
    return _outcome(
        job, ends, records.read_raster(len(ends) * network.steps_per_presentation), seconds
    )


def _objects(b2: Any, job: Job, records: Records) -> tuple[Any, Any, Any]:
    """Give the states, the neurons, and the states' update."""
    network, memory, (samples, holds, _) = job.network, job.memory, job.channels.shape
    clock = b2.Clock(dt=network.dt_ms * b2.ms, name="lmu_clock")
    states = _state_group(b2, network, memory, samples, clock)
    neurons = _neuron_group(b2, network, memory, states, job.membranes, clock)
    values = job.channels.transpose(1, 0, 2).reshape(holds, -1)
    held = b2.TimedArray(values, network.presentation_ms * b2.ms, "lmu_held")
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
