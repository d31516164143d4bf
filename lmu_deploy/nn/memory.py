r"""The matrices of a Legendre memory in PyTorch, and the noise that a chip adds to its states.

The matrices are fixed, trained, or derived from a trained theta.

With s = 1 / theta and the block matrix G = [[A, B], [0, 0]], zero-order hold is

.. math:: e^{s G} = \begin{pmatrix} \bar A & \bar B \\ 0 & 1 \end{pmatrix}, \qquad
          \frac{d}{ds} e^{s G} = G e^{s G}

so the gradient with respect to theta takes one matrix product instead of a derivative of the matrix
exponential in an arbitrary direction.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lmu_deploy.core.errors import InputError, RunError
from lmu_deploy.core.legendre import discretize, smallest_euler_theta, state_space
from lmu_deploy.nn.products import TensorCache


class LegendreMemory(nn.Module):
    """a_bar (order, order) and b_bar (order,) of ``m[t] = a_bar @ m[t-1] + b_bar * u[t]``.

    Parameters
    ----------
    order : int
    theta : float
        Window length in steps, at least 1.
    discretizer : {"zoh", "bilinear", "euler"}
    train_theta : bool
        Train theta (the parameter is its logarithm); the matrices are derived from it.
    train_memory : bool
        Train a_bar and b_bar, initialized to the Legendre memory.
    device, dtype
        As in other torch modules.

    Raises
    ------
    InputError
        When a value is out of range, Euler's method would diverge, or both are trained.
    """

    a_bar: Tensor
    b_bar: Tensor

    def __init__(
        self,
        order: int,
        theta: float,
        discretizer: str = "zoh",
        train_theta: bool = False,
        train_memory: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if train_theta and train_memory:
            raise InputError("train_theta and train_memory exclude each other; choose one.")
        self.order = order
        self.discretizer = discretizer
        self.train_theta = train_theta
        self.train_memory = train_memory
        self._initial_theta = float(theta)
        self._cache = TensorCache()
        a_bar, b_bar = discretize(order, theta, discretizer)
        kind: dict[str, Any] = {"device": device, "dtype": dtype or torch.get_default_dtype()}
        if train_theta:
            self.log_theta = nn.Parameter(torch.tensor(math.log(theta), **kind))
            self._bound = smallest_euler_theta(order) if discretizer == "euler" else 0.0
        elif train_memory:
            self.a_bar = nn.Parameter(torch.tensor(a_bar, **kind))
            self.b_bar = nn.Parameter(torch.tensor(b_bar, **kind))
        else:
            self.register_buffer("a_bar", torch.tensor(a_bar, **kind))
            self.register_buffer("b_bar", torch.tensor(b_bar, **kind))

    @property
    def theta(self) -> float:
        """Window length in steps."""
        return math.exp(self.log_theta.item()) if self.train_theta else self._initial_theta

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return (a_bar, b_bar), shapes (order, order) and (order,).

        Raises
        ------
        RunError
            When training has moved theta to where Euler's method diverges.
        """
        if not self.train_theta:
            return self.a_bar, self.b_bar
        if torch.is_grad_enabled():
            return self._from_theta()
        cache = self._cache.of(self.log_theta)
        if "matrices" not in cache:
            cache["matrices"] = self._from_theta()
        a_bar, b_bar = cache["matrices"]
        return a_bar, b_bar

    def cache(self) -> dict[Any, Any] | None:
        """Return a cache for values computed from the matrices; None if these are trained."""
        if self.train_theta or self.train_memory or self.a_bar.is_inference():
            return None
        return self._cache.of(self.a_bar, self.b_bar)

    def _from_theta(self) -> tuple[Tensor, Tensor]:
        if self.discretizer == "euler" and self.theta <= self._bound:
            raise RunError(
                f"training moved theta to {self.theta:.4g}, where euler diverges for order "
                f"{self.order}: it must exceed {self._bound:.4g}; use zoh."
            )
        rate = torch.exp(-self.log_theta.double())
        a_bar, b_bar = discretize_at(rate, self.order, self.discretizer)
        return a_bar.to(self.log_theta.dtype), b_bar.to(self.log_theta.dtype)

    def extra_repr(self) -> str:
        """Return a description of the memory for ``print(module)``."""
        trained = (
            "theta" if self.train_theta else "a_bar, b_bar" if self.train_memory else "nothing"
        )
        return f"order={self.order}, theta={self.theta:g}, {self.discretizer}, trained: {trained}"


