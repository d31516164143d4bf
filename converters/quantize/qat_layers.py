r"""Torch layers that compute in floats with the weights of an integer network.

Trained weights are rounded at every forward pass by the quantizer's own code
(:class:`converters.quantize.connections.Rounding`), and the gradient passes the rounding unchanged
(the straight-through estimator; Bengio, Léonard, Courville 2013, section 4). The memory and
everything that enters it have the weights that the quantizer chose. They are fixed, so the fast
forms of `lmu_deploy.nn` apply, which cache what they compute from a fixed memory.

Those forms need the memory's inputs through a few ports, :math:`m_t = m_{t-1} T + v_t B`. Inputs
and bias have a port each. Feedback from hidden units has one port per channel before rounding and
full rank after it; `rank` ports carry its largest singular directions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from converters.quantize.connections import Rounding, round_to_format
from converters.quantize.memory_analysis import LinearMemory, linear_memory
from lmu_deploy.core.integer.layered import IntegerLayer, IntegerReadout
from lmu_deploy.core.integer.parts import Format
from lmu_deploy.nn.config import LMUConfig
from lmu_deploy.nn.lmu import LMU, LMUState
from lmu_deploy.nn.weights import Dynamics, LMUWeights

FROZEN = ("input_encoders", "hidden_encoders", "memory_encoders", "memory_bias")
"""Weights of a layer that enter its memory; they are not trained."""


@dataclass(frozen=True)
class PortedWeights(LMUWeights):
    """Weights of a layer whose memory is any linear map; ports take the place of channels.

    Attributes
    ----------
    own : Dynamics
        The memory's map, with `channels` ports.
    """

    own: Dynamics | None = None

    @property
    def states(self) -> int:
        """Number of memory states."""
        return len(self.dynamics().transition)

    def dynamics(self) -> Dynamics:
        """Return the memory's map."""
        assert self.own is not None
        return self.own


class RoundedLMU(LMU):
    """An LMU layer with the weights of an integer layer; its kernels and bias can be trained.

    Parameters
    ----------
    n_in : int
    config : LMUConfig
    integer : IntegerLayer
        Provides the memory, which stays fixed, and the formats of the hidden units.
    x : Format
        Format of the messages that enter the layer.
    roundings : mapping of str to Rounding
        Roundings of the hidden units' kernels, by the names memory, input and recurrent.
    rank : int, optional
        Ports of the hidden units' feedback; by default the number of channels.
    """

    transition: Tensor
    entry: Tensor
    port_encoders: Tensor
    port_feedback: Tensor | None
    port_bias: Tensor | None

    def __init__(
        self,
        n_in: int,
        config: LMUConfig,
        integer: IntegerLayer,
        x: Format,
        roundings: Mapping[str, Rounding],
        rank: int | None = None,
    ) -> None:
        super().__init__(n_in, **config.model_dump(exclude={"kind"}))
        self.roundings = dict(roundings)
        hidden = integer.hidden
        self.drive = None if hidden is None else hidden.drive
        linear = linear_memory(integer.memory, x, None if hidden is None else hidden.message)
        entry, encoders, feedback, bias = ports(linear, rank or self.channels)
        self.neurons = integer.memory.size
        self._keep("transition", linear.step.T)
        self._keep("entry", entry)
        self._keep("port_encoders", encoders)
        self._keep("port_feedback", feedback)
        self._keep("port_bias", bias)
        self._made: dict[Any, Any] = {}
        for name in FROZEN:
            if (weight := getattr(self, name)) is not None:
                weight.requires_grad_(False)
        for weight in self.memory.parameters():
            weight.requires_grad_(False)

    def _keep(self, name: str, values: np.ndarray | None) -> None:
        tensor = None if values is None else torch.tensor(values, dtype=torch.float32)
        self.register_buffer(name, tensor, persistent=False)

    def initial_state(self, batch: int) -> LMUState:
        """Return the initial state, all zero, for `batch` sequences."""
        like = self.input_encoders
        return LMUState(like.new_zeros(batch, self.neurons), like.new_zeros(batch, self.units))

    def weights(self, cached: bool = True) -> PortedWeights:
        """Return the weights that the integers represent."""
        own = Dynamics(1, self.transition, self.entry, self._made)
        return PortedWeights(
            channels=len(self.entry),
            activation=self.activation,
            a_bar=self.transition,
            b_bar=self.entry[0],
            input_encoders=self.port_encoders,
            hidden_encoders=self.port_feedback,
            memory_encoders=None,
            memory_bias=self.port_bias,
            memory_kernel=self._kernel("memory", self.memory_kernel),
            input_kernel=self._kernel("input", self.input_kernel),
            recurrent_kernel=self._kernel("recurrent", self.recurrent_kernel),
            bias=None if self.bias is None else rounded_bias(self.bias, self.drive),
            memory_cache=self._made,
            own=own,
        )

    def _kernel(self, name: str, kernel: Tensor | None) -> Tensor | None:
        return None if kernel is None else rounded(kernel, self.roundings[name])


