"""From what happens to a signal to the network that does the same.

Linear maps between the layers fold into the weights of the layer that they feed, those at the end
into the readout; no layer is left of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import nn

from converters.linear_maps import feed, identity, join
from converters.torch_modules.path import Event, Last, Narrow, Softmax, Swap, Widen
from converters.torch_modules.path import Layer as Called
from converters.trainer import take_array, take_layer, take_torch_lstm
from lmu_deploy.errors import InputError
from lmu_deploy.network import Layer, LMUNetwork, Readout


@dataclass
class _Signal:
    """What is known of the signal at one place of the way."""

    layers: list[Layer] = field(default_factory=list)
    linear: Readout | None = None
    steps_axis: int | None = None
    is_last: bool = False
    before: Called | None = None


def assemble(
    events: list[Event],
    task: str | None,
    provenance: dict[str, str],
    problems: list[str],
) -> LMUNetwork | None:
    """Make the network; None, and more `problems`, when that is impossible.

    Parameters
    ----------
    events : list of Event
        From the input to the answer.
    task, provenance
        As the network keeps them.
    problems : list of str
        Grows by a clause for everything that cannot be represented.
    """
    signal = _Signal()
    for number, event in enumerate(events):
        if isinstance(event, Called):
            _enter(signal, event, problems)
        elif isinstance(event, Last):
            _take_last(signal, event, problems)
        elif isinstance(event, Swap):
            if signal.steps_axis is not None:
                signal.steps_axis = 1 - signal.steps_axis
        elif isinstance(event, Widen) and signal.before is not None:
            problems.append(f"unsqueeze after {signal.before} cannot be represented")
        elif isinstance(event, Softmax | Narrow) and _goes_on(events[number + 1 :]):
            what = "a softmax" if isinstance(event, Softmax) else "squeeze"
            problems.append(f"{what} before the end cannot be represented")
    if not signal.layers and not problems:
        problems.append("it has no LMU or LSTM layer")
    if problems:
        return None
    return LMUNetwork(
        layers=tuple(signal.layers),
        readout=signal.linear or Readout(identity(signal.layers[-1].n_out), None),
        return_sequences=not signal.is_last,
        task=task,
        provenance=provenance,
    )


def _enter(signal: _Signal, called: Called, problems: list[str]) -> None:
    try:
        if isinstance(called.module, nn.Linear):
            signal.linear = join(signal.linear, _take_linear(called.module))
        else:
            _enter_recurrent(signal, called, problems)
    except InputError as error:
        problems.append(f"{called}: {str(error).rstrip('.')}")
    signal.before = called


def _enter_recurrent(signal: _Signal, called: Called, problems: list[str]) -> None:
    if signal.is_last:
        problems.append(f"{called} takes the last output alone of a recurrent layer before it")
    axis = 1 if getattr(called.module, "batch_first", True) else 0
    if signal.steps_axis not in (None, axis):
        first = "batch_first = False" if axis == 0 else "batch_first = True"
        problems.append(f"{called} has {first} and the layer before it the other order of axes")
    signal.steps_axis = axis
    for layer in _take_recurrent(called.module):
        signal.layers.append(feed(signal.linear, layer))
        signal.linear = None


def _take_recurrent(module: nn.Module) -> list[Layer]:
    return take_torch_lstm(module) if isinstance(module, nn.LSTM) else [take_layer(module)]


def _take_linear(module: nn.Linear) -> Readout:
    bias = None if module.bias is None else take_array(module.bias)
    return Readout(np.ascontiguousarray(take_array(module.weight).T), bias)


def _take_last(signal: _Signal, last: Last, problems: list[str]) -> None:
    if signal.steps_axis is None:
        problems.append("the last of the input's steps is taken before any recurrent layer")
    elif signal.is_last or last.axis not in (None, signal.steps_axis):
        problems.append(f"an index of -1 after {signal.before} takes something else than a step")
    signal.is_last = True


def _goes_on(events: list[Event]) -> bool:
    return any(not isinstance(event, Softmax | Narrow) for event in events)
