"""The figures of a trial, one number each, and which way each is better.

Nothing here is measured on a chip. Events and synaptic operations are counted exactly; energy and
latency are the bounds that published figures of single operations leave open, over all sources or
of one, such as ``energy_high.loihi``.
"""

from __future__ import annotations

from typing import Any

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.loading import Network
from lmu_deploy.fidelity.schema import Costs, TargetFidelity
from lmu_deploy.hardware.costs import cost_tables
from lmu_deploy.hardware.placement import place
from lmu_deploy.hardware.preflight import check
from lmu_deploy.hardware.profile import DigitalProfile, Profile

Figures = dict[str, Any]

METRIC = "metric"
METRIC_NAME = "metric_name"
TASK_NAME = "task_name"
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
    "energy_low",
    "energy_high",
    "latency_low",
    "latency_high",
)
NAMES = (METRIC, *_MORE_IS_BETTER, *_LESS_IS_BETTER)
"""Figures that can be objectives; energy and latency of one source, too, by its name."""


def check_figure(name: str, where: str) -> str:
    """Give `name` back; InputError, with the known names, when it is no figure."""
    figure, _, source = name.partition(".")
    if figure not in NAMES:
        raise InputError(
            f"{where}: {name!r} is no figure of a trial; known are {', '.join(NAMES)}."
        )
    if source and source not in (known := _sources(figure)):
        choice = f"of {', '.join(known)}" if known else "of none; write it without"
        raise InputError(f"{where}: {name!r} names no source of {figure}, which is {choice}.")
    return name


def _sources(figure: str) -> list[str]:
    """Name the tables that say something of an energy or a latency; none of other figures."""
    units = {
        "energy": ("synop_pj", "message_pj", "update_pj"),
        "latency": ("step_ns", "time_factor"),
    }
    told = units.get(figure.partition("_")[0], ())
    return [
        name
        for name, table in cost_tables().items()
        if any(getattr(table, unit) is not None for unit in told)
    ]


def grows(name: str, metric_name: str) -> bool:
    """Whether more of a figure is better; of the metric that depends on the task's."""
    return metric_name == "accuracy" if name == METRIC else name in _MORE_IS_BETTER


def figures_of(found: TargetFidelity, network: Network, profile: Profile | None) -> Figures:
    """Take a trial's figures from the judgment of its run.

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
        **_bounds(found.costs),
    }


def _bounds(costs: Costs | None) -> Figures:
    """Give energy (joules) and latency (seconds) of one sample: over all sources, and of each."""
    bounds: Figures = {}
    for what, over_all, by_source in (
        ("energy", costs and costs.energy, costs.energies if costs else {}),
        ("latency", costs and costs.latency, costs.latencies if costs else {}),
    ):
        bounds[f"{what}_low"], bounds[f"{what}_high"] = over_all or (None, None)
        for source, estimate in by_source.items():
            low, high = estimate.inference
            bounds[f"{what}_low.{source}"], bounds[f"{what}_high.{source}"] = low, high
    return bounds
