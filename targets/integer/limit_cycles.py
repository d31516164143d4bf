r"""Bounds on limit cycles: how far rounding can keep two runs with the same inputs apart.

A float memory forgets. An integer memory rounds its recurrent messages, so that a state may settle
elsewhere or enter a small limit cycle, and two runs with different histories need not converge. Let
m be the difference of the states of two runs with the same inputs. Then

.. math:: m_t = \hat A m_{t-1} + L e_t, \qquad |e_t| \le 2 r,

where :math:`\hat A` is the matrix that the integers represent, e are the rounding errors of a step
and r their largest magnitudes. As long as nothing saturates it follows that

.. math:: |m_t| \le |\hat A^t|\,|m_0| + 2 \sum_{k<t} |\hat A^k L|\, r,

for every state and every t: a bound on limit cycles that does not grow with time (peak gains; Boyd,
Barratt, Linear Controller Design, 1991, section 5.2). It holds for the worst inputs and is rarely
approached.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.layered import IntegerMemory, SeriesMemory
from lmu_deploy.core.integer.memories import sign_matrix
from lmu_deploy.core.integer.parts import Connection, real_gains


def deviation_bound(
    memory: IntegerMemory | SeriesMemory, steps: int, apart: np.ndarray
) -> np.ndarray:
    """Bound the difference of the states of two runs after `steps` steps of the same inputs.

    Parameters
    ----------
    memory : IntegerMemory or SeriesMemory
        Without feedback from hidden units.
    steps : int
    apart : ndarray, shape (states,)
        Largest difference of the states before, in units of the state.

    Returns
    -------
    bound : ndarray, shape (states,)
        In units of the state; infinite or huge where the rounded matrix is unstable.

    Raises
    ------
    InputError
        When hidden units feed back, because their activation is not linear.
    """
    if memory.hidden is not None:
        raise InputError(
            "the memory has a connection from hidden units, whose activation is not covered by a "
            "linear bound; measure the deviation instead."
        )
    step = _series(memory) if isinstance(memory, SeriesMemory) else _integrators(memory)
    power, errors, total = np.eye(memory.size), step.into, np.zeros(memory.size)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(steps):
            total += np.abs(errors) @ (2.0 * step.largest)
            power, errors = step.matrix @ power, step.matrix @ errors
        return np.asarray(np.abs(power) @ np.asarray(apart, dtype=np.float64) + total)


@dataclass(frozen=True)
class _Step:
    """A step of the states: ``m = matrix @ m + into @ e``, with ``abs(e) <= largest``."""

    matrix: np.ndarray
    into: np.ndarray
    largest: np.ndarray


def _integrators(memory: IntegerMemory) -> _Step:
    matrix, into, largest = _through(memory.recurrent, memory.message_shift)
    return _Step(np.eye(memory.size) + matrix, into, largest)


def _through(connection: Connection, shift: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the linear map of a connection, and its rounding errors.

    Returns
    -------
    matrix : ndarray, shape (n_out, n_in)
    into : ndarray, shape (n_out, n_in + n_out)
        Effect of the errors of messages, which are rounded and suppressed below a threshold, and
        of the errors of drives.
    largest : ndarray, shape (n_in + n_out,)
    """
    weights = connection.dequantized
    unsent = np.full(connection.n_in, _half(shift) + max(0, connection.threshold - 1))
    rounded = 0.5 * (connection.shift > 0).sum(axis=0)
    into = np.hstack([weights, np.eye(connection.n_out)])
    return weights * 2.0**-shift, into, np.concatenate([unsent, rounded])


def _half(shift: int) -> float:
    return 0.5 if shift > 0 else 0.0


def _series(memory: SeriesMemory) -> _Step:
    """Propagate m, c and every error through the applications of a series."""
    size, signs = memory.size, sign_matrix(memory.order).astype(np.float64)
    shifts = [memory.message_shift, *memory.term_shift.tolist()]
    sources = 2 * size * memory.applications
    columns = 2 * size + sources  # m, c, and each error of the step
    made = np.eye(size, columns)
    c = np.eye(size, columns, k=size)
    largest, first = [], 2 * size
    for _ in range(memory.substeps):
        term = made
        for k, shift in enumerate(shifts):
            gain = real_gains(memory.multiplier[k], memory.shift[k])
            applied = np.kron(np.eye(memory.channels), gain[:, None] * signs)
            message = term * 2.0**-shift + np.eye(size, columns, k=first)
            term = applied @ message + np.eye(size, columns, k=first + size)
            term += c if k == 0 else 0.0
            made = made + term
            largest += [
                np.full(size, _half(shift)),
                np.tile(0.5 * (memory.shift[k] > 0), memory.channels),
            ]
            first += 2 * size
    step, entering, into = made[:, :size], made[:, size : 2 * size], made[:, 2 * size :]
    if memory.feedback is None:
        return _Step(step, into, np.concatenate(largest))
    fed, fed_into, fed_largest = _through(memory.feedback, memory.message_shift)
    return _Step(
        step + entering @ fed,
        np.hstack([into, entering @ fed_into]),
        np.concatenate([*largest, fed_largest]),
    )
