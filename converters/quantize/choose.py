"""`--realization auto`: every realization made, those kept that fit, and the cheapest good one."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np

from converters.quantize.calibration import Calibration
from converters.quantize.prediction import predicted_error
from converters.quantize.ptq import Quantizer
from converters.quantize.settings import Settings
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.graph import edges
from lmu_deploy.core.integer.layers import SeriesMemory
from lmu_deploy.core.integer.network import HostLayer, IntegerNetwork
from lmu_deploy.core.network import LMULayer, LMUNetwork
from lmu_deploy.hardware.preflight import check

GOOD_ENOUGH = 0.02
"""Predicted relative error of the memory below which the cheapest is taken."""

_ABOUT = 1.1
"""Costs up to this many times the least count as the same, and the error decides."""

_FORMS = ("dense-incremental", "schur", "hessenberg")


@dataclass(frozen=True)
class Candidate:
    """A realization that fits the profile.

    Attributes
    ----------
    name : str
    network : IntegerNetwork
    error : float
        Predicted relative rms error of the memory, of the layer with the largest.
    cost : int
        Synaptic operations of a step in which every neuron sends.
    """

    name: str
    network: IntegerNetwork
    error: float
    cost: int

    @property
    def figures(self) -> str:
        """Cost and error in words."""
        return f"{self.cost:,} synaptic operations a step, memory error {self.error:.2%}"


def choose(network: LMUNetwork, calibration: Calibration, settings: Settings) -> IntegerNetwork:
    """Make the network in the best realization, with the reason in its provenance.

    Parameters
    ----------
    network : LMUNetwork
    calibration : Calibration
    settings : Settings
        Its slices are the most that are tried.

    Raises
    ------
    InputError
        When none fits the profile; the reason of each is given.
    """
    fitting: list[Candidate] = []
    refused: dict[str, str] = {}
    for name, tried in _tried(settings):
        try:
            made = Quantizer(tried, calibration).network(network)
        except InputError as error:
            refused[name] = str(error)
            continue
        if violations := check(made, settings.profile):
            refused[name] = str(violations[0])
        else:
            predicted = _error(network, made, calibration)
            fitting.append(Candidate(name, made, predicted, cost(made)))
    if not fitting:
        reasons = " ".join(f"{name}: {reason}" for name, reason in refused.items())
        raise InputError(f"quantize: no realization fits. {reasons}")
    return _with_reason(fitting, refused)


def cost(network: IntegerNetwork) -> int:
    """Synaptic operations of a step in which every neuron sends all its messages."""
    total = 0
    for edge in edges(network):
        times = 1
        if edge.source.endswith("/series"):
            memory = dict(network.on_chip)[int(edge.source[5:-7])].memory
            assert isinstance(memory, SeriesMemory)
            times = memory.applications
        total += times * int(np.count_nonzero(edge.connection.slices))
    return total


def _tried(settings: Settings) -> list[tuple[str, Settings]]:
    found = [
        (f"{form}, {slices} slice{'s' if slices > 1 else ''}", form, slices)
        for form in _FORMS
        for slices in range(1, settings.slices + 1)
    ]
    found += [("fir", "fir", settings.slices), ("sign-taylor", "sign-taylor", settings.slices)]
    return [(name, replace(settings, realization=f, slices=s)) for name, f, s in found]


def _error(network: LMUNetwork, made: IntegerNetwork, calibration: Calibration) -> float:
    worst, message, basis = 0.0, made.input, None
    steps = calibration.x.sequences.shape[1]
    for number, (layer, integer) in enumerate(zip(network.layers, made.layers, strict=True)):
        if isinstance(integer, HostLayer):
            message, basis = integer.message or made.input, None
            continue
        assert isinstance(layer, LMULayer)
        m = calibration.m[number]
        assert m is not None
        power = float((m.rows.astype(np.float64) ** 2).sum(axis=1).mean())
        memory = integer.memory
        worst = max(worst, predicted_error(layer, memory, message, basis, power, steps))
        message = integer.output
        basis = integer.output_basis
    return worst


def _with_reason(fitting: list[Candidate], refused: dict[str, str]) -> IntegerNetwork:
    """Take the most exact of those that cost about as little as the cheapest good one."""
    good = [c for c in fitting if c.error <= GOOD_ENOUGH]
    if good:
        budget = _ABOUT * min(c.cost for c in good)
        best = min((c for c in good if c.cost <= budget), key=lambda c: c.error)
        why = f"the cheapest of {len(good)} predicted within {GOOD_ENOUGH:.0%}"
    else:
        best = min(fitting, key=lambda c: c.error)
        why = f"the most exact of {len(fitting)}, none being predicted within {GOOD_ENOUGH:.0%}"
    tried = {c.name: c.figures for c in fitting} | refused
    provenance = {
        **best.network.provenance,
        "realization": f"{best.name}: {best.figures}; {why}",
        "realizations tried": json.dumps(tried),
    }
    return replace(best.network, provenance=provenance)
