r"""One memory as Brian2 objects for the C++ device, and the records of the compiled program.

One equation advances states and counters once per step, between thresholds and resets, as in
:mod:`lmu_deploy.core.spiking.network`:

.. math:: x \leftarrow k\, x + q\,(\text{effects of spikes} + r\, u)

with :math:`k = a`, :math:`q = 1 - a` and r of :math:`S^{-1} B'` for a state. Each channel has two
more "states" with :math:`k = q = 1`, r = 0, which count its spikes and their synapses.

The effects of spikes are computed by a C++ function that Brian2's equations call. Brian2's own
Synapses look up each synapse of a spike by number, in a queue; here a spike's row of W is added at
once, and all samples share one W.

Brian2's monitors do not fit the records. A monitor of states at the ends of presentations would
need a clock of its own, which Brian2 compares with that of the steps to 1e-14 s; beyond 64 s the
rounding errors of two clocks exceed this, and a state would be recorded one step late. A monitor of
spikes cannot record a part of a group that has linked variables, and would record all samples.
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
    """Build the function of a state's number, for code that iterates over all states in order.

    Parameters
    ----------
    b2 : module
        Brian2 with the C++ device.
    neurons : NeuronGroup
        Sample by sample, `len(effects)` neurons each.
    effects : ndarray, shape (neurons of a sample, states of a channel)
        Effect of a spike on the states of its channel. Neurons are ordered channel by channel, with
        equal numbers.
    channels : int
        Channels of a sample. States are ordered by sample, channel and state.
    recording : str
        C++ that runs once per step, before the states advance.

    Returns
    -------
    brian2.Function
        Of one integer. It uses the spikes of the same step, so it must run after thresholds. The
        list of spikes is sorted; each is read once, by the first state of its sample and channel.
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
    raise NotImplementedError("it runs in the compiled program only")


ENDS, SPIKES = "ends.bin", "spikes.bin"
_ENDS_CODE = """
        static std::ofstream ends("../FILE", std::ios::binary);
        static int64_t step = 0;
        if (step > 0 && step % PERIOD == 0) ends.write((const char*)STATES, COUNT * sizeof(double));
        step++;"""

_SPIKES_CODE = """
        static std::ofstream record("../FILE", std::ios::binary);
        int32_t fired = 0;
        while (spike + fired < end && spike[fired] < NEURONS) fired++;
        record.write((const char*)&fired, sizeof(fired));
        record.write((const char*)spike, fired * sizeof(fired));"""


