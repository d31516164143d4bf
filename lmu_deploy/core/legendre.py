r"""Mathematics of the Legendre memory: state space, discretization, responses, decoding.

The memory of order d represents the last `theta` steps of its input u in d states m:

.. math:: \theta \, \dot m = A m + B u, \qquad
          A_{ij} = (2i+1) \begin{cases} -1 & i < j \\ (-1)^{i-j+1} & i \ge j \end{cases}, \qquad
          B_i = (2i+1)(-1)^i

(Voelker, Kajic, Eliasmith 2019, equations 1 and 2), and a delayed input is read from it through
shifted Legendre polynomials: :math:`u(t - r\theta) \approx \sum_i P_i(2r - 1)\, m_i(t)`
(ibid., equation 3). All matrices in this module multiply column vectors.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import expm, solve
from scipy.special import eval_legendre

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.validation import check_choice, check_integer, check_number

DISCRETIZERS = ("zoh", "bilinear", "euler")


def state_space(order: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the continuous-time state space of the memory for a window of length one.

    Parameters
    ----------
    order : int
        Number of states d, 1 to 4096.

    Returns
    -------
    a : ndarray, shape (order, order), float64
    b : ndarray, shape (order,), float64

    Raises
    ------
    InputError
        When `order` is out of range.

    Examples
    --------
    >>> a, b = state_space(2)
    >>> a.tolist(), b.tolist()
    ([[-1.0, -1.0], [3.0, -3.0]], [1.0, -3.0])
    """
    order = check_integer("order", order, 1, 4096)
    i = np.arange(order)
    scale = (2.0 * i + 1.0)[:, None]
    lower = np.where((i[:, None] - i[None, :]) % 2 == 0, -1.0, 1.0)
    a = scale * np.where(i[:, None] < i[None, :], -1.0, lower)
    b = (2.0 * i + 1.0) * np.where(i % 2 == 0, 1.0, -1.0)
    return a, b


def smallest_euler_theta(order: int, dt: float = 1.0) -> float:
    """Return the window length, in units of `dt`, above which Euler's method is stable.

    An eigenvalue l of A gives the factor 1 + l dt / theta, which is inside the unit circle
    exactly when theta > -|l|^2 dt / (2 Re l).
    """
    eigenvalues = np.linalg.eigvals(state_space(order)[0])
    return float(np.max(-(np.abs(eigenvalues) ** 2) / (2.0 * eigenvalues.real)) * dt)


def discretize(
    order: int, theta: float, method: str = "zoh", dt: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Discretize the memory: ``m[t] = a_bar @ m[t-1] + b_bar * u[t]``.

    Parameters
    ----------
    order : int
        Number of states d.
    theta : float
        Window length, in the units of `dt`; at least one step.
    method : {"zoh", "bilinear", "euler"}
        Zero-order hold (exact for inputs constant over a step), Tustin's bilinear rule, or
        explicit Euler.
    dt : float
        Step length.

    Returns
    -------
    a_bar : ndarray, shape (order, order), float64
    b_bar : ndarray, shape (order,), float64

    Raises
    ------
    InputError
        When a value is out of range, or when Euler's method would diverge (the message states the
        smallest stable theta).

    Examples
    --------
    >>> a_bar, b_bar = discretize(order=1, theta=4.0, method="euler")
    >>> a_bar.tolist(), b_bar.tolist()
    ([[0.75]], [0.25])
    """
    check_choice("discretizer", method, DISCRETIZERS)
    check_number("dt", dt, 1e-12, 1e12)
    check_number("theta", theta, dt, 1e12)
    a, b = state_space(order)
    a, b = a * (dt / theta), b * (dt / theta)
    identity = np.eye(order)
    if method == "zoh":
        block = np.zeros((order + 1, order + 1))
        block[:order, :order], block[:order, order] = a, b
        step = expm(block)
        return step[:order, :order], step[:order, order]
    if method == "bilinear":
        both = solve(identity - a / 2.0, np.column_stack([identity + a / 2.0, b]))
        return both[:, :order], both[:, order]
    if theta <= (bound := smallest_euler_theta(order, dt)):
        raise InputError(
            f"discretizer euler diverges for order {order} at theta {theta:g}: "
            f"theta must exceed {bound:.4g}; use zoh or a longer window."
        )
    return identity + a, b


def impulse_response(a_bar: np.ndarray, b_bar: np.ndarray, steps: int) -> np.ndarray:
    """Return the states after a unit impulse at step 0: row t is ``a_bar^t @ b_bar``.

    Each matrix product doubles the length of the response, so that log2(steps) products suffice.

    Parameters
    ----------
    a_bar : ndarray, shape (order, order)
    b_bar : ndarray, shape (order,)
    steps : int

    Returns
    -------
    response : ndarray, shape (steps, order)
    """
    steps = check_integer("steps", steps, 1, 100_000_000)
    response = np.asarray(b_bar, dtype=np.result_type(b_bar, a_bar))[None, :]
    power = np.asarray(a_bar)
    while len(response) < steps:
        response = np.concatenate([response, response[: steps - len(response)] @ power.T])
        if len(response) < steps:
            power = power @ power
    return response


def window_decoders(order: int, positions: np.ndarray) -> np.ndarray:
    """Return decoders of the window at relative delays: ``u(t - r theta) ~ decoders @ m(t)``.

    Parameters
    ----------
    order : int
    positions : ndarray, shape (points,)
        Relative delays r from 0 (now) to 1 (theta ago).

    Returns
    -------
    decoders : ndarray, shape (points, order)
        Shifted Legendre polynomials, P_i(2r - 1).

    Raises
    ------
    InputError
        When a position lies outside [0, 1].
    """
    order = check_integer("order", order, 1, 4096)
    r = np.atleast_1d(np.asarray(positions, dtype=np.float64))
    if r.ndim != 1 or not np.all((r >= 0.0) & (r <= 1.0)):
        raise InputError("window positions must be a list of values from 0 (now) to 1 (theta ago).")
    return np.asarray(eval_legendre(np.arange(order)[None, :], 2.0 * r[:, None] - 1.0))
