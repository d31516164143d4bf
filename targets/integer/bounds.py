"""Proofs that an engine's numbers hold every value of a network exactly, from weights and widths.

A sum of a slice is at most its row's weights in magnitude times the largest message. An engine in
float64 needs each of them, times its multiplier, below 2^52 (a half is added before the floor). One
in int32 also adds up in int32 all that reaches a population, its bias and its state, and takes
differences of messages where changes are sent. A series is computed in int64 (series.py), which
holds the sum of 4,096 messages of 32 bits times 15 bits.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from lmu_deploy.integer_network import IntegerNetwork, largest
from lmu_deploy.wiring import Wire, populations, wires

FLOAT64_LIMIT = 2**52
INT32_LIMIT = 2**31 - 1
_ROUNDING_OF_DIGITS = 64
"""What is added to a message before it is cut into digits of base 128."""


def worst_sums(wire: Wire, limit: int) -> np.ndarray:
    """Largest magnitude of each sum before it saturates; shape (slices, n_out), int64."""
    weights = np.abs(wire.connection.slices.astype(np.int64)).sum(axis=2)
    return np.asarray(weights * limit)


def float64_objections(network: IntegerNetwork) -> list[str]:
    """Say which sums float64 could not hold exactly; empty when it holds all."""
    found = []
    for wire, sums in _sums(network):
        worst = int((sums * wire.connection.multiplier).max(initial=0))
        if worst >= FLOAT64_LIMIT:
            found.append(f"sums of {wire.place} need {worst.bit_length()} bits, float64 holds 53")
    return found


def int32_objections(network: IntegerNetwork) -> list[str]:
    """Say which values int32 could not hold; empty when it holds all."""
    found = []
    limits = {name: p.message.limit for name, p in populations(network).items()}
    inflow: dict[str, int] = defaultdict(int)
    for wire, sums in _sums(network):
        connection = wire.connection
        limited = np.minimum(sums, largest(connection.accumulator_bits))
        half = (np.int64(1) << connection.shift.astype(np.int64)) >> 1
        products = limited * connection.multiplier + half
        worst = int(max(sums.max(initial=0), products.max(initial=0)))
        if worst > INT32_LIMIT:
            found.append(f"sums of {wire.place} need {worst.bit_length() + 1} bits, int32 has 32")
        if limits[wire.source] > INT32_LIMIT - _ROUNDING_OF_DIGITS:
            found.append(f"messages on {wire.place} of 32 bits cannot be cut into digits in int32")
        change = 2 * limits[wire.source]
        if connection.threshold and change > INT32_LIMIT:
            found.append(
                f"changes on {wire.place} need {change.bit_length() + 1} bits, int32 has 32"
            )
        inflow[wire.target] += int((products >> connection.shift).sum(axis=0).max(initial=0)) + 1
    own = {"readout": largest(24)}
    for number, layer in network.on_chip:
        rounding = (1 << layer.memory.message_shift) >> 1
        own[f"layer{number}/memory"] = layer.memory.state.limit + largest(24) + rounding
        own[f"layer{number}/series"] = largest(24)
        if layer.hidden is not None:
            own[f"layer{number}/hidden"] = largest(24)
    for target, worst in inflow.items():
        if worst + own[target] > INT32_LIMIT:
            bits = (worst + own[target]).bit_length() + 1
            found.append(f"values of {target} need {bits} bits, int32 has 32")
    return found


def _sums(network: IntegerNetwork) -> list[tuple[Wire, np.ndarray]]:
    limits = {name: p.message.limit for name, p in populations(network).items()}
    return [
        (wire, worst_sums(wire, limits[wire.source]))
        for wire in wires(network)
        if not wire.source.endswith("/series")
    ]