@dataclass(frozen=True)
class Records:
    """Two files that a program writes.

    Attributes
    ----------
    folder : Path
        Parent of the program's folder.
    presentation_steps : int
        Simulation steps of one presentation.
    neurons : int
        Neurons of a sample.
    raster : bool
        Whether spikes are recorded.
    """

    folder: Path
    presentation_steps: int
    neurons: int
    raster: bool

    def code(self, b2: Any, states: Any) -> str:
        """Return the C++ that runs once per step, after thresholds and before the states advance.

        There, `spike` and `end` point to the first of the step's sorted spikes and behind the last.
        The states are those of the previous step, so that those of the last presentation are not
        recorded.
        """
        x = b2.get_device().get_array_name(states.variables["x"])
        values = {
            "PERIOD": self.presentation_steps,
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
        """Read the states at the ends of all presentations, shape (presentations, states).

        Parameters
        ----------
        last : ndarray, shape (states,)
            States at the end of the last presentation.
        """
        return np.vstack([np.fromfile(self.folder / ENDS).reshape(-1, len(last)), last])

    def read_raster(self, steps: int) -> np.ndarray:
        """Read the spikes, shape (steps, neurons), uint8; without steps if not recorded."""
        if not self.raster:
            return np.zeros((0, self.neurons), np.uint8)
        raster = np.zeros((steps, self.neurons), np.uint8)
        numbers, place = np.fromfile(self.folder / SPIKES, np.int32), 0
        for step in raster:  # the number of spikes, and their neurons
            beyond = place + 1 + numbers[place]
            step[numbers[place + 1 : beyond]] = 1
            place = beyond
        return raster


_COUNTERS = 2
_STATES = """
x : 1
kept : 1 (constant)
share : 1 (constant)
per_input : 1 (constant)
channel : integer (constant)
"""
_UPDATE = "x = kept * x + share * (lmu_arriving(i) + per_input * lmu_input(t, channel))"
_SECONDS_BETWEEN_REPORTS = 0.5
_Seconds = Mapping[str, tuple[float, float]]


def simulate(job: Job, folder: Path) -> Outcome:
    """Generate, compile and run the program of a job; use Brian2 only once per process.

    Parameters
    ----------
    job : Job
    folder : Path
        Parent of the program's folder, and folder of its records and its progress.
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
        report=f'std::ofstream("../{PROGRESS}") << completed;' if job.report_progress else None,
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
    """Build the states, the neurons, and the update of states."""
    network, memory, (samples, presentations, _) = job.network, job.memory, job.channels.shape
    clock = b2.Clock(dt=network.dt_ms * b2.ms, name="lmu_clock")
    states = _state_group(b2, network, memory, samples, clock)
    neurons = _neuron_group(b2, network, memory, states, job.membranes, clock)
    values = job.channels.transpose(1, 0, 2).reshape(presentations, -1)
    inputs = b2.TimedArray(values, network.presentation_ms * b2.ms, "lmu_input")
    effects, recording = _effects(network, memory), records.code(b2, states)
    function = arriving(b2, neurons, effects, memory.channels, recording)
    states.namespace.update({"lmu_input": inputs, "lmu_arriving": function})
    update = states.run_regularly(_UPDATE, clock=clock, when="synapses", name="lmu_update")
    return states, neurons, update


def _outcome(job: Job, x: np.ndarray, raster: np.ndarray, seconds: _Seconds) -> Outcome:
    """Separate states and counters; `x` are those at the ends of presentations."""
    memory, (samples, presentations, _) = job.memory, job.channels.shape
    x = x.reshape(presentations, samples, memory.channels, -1).swapaxes(0, 1)
    counted = np.rint(x[..., memory.order :].sum(axis=2)).astype(np.int64)
    return Outcome(
        m=(x[..., : memory.order] * memory.scales).reshape(samples, presentations, -1),
        counts=np.diff(counted[..., 0], axis=1, prepend=0),
        synops=int(counted[:, -1, 1].sum()),
        raster=raster,
        seconds=seconds,
        version=str(brian2_library().__version__),
    )


def _effects(network: SpikingNetwork, memory: SpikingMemory) -> np.ndarray:
    """Return each neuron's effect on states and counters, shape (neurons, order + 2)."""
    per_spike = 1.0 / (network.dt_ms * 1e-3)
    effects = memory.weights.transpose(0, 2, 1).reshape(memory.neurons, memory.order) * per_spike
    return np.column_stack([effects, np.ones(memory.neurons), memory.synapses])


def _state_group(
    b2: Any, network: SpikingNetwork, memory: SpikingMemory, samples: int, clock: Any
) -> Any:
    """Build the states of all samples, with two counters after those of each channel."""
    channels, order, decay = memory.channels, memory.order, network.decay
    copies, width = samples * channels, order + _COUNTERS
    counter = np.arange(width) >= order
    per_input = np.zeros((channels, width))
    per_input[:, :order] = memory.scaled_input
    group = b2.NeuronGroup(copies * width, _STATES, clock=clock, name="lmu_states", namespace={})
    group.kept = np.tile(np.where(counter, 1.0, decay), copies)
    group.share = np.tile(np.where(counter, 1.0, 1.0 - decay), copies)
    group.per_input = np.tile(per_input.reshape(-1), samples)
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
    """Build the neurons of all samples, each linked to the state that it encodes."""
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
    """Return seconds of wall time, and of processor time including child processes."""
    return end.elapsed - start.elapsed, sum(end[:4]) - sum(start[:4])


def _processors() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
