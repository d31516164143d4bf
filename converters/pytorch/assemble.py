"""Build a network from the operations of a traced forward.

There is one small class for each kind of operation; a traced forward is a list of them, from input
to output (an :data:`Event` each), and anything else cannot be represented. Linear maps between
layers are folded into the weights of the layer that follows them, those at the end into the
readout.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import nn

from converters.linear_maps import feed, identity, join
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.network import Layer, LMUNetwork, Readout
from lmu_deploy.nn.convert import lstm_layers, to_layer
from lmu_deploy.nn.graph.operator import to_array


@dataclass(frozen=True)
class CalledLayer:
    """A recurrent layer, or a linear map of the features.

    Attributes
    ----------
    name : str
        Name of the submodule, as in a state dictionary.
    module : Module
        An LMU or LSTM of `lmu_deploy.nn`, a torch LSTM, or a torch Linear.
    """

    name: str
    module: nn.Module

    def __str__(self) -> str:
        return f"{self.name!r} ({type(self.module).__name__})"


@dataclass(frozen=True)
class Last:
    """Only the last step is used from here on.

    Attributes
    ----------
    axis : int or None
        Axis along which the last step was taken; None where a layer returned its last output.
    """

    axis: int | None


@dataclass(frozen=True)
class Swap:
    """The axes of batch and steps are swapped."""


@dataclass(frozen=True)
class Widen:
    """A last axis of one feature is added."""


@dataclass(frozen=True)
class Narrow:
    """The last axis, of one feature, is removed."""


@dataclass(frozen=True)
class Softmax:
    """The outputs become probabilities, or their logarithms."""

    logarithm: bool


@dataclass(frozen=True)
class Bundle:
    """A layer's outputs and states are passed on together, which a plain Sequential cannot run."""


Event = CalledLayer | Last | Swap | Widen | Narrow | Softmax | Bundle


@dataclass
class _Signal:
    """The signal at one place of the forward, and the layers before it."""

    layers: list[Layer] = field(default_factory=list)
    linear: Readout | None = None
    steps_axis: int | None = None
    is_last: bool = False
    before: CalledLayer | None = None


def assemble(
    events: list[Event],
    task: str | None,
    provenance: dict[str, str],
    problems: list[str],
) -> LMUNetwork | None:
    """Build the network; return None and add to `problems` if that is impossible.

    Parameters
    ----------
    events : list of Event
        From input to output.
    task, provenance
        Fields of the network.
    problems : list of str
        A clause is added for everything that cannot be represented.
    """
    signal = _Signal()
    for number, event in enumerate(events):
        if isinstance(event, CalledLayer):
            _enter(signal, event, problems)
        elif isinstance(event, Last):
            _take_last(signal, event, problems)
        elif isinstance(event, Swap):
            if signal.steps_axis is not None:
                signal.steps_axis = 1 - signal.steps_axis
        elif isinstance(event, Widen) and signal.before is not None:
            problems.append(f"unsqueeze after {signal.before} cannot be represented")
        elif isinstance(event, Softmax | Narrow) and _continues(events[number + 1 :]):
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


def _enter(signal: _Signal, called: CalledLayer, problems: list[str]) -> None:
    try:
        if isinstance(called.module, nn.Linear):
            signal.linear = join(signal.linear, _take_linear(called.module))
        else:
            _enter_recurrent(signal, called, problems)
    except InputError as error:
        problems.append(f"{called}: {str(error).rstrip('.')}")
    signal.before = called


def _enter_recurrent(signal: _Signal, called: CalledLayer, problems: list[str]) -> None:
    if signal.is_last:
        problems.append(f"{called} takes only the last output of the recurrent layer before it")
    axis = 1 if getattr(called.module, "batch_first", True) else 0
    if signal.steps_axis not in (None, axis):
        first = "batch_first = False" if axis == 0 else "batch_first = True"
        problems.append(f"{called} has {first} and the layer before it the other order of axes")
    signal.steps_axis = axis
    for layer in _take_recurrent(called.module):
        signal.layers.append(feed(signal.linear, layer))
        signal.linear = None


def _take_recurrent(module: nn.Module) -> list[Layer]:
    return lstm_layers(module) if isinstance(module, nn.LSTM) else [to_layer(module)]


def _take_linear(module: nn.Linear) -> Readout:
    bias = None if module.bias is None else to_array(module.bias)
    return Readout(np.ascontiguousarray(to_array(module.weight).T), bias)


def _take_last(signal: _Signal, last: Last, problems: list[str]) -> None:
    if signal.steps_axis is None:
        problems.append("the last of the input's steps is taken before any recurrent layer")
    elif signal.is_last or last.axis not in (None, signal.steps_axis):
        problems.append(f"an index of -1 after {signal.before} selects something other than a step")
    signal.is_last = True


def _continues(events: list[Event]) -> bool:
    return any(not isinstance(event, Softmax | Narrow) for event in events)
