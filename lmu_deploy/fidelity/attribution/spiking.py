r"""What a spiking network's errors come from: neurons, mismatch, noise, weight bits, calibration.

Sources are switched on one after the other. First the memories spike, layer by layer, on a chip
without imperfections: what is lost is owed to the number and kind of neurons. Then the chip gets
its mismatch, its noise and its rounded weights, each time calibrated dynamically (chips.py). Then
comes the network as it is: what changes is owed to its own calibration, or to what has happened to
the chip since. Hidden units and a readout that are on neurons come last. All but the neurons act on
neurons only and cannot be alone: what one adds to the neurons' squared error counts as its error
alone, and what units add to all before them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from lmu_deploy.checks import check_inputs, check_integer
from lmu_deploy.errors import InputError
from lmu_deploy.fidelity.attribution.chips import Chips, alike
from lmu_deploy.fidelity.attribution.measure import Errors, Progress
from lmu_deploy.fidelity.attribution.spiking_causes import find_causes, with_units
from lmu_deploy.fidelity.attribution.spiking_judge import Judge
from lmu_deploy.fidelity.attribution.study import Attribution, Step
from lmu_deploy.fidelity.attribution.switches import (
    CALIBRATION,
    MISMATCH,
    NEURONS,
    NOISE,
    UNITS,
    WEIGHT_BITS,
)
from lmu_deploy.fidelity.attribution.synapses import Tally
from lmu_deploy.spiking_network import SpikingNetwork
from lmu_deploy.tasks.base import Task

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
