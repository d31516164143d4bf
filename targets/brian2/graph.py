"""Simulation of a stage of a SpikingGraph in Brian2: all of its ensembles at once.

The neurons of all ensembles are one group, which read their drives through a linked variable.
Connections, filters and currents are one network operation, between threshold and reset, on the
spikes of that step as sparse matrices.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import block_diag, csr_array

from lmu_deploy.core.spiking.graph import Ensemble
from targets.brian2.library import brian2_library, own_garbage
from targets.brian2.neurons import Curves, neuron_group
from targets.brian2.synapses import SpikeMatrix
from targets.spiking.graph import Activity, Stage


@own_garbage()
def simulate(stage: Stage) -> Activity:
    """Simulate a stage; see :data:`targets.spiking.graph.Simulate`."""
    b2, graph, done = brian2_library(), stage.graph, Activity.empty(stage)
    clock = b2.Clock(dt=graph.dt_ms * b2.ms, name="lmu_clock")
    drives = [_Drive(each, stage) for each in (*stage.ensembles, *stage.probes)]
    own = list(zip(stage.ensembles, drives, strict=False))
    values = sum(stage.samples * each.size for each in stage.ensembles)
    states = b2.NeuronGroup(values, "x : 1", clock=clock, name="lmu_states", namespace={})
    neurons = _neurons(b2, stage, states, clock)
    x = states.variables["x"].get_value()
    ends = np.cumsum([0, *(stage.samples * each.neurons for each in stage.ensembles)])
    matrices = {each.name: SpikeMatrix(stage.samples, each.neurons) for each, _ in own}
    rows = {each.name: np.arange(stage.samples + 1) * each.neurons for each, _ in own}
    step = 0

    def show() -> None:
        x[:] = np.concatenate([drive.total.reshape(-1) for _, drive in own])

    def synapses() -> None:
        nonlocal step
        presentation, now = divmod(step, graph.steps_per_presentation)
        cuts = np.searchsorted(neurons.spikes, ends)
        fired = {}
        for number, (each, _) in enumerate(own):
            spikes = neurons.spikes[cuts[number] : cuts[number + 1]] - ends[number]
            spikes, bounds = spikes % each.neurons, np.searchsorted(spikes, rows[each.name])
            fired[each.name] = matrices[each.name].filled(spikes, bounds)
            _count(done, each, fired[each.name], presentation, step)
        for drive in drives:
            drive.advance(fired)
            if now == graph.steps_per_presentation - 1:
                drive.read(done, presentation)
                if presentation + 1 < stage.steps:
                    drive.present(presentation + 1)
        show()
        step += 1

    for drive in drives:
        drive.present(0)
    show()
    update = b2.NetworkOperation(synapses, clock=clock, when="synapses", name="lmu_synapses")
    simulation = b2.Network(states, neurons, update)
    generator_state = np.random.get_state()  # noqa: NPY002 - Brian2 seeds and uses this one
    try:
        b2.seed(int(stage.noise[stage.ensembles[0].name].integers(2**31)))
        simulation.run(stage.steps * graph.presentation_ms * b2.ms, namespace={})
    finally:
        np.random.set_state(generator_state)  # noqa: NPY002
    return done


def _neurons(b2: Any, stage: Stage, states: Any, clock: Any) -> Any:
    """Build the neurons of all ensembles and samples, each linked to the value that it encodes."""
    curves, membranes, indices, first = [], [], [], 0
    for each in stage.ensembles:
        assert each.populations is not None
        curves.append(Curves.of_copies([each.populations], stage.samples))
        drawn = stage.starts[each.name].random((stage.samples, each.neurons))
        membranes.append(drawn.reshape(-1))
        values = np.arange(first, first + stage.samples * each.size)
        indices.append(np.repeat(values, each.populations.neurons))
        first += stage.samples * each.size
    return neuron_group(
        b2,
        stage.graph,
        Curves.joined(curves),
        (states, np.concatenate(indices)),
        np.concatenate(membranes),
        clock,
        "lmu_neurons",
    )


def _count(done: Activity, each: Ensemble, fired: csr_array, presentation: int, step: int) -> None:
    done.counts[each.name][:, presentation] += np.diff(fired.indptr)
    done.by_neuron[each.name] += np.bincount(fired.indices, minlength=each.neurons)
    if each.name in done.rasters:
        done.rasters[each.name][step, fired.indices[: fired.indptr[1]]] = 1
    if each.name in done.counted:
        counted = done.counted[each.name]
        ends = fired.indptr[: len(counted) + 1]
        samples = np.repeat(np.arange(len(counted)), np.diff(ends))
        counted[samples, presentation, fired.indices[: ends[-1]]] += 1


class _Drive:
    """Synapses and currents of one ensemble, for all samples."""

    def __init__(self, ensemble: Ensemble, stage: Stage) -> None:
        self.ensemble, self.values = ensemble, stage.values
        per_spike = 1.0 / (stage.graph.dt_ms * 1e-3)
        self.effects = [
            (each.source, each.fast, _matrix(each.weights) * per_spike)
            for each in ensemble.connections
        ]
        self.decays = stage.graph.decay, stage.graph.fast_decay
        self.filtered = [np.zeros((stage.samples, ensemble.size)) for _ in self.decays]
        self.entering = self.injected = np.zeros((stage.samples, ensemble.size))

    @property
    def total(self) -> np.ndarray:
        """X + r + i, shape (samples, size)."""
        slow, fast = self.filtered
        return slow + fast + self.injected

    def present(self, presentation: int) -> None:
        """Set the currents of a presentation, each sample by itself."""
        found = {False: np.zeros_like(self.filtered[0]), True: np.zeros_like(self.filtered[0])}
        for current in self.ensemble.currents:
            values = self.values[current.source][:, presentation]
            found[current.direct] += np.stack([current.weights @ row for row in values])
        self.entering, self.injected = found[False], found[True]

    def advance(self, fired: dict[str, csr_array]) -> None:
        """Advance both filters by one step."""
        pushes = [self.entering.copy(), np.zeros_like(self.entering)]
        for source, fast, matrix in self.effects:
            product = fired[source] @ matrix
            pushes[fast] += product.toarray() if hasattr(product, "toarray") else product
        for filtered, decay, push in zip(self.filtered, self.decays, pushes, strict=True):
            filtered *= decay
            filtered += (1.0 - decay) * push

    def read(self, done: Activity, presentation: int) -> None:
        """Record the drive at the end of a presentation."""
        into = done.read if self.ensemble.populations is None else done.drives
        into[self.ensemble.name][:, presentation] = self.total


def _matrix(weights: np.ndarray) -> Any:
    """Return what each neuron adds to each value of the drive, sparse if there are blocks."""
    effects = weights.swapaxes(1, 2)
    return effects[0] if len(effects) == 1 else csr_array(block_diag(list(effects)))
