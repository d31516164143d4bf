"""Convert a torch module to an LMUNetwork, and compare both on random inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from converters.importers import raise_problems
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
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.network import LMUNetwork
from lmu_deploy.core.reference import run_reference
from lmu_deploy.nn.graph.operator import to_array

TOLERANCE = 1e-4
"""Relative to the largest output: far above float32 rounding, far below any error in conversion."""
_SAMPLES, _STEPS = 3, 7


def from_torch(
    module: nn.Module,
    *,
    task: str | None = None,
    return_sequences: bool | None = None,
    provenance: Mapping[str, str] | None = None,
) -> Network:
    """Convert a module whose forward is a chain of LMU, LSTM and linear layers.

    The forward is traced by torch.fx in evaluation mode, so dropout has no effect. Supported are
    the layers of `lmu_deploy.nn`, ``torch.nn.LSTM`` (also of several layers) and
    ``torch.nn.Linear``, which is folded into the layer after it; taking the last step by
    ``x[:, -1]``, by ``last_only=True`` or from the states that a layer returns; either order of
    batch and steps; initial states of zero. A softmax at the end is left out, so the outputs of the
    network are logits. In a ``torch.nn.Sequential`` the layers follow each other in its order,
    although torch itself cannot run a Sequential of recurrent layers.

    Parameters
    ----------
    module : Module
        Its forward takes inputs of shape (batch, steps, n_in), (steps, batch, n_in), or (batch,
        steps) where it adds the last axis itself.
    task : str, optional
        Name of the task for which it was trained.
    return_sequences : bool, optional
        Whether the network has an output at every step, or one after the last; by default as in the
        forward.
    provenance : mapping of str to str, optional
        Entries to record in the network.

    Returns
    -------
    network : Network
        In the module's own precision.

    Raises
    ------
    InputError
        When the forward cannot be traced; when something in it cannot be represented (all problems
        are listed); or when module and network have different outputs for random inputs.
    """
    if not isinstance(module, nn.Module):
        raise InputError(f"a torch module is needed here, not {type(module).__name__}.")
    module = getattr(module, "_orig_mod", module)  # the module that torch.compile wrapped
    problems: list[str] = []
    with _evaluating(module):
        events = follow(module, problems)
        notes = {"imported from": "a torch module", **_notes(events), **(provenance or {})}
        network = assemble(events, task, notes, problems)
        raise_problems(problems, f"{type(module).__name__} cannot be converted")
        assert network is not None
        if not any(isinstance(event, Bundle) for event in events):
            verify(module, events, network)
    if return_sequences is not None:
        network = replace(network, return_sequences=return_sequences)
    return Network.from_layers(network)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode; restore the mode of each of its parts afterwards."""
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
        notes.append("the squeeze of the output: outputs keep a last axis of one")
    return {"left out": "; ".join(notes)} if notes else {}


def verify(module: nn.Module, events: list[Event], network: LMUNetwork) -> None:
    """Compare the outputs of a module and of the network for random inputs.

    Parameters
    ----------
    module : Module
        In evaluation mode.
    events : list of Event
        The module's traced forward.
    network : LMUNetwork
        The network assembled from it.

    Raises
    ------
    InputError
        When the module cannot be run, or the outputs differ.
    """
    inputs = np.random.default_rng(0).normal(size=(_SAMPLES, _STEPS, network.n_in))
    like = next(module.parameters())
    given = torch.tensor(inputs, dtype=like.dtype, device=like.device)
    inputs = to_array(given).astype(np.float64)
    try:
        with torch.no_grad():
            outputs = to_array(module(_as_taken(given, events)))
    except Exception as error:  # the forward is arbitrary user code
        raise InputError(
            f"{type(module).__name__} cannot be run on {_STEPS} steps of {network.n_in} features "
            f"({type(error).__name__}: {str(error)[:200]}); correct its forward."
        ) from error
    expected = _as_given(run_reference(network, inputs).outputs, events)
    if outputs.shape != expected.shape:
        raise InputError(
            f"{type(module).__name__} has outputs of shape {outputs.shape}, and the network "
            f"converted from it of shape {expected.shape}; simplify its forward."
        )
    gap = float(np.abs(outputs - expected).max() / (np.abs(expected).max() + 1e-30))
    if not gap <= TOLERANCE:
        raise InputError(
            f"the outputs of {type(module).__name__} and of the network converted from it differ "
            f"by {gap:.2g} of the largest output, more than {TOLERANCE:g}; simplify its forward."
        )


def _steps_first(events: list[Event]) -> bool:
    """Return whether the first axis of the module's inputs is that of the steps."""
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
