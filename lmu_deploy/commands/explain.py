"""What a validation says beyond its figures: sources of error and ranges of integer networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from lmu_deploy.fidelity import Result
from lmu_deploy.fidelity.attribution import attribute
from lmu_deploy.fidelity.layer_ranges import layer_ranges
from lmu_deploy.integer_network import IntegerNetwork
from lmu_deploy.progress import progress_bar
from lmu_deploy.tasks.base import Split, Task


def explained(
    results: Sequence[Result], split: Split, task: Task, samples: int | None
) -> list[Result]:
    """Add an attribution and ranges to the first result of each integer network.

    Other targets that run the same network do the same operations, so one of them says it for all.

    Parameters
    ----------
    results : sequence of Result
    split : Split
        Of which the first samples are run again.
    task : Task
    samples : int or None
        How many; None for as many as take a minute or two, 0 for no attribution and no ranges.

    Raises
    ------
    InputError
        When `samples` is negative.
    """
    found, done = [], set()
    for result in results:
        network = result.network
        wanted = samples != 0 and isinstance(network, IntegerNetwork) and id(network) not in done
        if not wanted or not isinstance(network, IntegerNetwork) or network.source is None:
            found.append(result)
            continue
        done.add(id(network))
        with progress_bar("attribution", "runs") as progress:
            sources = attribute(network, split.inputs, split.targets, task, samples, progress)
        ranges = layer_ranges(network, split.inputs, sources.tally, sources.samples)
        found.append(dataclasses.replace(result, attribution=sources, ranges=ranges))
    return found
