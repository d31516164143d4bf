"""Suggested fixes that are tried: other options of `quantize` against the largest causes."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from converters.quantize import quantize as convert
from converters.quantize.calibration import calibrate
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.loading import float_source
from lmu_deploy.fidelity.attribution.study import Attribution
from lmu_deploy.fidelity.measures.agreement import deviation
from lmu_deploy.fidelity.measures.sizes import network_sizes
from targets.base import get_target
from targets.integer import IntegerTarget

_CHANGES: dict[str, tuple[str, str]] = {
    "memory weights": ("slices", "one more slice of memory weights"),
    "message widths": ("message_bits", "wider messages of memories"),
    "activation": ("hidden_bits", "wider messages of hidden units"),
    "hidden weights": ("kernel_slices", "one more slice of other weights"),
    "readout": ("kernel_slices", "one more slice of other weights"),
}
"""Options of `quantize` by the source of error that they reduce."""
_HELPS, _MOST_REMEDIES, _WIDER = 0.1, 3, 4


def with_remedies(
    sources: Attribution, network: IntegerNetwork, inputs: np.ndarray, calibration: np.ndarray
) -> Attribution:
    """Try the changes that may reduce the largest causes, and keep those that help.

    A change is applied to a network that `quantize` made with its defaults, which runs the same
    samples again. It helps if it removes a tenth of the squared output error.

    Parameters
    ----------
    sources : Attribution
    network : IntegerNetwork
        With its float network.
    inputs : ndarray, shape (at least the samples of the attribution, steps, n_in)
    calibration : ndarray, shape (samples, steps, n_in)
        With which the network was quantized.
    """
    source = float_source(network)
    assert source is not None
    inputs, before = inputs[: sources.samples], sources.whole.output
    wanted = [c.source for c in sources.causes if c.source in _CHANGES and c.row is None]
    signals, found = None, list[tuple[float, str, str, str]]()
    truth = get_target("reference").run(source, inputs).outputs
    for cause in dict.fromkeys(wanted):
        option, words = _CHANGES[cause]
        if option in (name for *_, name in found):
            continue
        signals = calibrate(source, calibration) if signals is None else signals
        value = _one_more(network, option)
        try:
            changed: dict[str, Any] = {option: value}
            other = convert(source, signals, **changed)
            outputs = IntegerTarget().run(other, inputs).outputs
        except InputError:  # the chip's profile does not allow it
            continue
        after = deviation(outputs, truth) or 0.0
        if after**2 > (1.0 - _HELPS) * before**2:
            continue
        sizes = [network_sizes(each) for each in (network, other)]
        cost = ""
        if sizes[0] is not None and sizes[1] is not None:
            old, new = (size.weight_bytes for size in sizes if size is not None)
            cost = f", weights {old:,} to {new:,} bytes"
        flag = option.replace("_", "-")
        text = f"{words} (--{flag} {value}): output error {before:.3g} to {after:.3g}{cost}"
        found.append((after, cause, text, option))
    found.sort()
    kept = {cause: text for _, cause, text, _ in found[:_MOST_REMEDIES]}
    return dataclasses.replace(sources, remedies=kept)


def _one_more(network: IntegerNetwork, option: str) -> int:
    """Return the next value of an option of `quantize` after that of a network."""
    if option == "message_bits":
        return max(m.message.bits for m in network.memories) + _WIDER if network.memories else 16
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
