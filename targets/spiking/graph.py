"""Run a graph of neurons: batches of samples, stage by stage, and what the host does between.

Targets differ only in how they simulate the ensembles of a stage, a :data:`Simulate`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converters.spiking.graph.simulator import Circuit, GraphSimulator, HostValues, simulated
from lmu_deploy.core.graph.executor import check_steps
from lmu_deploy.core.graph.pointwise import Activation
from lmu_deploy.core.integer.parts import Place
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.spiking.chip import CALIBRATION_MARGIN
from lmu_deploy.core.spiking.graph import AnalogNetwork, Ensemble, LoihiGraph, SpikingGraph
from lmu_deploy.core.validation import check_inputs, check_integer
from targets.base import LARGEST_RASTER, Run, States, flat_frames, samples_counted

_NEURONS_AT_ONCE = 500_000
_MOST_SAMPLES = 128


@dataclass(frozen=True)
class Stage:
    """What is simulated at once.

    Attributes
    ----------
    graph : SpikingGraph or LoihiGraph
    ensembles, probes : tuple of Ensemble or LoihiEnsemble
    values : mapping of source to ndarray, shape (samples, steps, features)
        What the host sends.
    samples, steps : int
    starts, noise : mapping of ensemble to Generator
        Draw initial membranes, sample after sample, and noise.
    rasters : bool
        Record the spikes of sample 0.
    first : int
        Number of its first sample.
    counted : bool
        Count the spikes of every neuron in the first samples.
    """

    graph: Any
    ensembles: tuple[Any, ...]
    probes: tuple[Any, ...]
    values: Mapping[str, np.ndarray]
    samples: int
    steps: int
    starts: Mapping[str, np.random.Generator]
    noise: Mapping[str, np.random.Generator]
    rasters: bool
    first: int = 0
    counted: bool = False

    @property
    def senders(self) -> dict[str, int]:
        """Number of senders of each kind that the graph counts, of this stage."""
        names = self.graph.senders_of((*self.ensembles, *self.probes))
        return {
            name: len(reached) for name, reached in self.graph.senders().items() if name in names
        }


@dataclass(frozen=True)
class Activity:
    """What a stage did.

    Attributes
    ----------
    read : mapping of probe to ndarray, shape (samples, steps, size)
        Drives at the ends of presentations.
    drives : mapping of ensemble to ndarray, shape (samples, steps, size)
        Likewise, in units of the scales.
    counts : mapping of sender to ndarray, shape (samples, steps), int64
        Spikes of an ensemble, or messages of its relays and of the host.
    by_neuron : mapping of sender to ndarray, shape (neurons,), int64
        Events of all samples.
    rasters : mapping of sender to ndarray, shape (chip steps, neurons), uint8
        Events of sample 0.
    counted : mapping of sender to ndarray, shape (first samples, steps, neurons), uint16
        Events of every neuron in every presentation.
    saturations : mapping of place to int
        Values that did not fit their register or message.
    """

    read: dict[str, np.ndarray] = field(default_factory=dict)
    drives: dict[str, np.ndarray] = field(default_factory=dict)
    counts: dict[str, np.ndarray] = field(default_factory=dict)
    by_neuron: dict[str, np.ndarray] = field(default_factory=dict)
    rasters: dict[str, np.ndarray] = field(default_factory=dict)
    counted: dict[str, np.ndarray] = field(default_factory=dict)
    saturations: dict[str, int] = field(default_factory=dict)

    @classmethod
    def empty(cls, stage: Stage, extra_steps: int = 0) -> Activity:
        """Return an activity of zeros; rasters have some more steps behind the last input."""
        shape, found = (stage.samples, stage.steps), cls()
        chip_steps = stage.steps * stage.graph.steps_per_presentation + extra_steps
        for each in stage.probes:
            found.read[each.name] = np.zeros((*shape, each.size))
        for each in stage.ensembles:
            found.drives[each.name] = np.zeros((*shape, each.size))
        for name, neurons in stage.senders.items():
            found.counts[name] = np.zeros(shape, np.int64)
            found.by_neuron[name] = np.zeros(neurons, np.int64)
            if stage.rasters and neurons * chip_steps <= LARGEST_RASTER:
                found.rasters[name] = np.zeros((chip_steps, neurons), np.uint8)
            kept = min(samples_counted(stage.steps, neurons) - stage.first, stage.samples)
            if stage.counted and kept > 0:
                found.counted[name] = np.zeros((kept, stage.steps, neurons), np.uint16)
        return found

    def count(self, name: str, fired: np.ndarray, step: int, chip_step: int) -> None:
        """Count the events of a sender in a chip step, shape (samples, neurons), bool."""
        self.counts[name][:, step] += fired.sum(axis=1)
        self.by_neuron[name] += fired.sum(axis=0)
        if name in self.rasters:
            self.rasters[name][chip_step] = fired[0]
        if name in self.counted:
            self.counted[name][:, step] += fired[: len(self.counted[name])]


Simulate = Callable[[Stage], Activity]


def simulate(stage: Stage) -> Activity:
    """Simulate a stage in NumPy, in double precision."""
    graph, done = stage.graph, Activity.empty(stage)
    circuit = Circuit(graph.neuron, graph.device, graph.dt_ms, graph.tau_ms, graph.fast_tau_ms)
    everything = [*stage.ensembles, *stage.probes]
    neurons = simulated(circuit, everything, stage.samples, stage.starts, stage.noise, np.float64)
    simulator = GraphSimulator(circuit, everything, neurons, stage.samples, np.float64)
    for step in range(stage.steps):
        simulator.present({name: value[:, step] for name, value in stage.values.items()})
        for now in range(graph.steps_per_presentation):
            for name, spikes in simulator.step().items():
                fired = spikes.reshape(stage.samples, -1)
                done.count(name, fired, step, step * graph.steps_per_presentation + now)
        for each, drive in zip(everything, simulator.drives, strict=True):
            into = done.read if each.populations is None else done.drives
            into[each.name][:, step] = drive
    return done


def recorded_as(graph: SpikingGraph, ensemble: Ensemble) -> str:
    """Return the name under which a run records the drives of an ensemble or a probe.

    States of a memory are its drives. Those of units do not follow from their values.
    """
    if ensemble.populations is None:
        return str(Place(ensemble.name, "read"))
    is_memory = graph.kind(ensemble) == "memory"
    return ensemble.name if is_memory else str(Place(ensemble.name, "drive"))


class GraphRunner:
    """Runs batches of samples in order; the random numbers of one depend on those before it.

    Parameters
    ----------
    target : str
    graph : SpikingGraph or LoihiGraph
    inputs : ndarray, shape (samples, steps, n_in)
    seed : int
    run_stage : Simulate
    settings : mapping
        Those of the target.
    progress : callable, optional
        Called with (samples done, samples in total).
    """

    def __init__(
        self,
        target: str,
        graph: SpikingGraph | LoihiGraph,
        inputs: np.ndarray,
        seed: int,
        run_stage: Simulate,
        settings: Mapping[str, Any],
        progress: Progress | None = None,
    ) -> None:
        self.inputs = check_inputs(flat_frames(inputs), graph.n_in)
        check_steps(graph.host, self.inputs.shape[1])
        self.target, self.graph, self.run_stage = target, graph, run_stage
        self.seed, self.settings = check_integer("seed", seed, 0, 2**32 - 1), settings
        self.progress = progress

    def run(self, record: bool) -> Run:
        """Return the run of all samples."""
        start = time.perf_counter()
        parts = list(self._batches(len(self.inputs) if record else 0))
        return self._run(parts, record, time.perf_counter() - start)

    def parts(self, record: int) -> Iterator[Run]:
        """Yield the runs of batches, whose states are kept for so many first samples."""
        done, start = 0, time.perf_counter()
        for batch in self._batches(record):
            yield self._run([batch], done < record, time.perf_counter() - start)
            done, start = done + len(batch.y), time.perf_counter()

    def _batches(self, record: int) -> Iterator[_Batch]:
        graph, samples = self.graph, len(self.inputs)
        names = [each.name for each in graph.ensembles]
        starts = {n: np.random.default_rng([self.seed, i]) for i, n in enumerate(names)}
        noise = {n: np.random.default_rng([self.seed, i, 1]) for i, n in enumerate(names)}
        size = int(np.clip(_NEURONS_AT_ONCE // graph.neurons, 1, _MOST_SAMPLES))
        for first in range(0, samples, size):
            inputs = self.inputs[first : first + size]
            host, activities = HostValues(graph.host, inputs), []
            for ensembles, probes in graph.stages:
                values = host.currents((*ensembles, *probes))
                steps = next(iter(values.values())).shape[1]
                stage = Stage(
                    graph,
                    ensembles,
                    probes,
                    values,
                    len(inputs),
                    steps,
                    starts,
                    noise,
                    rasters=first == 0,
                    first=first,
                    counted=first < record and isinstance(graph, SpikingGraph),
                )
                done = self.run_stage(stage)
                activities.append(done)
                for name, read in done.read.items():
                    host.read(name, read)
            yield _Batch(graph, activities, host)
            if self.progress:
                self.progress(min(first + size, samples), samples)

    def _run(self, batches: list[_Batch], record: bool, seconds: float) -> Run:
        graph = self.graph
        y = np.concatenate([batch.y for batch in batches])
        reached, states = graph.senders(), None
        if record:
            found = [batch.states() for batch in batches]
            m, h = (np.concatenate([each[i] for each in found]) for i in (0, 1))
            first = batches[0].recorded
            parts = {n: np.concatenate([batch.recorded[n] for batch in batches]) for n in first}
            states = States(m, h, y, np.ones(m.shape[2]), np.ones(h.shape[2]), parts=parts)
        return Run(
            target=self.target,
            outputs=y if graph.return_sequences else y[:, -1],
            neurons={name: len(synapses) for name, synapses in reached.items()},
            events={n: np.concatenate([b.counts[n] for b in batches]) for n in reached},
            synops=sum(
                int(batch.by_neuron[name] @ synapses)
                for batch in batches
                for name, synapses in reached.items()
            ),
            saturations=_totals([batch.saturations for batch in batches]),
            steps=y.shape[1],
            chip_steps=y.shape[1] * graph.steps_per_presentation + isinstance(graph, LoihiGraph),
            wall_seconds=seconds,
            seed=self.seed,
            states=states,
            rasters=batches[0].rasters,
            counts={
                name: np.concatenate([b.counted[name] for b in batches if name in b.counted])
                for name in batches[0].counted
            },
            notes=notes(graph, y.shape[1]),
            settings={**_settings(graph), **self.settings},
        )


class _Batch:
    """Values of all stages of a batch."""

    def __init__(
        self, graph: SpikingGraph | LoihiGraph, stages: list[Activity], host: HostValues
    ) -> None:
        self._graph, self._host = graph, host
        self.counts = {n: c for each in stages for n, c in each.counts.items()}
        self.by_neuron = {n: c for each in stages for n, c in each.by_neuron.items()}
        self.rasters = {n: r for each in stages for n, r in each.rasters.items()}
        self.counted = {n: c for each in stages for n, c in each.counted.items()}
        self._drives = {n: d for each in stages for n, d in each.drives.items()}
        reads = {n: d for each in stages for n, d in each.read.items()}
        self.y = host[graph.host.output]
        self.y = self.y.reshape(*self.y.shape[:2], -1)
        self.values = {}
        for name, drives in self._drives.items():
            given, operator = drives * graph[name].scales, graph.host[name].operator
            is_units = isinstance(operator, Activation)
            self.values[name] = operator.apply(given) if is_units else given  # type: ignore[attr-defined]
        self.recorded = {}
        """Values of the ensembles, and the drives from which they do not follow."""
        if isinstance(graph, SpikingGraph):
            read = [(each, reads[each.name]) for each in graph.probes]
            read += [(each, self._drives[each.name] * each.scales) for each in graph.ensembles]
            self.recorded = {recorded_as(graph, each): drives for each, drives in read}
        self.recorded |= self.values
        self.saturations = _totals([each.saturations for each in stages])
        if isinstance(graph, SpikingGraph):
            for each in graph.ensembles:
                if graph.kind(each) == "memory":
                    self.saturations[str(Place(each.name, "state"))] = self._beyond(each.name)

    def _beyond(self, name: str) -> int:
        """Count the drives outside the range that the calibration covers."""
        return int(np.count_nonzero(np.abs(self._drives[name]) > CALIBRATION_MARGIN))

    def states(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the states of all memories, and the hidden units, in the order of the nodes."""
        found: dict[str, list[np.ndarray]] = {"memory": [], "hidden": []}
        on_host = set(self._graph.on_host)
        for node in self._graph.host.nodes:
            if node.name in self.values:
                ensemble = self._graph[node.name]
                if self._graph.kind(ensemble) == "memory":
                    found["memory"].append(self.values[node.name])
                elif ensemble.hidden:
                    found["hidden"].append(self.values[node.name])
            elif node.name in on_host:
                for part, values in self._host.states(node.name).items():
                    found[part].append(values)
        none = np.zeros((*self.y.shape[:2], 0))
        return (
            np.concatenate([none, *found["memory"]], axis=2),
            np.concatenate([none, *found["hidden"]], axis=2),
        )


