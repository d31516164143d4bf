"""Measure the signals of a float network on calibration inputs, with the reference.

In: a network and inputs (samples, steps, n_in). Out: for the input, each layer's m and h, and y,
the largest magnitude over all steps, and rows spread over the calibration, from which percentiles
and the needs of accumulators are computed. :func:`clip_range` computes the range that messages of
a signal cover.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from converters.options import CALIBRATION_METHODS
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.parts import largest
from lmu_deploy.core.network import Layer, LMULayer, LMUNetwork
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.reference import has_hidden, run_reference
from lmu_deploy.core.validation import check_choice, check_inputs

PERCENTILE = 99.99
_MARGIN = 1.05
_ROWS = 16_384
_BATCH_BYTES = 2**26
_SEQUENCE_VALUES = 2**21


@dataclass(frozen=True)
class Signal:
    """Measurements of a signal.

    Attributes
    ----------
    largest : float
        Largest magnitude over all calibration samples and steps.
    rows : ndarray, shape (rows, n), float32
        The signal at (sample, step) pairs spread evenly over the calibration, at most 16,384; the
        pairs are the same for all signals.
    sequences : ndarray, shape (samples, steps, n), float32
        The whole sequences of the first few samples; empty when they were not recorded.
    """

    largest: float
    rows: np.ndarray
    sequences: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))


@dataclass(frozen=True)
class Calibration:
    """Signals of the input, of each layer's memory and hidden units, and of the readout.

    `m` and `h` have an entry for each layer: m is None for an LSTM, h for a layer without units.
    """

    x: Signal
    m: tuple[Signal | None, ...]
    h: tuple[Signal | None, ...]
    y: Signal


def calibrate(
    network: LMUNetwork, inputs: np.ndarray, progress: Progress | None = None
) -> Calibration:
    """Run the reference on calibration inputs in batches and measure all signals.

    Parameters
    ----------
    network : LMUNetwork
    inputs : ndarray, shape (samples, steps, n_in)
    progress : callable, optional
        Called with (samples done, samples in all).

    Raises
    ------
    InputError
        When there are no inputs, they do not fit the network, or a signal becomes infinite.
    """
    inputs = check_inputs(inputs, network.n_in)
    samples, steps, _ = inputs.shape
    if samples * steps == 0:
        raise InputError("calibration has no samples or steps; give at least one of each.")
    layers = network.layers
    width = sum(_memory_size(layer) + layer.n_out for layer in layers) + network.n_out
    batch = max(1, min(samples, _BATCH_BYTES // (8 * steps * width)))
    every = -(-samples * steps // _ROWS)
    sampled: dict[str, list[np.ndarray]] = {}
    widest: dict[str, float] = {}
    whole: dict[str, np.ndarray] = {}
    for start in range(0, samples, batch):
        part = inputs[start : start + batch]
        trace = run_reference(network, part, record=True)
        signals = {"x": part, "m": trace.m, "h": trace.h, "y": trace.y}
        for name, signal in signals.items():
            assert signal is not None
            rows = signal.reshape(len(part) * steps, signal.shape[-1])
            for place, columns in _columns(name, layers, signal.shape[-1]):
                block = rows[:, columns]
                top = float(np.abs(block).max(initial=0.0))
                if not np.isfinite(top):
                    raise InputError(
                        f"the network diverges in calibration: {place} is {top}; train it again."
                    )
                widest[place] = max(widest.get(place, 0.0), top)
                first = -(start * steps) % every
                sampled.setdefault(place, []).append(block[first::every].astype(np.float32))
                if start == 0:
                    few = max(1, _SEQUENCE_VALUES // max(1, steps * block.shape[1]))
                    sequences = block[: few * steps].astype(np.float32)
                    whole[place] = sequences.reshape(-1, steps, block.shape[1])
        if progress:
            progress(min(start + batch, samples), samples)
    signal_of = {
        place: Signal(widest[place], np.concatenate(sampled[place]), whole[place])
        for place in widest
    }
    numbers = range(len(layers))
    return Calibration(
        signal_of["x"],
        tuple(signal_of.get(f"m{i}") for i in numbers),
        tuple(signal_of.get(f"h{i}") for i in numbers),
        signal_of["y"],
    )


def clip_range(signal: Signal, method: str, bits: int) -> float:
    """Return the real value of the largest message of `bits` bits; 1 for a signal that is 0.

    Parameters
    ----------
    signal : Signal
    method : {"max", "percentile", "mse"}
        The largest magnitude plus 5 %; the 99.99th percentile of magnitudes; or the range with the
        smallest squared error of rounding and clipping.
    bits : int
    """
    check_choice("calibration_method", method, CALIBRATION_METHODS)
    magnitudes = np.abs(signal.rows).ravel()
    if not magnitudes.any():
        return signal.largest or 1.0
    if method == "max":
        return signal.largest * _MARGIN
    if method == "percentile":
        return float(np.percentile(magnitudes, PERCENTILE)) or signal.largest
    magnitudes = np.sort(magnitudes)[:: max(1, magnitudes.size // 100_000)].astype(np.float64)
    candidates = signal.largest * np.exp2(-np.arange(0.0, 6.0, 0.125))
    errors = [_squared_error(magnitudes, float(c), bits) for c in candidates]
    return float(candidates[int(np.argmin(errors))])


def _squared_error(magnitudes: np.ndarray, clip: float, bits: int) -> float:
    scale = clip / largest(bits)
    rounded = np.minimum(np.rint(magnitudes / scale), largest(bits)) * scale
    return float(np.mean((rounded - magnitudes) ** 2))


def _memory_size(layer: Layer) -> int:
    return layer.memory.size if isinstance(layer, LMULayer) else 0


def _columns(name: str, layers: tuple[Layer, ...], width: int) -> list[tuple[str, slice]]:
    """Return the columns of each layer in a recorded signal."""
    if name in "xy":
        return [(name, slice(0, width))]
    places, start = [], 0
    for number, layer in enumerate(layers):
        if not (has_hidden(layer) if name == "h" else isinstance(layer, LMULayer)):
            continue
        size = _memory_size(layer) if name == "m" else layer.n_out
        places.append((f"{name}{number}", slice(start, start + size)))
        start += size
    return places