class RoundedReadout(nn.Linear):
    """A readout with the weights of an integer readout; they can be trained.

    Parameters
    ----------
    n_in, n_out : int
    bias : bool
    integer : IntegerReadout
    rounding : Rounding
    """

    def __init__(
        self, n_in: int, n_out: int, bias: bool, integer: IntegerReadout, rounding: Rounding
    ) -> None:
        super().__init__(n_in, n_out, bias=bias)
        self.output, self.rounding = integer.output, rounding

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs for x (..., neurons)."""
        kernel = rounded(self.weight.t(), self.rounding)
        bias = None if self.bias is None else rounded_bias(self.bias, self.output)
        return nn.functional.linear(x, kernel.t(), bias)


def ports(
    memory: LinearMemory, rank: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Write the inputs of a memory as ports, ``v = x E_x + h E_h + b_u`` and ``m += v B``.

    Parameters
    ----------
    memory : LinearMemory
    rank : int
        Ports of the hidden units' feedback. If there would be as many ports as states, each state
        is a port instead, and the result is exact.

    Returns
    -------
    entry : ndarray, shape (ports, states)
        B.
    encoders : ndarray, shape (n_in, ports)
        E_x.
    feedback : ndarray, shape (units, ports), or None
        E_h.
    bias : ndarray, shape (ports,), or None
        b_u.
    """
    states, n_in = memory.input.shape
    count = n_in + (memory.bias is not None) + (0 if memory.hidden is None else rank)
    if count >= states:
        hidden = None if memory.hidden is None else memory.hidden.T
        return np.eye(states), memory.input.T, hidden, memory.bias
    identity = np.eye(count)
    entry = [memory.input.T]
    feedback, bias = None, None
    if memory.hidden is not None:
        u, s, v = np.linalg.svd(memory.hidden)
        entry.append((u[:, :rank] * s[:rank]).T)
        feedback = v[:rank].T @ identity[n_in : n_in + rank]
    if memory.bias is not None:
        entry.append(memory.bias[None])
        bias = identity[-1]
    return np.concatenate(entry), identity[:n_in], feedback, bias


def rounded(kernel: Tensor, rounding: Rounding) -> Tensor:
    """Round a kernel (n, n_out) as deployed, to (neurons, n_out); the gradient passes unchanged."""
    exact = kernel
    if rounding.basis is not None:
        exact = torch.tensor(rounding.basis, dtype=kernel.dtype, device=kernel.device).t() @ kernel
    real = rounding.real(kernel.detach().cpu().numpy().T).T
    return straight_through(exact, real)


def rounded_bias(bias: Tensor, target: Format | None) -> Tensor:
    """Round a bias as deployed; the gradient passes unchanged."""
    assert target is not None
    return straight_through(
        bias, round_to_format(bias.detach().cpu().numpy(), target) * target.scale
    )


def straight_through(exact: Tensor, rounded: np.ndarray | Tensor) -> Tensor:
    """Return other values that were rounded; the gradient goes to the exact ones, unchanged."""
    values = torch.as_tensor(rounded, dtype=exact.dtype, device=exact.device)
    passed: Tensor = _StraightThrough.apply(exact, values)  # type: ignore[no-untyped-call]
    return passed


class _StraightThrough(torch.autograd.Function):
    """Return the second argument; pass the gradient to the first."""

    @staticmethod
    def forward(ctx: Any, exact: Tensor, rounded: Tensor) -> Tensor:
        return rounded

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None
