r"""What a spiking network's errors come from: neurons, mismatch, noise, weight bits, calibration.

Sources are switched on one after the other. First the memories spike, layer by layer, on a chip
without imperfections: what is lost is owed to the number and kind of neurons. Then the chip gets
its mismatch, its noise and its rounded weights, each time calibrated dynamically (chips.py). Then
comes the network as it is: what changes is owed to its own calibration, or to what has happened to
the chip since. Hidden units and a readout that are on neurons come last. All but the neurons act on
neurons only and cannot be alone: what one adds to the neurons' squared error counts as its error
alone, and what units add to all before them.

Which sources, or which population, a spiking network owes most of its output error to.

Which population of a spiking memory its calibration fits least, by fitting it anew alone.

On the trajectory that the network really takes, what the synapses get differs from what they should
by a residual r, filtered as the synapses filter,

.. math:: r = h * \big(S^{-1} A' S x - W s / dt\big).

W was fitted to all populations together, so no population has a right contribution of its own. But
one that has changed since leaves a residual that its own spikes explain:
:math:`\Delta W_j` is the ridge regression of r on population j's filtered spikes alone, over half
of the samples, and what it explains of the other half says how far j is to blame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.spiking.network import SpikingMemory, SpikingNetwork
from lmu_deploy.core.validation import check_inputs, check_integer
from lmu_deploy.fidelity.attribution.chips import (
    Chips,
    Judge,
    alike,
    effects,
    ideal_drive,
    run_hybrid,
)
from lmu_deploy.fidelity.attribution.measure import Errors
from lmu_deploy.fidelity.attribution.study import Attribution, Cause, Step
from lmu_deploy.fidelity.attribution.switches import (
    CALIBRATION,
    MISMATCH,
    NEURONS,
    NOISE,
    UNITS,
    WEIGHT_BITS,
)
from lmu_deploy.fidelity.attribution.synapses import Tally
from lmu_deploy.tasks.base import Task

_RIDGE = 1e-3
_EVERY = 4


@dataclass(frozen=True)
class Blame:
    """One population.

    Attributes
    ----------
    layer, state : int
    explained : float
        Share of the squared residual of its channel that fitting it anew takes away, on samples
        that it was not fitted to; below zero where it does harm.
    change : ndarray, shape (order, neurons)
        To its columns of W, in seconds.
    """

    layer: int
    state: int
    explained: float
    change: np.ndarray


def blame_populations(network: SpikingNetwork, inputs: np.ndarray, seed: int = 0) -> list[Blame]:
    """Fit each population anew, all else as it is; the most to blame first.

    Parameters
    ----------
    network : SpikingNetwork
        With synapses that are linear filters.
    inputs : ndarray, shape (at least 2, steps, n_in)
        Samples of even number are fitted to, the others judge.
    seed : int
    """
    layers = {n: _Layer(network, m) for n, m in enumerate(network.memories) if m is not None}
    run_hybrid(network, inputs, layers, seed, lambda n, x, spikes: layers[n].take(x, spikes))
    found = [blame for number, layer in layers.items() for blame in layer.blames(number)]
    return sorted(found, key=lambda blame: -blame.explained)


def mended(network: SpikingNetwork, blame: Blame) -> SpikingNetwork:
    """Give the network with one population's columns of W fitted anew."""
    memory = network.memories[blame.layer]
    assert memory is not None
    channel, state = divmod(blame.state, memory.order)
    weights = memory.weights.copy()
    neurons = memory.populations.neurons
    weights[channel, :, state * neurons : (state + 1) * neurons] += blame.change
    memories = list(network.memories)
    memories[blame.layer] = replace(memory, weights=weights)
    return replace(network, memories=tuple(memories))


