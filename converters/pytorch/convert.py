"""`from_torch`: a torch module that anyone made of our layers, as an LMUNetwork.

Run a module and the network made of it on the same inputs, before anyone relies on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from converters.pytorch.assemble import (
    Bundle,
    CalledLayer,
    Event,
    Narrow,
    Softmax,
    Swap,
    Widen,
    assemble,
)
from converters.pytorch.trace import follow
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.network import LMUNetwork
from lmu_deploy.core.reference import run_reference
from lmu_deploy.nn.convert import take_array

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
        if isinstance(event, CalledLayer) and not isinstance(event.module, nn.Linear):
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


MOST_PROBLEMS = 20


def from_torch(
    module: nn.Module,
    *,
    task: str | None = None,
    return_sequences: bool | None = None,
    provenance: Mapping[str, str] | None = None,
) -> LMUNetwork:
    """Take the network out of a module whose forward passes LMU and LSTM layers one after another.

    The forward is followed by torch.fx as it stands in evaluation mode, so dropout has no effect.
    Known are the layers of `lmu_deploy.nn`, ``torch.nn.LSTM`` (of several layers too) and
    ``torch.nn.Linear``, which folds into the layer after it; taking the last step by ``x[:, -1]``,
    by ``last_only=True`` or out of the states that a layer gives; either order of batch and steps;
    states that start at zero. A softmax at the end is left out, so that the network answers
    with logits. A ``torch.nn.Sequential`` says by its order what follows what, though torch itself
    cannot run one of recurrent layers.

    Parameters
    ----------
    module : Module
        Its forward takes inputs of shape (batch, steps, n_in), (steps, batch, n_in), or (batch,
        steps) where it adds the last axis itself.
    task : str, optional
        Name of the task that it was trained for.
    return_sequences : bool, optional
        Whether the network answers at every step, or once, after the last; as the forward does
        when not given.
    provenance : mapping of str to str, optional
        Where it comes from.

    Returns
    -------
    network : LMUNetwork
        In the module's own precision.

    Raises
    ------
    InputError
        When the forward cannot be followed; when something in it cannot be represented: all of it
        is named; or when module and network answer otherwise to inputs drawn at random.
    """
    if not isinstance(module, nn.Module):
        raise InputError(f"a torch module is needed here, not {type(module).__name__}.")
    module = getattr(module, "_orig_mod", module)  # what torch.compile has wrapped
    problems: list[str] = []
    with _evaluating(module):
        events = follow(module, problems)
        notes = {"imported from": "a torch module", **_notes(events), **(provenance or {})}
        network = assemble(events, task, notes, problems)
        if network is None or problems:
            shown = "; ".join(problems[:MOST_PROBLEMS])
            raise InputError(f"{type(module).__name__} cannot be converted: {shown}.")
        if not any(isinstance(event, Bundle) for event in events):
            verify(module, events, network)
    if return_sequences is None:
        return network
    return replace(network, return_sequences=return_sequences)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode, and every part of it back to its own mode after."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def _notes(events: list[Event]) -> dict[str, str]:
    notes = []
    if any(isinstance(event, Softmax) for event in events):
        notes.append("the softmax at the end: outputs are logits")
    if any(isinstance(event, Widen) for event in events):
        notes.append("the unsqueeze of the input: inputs are (batch, steps, 1)")
    if any(isinstance(event, Narrow) for event in events):
        notes.append("the squeeze of the answer: outputs keep a last axis of one")
    return {"left out": "; ".join(notes)} if notes else {}
