"""Sequences of different lengths: padded, masked or packed.

Internally, every form of a layer uses (batch, steps, features) and one length per sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from lmu_deploy.core.errors import InputError

P = ParamSpec("P")
T = TypeVar("T")


def check_sequences(x: Tensor, n_in: int, lengths: Tensor | None) -> None:
    """Check that x is (batch, steps, n_in) with at least one step and that lengths match.

    Raises
    ------
    InputError
        When the shape of x or a length is invalid.
    """
    if x.ndim != 3 or x.shape[2] != n_in or x.shape[1] < 1:
        raise InputError(
            f"the layer's input has shape {tuple(x.shape)}; give (batch, steps, {n_in}) with at "
            "least one step."
        )
    if lengths is None or is_traced():
        return
    fits = lengths.shape == (len(x),) and not lengths.is_floating_point()
    if not fits or lengths.min() < 1 or lengths.max() > x.shape[1]:
        raise InputError(
            f"lengths must be {len(x)} integers from 1 to {x.shape[1]}, one for each sequence."
        )


def is_traced() -> bool:
    """Return whether operations are recorded instead of run: no size or value is known then."""
    return bool(torch._C._get_tracing_state()) or torch.compiler.is_exporting()


def left_uncompiled(function: Callable[P, T]) -> Callable[P, T]:
    """Return a function that torch.compile runs as it is, between two graphs.

    It does what :func:`torch.compiler.disable` does, which imports the compiler at once and would
    double the time that this package takes to import. Here only a compiler causes that import.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if torch.compiler.is_compiling():
            left: Callable[P, T] = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
            return left(*args, **kwargs)
        return function(*args, **kwargs)

    return call


def lengths_of(mask: Tensor) -> Tensor:
    """Return the lengths of sequences from a mask.

    Parameters
    ----------
    mask : Tensor of bool, shape (batch, steps)
        True where a step belongs to the sequence; every sequence begins at step 0.

    Returns
    -------
    lengths : Tensor of int64, shape (batch,)

    Raises
    ------
    InputError
        When a sequence has a gap or no step.
    """
    lengths = mask.sum(1)
    if not torch.equal(mask.bool(), is_inside(lengths, mask.shape[1])) or lengths.min() < 1:
        raise InputError("a mask must be one run of true steps that begins at the first step.")
    return lengths


def is_inside(lengths: Tensor, steps: int) -> Tensor:
    """Return a mask, shape (batch, steps), that is true before the end of each sequence."""
    return torch.arange(steps, device=lengths.device) < lengths.unsqueeze(1)


def zero_after(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Return x (batch, steps, features) with zeros, even for NaN, after the end of sequences."""
    if lengths is None:
        return x
    return torch.where(is_inside(lengths.to(x.device), x.shape[1]).unsqueeze(2), x, x.new_zeros(()))


def at_end(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Return the last step of each sequence: (batch, steps, features) to (batch, features)."""
    if lengths is None:
        return x[:, -1]
    return x[torch.arange(x.shape[0], device=x.device), lengths.to(x.device) - 1]


def unpack(packed: PackedSequence) -> tuple[Tensor, Tensor]:
    """Return a packed batch as (batch, steps, features) and its lengths."""
    return pad_packed_sequence(packed, batch_first=True)


def pack_like(x: Tensor, packed: PackedSequence) -> PackedSequence:
    """Pack x (batch, steps, features) in the order and lengths of `packed`."""
    _, lengths = unpack(packed)
    return pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
