"""Tools of the readers of layers: signals, the graph under construction, one call of a layer.

A tensor of Keras has axes alone; a signal also has the axis that is time. An input whose first
axis could be time or not is decided by the first layer that takes it. The time of a sequence that
Keras flattened into the features is kept, so that a Dense layer behind it can be read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from converters.importers import LEFT_OUT, raise_problems
from converters.keras_lmu.architecture import KerasLayer
from converters.keras_lmu.configuration import Configuration, function_name, read_activation
from converters.keras_lmu.file import Arrays
from converters.keras_lmu.matrices import MemoryMatrices
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.linear import Affine, Conv1d, Conv2d, Dense
from lmu_deploy.core.graph.network import INPUT, Node
from lmu_deploy.core.graph.operator import Operator, Recurrent, Shape
from lmu_deploy.core.graph.pointwise import Activation, Multiply
from lmu_deploy.core.graph.time import Mask, Reduce


class UnknownInputError(InputError):
    """The features of a layer's input are unknown, so that the layer cannot be read."""


REFUSED = "the model cannot be imported"
SEQUENCE, FRAME, FLAT, OPEN = "sequence", "frame", "flat", "open"
_LARGEST_FRAME = 1_000_000
_MOST_NODES = 10_000


@dataclass(frozen=True)
class Signal:
    """A tensor of Keras as an output of a node.

    Attributes
    ----------
    node : str
        Name of the node, or of the input.
    time : {"sequence", "frame", "flat", "open"}
        A frame for every step; one frame for the whole sequence; a sequence whose frames Keras has
        put one behind the other; or an input of which this is not decided yet.
    frame : tuple of int, or None
        Axes of a frame, or of the whole input while it is open; None if the file does not say.
    steps : int or None
        Number of steps, if it is fixed.
    mask : str or None
        The node with the mask of the steps that count.
    inside : bool
        Whether it is a frame of a sequence, which is the input of a layer inside TimeDistributed.
    """

    node: str
    time: str
    frame: tuple[int, ...] | None
    steps: int | None = None
    mask: str | None = None
    inside: bool = False

    @property
    def size(self) -> int:
        """Number of values in a frame; 0 if it is unknown."""
        return 0 if self.frame is None else math.prod(self.frame)

    @property
    def axes(self) -> tuple[int | None, ...]:
        """Axes of the tensor of Keras, without that of samples."""
        if self.time == FLAT:
            return (None if self.steps is None else self.steps * self.size,)
        frame = self.frame or ()
        return (self.steps, *frame) if self.time == SEQUENCE else frame

    def __str__(self) -> str:
        axes = ", ".join(str(n or "?") for n in self.axes)
        return f"({axes})"


@dataclass
class MaskUse:
    """Readers of a masked sequence: layers that skip masked steps, and layers that do not.

    Attributes
    ----------
    value : float
    honored : bool
    ignored_by : list of str
    """

    value: float
    honored: bool = False
    ignored_by: list[str] = field(default_factory=list)


@dataclass
class Graph:
    """The nodes of a network so far.

    Attributes
    ----------
    matrices : MemoryMatrices
        Where the matrices of memories come from.
    keras : int
        Major version of Keras that wrote the file.
    options : mapping of str to str
        Settings by the user that the file does not have.
    nodes : list of Node
    notes : dict of str to list of str
        For the provenance of the network.
    masks : dict of str to MaskUse
        By the node that leaves out what is masked.
    inputs : dict of str to Signal or None
        The form in which layers take each input of the model, as soon as one does.
    states : int
        Sum of the orders of all memories.
    """

    matrices: MemoryMatrices
    keras: int
    options: Mapping[str, str] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=dict)
    masks: dict[str, MaskUse] = field(default_factory=dict)
    inputs: dict[str, Signal | None] = field(default_factory=dict)
    states: int = 0
    _names: set[str] = field(default_factory=lambda: {INPUT})

    def note(self, subject: str, text: str) -> None:
        """Add a sentence to the provenance, once."""
        texts = self.notes.setdefault(subject, [])
        if text not in texts:
            texts.append(text)

    def unique(self, name: str) -> str:
        """Return a name that no node has: this one, or this one with a number."""
        found, number = name, 2
        while found in self._names:
            found, number = f"{name}.{number}", number + 1
        self._names.add(found)
        return found

    def add(self, name: str, operator: Operator, *inputs: Signal) -> Signal:
        """Add a node; return its output.

        Raises
        ------
        InputError
            When the inputs do not fit.
        """
        if len(self.nodes) >= _MOST_NODES:
            raise InputError(f"the network has more than {_MOST_NODES} nodes")
        inputs = tuple(self._taken(signal, operator) for signal in inputs)
        first = inputs[0]
        if len(inputs) > 1 and len({(each.time, each.mask) for each in inputs}) > 1:
            raise InputError(
                f"its inputs {', '.join(map(str, inputs))} differ in time or in what is masked"
            )
        shape = operator.shape(*(Shape(each.frame or (1,), each.time != FRAME) for each in inputs))
        if math.prod(shape.frame) > _LARGEST_FRAME:
            raise InputError(f"its frames {shape} have more than {_LARGEST_FRAME} values")
        node = Node(self.unique(name), operator, tuple(each.node for each in inputs))
        self.nodes.append(node)
        steps = first.steps
        if steps is not None and not operator.framewise:
            steps = int(operator.lengths(np.array(steps)))
        if not shape.sequence and not first.inside:
            return Signal(node.name, FRAME, shape.frame)
        time = first.time if operator.framewise else SEQUENCE
        return replace(first, node=node.name, time=time, frame=shape.frame, steps=steps)

    def _taken(self, signal: Signal, operator: Operator) -> Signal:
        """Return a signal whose form is decided; the weights tell it where the file does not."""
        signal = settle(signal)
        if signal.frame is None:
            width = _width(operator)
            if width is None:
                raise UnknownInputError(UNKNOWN)
            signal = replace(signal, frame=(width,), time=SEQUENCE)
        if signal.node in self.inputs:
            form = replace(signal, time=SEQUENCE) if signal.inside else signal
            before = self.inputs[signal.node]
            if before is not None and (before.frame, before.time == FRAME) != (
                form.frame,
                form.time == FRAME,
            ):
                raise InputError(
                    f"it takes the model's input as {form} and another layer as {before}; give "
                    "the model an input for each"
                )
            self.inputs[signal.node] = form
        return signal

    def count_states(self, order: int, most: int) -> None:
        """Count the states of a memory before its matrices are computed."""
        self.states += order
        if self.states > most:
            raise InputError(
                f"with it the orders of all memories add up to {self.states}, more than {most}"
            )


