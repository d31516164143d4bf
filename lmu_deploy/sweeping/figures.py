"""The figures of a trial, one number each, and which way each is better.

There is no joule among them: no figure here is measured on a chip. Events and synaptic operations
are what a chip's energy grows with.
"""

from __future__ import annotations

from typing import Any

from lmu_deploy.errors import InputError
from lmu_deploy.fidelity.schema import TargetFidelity
from lmu_deploy.hardware.placement import place
from lmu_deploy.hardware.preflight import check
from lmu_deploy.hardware.profile import DigitalProfile, Profile
from lmu_deploy.integer_network import IntegerNetwork
from lmu_deploy.representations import Network

Figures = dict[str, Any]

METRIC = "metric"
METRIC_NAME = "metric_name"
_MORE_IS_BETTER = ("agreement",)
_LESS_IS_BETTER = (
    "deviation",
    "memory_bytes",
    "weight_bytes",
    "state_bytes",
    "parameters",
    "synapses",
    "neurons",
    "events_per_sample",
    "synops_per_sample",
    "saturations",
    "violations",
    "cores",
)
NAMES = (METRIC, *_MORE_IS_BETTER, *_LESS_IS_BETTER)
"""Figures that can be objectives."""


def check_figure(name: str, where: str) -> str:
    """Give `name` back; InputError, with the known names, when it is no figure."""
    if name not in NAMES:
        raise InputError(
            f"{where}: {name!r} is no figure of a trial; known are {', '.join(NAMES)}."
        )
    return name


def grows(name: str, metric_name: str) -> bool:
    """Whether more of a figure is better; of the metric that depends on the task's."""
    return metric_name == "accuracy" if name == METRIC else name in _MORE_IS_BETTER


def figures_of(found: TargetFidelity, network: Network, profile: Profile | None) -> Figures:
    """Take a trial's figures from the judgement of its run.

    Parameters
    ----------
    found : TargetFidelity
    network : LMUNetwork, IntegerNetwork or SpikingNetwork
        What the target ran.
    profile : DigitalProfile or AnalogProfile, optional
        The chip, for `violations` and `cores` of an integer network.

    Returns
    -------
    dict
        Numbers by name; None where a figure makes no sense.
    """
    against, sizes, metric = found.reference, found.sizes, found.metric
    on_chip = isinstance(network, IntegerNetwork) and isinstance(profile, DigitalProfile)
    return {
        METRIC_NAME: metric.name,
        METRIC: metric.value,
        "metric_low": metric.ci95 and metric.ci95[0],
        "metric_high": metric.ci95 and metric.ci95[1],
        "reference": against and against.value,
        "agreement": against and against.agreement,
        "deviation": against and against.deviation,
        "samples": found.samples,
        "memory_bytes": sizes and sizes.weight_bytes + sizes.neuron_bytes + sizes.state_bytes,
        "weight_bytes": sizes and sizes.weight_bytes,
        "state_bytes": sizes and sizes.state_bytes,
        "parameters": sizes and sizes.parameters,
        "synapses": sizes and sizes.synapses,
        "neurons": sum(found.neurons.values()),
        "events_per_sample": found.events.per_sample,
        "synops_per_sample": found.synops_per_sample,
        "saturations": sum(found.saturations.values()),
        "violations": len(check(network, profile)) if on_chip else None,  # type: ignore[arg-type]
        "cores": len(place(network, profile)) if on_chip else None,  # type: ignore[arg-type]
    }
