"""What a validation says beyond its figures: sources of error, and ranges of integer networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from lmu_deploy.commands.task_data import CALIBRATION_SAMPLES, limited
from lmu_deploy.fidelity import Result
from lmu_deploy.fidelity.attribution import attribute
from lmu_deploy.fidelity.attribution.chips import Chips
from lmu_deploy.fidelity.attribution.spiking import attribute_spiking
from lmu_deploy.fidelity.layer_ranges import layer_ranges
from lmu_deploy.integer_network import IntegerNetwork
from lmu_deploy.progress import progress_bar
from lmu_deploy.spiking_network import SpikingNetwork
from lmu_deploy.tasks.base import Split, Task


def explained(
    results: Sequence[Result], split: Split, task: Task, samples: int | None
) -> list[Result]:
    """Add an attribution to the first result of each network, and ranges to integer ones.

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
        if samples == 0 or id(network) in done:
            found.append(result)
            continue
        done.add(id(network))
        if isinstance(network, IntegerNetwork) and network.source is not None:
            result = _integer(result, network, split, task, samples)
        elif isinstance(network, SpikingNetwork) and network.synapse is None:
            result = _spiking(result, network, split, task, samples)
        found.append(result)
    return found


def _integer(
    result: Result, network: IntegerNetwork, split: Split, task: Task, samples: int | None
) -> Result:
    with progress_bar("attribution", "runs") as progress:
        sources = attribute(network, split.inputs, split.targets, task, samples, progress)
    ranges = layer_ranges(network, split.inputs, sources.tally, sources.samples)
    return dataclasses.replace(result, attribution=sources, ranges=ranges)


def _spiking(
    result: Result, network: SpikingNetwork, split: Split, task: Task, samples: int | None
) -> Result:
    """Attribute with the seed of the run; a single sample cannot be fitted and judged.

    Variants, such as the same network without calibration, are attributed too.
    """
    if len(split.inputs) < 2 or samples == 1:
        return result
    chips = Chips(network, limited(task.load().train, CALIBRATION_SAMPLES).inputs)

    def attributed(each: Result, label: str) -> Result:
        if not isinstance(each.network, SpikingNetwork) or each.network.synapse is not None:
            return each
        seed = each.run.seed
        with progress_bar(label, "runs") as progress:
            sources = attribute_spiking(
                each.network, split.inputs, split.targets, task, samples, seed, progress, chips
            )
        return dataclasses.replace(each, attribution=sources)

    variants = {n: attributed(v, f"attribution, {n}") for n, v in result.variants.items()}
    return dataclasses.replace(attributed(result, "attribution"), variants=variants)