def _totals(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for each in counts:
        for place, count in each.items():
            found[place] = found.get(place, 0) + count
    return found


def foreign(network: AnalogNetwork) -> list[str]:
    """Return the reason why a simulation does not show what the network's own chip does."""
    if not (board := network.device.board):
        return []
    return [
        f"its weights were calibrated for device {board}, and the mismatch of its neurons is not "
        "in the file; run it on that device"
    ]


_OF_ANALOG = "Synaptic operations count every neuron that receives a spike, weights not factored."
_OF_LOIHI = (
    "Relays store the sums of spikes and send graded messages, which the first Loihi does not "
    "support: there an embedded core or the host computes them."
)


def notes(graph: SpikingGraph | LoihiGraph, steps: int) -> tuple[str, ...]:
    """Return what ran where, and how often values went through the host."""
    found = [
        "Memories and units ran on spiking neurons; y is read from the synapses of the last nodes "
        "on the chip.",
        f"Each input was presented for {graph.presentation_ms:g} ms; states are those of the "
        "synapses at the end of the presentation.",
        _OF_ANALOG if isinstance(graph, SpikingGraph) else _OF_LOIHI,
    ]
    if on_host := graph.on_host:
        words = [f"{name} ({graph.host[name].operator.describe()})" for name in on_host]
        found.append(f"On the host in float: {', '.join(words)}.")
    if trips := graph.round_trips:
        found.append(
            f"Every presentation goes {trips} times from the chip through the host and back, "
            f"{trips * steps:,} times a sample; the simulation ran the stages between one after "
            "the other."
        )
    return tuple(found)


def _settings(graph: SpikingGraph | LoihiGraph) -> dict[str, Any]:
    """Return the configuration of the chip as JSON values."""
    chip: dict[str, Any]
    if isinstance(graph, SpikingGraph):
        names = ["mismatch", "membrane_noise", "threshold_noise", "tau_mismatch", "weight_bits"]
        chip = {
            "profile": graph.device.profile,
            "chip_seed": graph.device.seed,
            **{name: getattr(graph.device, name) for name in names},
            "neuron": graph.neuron.kind,
            "synapse": "linear",
            "maximum_rates": graph.maximum_rates,
        }
    else:
        neurons = graph.ensembles[0].populations
        assert neurons is not None  # checked at construction
        names = ["current_decay", "membrane_decay", "threshold"]
        chip = {
            "profile": graph.profile,
            "weight_bits": 8,
            "neuron": "lif, fixed point",
            **{name: getattr(neurons, name) for name in names},
        }
    return {
        **chip,
        "neurons_per_state": graph.neurons_per("memory"),
        "neurons_per_unit": graph.neurons_per("units"),
        "readout_tau_ms": graph.fast_tau_ms,
        "calibration": graph.calibration.method,
        "calibration_error": graph.calibration.fit_error,
        "calibration_ridge": graph.calibration.ridge,
        "calibration_samples": graph.calibration.samples,
        "dt_ms": graph.dt_ms,
        "tau_ms": graph.tau_ms,
        "presentation_ms": graph.presentation_ms,
    }
