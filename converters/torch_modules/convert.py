"""`from_torch`: a torch module that anyone made of our layers, as an LMUNetwork."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from torch import nn

from converters.torch_modules.assemble import assemble
from converters.torch_modules.path import Bundle, Event, Narrow, Softmax, Widen
from converters.torch_modules.trace import follow
from converters.torch_modules.verify import verify
from lmu_deploy.errors import InputError
from lmu_deploy.network import LMUNetwork

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
