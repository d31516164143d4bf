"""What a memory holds once it is rounded, on the calibration's whole sequences.

A matrix in one slice may respond several times as strongly as the true one (psMNIST, order 468:
4.7 times, with eigenvalues beyond 1), so its messages need a range of their own.
"""

from __future__ import annotations

import numpy as np

from converters.quantise.calibrate import Signal
from converters.quantise.connector import Source
from converters.quantise.linear_memory import LinearMemory, linear_memory
from lmu_deploy.integer_network import IntegerMemory

_RUNS_AWAY = 1e3
"""Times the true memory's size; what a rounded memory holds beyond it is of no use."""

_ROWS = 16_384


def held_by(memory: IntegerMemory, x: Source, m: Signal, h: Source | None) -> np.ndarray | None:
    """Run the rounded memory on what enters the true one, without rounding messages.

    Parameters
    ----------
    memory : IntegerMemory
    x : Source
        What reaches the layer.
    m : Signal
        The true memory, in the neurons' coordinates.
    h : Source or None
        The layer's hidden units.

    Returns
    -------
    held : ndarray, shape (samples, steps, neurons), or None
        The states; None where no sequences were kept, nothing moves, or the memory runs away.
    """
    fed_back = None if h is None or memory.hidden is None else h.signal.sequences
    kept = [s for s in (m.sequences, x.signal.sequences, fed_back) if s is not None]
    few = min(len(s) for s in kept)
    widest = float(np.abs(m.sequences[:few]).max(initial=0.0))
    if widest == 0.0:
        return None
    linear = linear_memory(memory, x.format, None if h is None else h.format)
    inputs = x.signal.sequences[:few].astype(np.float64)
    held = _run(linear, inputs, None if fed_back is None else fed_back[:few])
    return held if np.abs(held).max() <= _RUNS_AWAY * widest else None


def as_held(m: Signal, held: np.ndarray) -> Signal:
    """Give the signal of a rounded memory, its range enlarged as its sequences are."""
    truth = m.sequences[: len(held)]
    larger = float(np.abs(held).max() / np.abs(truth).max())
    rows = held.reshape(-1, held.shape[2])
    rows = rows[:: -(-len(rows) // _ROWS)]
    largest = m.largest * max(1.0, larger)
    return Signal(largest, rows.astype(np.float32), held.astype(np.float32))


def _run(linear: LinearMemory, inputs: np.ndarray, fed_back: np.ndarray | None) -> np.ndarray:
    entering = inputs @ linear.input.T
    if fed_back is not None:
        assert linear.hidden is not None
        entering[:, 1:] += fed_back[:, :-1] @ linear.hidden.T
    if linear.bias is not None:
        entering += linear.bias
    state = np.zeros((len(inputs), len(linear.step)))
    with np.errstate(over="ignore", invalid="ignore"):
        for t in range(inputs.shape[1]):
            state = state @ linear.step.T + entering[:, t]
            entering[:, t] = state
    return entering
