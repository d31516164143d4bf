r"""Post-training quantization: from a float network and its calibration to an integer network.

:func:`lower` goes through the nodes (:mod:`.lowering`). Formats are chosen from the calibration
(:mod:`.formats`); then every matrix is written in target integers per message integer,
:math:`W_{ij}\, s_{message} / s_{target}`, and split into slices (:mod:`.connections`). A memory is
quantized by the module of its realization (:mod:`.realizations`,
:mod:`.sign_taylor`).

:func:`choose_realization` implements ``--realization auto``: it quantizes the network in every
realization, drops those that do not fit the profile, and takes the cheapest one that is predicted
to be accurate enough.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np

from converters.quantize.calibration import Calibration
from converters.quantize.lowering.lower import Lowering
from converters.quantize.memory_analysis import predicted_error
from converters.quantize.settings import Settings
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.integer.graph import applications, edges
from lmu_deploy.core.integer.layered import memory_views
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.loading import as_graph
from lmu_deploy.core.network import LMUNetwork
from lmu_deploy.hardware.preflight import check


def lower(
    network: Network | LMUNetwork,
    calibration: Calibration,
    settings: Settings,
    known: Lowering | None = None,
) -> Lowering:
    """Quantize a network; return everything that was decided, with the result in `result`.

    `known` is a lowering of the network with other weights (:class:`.lowering.lower.Lowering`).

    Raises
    ------
    InputError
        When an accumulator would be too narrow.
    """
    lowering = Lowering(as_graph(network), settings, calibration, known)
    lowering.run({"quantized": json.dumps(settings.as_texts())})
    return lowering


GOOD_ENOUGH = 0.02
"""Predicted relative error of the memory up to which a realization is accurate enough."""

_ABOUT = 1.1
"""Costs up to this many times the lowest count as equal; the error then decides."""

_FORMS = ("dense-incremental", "schur", "hessenberg")


@dataclass(frozen=True)
class Candidate:
    """A realization that fits the profile.

    Attributes
    ----------
    name : str
    network : IntegerNetwork
    error : float
        Predicted relative rms error of the memory with the largest error.
    cost : int
        Synaptic operations per step; see :func:`synaptic_operations`.
    """

    name: str
    network: IntegerNetwork
    error: float
    cost: int

    @property
    def figures(self) -> str:
        """Cost and error in words."""
        return f"{self.cost:,} synaptic operations per step, memory error {self.error:.2%}"


def choose_realization(
    network: Network, calibration: Calibration, settings: Settings
) -> IntegerNetwork:
    """Quantize a network in the best realization and record the reason in its provenance.

    Parameters
    ----------
    network : Network
    calibration : Calibration
    settings : Settings
        Up to as many slices as it has are tried.

    Raises
    ------
    InputError
        When no realization fits the profile; the reason is given for each.
    """
    fitting: list[Candidate] = []
    refused: dict[str, str] = {}
    for name, tried in _variants(settings):
        try:
            lowering = lower(network, calibration, tried)
            candidate = lowering.result
        except InputError as reason:
            refused[name] = str(reason)
            continue
        if violations := check(candidate, settings.profile):
            refused[name] = str(violations[0])
        else:
            error = _largest_error(lowering)
            fitting.append(Candidate(name, candidate, error, synaptic_operations(candidate)))
    if not fitting:
        reasons = " ".join(f"{name}: {reason}" for name, reason in refused.items())
        raise InputError(f"quantize: no realization fits. {reasons}")
    return _with_reason(fitting, refused)


def synaptic_operations(network: IntegerNetwork) -> int:
    """Count the synaptic operations of a step in which every neuron sends all its messages."""
    total = 0
    for edge in edges(network):
        total += applications(network, edge) * int(np.count_nonzero(edge.connection.slices))
    return total


def _variants(settings: Settings) -> list[tuple[str, Settings]]:
    """Return the settings of every realization that is tried, each with its name."""
    found = [
        (f"{form}, {slices} slice{'s' if slices > 1 else ''}", form, slices)
        for form in _FORMS
        for slices in range(1, settings.slices + 1)
    ]
    found += [("fir", "fir", settings.slices), ("sign-taylor", "sign-taylor", settings.slices)]
    return [(name, replace(settings, realization=f, slices=s)) for name, f, s in found]


def _largest_error(lowering: Lowering) -> float:
    """Predict the relative rms error of each memory; return the largest."""
    worst, views = 0.0, memory_views(lowering.result)
    for place, (layer, x) in lowering.memories.items():
        m = lowering.calibration[place]
        power = float((m.rows.astype(np.float64) ** 2).sum(axis=1).mean())
        steps = x.signal.sequences.shape[1]
        error = predicted_error(layer, views[place], x.format, x.basis, power, steps)
        worst = max(worst, error)
    return worst


def _with_reason(fitting: list[Candidate], refused: dict[str, str]) -> IntegerNetwork:
    """Select the most accurate candidate that costs about as little as the cheapest good one."""
    good = [c for c in fitting if c.error <= GOOD_ENOUGH]
    if good:
        budget = _ABOUT * min(c.cost for c in good)
        best = min((c for c in good if c.cost <= budget), key=lambda c: c.error)
        why = f"the cheapest of {len(good)} predicted within {GOOD_ENOUGH:.0%}"
    else:
        best = min(fitting, key=lambda c: c.error)
        why = f"the most accurate of {len(fitting)}, none predicted within {GOOD_ENOUGH:.0%}"
    tried = {c.name: c.figures for c in fitting} | refused
    provenance = {
        **best.network.provenance,
        "realization": f"{best.name}: {best.figures}; {why}",
        "realizations tried": json.dumps(tried),
    }
    return replace(best.network, provenance=provenance)