UNKNOWN = (
    "the file does not tell the features of its input; save the model after it was built, or with "
    "an Input layer"
)


def _width(operator: Operator) -> int | None:
    """Return how many features an operator takes, where its weights tell."""
    if isinstance(operator, Recurrent):
        return operator.n_in
    if isinstance(operator, Dense):
        return int(operator.kernel.shape[0])
    if isinstance(operator, Conv1d | Conv2d):
        return int(operator.kernel.shape[-2]) * operator.groups
    return len(operator.scale) if isinstance(operator, Affine) else None


def settle(signal: Signal) -> Signal:
    """Return a signal of which time is decided: an open one of two axes or more is a sequence."""
    if signal.time != OPEN or signal.frame is None:
        return signal
    return as_frame(signal) if len(signal.frame) < 2 else as_sequence(signal)


def as_sequence(signal: Signal) -> Signal:
    """Return a signal as a sequence of frames.

    Raises
    ------
    InputError
        When it is one frame.
    """
    if signal.time == OPEN and signal.frame is not None:
        if len(signal.frame) < 2:
            raise InputError(
                f"it takes a sequence and is given {signal}; give the model an input (steps, "
                "features)"
            )
        steps = signal.frame[0] or None
        return replace(signal, time=SEQUENCE, frame=signal.frame[1:], steps=steps)
    if signal.time == FRAME:
        raise InputError(
            f"it takes a sequence and is given one frame {signal}; a network has no sequence "
            "behind a reduction over time, so put it before that"
        )
    if signal.time == FLAT:
        raise InputError(
            f"it takes a sequence and is given the flattened sequence {signal}; leave out Flatten"
        )
    return signal


def as_frame(signal: Signal) -> Signal:
    """Return a signal as one frame.

    Raises
    ------
    InputError
        When it is a sequence.
    """
    if signal.time in (FRAME, OPEN):
        return replace(signal, time=FRAME if signal.frame is not None else OPEN)
    raise InputError(
        f"it takes one frame and is given the sequence {signal}; wrap it in TimeDistributed"
    )


def without_idle_masks(graph: Graph) -> list[Node]:
    """Return the nodes without masks that no layer honors.

    Raises
    ------
    InputError
        When some layers honor a mask and others ignore it, or masked frames would be zeroed.
    """
    problems, idle = [], {}
    sources = {node.name: node.inputs[0] for node in graph.nodes}
    for name, use in graph.masks.items():
        ignored = ", ".join(dict.fromkeys(use.ignored_by))
        if use.honored and ignored:
            problems.append(
                f"layer {ignored} takes masked steps too, and other layers skip them; put "
                f"{ignored} before {name}"
            )
        elif not use.honored and ignored and use.value:
            problems.append(
                f"layer {ignored} takes the steps that {name} sets to zero; mask the value 0"
            )
        elif not use.honored:
            idle[name] = sources[name]
            if ignored:
                graph.note(
                    LEFT_OUT, f"the mask of {name}: {ignored} takes masked steps too, as in Keras"
                )
    raise_problems(problems, REFUSED)
    return [
        replace(node, inputs=tuple(idle.get(name, name) for name in node.inputs))
        for node in graph.nodes
        if node.name not in idle
    ]


