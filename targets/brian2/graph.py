"""Simulation of a stage of a SpikingGraph in Brian2: all of its ensembles at once.

Each ensemble is a group of neurons, which read their drives through linked variables. Connections,
filters and currents of all ensembles are one network operation, between threshold and reset, on the
spikes of that step as sparse matrices.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import block_diag, csr_array

from lmu_deploy.core.spiking.graph import Ensemble
from targets.brian2.library import brian2_library
from targets.brian2.neurons import Curves, neuron_group
from targets.spiking.graph import Activity, Stage


def simulate(stage: Stage) -> Activity:
    """Simulate a stage; see :data:`targets.spiking.graph.Simulate`."""
    b2, graph, done = brian2_library(), stage.graph, Activity.empty(stage)
    clock = b2.Clock(dt=graph.dt_ms * b2.ms, name="lmu_clock")
    drives = [_Drive(each, stage) for each in (*stage.ensembles, *stage.probes)]
    objects, groups = [], []
    for number, each in enumerate(stage.ensembles):
        name = f"lmu_{number}"
        shown = b2.NeuronGroup(
            stage.samples * each.size, "x : 1", clock=clock, name=f"{name}_drive", namespace={}
        )
        neurons = _neurons(b2, stage, each, shown, clock, f"{name}_neurons")
        objects += [shown, neurons]
        groups.append((each, shown.variables["x"].get_value(), neurons, drives[number]))
    step = 0

    def present(presentation: int) -> None:
        for drive in drives:
            drive.present(presentation)
        for _, shown, _, drive in groups:
            shown[:] = drive.total.reshape(-1)

    def synapses() -> None:
        nonlocal step
        presentation, now = divmod(step, graph.steps_per_presentation)
        fired = {}
        for each, _, neurons, _ in groups:
            fired[each.name] = _sparse(neurons.spikes, stage.samples, each.neurons)
            _count(done, each, fired[each.name], presentation, step)
        for drive in drives:
            drive.advance(fired)
        if now == graph.steps_per_presentation - 1:
            for drive in drives:
                drive.read(done, presentation)
            if presentation + 1 < stage.steps:
                present(presentation + 1)
        else:
            for _, shown, _, drive in groups:
                shown[:] = drive.total.reshape(-1)
        step += 1

    present(0)
    update = b2.NetworkOperation(synapses, clock=clock, when="synapses", name="lmu_synapses")
    simulation = b2.Network(*objects, update)
    generator_state = np.random.get_state()  # noqa: NPY002 - Brian2 seeds and uses this one
    try:
        first = stage.noise[stage.ensembles[0].name] if stage.ensembles else None
        b2.seed(0 if first is None else int(first.integers(2**31)))
        simulation.run(stage.steps * graph.presentation_ms * b2.ms, namespace={})
    finally:
        np.random.set_state(generator_state)  # noqa: NPY002
    return done


def _neurons(b2: Any, stage: Stage, each: Ensemble, shown: Any, clock: Any, name: str) -> Any:
    """Build the neurons of all samples, each linked to the value that it encodes."""
    assert each.populations is not None
    membranes = stage.starts[each.name].random((stage.samples, each.neurons)).reshape(-1)
    index = np.repeat(np.arange(stage.samples * each.size), each.populations.neurons)
    curves = Curves.of_copies([each.populations], stage.samples)
    return neuron_group(b2, stage.graph, curves, (shown, index), membranes, clock, name)


def _sparse(spikes: np.ndarray, samples: int, neurons: int) -> csr_array:
    """Return the spikes of a step, ascending over all samples, as a matrix (samples, neurons)."""
    ends = np.searchsorted(spikes, np.arange(samples + 1) * neurons)
    return csr_array((np.ones(len(spikes)), spikes % neurons, ends), shape=(samples, neurons))


def _count(done: Activity, each: Ensemble, fired: csr_array, presentation: int, step: int) -> None:
    done.counts[each.name][:, presentation] += np.diff(fired.indptr)
    done.by_neuron[each.name] += np.bincount(fired.indices, minlength=each.neurons)
    if each.name in done.rasters:
        done.rasters[each.name][step, fired.indices[: fired.indptr[1]]] = 1


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
