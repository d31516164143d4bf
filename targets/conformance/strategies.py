"""Hypothesis strategies for integer networks: all that the representation allows, and small.

Widths are so narrow that every place saturates occasionally; some sums exceed 2^31, and some
products come near 2^52. For tests and benchmarks of targets that claim to be exact.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st

from lmu_deploy.core.integer.functions import PiecewiseLinear
from lmu_deploy.core.integer.layered import (
    IntegerHidden,
    IntegerLayer,
    IntegerMemory,
    IntegerReadout,
    LayeredNetwork,
    SeriesMemory,
)
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.parts import Connection, Format

_THRESHOLDS = (0, 0, 0, 1, 2, 9)
_KINDS = ("odd", "positive", "linear")


@st.composite
def integer_networks(draw: st.DrawFn, thresholds: bool = False) -> IntegerNetwork:
    """Draw a network of one to three layers.

    Parameters
    ----------
    thresholds : bool
        Whether connections may send changes of messages.
    """
    parts = _Parts(draw, thresholds)
    width = parts.pick(1, 3)
    entry, layers = Format(parts.pick(2, 12), 0.05), []
    for _ in range(parts.pick(1, 3)):
        size, units = parts.pick(1, 6), parts.pick(0, 4)
        memory = parts.memory(size, width, units)
        layers.append(IntegerLayer(memory, parts.hidden(units, size, width) if units else None))
        width = units or size
    n_out = parts.pick(1, 3)
    readout = IntegerReadout(parts.connection(n_out, width), parts.bias(n_out), parts.state())
    return LayeredNetwork(entry, tuple(layers), readout, draw(st.booleans())).graph()


def loud_and_quiet(
    network: IntegerNetwork, seed: int, samples: int = 3, steps: int = 7
) -> np.ndarray:
    """Build inputs that saturate in their second half, with one step of zeros.

    Returns
    -------
    inputs : ndarray, shape (samples, steps, n_in), float64
    """
    inputs = np.random.default_rng(seed).normal(size=(samples, steps, network.n_in))
    inputs[:, steps // 2 :] *= 30.0
    inputs[0, 0] = 0.0
    return inputs


class _Parts:
    """Draws parts of a network; hypothesis chooses shapes, NumPy the integers."""

    def __init__(self, draw: st.DrawFn, thresholds: bool) -> None:
        self._draw, self._thresholds = draw, thresholds
        self._rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        self.pick: Callable[[int, int], int] = lambda low, high: draw(st.integers(low, high))

    def _rarely(self) -> bool:
        return self.pick(0, 3) == 0

    def connection(self, n_out: int, n_in: int) -> Connection:
        bits, slices = self.pick(2, 8), self.pick(1, 3)
        top = 2 ** (bits - 1) - 1
        weights = self._rng.integers(-top, top, (slices, n_out, n_in), endpoint=True)
        weights[self._rng.random(weights.shape) < 0.2] = 0
        most, shift = (2**15 - 1, 25) if self._rarely() else (1 if self._rarely() else 60, 8)
        gains = self._rng.integers(1, most, (slices, n_out), endpoint=True)
        shifts = self._rng.integers(0, shift, (slices, n_out), endpoint=True)
        threshold = self._draw(st.sampled_from(_THRESHOLDS)) if self._thresholds else 0
        return Connection(weights, gains, shifts, bits, self.pick(8, 32), threshold)

    def _maybe(self, n_out: int, n_in: int) -> Connection | None:
        return self.connection(n_out, n_in) if self.pick(0, 1) else None

    def _message(self) -> Format:
        return Format(self.pick(20, 30) if self._rarely() else self.pick(2, 14), 0.05)

    def state(self) -> Format:
        return Format(self.pick(8, 32), 0.01)

    def bias(self, size: int) -> np.ndarray | None:
        return self._rng.integers(-900, 900, size) if self.pick(0, 1) else None

    def _activation(self) -> PiecewiseLinear:
        kind = self._draw(st.sampled_from(_KINDS))
        pieces = 1 if kind == "linear" else self.pick(1, 6)
        slope = np.sort(self._rng.integers(0, 2**15, pieces))[::-1].copy()
        intercept = np.append(0, np.sort(self._rng.integers(0, 300, pieces - 1)))
        return PiecewiseLinear(slope, intercept, self.pick(0, 20), kind)

    def memory(self, size: int, n_in: int, units: int) -> IntegerMemory | SeriesMemory:
        hidden = self._maybe(size, units) if units else None
        formats = self.state(), self._message(), self.pick(0, 12)
        if not self._rarely():
            recurrent, entering = self.connection(size, size), self.connection(size, n_in)
            return IntegerMemory(*formats, recurrent, entering, hidden, self.bias(size))
        channels, terms = 2 if size % 2 == 0 else 1, self.pick(1, 4)
        rows = terms, size // channels
        return SeriesMemory(
            channels,
            size // channels,
            self.pick(1, 4),
            *formats,
            self._rng.integers(0, 9, terms - 1),
            self._rng.integers(1, 99, rows),
            self._rng.integers(0, 9, rows),
            self.connection(size, n_in),
            self._maybe(size, size),
            hidden,
            self.bias(size),
            self.pick(8, 32),
        )

    def hidden(self, units: int, size: int, n_in: int) -> IntegerHidden:
        drive, message = Format(self.pick(8, 32), 0.01), self._message()
        links = self.connection(units, size), self._maybe(units, n_in), self._maybe(units, units)
        return IntegerHidden(drive, message, *links, self.bias(units), self._activation())
