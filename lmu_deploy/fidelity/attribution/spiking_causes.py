"""Which sources, or which population, a spiking network owes most of its output error to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from lmu_deploy.fidelity.attribution.causes import Cause
from lmu_deploy.fidelity.attribution.populations import blame_populations, mended
from lmu_deploy.fidelity.attribution.spiking_judge import Judge
from lmu_deploy.fidelity.attribution.study import Step
from lmu_deploy.fidelity.attribution.switches import CALIBRATION, NEURONS
from lmu_deploy.spiking_network import SpikingNetwork

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
