r"""Attribution of the errors of a spiking network: neurons, mismatch, noise, weights, calibration.

Sources are enabled one after another. First the memories spike, layer by layer, on a chip without
imperfections; this error is caused by the number and type of neurons. Then mismatch, noise and
weight rounding are added, each time with dynamic calibration (chips.py). The next step is the
network itself: its change is caused by its own calibration, or by changes of the chip since then.
Hidden units and a readout on neurons come last. All sources except neurons require neurons and
cannot act alone; their error alone is what they add to the squared error of the neurons, and for
units what they add to all earlier sources.

A population is a cause when refitting its weights alone reduces the error. On the actual trajectory
of the network, the drive of the synapses differs from the ideal drive by the residual r, filtered
as the synapses filter,

.. math:: r = h * \big(S^{-1} A' S x - W s / dt\big).

W was fitted to all populations together, so a population has no correct contribution of its own.
But a population that changed after the fit leaves a residual that its own spikes explain:
:math:`\Delta W_j` is the ridge regression of r on the filtered spikes of population j, over half of
the samples. The share that it explains of the other half measures how much j contributes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from converters.spiking.device import NeuronDevice
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.spiking.network import SpikingMemory, SpikingNetwork
from lmu_deploy.core.validation import check_inputs, check_integer
from lmu_deploy.fidelity.attribution.chips import (
    Chips,
    effects,
    ideal_drive,
    run_hybrid,
    same_chip,
    same_populations,
    with_populations,
)
from lmu_deploy.fidelity.attribution.measure import Errors, SpikingAblationRunner
from lmu_deploy.fidelity.attribution.shapley import LayersOnChip, OverChips, Parts
from lmu_deploy.fidelity.attribution.study import Attribution, Cause, Step
from lmu_deploy.fidelity.attribution.switches import (
    CALIBRATION,
    DAMAGE,
    MISMATCH,
    NEURONS,
    NOISE,
    UNITS,
    WEIGHT_BITS,
    Tally,
)
from lmu_deploy.fidelity.streaming import affordable
from lmu_deploy.tasks.base import Task
from targets.brian2.target import Brian2Target

_RIDGE = 1e-3
_EVERY = 4


@dataclass(frozen=True)
class PopulationRefit:
    """Refit of the weights of one population.

    Attributes
    ----------
    layer, state : int
    explained : float
        Share of the squared residual of its channel that the refit removes on held-out samples;
        negative when the refit increases it.
    change : ndarray, shape (order, neurons)
        Change of its columns of W, in seconds.
    """

    layer: int
    state: int
    explained: float
    change: np.ndarray


def refit_populations(
    network: SpikingNetwork, inputs: np.ndarray, seed: int = 0, device: NeuronDevice | None = None
) -> list[PopulationRefit]:
    """Refit each population alone; return the refits, the most effective first.

    Parameters
    ----------
    network : SpikingNetwork
        A network whose synapses are linear filters.
    inputs : ndarray, shape (at least 2, steps, n_in)
        The refit uses samples with an even index; the others evaluate it.
    seed : int
    device : NeuronDevice, optional
        See :func:`lmu_deploy.fidelity.attribution.chips.run_hybrid`.
    """
    layers = {n: _Layer(network, m) for n, m in enumerate(network.memories) if m is not None}

    def observe(number: int, x: np.ndarray, spikes: np.ndarray) -> None:
        layers[number].add(x, spikes)

    run_hybrid(network, inputs, layers, seed, observe, device)
    found = [refit for number, layer in layers.items() for refit in layer.refits(number)]
    return sorted(found, key=lambda refit: -refit.explained)


def with_refit(network: SpikingNetwork, refit: PopulationRefit) -> SpikingNetwork:
    """Return the network with the refitted weights of one population."""
    memory = network.memories[refit.layer]
    assert memory is not None
    channel, state = divmod(refit.state, memory.order)
    weights = memory.weights.copy()
    neurons = memory.populations.neurons
    weights[channel, :, state * neurons : (state + 1) * neurons] += refit.change
    memories = list(network.memories)
    memories[refit.layer] = replace(memory, weights=weights)
    return replace(network, memories=tuple(memories))


class _Layer:
    """Accumulator of the normal equations of the regressions of all populations."""

    def __init__(self, network: SpikingNetwork, memory: SpikingMemory) -> None:
        self.memory, self.decay, self.dt_ms = memory, network.decay, network.dt_ms
        self._ideal: Callable[[np.ndarray], np.ndarray] = ideal_drive(memory)
        self._effects = effects(memory, network.dt_ms)
        neurons, order = memory.populations.neurons, memory.order
        self._squares = np.zeros((2, memory.states, neurons, neurons))
        self._products = np.zeros((2, memory.states, neurons, order))
        self._power = np.zeros((2, memory.channels))
        self._step = 0

    def add(self, x: np.ndarray, spikes: np.ndarray) -> None:
        """Filter spikes and residual of one step; add their products at every fourth step."""
        memory, samples = self.memory, len(x)
        shape = (samples, memory.channels, memory.order, memory.populations.neurons)
        fired = spikes.reshape(shape).astype(np.float64)
        given = np.einsum("scjn,cjni->sci", fired, self._effects, optimize=True)
        lacking = self._ideal(x).reshape(given.shape) - given
        if self._step == 0:
            self._filtered, self._residual = np.zeros_like(fired), np.zeros_like(lacking)
        self._filtered = self.decay * self._filtered + (1.0 - self.decay) * fired
        self._residual = self.decay * self._residual + (1.0 - self.decay) * lacking
        self._step += 1
        if self._step % _EVERY:
            return
        for half in range(2):
            features, wanted = self._filtered[half::2], self._residual[half::2]
            rows = features.reshape(len(features), memory.states, -1).transpose(1, 0, 2)
            per_state = np.repeat(wanted, memory.order, axis=1).transpose(1, 0, 2)
            self._squares[half] += rows.transpose(0, 2, 1) @ rows
            self._products[half] += rows.transpose(0, 2, 1) @ per_state
            self._power[half] += (wanted**2).sum(axis=(0, 2))

    def refits(self, number: int) -> list[PopulationRefit]:
        """Solve the regressions of all populations."""
        found = []
        for state in range(self.memory.states):
            squares, products = self._squares[0, state], self._products[0, state]
            ridge = _RIDGE * max(float(np.trace(squares)) / len(squares), 1e-30)
            change = np.linalg.solve(squares + ridge * np.eye(len(squares)), products)
            judged, power = self._squares[1, state], self._power[1, state // self.memory.order]
            gained = 2.0 * np.sum(change * self._products[1, state])
            gained -= np.sum(change * (judged @ change))
            explained = float(gained / power) if power > 0 else 0.0
            found.append(PopulationRefit(number, state, explained, change.T * (self.dt_ms * 1e-3)))
        return found


_RELEVANT = 0.05
_NEARLY_ALL = 0.9


def find_causes(
    runner: SpikingAblationRunner,
    network: SpikingNetwork,
    steps: Sequence[Step],
    most: int,
    chips: Chips,
    parts: Parts | None = None,
) -> list[Cause]:
    """Find the causes of the output error, the largest first.

    The share of a source is that of its error alone. The share of the calibration is what a new one
    of the chip removes, and that of a population what its refit removes. A population that
    accounts for nearly all of the share of the calibration replaces it.

    Where a short test of the chip finds populations that are dead or noisy, they are the causes and
    no others, because the refit of a healthy population would only make up for them. The share of
    a damaged population is what would be gone without its damage, after a new calibration.

    Parameters
    ----------
    runner : SpikingAblationRunner
    network : SpikingNetwork
    steps : sequence of Step
    most : int
        Populations whose refit is tested.
    chips : Chips
    parts : Parts, optional
        Where a source has an interval with zero, it is no cause.
    """
    whole = steps[-1].after.output
    damaged = _damaged(chips, network, runner.device)
    populations = (
        list(_repairs(runner, network, chips, whole, damaged[:most]))
        if damaged
        else list(_populations(runner, network, whole, most, parts))
    )
    causes = list(_sources(steps, whole, parts))
    if any(cause.source == DAMAGE for cause in populations):
        causes = [cause for cause in causes if cause.source != DAMAGE]
    largest = max((cause.share for cause in populations), default=0.0)
    causes = [
        cause
        for cause in causes
        if cause.source != CALIBRATION or largest < _NEARLY_ALL * cause.share
    ]
    return sorted([*causes, *populations], key=lambda cause: -cause.share)


def with_units(
    causes: Sequence[Cause], steps: Sequence[Step], parts: Parts | None = None
) -> list[Cause]:
    """Combine causes without units on neurons with the error of the units.

    Parameters
    ----------
    causes : sequence of Cause
        With shares of the squared error without units.
    steps : sequence of Step
        The last step is that of the units.
    parts : Parts, optional
    """
    before, last = steps[-2].after.output, steps[-1]
    if not (whole := last.after.output):
        return list(causes)
    added = last.alone.output
    of_memories = min(before / whole, 1.0) ** 2
    found = [replace(cause, share=cause.share * of_memories) for cause in causes]
    certain = not (parts and parts.excluded(last.source))
    if (share := added**2 / whole**2) > _RELEVANT and certain:
        found.append(Cause(last.source, last.places[0], None, added, share, None, None))
    return sorted(found, key=lambda cause: -cause.share)


def _sources(steps: Sequence[Step], whole: float, parts: Parts | None) -> Iterator[Cause]:
    """Yield the sources of more than 5 % of the squared error; neurons by layer."""
    if not whole:
        return
    before = 0.0
    for step in steps:
        added, left = step.alone.output, step.alone.output
        if step.source == CALIBRATION:
            left = before
        share = added**2 / whole**2
        if share > _RELEVANT and not (parts and parts.excluded(step.source)):
            place = step.places[0] if len(step.places) == 1 else "all memories"
            yield Cause(step.kind or step.source, place, None, left, share, None, None)
        before = step.after.output


def _damaged(
    chips: Chips, network: SpikingNetwork, device: NeuronDevice | None
) -> list[tuple[int, int]]:
    """Return (layer, state) of the dead populations, then of the noisy ones."""
    found = chips.examined(network, device)
    dead = [(layer, state) for layer, health in found.items() for state in health.dead]
    noisy = [(layer, state) for layer, health in found.items() for state in health.noisy()]
    return [*dead, *noisy]


def _repairs(
    runner: SpikingAblationRunner,
    network: SpikingNetwork,
    chips: Chips,
    whole: float,
    damaged: Sequence[tuple[int, int]],
) -> Iterator[Cause]:
    """Yield damaged populations with what a chip without this damage would do better.

    The neurons of a device are unknown, so that a refit takes their place.
    """
    refits = (
        []
        if runner.device is None
        else refit_populations(network, runner.inputs, runner.seed, runner.device)
    )
    runner.report()
    for layer, state in damaged:
        explained = None
        if runner.device is None:
            fresh = chips.fresh()
            repaired = with_populations(network, fresh, layer, state)
            again = fresh if same_populations(repaired, fresh) else chips.recalibrated(repaired)
            left = min(runner.errors(each, runner.layers).output for each in (repaired, again))
        else:
            refit = next(r for r in refits if (r.layer, r.state) == (layer, state))
            left = runner.errors(with_refit(network, refit), runner.layers, runner.device).output
            explained = refit.explained
        share = 1.0 - left**2 / whole**2 if whole else 0.0
        place = f"{network.place(layer, 'memory')}/population{state}"
        yield Cause(DAMAGE, place, None, left, max(share, 0.0), explained, None)


def _populations(
    runner: SpikingAblationRunner,
    network: SpikingNetwork,
    whole: float,
    most: int,
    parts: Parts | None,
) -> Iterator[Cause]:
    """Yield the populations whose refit reduces the error; with `parts`, of other samples too."""
    refits = refit_populations(network, runner.inputs, runner.seed, runner.device)[:most]
    runner.report()
    for refit in refits:
        left = runner.errors(with_refit(network, refit), runner.layers, runner.device).output
        share = 1.0 - left**2 / whole**2 if whole else 0.0
        if share > _RELEVANT and (parts is None or refit.explained > _RELEVANT):
            place = f"{network.place(refit.layer, 'memory')}/population{refit.state}"
            yield Cause(CALIBRATION, place, None, left, share, refit.explained, None)


SAMPLES = 32
_SECONDS, _SECONDS_PER_CALIBRATION = 120.0, 2e-6
"""For all runs and calibrations, by an estimate from sizes; per channel and pair of neurons."""
_SOURCES = (MISMATCH, NOISE, WEIGHT_BITS)
_MOST_CAUSES = 3


def affordable_runs(network: SpikingNetwork, samples: int, steps: int) -> int:
    """Return the number of samples, at most 32, for an attribution of about two minutes.

    The result is 0 where even two samples, or the calibrations alone, take longer.

    Parameters
    ----------
    network : SpikingNetwork
    samples, steps : int
        Samples that there are, and steps of each.
    """
    most, work = min(SAMPLES, samples), _work(network)
    layers = [memory for memory in network.memories if memory is not None]
    features = [(memory.channels, memory.order * memory.populations.neurons) for memory in layers]
    each = sum(_SECONDS_PER_CALIBRATION * n * size**2 for n, size in features)
    chips = max(0, work - (2 * len(layers) - 1) - 1) // 2
    left = (_SECONDS - chips * each) / (work - chips + 1 + _MOST_CAUSES)
    count = affordable(Brian2Target(), network, most, steps, left)
    return count if Brian2Target().estimated_seconds(network, count, steps) <= left else 0


def attribute_spiking(
    network: SpikingNetwork,
    inputs: np.ndarray,
    targets: np.ndarray,
    task: Task,
    samples: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    chips: Chips | None = None,
    device: NeuronDevice | None = None,
    budget: float = 0.0,
) -> Attribution:
    """Attribute the errors of a spiking network to its sources and populations.

    Parameters
    ----------
    network : SpikingNetwork
    inputs : ndarray, shape (at least 2, steps, n_in)
    targets : ndarray, shape (as many, ...)
    task : Task
    samples : int, optional
        Number of first samples to run, at least 2; by default 32, whatever they take.
    seed : int
        Seed of initial membranes and noise.
    progress : callable, optional
        Called with (calibrations and runs done, total).
    chips : Chips, optional
        Chips for comparison; by default they are calibrated with `inputs`, which makes their errors
        optimistic.
    device : NeuronDevice, optional
        The live device that ran, for a network that was calibrated for one; by default the virtual
        chip of the network.
    budget : float
        Seconds for the parts of the sources over several chips
        (:class:`lmu_deploy.fidelity.attribution.shapley.OverChips`); 0 for none.

    Returns
    -------
    Attribution
        The total is a run of `network` itself, equal to that of the Brian2 target on these samples.
        A cause is a source, or a population whose refit reduces the error.

    Raises
    ------
    InputError
        When inputs or targets do not match, the synapses are not linear filters, or the network
        cannot be converted again, for example because its profile no longer exists.
    """
    if network.synapse is not None:
        raise InputError(
            "attribution: the synapses of the network are not linear filters, so a single memory "
            "cannot be ideal; use a network with linear synapses."
        )
    samples = check_integer("samples of the attribution", samples or SAMPLES, 2, 2**31)
    inputs = check_inputs(inputs[:samples], network.n_in)
    if len(inputs) < 2 or len(targets) < len(inputs):
        raise InputError(
            f"attribution: {len(inputs)} samples and {len(targets)} desired outputs; pass at least "
            "two samples, and a desired output for each."
        )
    chips = Chips(network, inputs) if chips is None else chips.of(network)
    runner = SpikingAblationRunner(
        network.host, inputs, targets[: len(inputs)], task, seed, progress, device, chips.parts
    )
    runner.total = _work(network) + 1 + _MOST_CAUSES + (network.units is not None)
    memories = replace(network, units=None)
    others = OverChips(LayersOnChip(network, chips, runner) if device is None else None, budget)
    runner.total += others.runs
    steps, parts = list(_steps(memories, chips, runner)), others.parts()
    causes = find_causes(runner, memories, steps, _MOST_CAUSES, chips, parts)
    if network.units is not None:
        steps.append(_units(network, steps[-1].after, runner))
        causes = with_units(causes, steps, parts)
    runner.finish()
    return Attribution(len(inputs), runner.reference, tuple(steps), tuple(causes), Tally(), parts)


def _work(network: SpikingNetwork) -> int:
    """Return the number of calibrations and runs of all steps."""
    layers = sum(memory is not None for memory in network.memories)
    present = _imperfections(network)
    chips = sum((1 + any(present[:k])) * has for k, has in enumerate(present))
    return 1 + (2 * layers - 1) + 2 * chips + 1


def _imperfections(network: SpikingNetwork) -> tuple[bool, bool, bool]:
    device = network.device
    return (
        max(device.mismatch, device.tau_mismatch) > 0,
        max(device.membrane_noise, device.threshold_noise) > 0,
        device.weight_bits > 0,
    )


def _steps(network: SpikingNetwork, chips: Chips, runner: SpikingAblationRunner) -> Iterator[Step]:
    """Enable one source after another; skip sources that the network does not have."""
    layers, names = runner.layers, network.host.node_names
    places = tuple(str(network.place(number, "memory")) for number in layers)
    last, after = _calibrated(chips, runner), runner.reference
    for place, number in enumerate(layers):
        after = runner.errors(last, layers[: place + 1])
        alone = after if place == 0 else runner.errors(last, [number])
        yield Step(f"{NEURONS} of {names[number]}", (places[place],), after, alone, NEURONS)
    neurons, on = after, list[str]()
    for name, source, present in zip(
        ("mismatch", "noise", "bits"), _SOURCES, _imperfections(network), strict=True
    ):
        if not present:
            continue
        on.append(name)
        last = _calibrated(chips, runner, *on)
        after = single = runner.errors(last, layers)
        if len(on) > 1:
            single = runner.errors(_calibrated(chips, runner, name), layers)
        yield Step(source, places, after, added_by(neurons, single, runner.reference))
    if runner.device is not None or not same_populations(network, last):
        last = chips.recalibrated(network, runner.device)
        runner.report()
        before, after = after, runner.errors(last, layers, runner.device)
        source = DAMAGE if runner.device is None else MISMATCH
        yield Step(source, places, after, added_by(before, after, runner.reference))
    if not same_chip(network, last):
        before, after = after, runner.errors(network, layers, runner.device)
        yield Step(CALIBRATION, places, after, added_by(before, after, runner.reference))


def _units(network: SpikingNetwork, before: Errors, runner: SpikingAblationRunner) -> Step:
    """Enable the units of the last layer and the readout on neurons."""
    after = runner.errors(network, runner.layers)
    places = (str(network.place(runner.layers[-1], "hidden")), network.host.node_names[-1])
    return Step(UNITS, places, after, added_by(before, after, runner.reference))


def _calibrated(chips: Chips, runner: SpikingAblationRunner, *imperfections: str) -> SpikingNetwork:
    found = chips.calibrated(**dict.fromkeys(imperfections, True))
    runner.report()
    return found


def added_by(before: Errors, after: Errors, reference: Errors) -> Errors:
    """Return the errors that a source adds to those of the neurons."""
    return Errors(
        reference.metric + after.metric - before.metric,
        max(after.output**2 - before.output**2, 0.0) ** 0.5,
        max(after.memory**2 - before.memory**2, 0.0) ** 0.5,
    )
