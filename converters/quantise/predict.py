r"""How far an integer memory will be from the float one, foretold from its matrices alone.

Two causes, as relative rms errors, added as squares. Weights: the impulse responses R of the float
memory and of the matrices that the integers stand for, :math:`\|\hat R - R\|_F / \|R\|_F`, which is
the error for white input. Messages: rounding to a unit q adds noise of variance q^2/12 at every
step (Widrow, Kollar, Quantization Noise, 2008, chapter 1), which goes round the memory. Both are
sums over time of :math:`A^t Q A^{tT}`, had by doubling. What hidden units feed back is left out.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.linalg import block_diag

from converters.quantise.coordinates import increment
from converters.quantise.rounding import real_matrix
from converters.quantise.series import one_step
from lmu_deploy.integer_memory import sign_matrix
from lmu_deploy.integer_network import Format, IntegerMemory, SeriesMemory
from lmu_deploy.legendre import impulse_response
from lmu_deploy.network import LMULayer

Memory = IntegerMemory | SeriesMemory


def predicted_error(
    layer: LMULayer,
    memory: Memory,
    x: Format,
    x_basis: np.ndarray | None,
    power: float,
    steps: int,
) -> float:
    """Foretell the relative rms error of a memory.

    Parameters
    ----------
    layer : LMULayer
        The float one.
    memory : IntegerMemory or SeriesMemory
    x : Format
        Of the messages that reach it.
    x_basis : ndarray, shape (n_in, messages), or None
        What they stand for.
    power : float
        Mean of the sum of squares of the float states, on the calibration.
    steps : int
        Length of a sequence.

    Returns
    -------
    error : float
        Infinite for a memory that is unstable.
    """
    if memory.realisation == "fir":
        assert isinstance(memory, IntegerMemory)
        return _cut_off(layer, memory, power, steps)
    float_step = np.eye(layer.memory.size) + increment(layer)
    entering = np.kron(layer.input_encoders.T, layer.memory.b_bar.astype(np.float64)[:, None])
    if x_basis is not None:
        entering = entering @ x_basis
    basis = np.eye(memory.size) if memory.basis is None else memory.basis
    drive = real_matrix(memory.input, x.scale, memory.state.scale)
    if isinstance(memory, SeriesMemory):
        step, into, noise = series_matrices(memory, drive)
    else:
        step, into, noise = _integrators(memory, drive)
    with np.errstate(all="ignore"):
        both = np.vstack([entering, into])
        pair = summed(block_diag(float_step, step), both @ both.T, steps)
        difference = np.hstack([np.eye(layer.memory.size), -basis])
        n = layer.memory.size
        weights = float(np.trace(difference @ pair @ difference.T) / np.trace(pair[:n, :n]))
        rounding = memory.message.scale**2 / 12.0 * np.eye(memory.size)
        messages = basis @ (summed(step, noise, steps) + rounding) @ basis.T
        total = max(weights, 0.0) + float(np.trace(messages)) / max(power, 1e-30)
    return math.sqrt(total) if math.isfinite(total) else math.inf


def _integrators(
    memory: IntegerMemory, drive: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give the matrices of a step, of what enters, and the covariance of the noise of a step."""
    recurrent = real_matrix(memory.recurrent, memory.message.scale, memory.state.scale)
    noise = recurrent @ recurrent.T * memory.message.scale**2 / 12.0
    return np.eye(memory.size) + recurrent, drive, noise


def series_matrices(
    memory: SeriesMemory, drive: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give the matrices of a step, of what enters, and the covariance of the noise of a step."""
    units = [2.0**s for s in (memory.message_shift, *memory.term_shift.tolist())]
    signs = sign_matrix(memory.order).astype(np.float64)
    gains = [
        np.kron(
            np.eye(memory.channels),
            (m * np.exp2(-s.astype(np.float64)) / unit)[:, None] * signs,
        )
        for m, s, unit in zip(memory.multiplier, memory.shift, units, strict=True)
    ]
    step, entering = one_step(gains, memory.substeps)
    step = step + entering @ real_feedback(memory)
    part, _ = one_step(gains, 1)
    noise, carried = np.zeros_like(part), np.zeros_like(part)
    for gain, unit in zip(gains[::-1], units[::-1], strict=True):
        carried = (np.eye(len(part)) + carried) @ gain
        noise += carried @ carried.T * (memory.state.scale * unit) ** 2 / 12.0
    return step, entering @ drive, summed(part, noise, memory.substeps)


def real_feedback(memory: SeriesMemory) -> np.ndarray:
    """Matrix of the memory encoders as they enter c; zero without any."""
    if memory.feedback is None:
        return np.zeros((memory.size, memory.size))
    return real_matrix(memory.feedback, memory.message.scale, memory.state.scale)


def _cut_off(layer: LMULayer, memory: IntegerMemory, power: float, steps: int) -> float:
    """Error of a delay line: what its taps no longer hold, and the rounding of encoded inputs."""
    assert memory.basis is not None
    encoded = memory.input.weight_bits > 2  # else the taps hold the messages themselves
    width = layer.memory.channels if encoded else memory.input.n_in
    a, b = (v.astype(np.float64) for v in (layer.memory.a_bar, layer.memory.b_bar))
    energy = (impulse_response(a, b, max(steps, 1)) ** 2).sum(axis=1)
    total = float(energy[memory.size // width :].sum() / energy.sum())
    if encoded:
        total += float((memory.basis**2).sum()) * memory.state.scale**2 / 12.0 / max(power, 1e-30)
    return math.sqrt(total)


def summed(step: np.ndarray, each: np.ndarray, steps: int) -> np.ndarray:
    """Sum of ``step^t @ each @ step^t.T`` over t, to the next power of two of `steps` terms."""
    total, power, count = each, step, 1
    while count < steps:
        total = total + power @ total @ power.T
        power, count = power @ power, 2 * count
    return total