def discretize_at(rate: Tensor, order: int, discretizer: str) -> tuple[Tensor, Tensor]:
    """Discretize the memory of window ``1 / rate`` steps, differentiably, in the type of `rate`.

    Parameters
    ----------
    rate : Tensor, shape ()
    order : int
    discretizer : {"zoh", "bilinear", "euler"}

    Returns
    -------
    a_bar : Tensor, shape (order, order)
    b_bar : Tensor, shape (order,)
    """
    a, b = state_space(order)
    block = np.zeros((order + 1, order + 1))
    block[:order, :order], block[:order, order] = a, b
    generator = torch.as_tensor(block, dtype=rate.dtype, device=rate.device)
    identity = torch.eye(order + 1, dtype=rate.dtype, device=rate.device)
    if discretizer == "zoh":
        step: Tensor = _ScaledExponential.apply(rate, generator)  # type: ignore[no-untyped-call]
    elif discretizer == "bilinear":
        # The last row of the generator is zero, so the column of b is solve(I - sA/2, sB).
        half = generator * (rate / 2.0)
        step = torch.linalg.solve(identity - half, identity + half)
    else:
        step = identity + generator * rate
    return step[:order, :order], step[:order, order]


class _ScaledExponential(torch.autograd.Function):
    """Compute exp(s G) for a scalar s and a constant G, with the derivative G exp(s G)."""

    @staticmethod
    def forward(ctx: Any, scale: Tensor, generator: Tensor) -> Tensor:
        exponential = torch.linalg.matrix_exp(generator * scale)
        ctx.save_for_backward(exponential, generator)
        return exponential

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        exponential, generator = ctx.saved_tensors
        return (gradient * (generator @ exponential)).sum(), None


class StateNoise:
    r"""Noise of the states of a memory, as a chip of spiking neurons adds it.

    With the root mean square s of every state over a batch, the noise of step t is

    .. math:: \epsilon_t = s \odot z_t, \qquad
              z_t = \rho\, z_{t-1} + \sqrt{1 - \rho^2}\; F w_t, \qquad F F^T = R

    with white w. It is relative to the states, so that larger encoders do not escape it.

    Parameters
    ----------
    covariance : ndarray, shape (states, states)
        R, of the noise relative to the root mean square of each state.
    correlation : float
        rho, of the noise of consecutive steps, from 0 to below 1.
    """

    def __init__(self, covariance: np.ndarray, correlation: float) -> None:
        values, vectors = np.linalg.eigh(covariance)
        self.correlation = correlation
        self.factor = torch.from_numpy(vectors * np.sqrt(np.maximum(values, 0.0)))

    def draw(self, states: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Draw noise for states (batch, steps, states), of the same shape.

        Parameters
        ----------
        states : Tensor
        lengths : Tensor of int, shape (batch,), optional
            Steps of each sequence that count for the root mean square.
        """
        squares = states.detach().square()
        if lengths is None:
            scale = squares.mean((0, 1)).sqrt()
        else:
            counted = torch.arange(states.shape[1], device=states.device) < lengths[:, None]
            scale = squares[counted].mean(0).sqrt()
        white = torch.randn_like(states) @ self.factor.to(states).t()
        rows = [white[:, 0]]
        fresh = math.sqrt(1.0 - self.correlation**2)
        for row in white[:, 1:].unbind(1):
            rows.append(self.correlation * rows[-1] + fresh * row)
        return torch.stack(rows, 1) * scale