class _Layer:
    """Sums of products for every population's regression, gathered step by step."""

    def __init__(self, network: SpikingNetwork, memory: SpikingMemory) -> None:
        self.memory, self.decay, self.dt_ms = memory, network.decay, network.dt_ms
        self._ideal: Callable[[np.ndarray], np.ndarray] = ideal_drive(memory)
        self._effects = effects(memory, network.dt_ms)
        neurons, order = memory.populations.neurons, memory.order
        self._squares = np.zeros((2, memory.states, neurons, neurons))
        self._products = np.zeros((2, memory.states, neurons, order))
        self._power = np.zeros((2, memory.channels))
        self._step = 0

    def take(self, x: np.ndarray, spikes: np.ndarray) -> None:
        """Filter one step's spikes and residual, and add up their products now and then."""
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

    def blames(self, number: int) -> list[Blame]:
        """Solve every population's regression."""
        found = []
        for state in range(self.memory.states):
            squares, products = self._squares[0, state], self._products[0, state]
            ridge = _RIDGE * max(float(np.trace(squares)) / len(squares), 1e-30)
            change = np.linalg.solve(squares + ridge * np.eye(len(squares)), products)
            judged, power = self._squares[1, state], self._power[1, state // self.memory.order]
            gained = 2.0 * np.sum(change * self._products[1, state])
            gained -= np.sum(change * (judged @ change))
            explained = float(gained / power) if power > 0 else 0.0
            found.append(Blame(number, state, explained, change.T * (self.dt_ms * 1e-3)))
        return found


_WORTH = 0.05
_NEARLY_ALL = 0.9


def find_causes(
    judge: Judge, network: SpikingNetwork, steps: Sequence[Step], most: int
) -> list[Cause]:
    """Name what the output error comes from, the largest first.

    A source's share is that of its error alone. A population's, and the calibration's, is what
    calibrating anew takes away; a population that takes away nearly all of what the calibration
    costs stands in its place.

    Parameters
    ----------
    judge : Judge
    network : SpikingNetwork
    steps : sequence of Step
    most : int
        Populations that are fitted anew, to see what that takes away.
    """
    whole = steps[-1].after.output
    populations = list(_populations(judge, network, whole, most))
    causes = list(_sources(steps, whole))
    largest = max((cause.share for cause in populations), default=0.0)
    causes = [
        cause
        for cause in causes
        if cause.source != CALIBRATION or largest < _NEARLY_ALL * cause.share
    ]
    return sorted([*causes, *populations], key=lambda cause: -cause.share)


def with_units(causes: Sequence[Cause], steps: Sequence[Step]) -> list[Cause]:
    """Lay causes that were found without units on neurons beside what those add.

    Parameters
    ----------
    causes : sequence of Cause
        Shares of the squared error without units.
    steps : sequence of Step
        The last one is that of the units.
    """
    before, last = steps[-2].after.output, steps[-1]
    if not (whole := last.after.output):
        return list(causes)
    added = last.alone.output
    of_memories = min(before / whole, 1.0) ** 2
    found = [replace(cause, share=cause.share * of_memories) for cause in causes]
    if (share := added**2 / whole**2) > _WORTH:
        found.append(Cause(last.source, last.places[0], None, added, share, None, None))
    return sorted(found, key=lambda cause: -cause.share)


def _sources(steps: Sequence[Step], whole: float) -> Iterator[Cause]:
    """Give sources of more than a twentieth of the squared error; of neurons, each layer."""
    if not whole:
        return
    before = 0.0
    for step in steps:
        added, left = step.alone.output, step.alone.output
        if step.source == CALIBRATION:
            left = before
        share = added**2 / whole**2
        if share > _WORTH:
            named = NEURONS if step.source.startswith(NEURONS) else step.source
            place = step.places[0] if len(step.places) == 1 else "all memories"
            yield Cause(named, place, None, left, share, None, None)
        before = step.after.output


def _populations(judge: Judge, network: SpikingNetwork, whole: float, most: int) -> Iterator[Cause]:
    """Give populations that take output error away when they are fitted anew."""
    blames = blame_populations(network, judge.inputs, judge.seed)[:most]
    judge.report()
    for blame in blames:
        left = judge.errors(mended(network, blame), judge.layers).output
        share = 1.0 - left**2 / whole**2 if whole else 0.0
        if share > _WORTH:
            place = f"layer{blame.layer}/memory/population{blame.state}"
            yield Cause(CALIBRATION, place, None, left, share, blame.explained, None)


SAMPLES = 32
_SOURCES = (MISMATCH, NOISE, WEIGHT_BITS)
_MOST_CAUSES = 3


def attribute_spiking(
    network: SpikingNetwork,
    inputs: np.ndarray,
    targets: np.ndarray,
    task: Task,
    samples: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    chips: Chips | None = None,
) -> Attribution:
    """Switch every source of error of `network` on in turn, and find the causes.

    Parameters
    ----------
    network : SpikingNetwork
    inputs : ndarray, shape (at least 2, steps, n_in)
    targets : ndarray, shape (as many, ...)
    task : Task
    samples : int, optional
        How many of the first samples are run, at least 2; by default 32.
    seed : int
        Of the neurons' starting points and noise.
    progress : callable, optional
        Called with (calibrations and runs done, in all).
    chips : Chips, optional
        What it is compared with; by default chips calibrated with `inputs`, to which they are then
        fitted better than they deserve.

    Returns
    -------
    Attribution
        Its whole is a run of `network` itself, equal to one of the Brian2 target on these samples.
        A cause is a source, or a population of which less is lost once it is fitted anew.

    Raises
    ------
    InputError
        When inputs or targets do not fit, the synapses are no linear filters, or the network's
        recipe is not possible any more, as when its profile has gone.
    """
    if network.synapse is not None:
        raise InputError(
            "attribution: the network's synapses are no linear filters, so that no memory can be "
            "ideal by itself; make one with linear synapses."
        )
    samples = check_integer("samples of the attribution", samples or SAMPLES, 2, 2**31)
    inputs = check_inputs(inputs[:samples], network.n_in)
    if len(inputs) < 2 or len(targets) < len(inputs):
        raise InputError(
            f"attribution: {len(inputs)} samples and {len(targets)} answers; give at least two "
            "samples and an answer to each."
        )
    chips = Chips(network, inputs) if chips is None else chips.of(network)
    judge = Judge(network.host, inputs, targets[: len(inputs)], task, seed, progress)
    judge.total = _work(network) + 1 + _MOST_CAUSES + (network.units is not None)
    memories = replace(network, units=None)
    steps = list(_steps(memories, chips, judge))
    causes = find_causes(judge, memories, steps, _MOST_CAUSES)
    if network.units is not None:
        steps.append(_units(network, steps[-1].after, judge))
        causes = with_units(causes, steps)
    judge.finish()
    return Attribution(len(inputs), judge.reference, tuple(steps), tuple(causes), Tally())


def _work(network: SpikingNetwork) -> int:
    """Count calibrations and runs of all steps, so that progress knows how far it is."""
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


def _steps(network: SpikingNetwork, chips: Chips, judge: Judge) -> Iterator[Step]:
    """Switch on one source after the other; those that the network does not have are left out."""
    layers = judge.layers
    places = tuple(f"layer{number}/memory" for number in layers)
    last, after = _calibrated(chips, judge), judge.reference
    for place, number in enumerate(layers):
        after = judge.errors(last, layers[: place + 1])
        alone = after if place == 0 else judge.errors(last, [number])
        yield Step(f"{NEURONS} of layer{number}", (places[place],), after, alone)
    neurons, on = after, list[str]()
    for name, source, present in zip(
        ("mismatch", "noise", "bits"), _SOURCES, _imperfections(network), strict=True
    ):
        if not present:
            continue
        on.append(name)
        last = _calibrated(chips, judge, *on)
        after = single = judge.errors(last, layers)
        if len(on) > 1:
            single = judge.errors(_calibrated(chips, judge, name), layers)
        yield Step(source, places, after, _added(neurons, single, judge.reference))
    if not alike(network, last):
        before, after = after, judge.errors(network, layers)
        yield Step(CALIBRATION, places, after, _added(before, after, judge.reference))


def _units(network: SpikingNetwork, before: Errors, judge: Judge) -> Step:
    """Put the last layer's units and the readout on neurons, as they are in the network."""
    after = judge.errors(network, judge.layers)
    places = (f"layer{judge.layers[-1]}/hidden", "readout")
    return Step(UNITS, places, after, _added(before, after, judge.reference))


def _calibrated(chips: Chips, judge: Judge, *imperfections: str) -> SpikingNetwork:
    found = chips.calibrated(**dict.fromkeys(imperfections, True))
    judge.report()
    return found


def _added(before: Errors, after: Errors, reference: Errors) -> Errors:
    """Give what a source adds to the errors of neurons."""
    return Errors(
        reference.metric + after.metric - before.metric,
        max(after.output**2 - before.output**2, 0.0) ** 0.5,
        max(after.memory**2 - before.memory**2, 0.0) ** 0.5,
    )
