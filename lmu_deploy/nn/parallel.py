r"""Parallel evaluation of layers whose memory is driven by the input only: all steps at once.

The memory is evaluated in blocks (:mod:`lmu_deploy.nn.blocks`): a short recurrence over the initial
states of blocks, then one matrix product for the drive of the hidden units with the memory kernel
included, so that memory states are not computed. If only the last state is needed, it is one
product with the impulse response of the memory. Recurrent hidden units are evaluated separately.

In a block of L steps with initial memory m, the drive of the hidden units at step k is

.. math:: d_k = F S_k, \qquad F = [m, x_0, \dots, x_{L-1}, 1]

where S_k consists of :math:`T^{k+1} W_m`, the kernels of the inputs of the block, and the bias. F
is the same for the whole block.

With a zero initial state, equal channels and at most as many inputs as channels, the memory is a
linear map of the memory of the inputs, :math:`m_t = E_x^T m^x_t` for each state, and the input
encoders can be included in W_m. Then no trained weight precedes F, so that its gradient, a third of
the work, is not needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from lmu_deploy.nn.blocks import Blocks, best_length
from lmu_deploy.nn.products import ACTIVATIONS, fused_recurrence, has_fused, matmul
from lmu_deploy.nn.recurrent import scan
from lmu_deploy.nn.sequences import at_end
from lmu_deploy.nn.weights import Dynamics, LMUWeights


@dataclass(frozen=True)
class Drive:
    """Drive of the hidden units, in factors.

    Attributes
    ----------
    features : Tensor, shape (batch, blocks, K)
        F of every block; zero beyond the last step.
    weights : Tensor, shape (L, K, units)
        Weights S.
    """

    features: Tensor
    weights: Tensor

    def everywhere(self, steps: int) -> Tensor:
        """Return d at every step, (batch, steps, units)."""
        _, columns, units = self.weights.shape
        weights = self.weights.transpose(0, 1).reshape(columns, -1)
        return matmul(self.features, weights).view(len(self.features), -1, units)[:, :steps]


def drive_by_blocks(
    weights: LMUWeights, x: Tensor, m: Tensor, ends: Tensor, length: int | None
) -> tuple[Drive, Tensor]:
    """Return the drive, and the memory at the end of each sequence.

    Parameters
    ----------
    weights : LMUWeights
        At most as many inputs as channels, or no input kernel.
    x : Tensor, shape (batch, steps, n_in)
    m : Tensor, shape (batch, states)
        Memory before the first step.
    ends : Tensor of int64, shape (batch,)
    length : int, optional
        Block length L; by default the fastest.

    Returns
    -------
    drive : Drive
    m : Tensor, shape (batch, states)
    """
    batch, steps, n_in = x.shape
    folds = _folds(weights, m)
    own = weights.dynamics()
    dynamics = Dynamics(n_in, own.transition, own.entry, own.cache) if folds else own
    length = length or best_length(dynamics, weights.units, batch, steps, 1.0)
    blocks = Blocks.of(dynamics, length)
    matrices = _cached_matrices(weights, blocks, folds)
    entering = x if folds else linear(x, weights.input_encoders.t(), weights.memory_bias)
    arranged = in_blocks(entering, length)
    start = m.new_zeros(batch, n_in * len(own.transition)) if folds else m
    initial_states = blocks.initial_states(arranged, start)
    end = blocks.state_at(arranged, initial_states, ends)
    if folds:
        end = torch.einsum("bis,ic->bcs", end.view(batch, n_in, -1), weights.input_encoders)
        end = end.flatten(1)
    if not takes_channels(weights):
        arranged = in_blocks(x, length)
    one = x.new_ones(()).expand(*initial_states.shape[:2], 1)
    return Drive(torch.cat([initial_states, arranged, one], 2), matrices), end


def takes_channels(weights: LMUWeights) -> bool:
    """Return whether F contains the inputs of the memory, as there are fewer of these."""
    n_in, channels = weights.input_encoders.shape
    return n_in > channels


def in_blocks(x: Tensor, length: int) -> Tensor:
    """Reshape (batch, steps, n) to (batch, blocks, length * n), padded with zeros."""
    missing = -x.shape[1] % length
    return (pad(x, (0, 0, 0, missing)) if missing else x).reshape(len(x), -1, length * x.shape[2])


def _folds(weights: LMUWeights, m: Tensor) -> bool:
    """Return whether the input encoders can be included in the memory kernel."""
    plain = weights.memory_encoders is None and weights.memory_bias is None
    if not plain or takes_channels(weights):
        return False
    if weights.dynamics().groups != weights.channels:
        return False
    return not m.requires_grad and not bool(m.any().item())


def _cached_matrices(weights: LMUWeights, blocks: Blocks, folds: bool) -> Tensor:
    """Return S, from the cache if it has it."""
    if (cache := weights.weight_cache()) is None:
        return _matrices(weights, blocks, folds)
    key = "drive", blocks.length, folds
    if key not in cache:
        cache.clear()
        with torch.inference_mode(False), torch.no_grad():
            cache[key] = _matrices(weights, blocks, folds)
    found: Tensor = cache[key]
    return found


def _matrices(weights: LMUWeights, blocks: Blocks, folds: bool) -> Tensor:
    """Return S."""
    kernel, encoders = weights.memory_kernel, weights.input_encoders
    assert kernel is not None
    length, units = blocks.length, weights.units
    if folds:
        by_channel = kernel.view(weights.channels, -1)
        kernel = (encoders @ by_channel).view(-1, units)
    kernels = blocks.kernels(kernel)
    constant = kernels.new_zeros(length, units)
    if weights.bias is not None:
        constant = constant + weights.bias
    if not takes_channels(weights):
        if weights.memory_bias is not None:
            constant = constant + (weights.memory_bias @ kernels).cumsum(0)
        if not folds:
            kernels = encoders @ kernels
        if weights.input_kernel is not None:
            kernels = torch.cat([kernels[:1] + weights.input_kernel, kernels[1:]])
    return torch.cat([blocks.state_kernels(kernel), toeplitz(kernels), constant.unsqueeze(1)], 1)


def toeplitz(kernels: Tensor) -> Tensor:
    """Return the Toeplitz form (L, L * n_in, n) of causal kernels (L, n_in, n)."""
    length, n_in, n = kernels.shape
    step = torch.arange(length, device=kernels.device)
    lag = step.unsqueeze(1) - step.unsqueeze(0)
    packed = kernels[lag.clamp(min=0)] * (lag >= 0).to(kernels.dtype)[:, :, None, None]
    return packed.reshape(length, length * n_in, n)


def run_parallel(
    weights: LMUWeights,
    x: Tensor,
    m: Tensor,
    h: Tensor,
    lengths: Tensor | None,
    last_only: bool,
    length: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Evaluate sequences; see :func:`lmu_deploy.nn.recurrent.run_recurrent`.

    The layer must have no hidden encoders. `length` is the block length, by default the fastest.
    """
    ends = torch.full((len(x),), x.shape[1], device=x.device) if lengths is None else lengths
    kernel = weights.memory_kernel
    only_end = last_only and weights.recurrent_kernel is None
    if kernel is None or only_end:
        inputs = linear(x, weights.input_encoders.t(), weights.memory_bias)
        outputs, m = _memory(weights.dynamics(), inputs, m, ends, only_end, length)
        if kernel is None:
            return outputs, m, h
        z = matmul(m, kernel)
        if weights.bias is not None:
            z = z + weights.bias
        if weights.input_kernel is not None:
            z = z + matmul(at_end(x, lengths), weights.input_kernel)
        h = ACTIVATIONS[weights.activation].apply(z)
        return h, m, h
    z, m = _drive(weights, x, m, ends, length)
    if weights.recurrent_kernel is None:
        hiddens = ACTIVATIONS[weights.activation].apply(z)
    elif has_fused(z, weights.activation):
        hiddens = fused_recurrence(z, h, weights.recurrent_kernel, weights.activation)
    else:
        by_time = z.transpose(0, 1).clone(memory_format=torch.contiguous_format)
        hiddens = scan(by_time, h, weights.recurrent_kernel, weights.units, weights.activation)
        hiddens = hiddens.transpose(0, 1)
    h = at_end(hiddens, lengths)
    return (h if last_only else hiddens), m, h


