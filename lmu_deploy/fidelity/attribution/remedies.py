r"""Suggested fixes that are tried: other options of `quantize` against the largest causes.

A change is chosen on one part of the samples and confirmed on another, so that a change that only
suits the noise of some samples is not suggested. With :math:`e_i` and :math:`e'_i` the squared
output errors of sample i before and after the change, it is confirmed if the mean of
:math:`d_i = e_i - e'_i` over the n other samples is positive beyond chance (one-sided test of
Student at 0.5 %) and at least a tenth of the mean of :math:`e_i`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from converters.options import QuantizeOptions
from converters.quantize import quantize_with
from converters.quantize.calibration import calibrate
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.loading import float_source
from lmu_deploy.fidelity.attribution.study import Attribution
from lmu_deploy.fidelity.measures.sizes import network_sizes
from lmu_deploy.fidelity.measures.statistics import squared_sums
from targets.base import get_target
from targets.integer import IntegerTarget

_CHANGES: dict[str, dict[str, str]] = {
    "memory weights": {"slices": "one more slice of memory weights"},
    "message widths": {
        "message_bits": "wider messages of memories",
        "hidden_bits": "wider messages of hidden units",
        "input_bits": "wider messages of the input",
    },
    "activation": {"hidden_bits": "wider messages of hidden units"},
    "hidden weights": {"kernel_slices": "one more slice of other weights"},
    "readout": {"kernel_slices": "one more slice of other weights"},
}
"""Options of `quantize`, in words, by the source of error that they reduce."""
_HELPS, _MOST_REMEDIES, _WIDER = 0.1, 3, 4
_CHANCE = 0.005
_CONFIRM, _FEWEST = 64, 8
"""Most samples that confirm a change, and the fewest."""


@dataclass(frozen=True)
class Remedy:
    """A change that helps.

    Attributes
    ----------
    option : str
        Of `quantize`.
    value : int
    before, after : float
        Output errors on the samples that confirm it.
    words : str
        One line for a report.
    """

    option: str
    value: int
    before: float
    after: float
    words: str


def with_remedies(
    sources: Attribution,
    network: IntegerNetwork,
    inputs: np.ndarray,
    calibration: np.ndarray,
    options: QuantizeOptions | None = None,
) -> Attribution:
    """Try the changes that may reduce the largest causes, and keep those that help.

    Parameters
    ----------
    sources : Attribution
    network : IntegerNetwork
        With its float network.
    inputs : ndarray, shape (at least the samples of the attribution, steps, n_in)
        Those after the samples of the attribution confirm changes; if these are fewer than eight,
        every second sample of all does.
    calibration : ndarray, shape (samples, steps, n_in)
        With which the network was quantized.
    options : QuantizeOptions, optional
        With which it was quantized; by default the defaults.
    """
    found = remedies(sources, network, inputs, calibration, options)
    return dataclasses.replace(sources, remedies={cause: r.words for cause, r in found.items()})


def remedies(
    sources: Attribution,
    network: IntegerNetwork,
    inputs: np.ndarray,
    calibration: np.ndarray,
    options: QuantizeOptions | None = None,
) -> dict[str, Remedy]:
    """Return the changes that help, at most three, by the cause that they reduce.

    The parameters are those of :func:`with_remedies`.
    """
    source, given = float_source(network), options or QuantizeOptions()
    assert source is not None
    causes = dict.fromkeys(c.source for c in sources.causes if c.row is None)
    tried = {
        option: (cause, words)
        for cause in reversed(list(causes))
        for option, words in _CHANGES.get(cause, {}).items()
    }
    inputs = inputs[: sources.samples + _CONFIRM]
    fresh = np.arange(len(inputs)) >= sources.samples
    if fresh.sum() < _FEWEST:
        fresh = np.arange(len(inputs)) % 2 == 1
    if not tried or fresh.sum() < _FEWEST:
        return {}
    truth = get_target("reference").run(source, inputs).outputs
    before, norms = squared_sums(IntegerTarget().run(network, inputs).outputs, truth)
    signals, found = calibrate(source, calibration), list[tuple[str, Remedy]]()
    for option, (cause, words) in tried.items():
        value = _one_more(network, option)
        try:
            changed = given.replace(**{option: value})
            other = quantize_with(source, signals, network.profile, changed)
        except InputError:  # the chip's profile does not allow it
            continue
        after, _ = squared_sums(IntegerTarget().run(other, inputs).outputs, truth)
        if not (_gains(before[~fresh], after[~fresh]) and _beyond_chance(before, after, fresh)):
            continue
        old, new = (float(np.sqrt(e[fresh].sum() / norms[fresh].sum())) for e in (before, after))
        text = (
            f"{words} (--{option.replace('_', '-')} {value}): output error {old:.3g} to {new:.3g} "
            f"on {fresh.sum()} other samples{_cost(network, other)}"
        )
        found.append((cause, Remedy(option, value, old, new, text)))
    best: dict[str, Remedy] = {}
    for cause, remedy in sorted(found, key=lambda one: one[1].after):
        best.setdefault(cause, remedy)
    return dict(list(best.items())[:_MOST_REMEDIES])


def _gains(before: np.ndarray, after: np.ndarray) -> bool:
    """Return whether a change removes a tenth of the squared errors."""
    return bool(after.sum() <= (1.0 - _HELPS) * before.sum() and before.sum() > 0.0)


def _beyond_chance(before: np.ndarray, after: np.ndarray, fresh: np.ndarray) -> bool:
    """Return whether a change helps on the fresh samples, by more than their differences."""
    gains = (before - after)[fresh]
    error = float(gains.std(ddof=1)) / len(gains) ** 0.5
    needed = float(stdtrit(len(gains) - 1, 1.0 - _CHANCE)) * error
    return _gains(before[fresh], after[fresh]) and float(gains.mean()) > needed


def _cost(network: IntegerNetwork, other: IntegerNetwork) -> str:
    """Return how many bytes of weights a change needs."""
    old, new = (network_sizes(each) for each in (network, other))
    if old is None or new is None:
        return ""
    return f", weights {old.weight_bytes:,} to {new.weight_bytes:,} bytes"


def _one_more(network: IntegerNetwork, option: str) -> int:
    """Return the next value of an option of `quantize` after that of a network."""
    if option == "message_bits":
        return max(m.message.bits for m in network.memories) + _WIDER if network.memories else 16
    if option == "input_bits":
        return network.input.message.bits + _WIDER
    if option == "hidden_bits":
        bits = [p.message.bits for p in network.units if p.message is not None]
        return max(bits, default=8) + _WIDER
    places = {memory.entrance for memory in network.memories}
    of_memory = option == "slices"
    slices = [
        len(edge.connection.slices)
        for edge in network.edges
        if (edge.target in places) == of_memory
    ]
    return max(slices, default=1) + 1
