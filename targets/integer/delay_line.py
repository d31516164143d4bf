"""Delay lines among memories of integrators: what only moves along needs no matrix product.

With weights of +-1 that move each tap to the next, m = M, and a state's own message takes away what
it held: m[t] is what stood one tap earlier, or at the first taps what came in.
"""

from __future__ import annotations

import numpy as np

from lmu_deploy.integer_network import IntegerMemory, SeriesMemory, largest


def line_width(memory: IntegerMemory | SeriesMemory) -> int | None:
    """Count the lines of a memory that does exactly what delay lines do, whatever it is called.

    Returns
    -------
    width : int or None
        State n moves to n + width; None when any weight, gain or width is another.
    """
    if isinstance(memory, SeriesMemory) or memory.hidden is not None or memory.bias is not None:
        return None
    recurrent, limit = memory.recurrent, memory.state.limit
    plain = (
        memory.message_shift == 0
        and memory.message.bits == memory.state.bits
        and recurrent.slices.shape[0] == 1
        and recurrent.threshold <= 1
        and bool((recurrent.multiplier == 1).all() and (recurrent.shift == 0).all())
        and 2 * limit <= largest(recurrent.accumulator_bits)
    )
    entered = np.flatnonzero(memory.input.slices.any(axis=(0, 2)))
    if not plain or not entered.size:
        return None
    width = int(entered[-1]) + 1
    if width >= memory.size:
        return None
    shift = np.eye(memory.size, k=-width, dtype=np.int8) - np.eye(memory.size, dtype=np.int8)
    return width if np.array_equal(recurrent.slices[0], shift) else None