def memory_states(dynamics: Dynamics, inputs: Tensor, only_end: bool = False) -> Tensor:
    """Return the states of a memory that starts at zero.

    Parameters
    ----------
    dynamics : Dynamics
    inputs : Tensor, shape (batch, steps, groups * ports)
    only_end : bool
        Return the state after the last step only.

    Returns
    -------
    states : Tensor, shape (batch, steps, groups * size), or (batch, groups * size)
    """
    m = inputs.new_zeros(len(inputs), dynamics.groups * len(dynamics.transition))
    ends = torch.full((len(inputs),), inputs.shape[1], device=inputs.device)
    steps, size = inputs.shape[1], len(dynamics.transition)
    # In one block the states before it, which are zero, need no columns.
    single = not only_end and steps <= SINGLE_BLOCK * size
    return _memory(dynamics, inputs, None if single else m, ends, only_end, None)[0]


def _memory(
    dynamics: Dynamics,
    inputs: Tensor,
    m: Tensor | None,
    ends: Tensor,
    only_end: bool,
    length: int | None,
) -> tuple[Tensor, Tensor]:
    """Return the memory at every step, or only at the end, and the memory at the end.

    Without m, which is the state before the first step, it is zero and all steps are one block.
    """
    batch, steps, _ = inputs.shape
    size, groups = len(dynamics.transition), dynamics.groups
    # Independent channels are evaluated as sequences of one channel.
    alone = Dynamics(1, dynamics.transition, dynamics.entry, dynamics.cache)
    inputs = inputs.view(batch, steps, groups, -1).transpose(1, 2).flatten(0, 1)
    m = None if m is None else m.reshape(-1, size)
    if only_end:
        assert m is not None
        if dynamics.cache is None:
            length = length or best_length(alone, 0, len(m), steps, 0.0)
        blocks = Blocks.of(alone, length or min(steps, _LONGEST_RESPONSE))
        arranged = in_blocks(inputs, blocks.length)
        initial_states = blocks.initial_states(arranged, m)
        m = blocks.state_at(arranged, initial_states, ends.repeat_interleave(groups)).view(
            batch, -1
        )
        return m, m
    if m is None:
        blocks = Blocks.of(alone, steps)
        arranged = features = in_blocks(inputs, steps)
    else:
        blocks = Blocks.of(alone, length or best_length(alone, size, len(m), steps, 1.0))
        arranged = in_blocks(inputs, blocks.length)
        features = torch.cat([blocks.initial_states(arranged, m), arranged], 2)
    states = Drive(features, _state_matrices(blocks, m is not None, alone.cache)).everywhere(steps)
    states = states.view(batch, groups, steps, size).transpose(1, 2).flatten(2)
    return states, at_end(states, ends)