@dataclass(frozen=True)
class Reader:
    """Reader of a class of layers of Keras.

    Attributes
    ----------
    read : callable
        Returns the output of a call, or its outputs; raises InputError with a clause that says what
        has no counterpart.
    operators : tuple of type
        What the layer becomes, the main one first; none if it has no effect after training.
    weights : bool
        Whether the layer has weights.
    limits : str
        What of the layer is read, in a few words; all of it if empty.
    """

    read: Callable[[Call], Signal | list[Signal]]
    operators: tuple[type[Operator], ...] = ()
    weights: bool = False
    limits: str = ""


@dataclass
class Call:
    """One call of a layer, for its reader.

    Attributes
    ----------
    layer : KerasLayer
    name : str
        Name of the first node that the layer becomes.
    options : Configuration
    arrays : Arrays
        The layer's weights.
    inputs : list of Signal
    graph : Graph
    read : callable
        Reads a layer inside this one: ``read(layer, name, arrays, inputs)``.
    operands : tuple
        Of an operation on tensors: its arguments, with signals for tensors.
    """

    layer: KerasLayer
    name: str
    arrays: Arrays
    inputs: list[Signal]
    graph: Graph
    read: Callable[[KerasLayer, str, Arrays, list[Signal]], list[Signal]]
    operands: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        self.options = Configuration(self.layer.config)

    def honors_mask(self, signal: Signal) -> Signal:
        """Return a signal that the layer takes without the steps that are masked."""
        if signal.mask is not None:
            self.graph.masks[signal.mask].honored = True
        return signal

    def ignores_mask(self, signal: Signal) -> Signal:
        """Return a signal all of whose steps the layer takes, as it does in Keras."""
        if signal.mask is not None:
            self.graph.masks[signal.mask].ignored_by.append(self.name)
        return replace(signal, mask=None)

    def mask(self, signal: Signal, value: float, part: str = "") -> Signal:
        """Return a signal of which frames of one value do not count."""
        if signal.time == FRAME:
            raise InputError(f"it masks steps and is given one frame {signal}")
        masked = self.add(Mask(value), replace(signal, mask=None), part=part)
        self.graph.masks[masked.node] = MaskUse(value)
        return replace(masked, time=signal.time, steps=signal.steps, mask=masked.node)

    @property
    def input(self) -> Signal:
        """The only input.

        Raises
        ------
        InputError
            When there are several.
        """
        if len(self.inputs) != 1:
            raise InputError(f"it takes {len(self.inputs)} inputs instead of one")
        return self.inputs[0]

    def known(self, signal: Signal) -> tuple[int, ...]:
        """Return the axes of a frame.

        Raises
        ------
        UnknownInputError
            When they are unknown.
        """
        if signal.frame is None:
            raise UnknownInputError(UNKNOWN)
        return signal.frame

    def add(self, operator: Operator, *inputs: Signal, part: str = "") -> Signal:
        """Add a node with the layer's name, or a further one of its parts."""
        name = f"{self.name}.{part}" if part else self.name
        return self.graph.add(name, operator, *(inputs or (self.input,)))

    def last(self, signal: Signal, keep: bool) -> Signal:
        """Return a sequence as it is, or its last frame."""
        return signal if keep else self.add(Reduce("last"), signal, part="last")

    def activate(self, signal: Signal, part: str = "activation") -> Signal:
        """Return a signal behind the activation of the configuration; linear adds no node."""
        value = self.options.get("activation")
        name = function_name(value)
        if name in COMPOSED:
            return self.activate_as(name, signal, part)
        found = read_activation(value, self.graph.keras)
        return signal if found.name == "linear" else self.add(found, signal, part=part)

    def activate_as(self, name: str, signal: Signal, part: str) -> Signal:
        """Return a signal behind one of `COMPOSED`, which takes several operators."""

        def add(operator: Operator, *inputs: Signal, of: str = "") -> Signal:
            return self.add(operator, *inputs, part=".".join(filter(None, (part, of))))

        signal = settle(signal)
        if name == "selu":
            features = self.known(signal)[-1]
            bent = add(Activation("elu", _SELU_SLOPE), signal, of="elu")
            return add(Affine(np.full(features, _SELU_SCALE), np.zeros(features)), bent)
        if name == "mish":
            positive = add(Activation("softplus"), signal, of="softplus")
            return add(Multiply(), signal, add(Activation("tanh"), positive, of="tanh"))
        return add(Multiply(), signal, add(Activation("hard-sigmoid"), signal, of="gate"))


COMPOSED = ("selu", "mish", "hard_silu", "hard_swish")
"""Activations of layers that take several operators; cells cannot have them."""

_SELU_SLOPE, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805
"""Constants of Klambauer, Unterthiner, Mayr and Hochreiter (2017)."""
