"""Run a module and the network made of it on the same inputs, before anyone relies on it."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from converters.torch_modules.path import Event, Layer, Narrow, Softmax, Swap, Widen
from converters.trainer import take_array
from lmu_deploy.errors import InputError
from lmu_deploy.network import LMUNetwork
from lmu_deploy.reference import run_reference

TOLERANCE = 1e-4
"""Of the largest answer: far above rounding in float32, far below any mistake."""
_SAMPLES, _STEPS = 3, 7


def verify(module: nn.Module, events: list[Event], network: LMUNetwork) -> None:
    """Compare answers to inputs drawn at random.

    Parameters
    ----------
    module : Module
        In evaluation mode.
    events : list of Event
        What it does to its input.
    network : LMUNetwork
        Made of them, answering as the module does.

    Raises
    ------
    InputError
        When the module cannot be run, or the answers differ.
    """
    inputs = np.random.default_rng(0).normal(size=(_SAMPLES, _STEPS, network.n_in))
    like = next(module.parameters())
    given = torch.tensor(inputs, dtype=like.dtype, device=like.device)
    inputs = take_array(given).astype(np.float64)
    try:
        with torch.no_grad():
            answers = take_array(module(_as_taken(given, events)))
    except Exception as error:  # the forward is anyone's code
        raise InputError(
            f"{type(module).__name__} cannot be run on {_STEPS} steps of {network.n_in} features "
            f"({type(error).__name__}: {str(error)[:200]}); mend its forward."
        ) from error
    expected = _as_given(run_reference(network, inputs).outputs, events)
    if answers.shape != expected.shape:
        raise InputError(
            f"{type(module).__name__} answers with shape {answers.shape} and the network made of "
            f"it with {expected.shape}; simplify its forward."
        )
    gap = float(np.abs(answers - expected).max() / (np.abs(expected).max() + 1e-30))
    if not gap <= TOLERANCE:
        raise InputError(
            f"the network made of {type(module).__name__} answers otherwise than the module, by "
            f"{gap:.2g} of the largest answer, more than {TOLERANCE:g}; simplify its forward."
        )


def _steps_first(events: list[Event]) -> bool:
    """Whether the module takes steps before batch."""
    swaps = 0
    for event in events:
        swaps += isinstance(event, Swap)
        if isinstance(event, Layer) and not isinstance(event.module, nn.Linear):
            return bool(swaps % 2) == bool(getattr(event.module, "batch_first", True))
    return False


def _as_taken(inputs: torch.Tensor, events: list[Event]) -> torch.Tensor:
    if any(isinstance(event, Widen) for event in events):
        inputs = inputs.squeeze(2)
    return inputs.transpose(0, 1) if _steps_first(events) else inputs


def _as_given(outputs: np.ndarray, events: list[Event]) -> np.ndarray:
    if any(isinstance(event, Narrow) for event in events):
        outputs = outputs.squeeze(-1)
    for event in events:
        if isinstance(event, Softmax):
            odds = np.exp(outputs - outputs.max(-1, keepdims=True))
            outputs = odds / odds.sum(-1, keepdims=True)
            outputs = np.log(outputs) if event.logarithm else outputs
    swaps = sum(isinstance(event, Swap) for event in events)
    steps_first = _steps_first(events) != bool(swaps % 2)
    many = outputs.ndim > 2 - any(isinstance(event, Narrow) for event in events)
    return outputs.swapaxes(0, 1) if steps_first and many else outputs