def _state_matrices(blocks: Blocks, from_states: bool, cache: dict[Any, Any] | None) -> Tensor:
    """Return S for the states themselves, from the cache if there is one."""

    def made() -> Tensor:
        identity = torch.eye(
            len(blocks.carry), dtype=blocks.carry.dtype, device=blocks.carry.device
        )
        entering = toeplitz(blocks.kernels(identity))
        if not from_states:
            return entering
        return torch.cat([blocks.state_kernels(identity), entering], 1)

    if cache is None:
        return made()
    key = "states", blocks.length, from_states
    if key not in cache:
        with torch.inference_mode(False), torch.no_grad():
            cache[key] = made()
    found: Tensor = cache[key]
    return found


def _drive(
    weights: LMUWeights, x: Tensor, m: Tensor, ends: Tensor, length: int | None
) -> tuple[Tensor, Tensor]:
    """Return z without recurrent feedback, (batch, steps, units), and the last m."""
    drive, m = drive_by_blocks(weights, x, m, ends, length)
    z = drive.everywhere(x.shape[1])
    if weights.input_kernel is not None and takes_channels(weights):
        z = z + matmul(x, weights.input_kernel)
    return z, m


SINGLE_BLOCK = 2.0
"""Steps of a sequence, in multiples of the order, up to which one block is faster than several
(benchmarks/memory_forms.py; there the Fourier transform is faster for orders of hundreds alone)."""

_LONGEST_RESPONSE = 4096
"""Length of the impulse response that is cached: order * 16 KiB."""
