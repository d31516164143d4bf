"""Figures of a trial, one number each, and whether more of a figure is better.

Nothing here is measured on a chip. Events and synaptic operations are counted exactly. Energy and
latency are bounds from published figures of single operations, over all sources or of one source,
such as ``energy_high.loihi``.
"""

from __future__ import annotations

from typing import Any

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.loading import AnyNetwork
from lmu_deploy.fidelity.schema import Costs, TargetFidelity
from lmu_deploy.hardware.placement import place
from lmu_deploy.hardware.preflight import check
from lmu_deploy.hardware.profile import DigitalProfile, Profile, cost_tables

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
"""Figures that can be objectives. ``energy_low.SOURCE`` and the like are allowed too."""


def check_figure(name: str, where: str) -> str:
    """Return `name` if it is a figure.

    Raises
    ------
    InputError
        If the figure or its source is unknown; the message lists the known ones.
    """
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
    """Return the names of the cost tables that have this energy or latency."""
    units = {
        "energy": ("synop_pj", "message_pj", "update_pj"),
        "latency": ("step_ns", "time_factor"),
    }
    needed = units.get(figure.partition("_")[0], ())
    return [
        name
        for name, table in cost_tables().items()
        if any(getattr(table, unit) is not None for unit in needed)
    ]


def more_is_better(name: str, metric_name: str) -> bool:
    """Return whether more of a figure is better; for the metric this depends on the task."""
    return metric_name == "accuracy" if name == METRIC else name in _MORE_IS_BETTER


def figures_of(found: TargetFidelity, network: AnyNetwork, profile: Profile | None) -> Figures:
    """Return the figures of a trial from the fidelity of its run.

    Parameters
    ----------
    found : TargetFidelity
    network : LMUNetwork, IntegerNetwork, SpikingNetwork or LoihiNetwork
        Network that the target ran.
    profile : DigitalProfile or AnalogProfile, optional
        The chip, for `violations` and `cores` of an integer network.

    Returns
    -------
    dict
        Numbers by name; None if a figure is not defined for this network.
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
    """Return energy (joules) and latency (seconds) of one sample, over all sources and of each."""
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
