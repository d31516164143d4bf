"""Read a Keras model's configuration as calls of layers, from the inputs to the outputs.

In: the JSON of `model.to_json()` or of a saved file, Keras 2 or 3, Sequential or Functional. Out: a
:class:`KerasModel`, whose calls name the tensors that they take.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lmu_deploy.core.errors import InputError

MOST_LAYERS = 1000
MODELS = ("Sequential", "Functional", "Model")
"""Class names of models; Keras before 2.3 called a functional model Model."""


@dataclass(frozen=True)
class KerasLayer:
    """One layer of a Keras configuration.

    Attributes
    ----------
    kind : str
        Class name, such as LMU.
    name : str
    key : str
        Name under which Keras 3 stores its weights: the class name in snake case, numbered.
    config : dict
    operation : str
        For an operation on tensors (``x[:, -1]``, ``x + y``), its name in Keras 3 without
        underscores, such as ``getitem``; empty for a layer.
    """

    kind: str
    name: str
    key: str
    config: dict[str, Any]
    operation: str = ""

    def __str__(self) -> str:
        return f"layer {self.name!r} ({self.kind})"


@dataclass(frozen=True)
class Tensor:
    """One output of one call of a layer.

    Attributes
    ----------
    layer : str
    call, index : int
        Number of the call of this layer, and of the output of that call.
    """

    layer: str
    call: int
    index: int


@dataclass(frozen=True)
class KerasCall:
    """One call of a layer.

    Attributes
    ----------
    layer : KerasLayer
    inputs : tuple of Tensor
    keywords : tuple of str
        Names of the arguments, other than the inputs, that are tensors.
    operands : tuple
        Of an operation: its arguments in their order, with a :class:`Tensor` for each tensor, and
        a tuple for a list.
    options : mapping of str to Any
        Of an operation: its arguments by name.
    """

    layer: KerasLayer
    inputs: tuple[Tensor, ...]
    keywords: tuple[str, ...] = ()
    operands: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class KerasModel:
    """A model, whole or inside another one.

    Attributes
    ----------
    layers : tuple of KerasLayer
        In the order of the file, which is that of its weights.
    calls : mapping of (str, int) to KerasCall
        By name of the layer and number of the call.
    inputs, outputs : tuple of Tensor
    output_names : tuple of str
        The user's own, or else the names of the layers.
    numbers : mapping of (str, int) to int
        Where tensors number the calls of a layer otherwise than the file stores them: Keras 2
        counts the call in which a model inside the model was made. The stored number by name of
        the layer and number in tensors.
    """

    layers: tuple[KerasLayer, ...]
    calls: Mapping[tuple[str, int], KerasCall]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    output_names: tuple[str, ...]
    numbers: Mapping[tuple[str, int], int] = field(default_factory=dict)

    def call_of(self, tensor: Tensor) -> tuple[str, int]:
        """Return which call a tensor comes from.

        Raises
        ------
        InputError
            When there is no such call.
        """
        key = (tensor.layer, tensor.call)
        key = (tensor.layer, self.numbers.get(key, tensor.call))
        if key in self.calls:
            return key
        raise InputError(f"the configuration has no call {tensor.call} of layer {tensor.layer!r}.")

    def needed(self, outputs: Sequence[Tensor]) -> list[tuple[str, int]]:
        """Return the calls that some outputs need, each behind those that it takes.

        Raises
        ------
        InputError
            When layers take their outputs in a circle, or a tensor has no source.
        """
        order: list[tuple[str, int]] = []
        state: dict[tuple[str, int], bool] = {}  # False while its inputs are looked at
        stack = [(self.call_of(tensor), False) for tensor in reversed(outputs)]
        while stack:
            key, ready = stack.pop()
            if ready:
                state[key] = True
                order.append(key)
            elif key not in state:
                state[key] = False
                stack.append((key, True))
                for tensor in reversed(self.calls[key].inputs):
                    source = self.call_of(tensor)
                    if state.get(source) is False:
                        raise InputError(
                            f"layer {source[0]!r} takes its own output through {key[0]!r}; a "
                            "model has no circles."
                        )
                    stack.append((source, False))
        return order


def read_model(model: Mapping[str, Any]) -> KerasModel:
    """Return the layers and calls of a Sequential or Functional model.

    Raises
    ------
    InputError
        When the model is of another kind, or so damaged that no layer can be found.
    """
    kind = model.get("class_name")
    config = model.get("config")
    if kind not in MODELS:
        raise InputError(
            f"the model is a {str(kind)[:80]!r}, whose Python code is in no file; rebuild it as a "
            "Functional model, load its weights there, and save that."
        )
    nodes = config if isinstance(config, list) else None  # Keras before 2.2 stored a plain list
    if isinstance(config, dict):
        nodes = config.get("layers")
    if not isinstance(nodes, list) or not all(isinstance(node, dict) for node in nodes):
        raise InputError("the model's configuration lists no layers; save it again.")
    if len(nodes) > MOST_LAYERS:
        raise InputError(f"the model has {len(nodes)} layers, more than {MOST_LAYERS}.")
    layers = tuple(_describe(nodes))
    if kind == "Sequential":
        return _sequential(layers, config if isinstance(config, dict) else {})
    assert isinstance(config, dict)
    return _functional(layers, nodes, config)


def _describe(nodes: list[dict[str, Any]]) -> Iterator[KerasLayer]:
    keys = layer_keys(str(node.get("class_name")) for node in nodes)
    for number, (node, key) in enumerate(zip(nodes, keys, strict=True)):
        config = node.get("config")
        kind = node.get("class_name")
        if isinstance(config, list):  # a Sequential model inside another, before Keras 2.2
            config = {"layers": config}
        if not isinstance(config, dict) or not isinstance(kind, str):
            raise InputError(f"layer {number} has no configuration; save the model again.")
        name = str(config.get("name") or node.get("name") or key)[:150]
        yield KerasLayer(kind.rsplit(">", 1)[-1], name, key, config, _operation(node, kind, config))


OTHER_NAMES = {
    "add": "add",
    "math.add": "add",
    "math.subtract": "subtract",
    "math.multiply": "multiply",
    "math.truediv": "divide",
    "math.divide": "divide",
    "truedivide": "divide",
    "negative": "negate",
    "math.negative": "negate",
    "math.pow": "power",
    "math.reduce_mean": "mean",
    "math.reduce_sum": "sum",
    "math.reduce_max": "max",
    "math.abs": "absolute",
    "clipbyvalue": "clip",
    "concat": "concatenate",
    "reverse": "flip",
    "swish": "silu",
    "stopgradient": "identity",
    "cast": "identity",
}
"""Names of operations in TensorFlow, and some in Keras 3, whose usual name differs."""


def _operation(node: Mapping[str, Any], kind: str, config: Mapping[str, Any]) -> str:
    """Return the usual name of an operation on tensors, of Keras 3 or of TensorFlow."""
    if kind in ("TFOpLambda", "SlicingOpLambda"):
        name = str(config.get("function"))[:80]
        name = name.removeprefix("compat.v1.").removeprefix("__operators__.")
    elif str(node.get("module", "")).startswith(("keras.ops", "keras.src.ops")):
        name = kind
    else:
        return ""
    name = name.lower()
    short = name.rpartition(".")[2].replace("_", "")
    return OTHER_NAMES.get(name) or OTHER_NAMES.get(short, short)


def layer_keys(kinds: Iterable[str]) -> Iterator[str]:
    """Yield the names under which Keras 3 stores the weights of layers of these classes."""
    counts: dict[str, int] = {}
    for kind in kinds:
        base = snake_case(kind.rsplit(">", 1)[-1])
        count = counts[base] = counts.get(base, -1) + 1
        yield base if count == 0 else f"{base}_{count}"


def snake_case(name: str) -> str:
    """Convert a class name as Keras does for weights: LMUFeedforward becomes lmu_feedforward."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _sequential(layers: tuple[KerasLayer, ...], config: dict[str, Any]) -> KerasModel:
    """Return the calls of layers one behind the other, with an input layer if they lack one."""
    if not layers:
        raise InputError("the model has no layers; save one that has.")
    chain = list(layers)
    if layers[0].kind != "InputLayer":
        shape = _first_shape(layers[0], config)
        name = f"{layers[0].name}_input"
        chain.insert(0, KerasLayer("InputLayer", name, "", {"batch_shape": shape}))
    calls: dict[tuple[str, int], KerasCall] = {}
    before: tuple[Tensor, ...] = ()
    for layer in chain:
        number = sum(name == layer.name for name, _ in calls)
        calls[layer.name, number] = KerasCall(layer, before)
        before = (Tensor(layer.name, number, 0),)
    inputs = (Tensor(chain[0].name, 0, 0),)
    return KerasModel(layers, calls, inputs, before, (before[0].layer,))


def _first_shape(layer: KerasLayer, config: Mapping[str, Any]) -> Any:
    """Return the shape that a Sequential model without an input layer has recorded, or None."""
    while True:
        for name in ("batch_input_shape", "batch_shape"):
            if name in layer.config:
                return layer.config[name]
        if layer.kind not in MODELS or not isinstance(layer.config.get("layers"), list):
            return config.get("build_input_shape")
        inner = read_model({"class_name": layer.kind, "config": layer.config})
        layer = inner.calls[inner.call_of(inner.inputs[0])].layer


def _functional(
    layers: tuple[KerasLayer, ...], nodes: list[dict[str, Any]], config: dict[str, Any]
) -> KerasModel:
    if len({layer.name for layer in layers}) < len(layers):
        raise InputError("two layers of the model have the same name; save the model again.")
    calls: dict[tuple[str, int], KerasCall] = {}
    for layer, node in zip(layers, nodes, strict=True):
        inbound = node.get("inbound_nodes")
        for number, call in enumerate(inbound if isinstance(inbound, list) else []):
            calls[layer.name, number] = _call(layer, call)
        if not inbound:
            calls[layer.name, 0] = KerasCall(layer, ())
    if len(calls) > MOST_LAYERS:
        raise InputError(f"the model calls layers {len(calls)} times, more than {MOST_LAYERS}.")
    inputs, outputs = (tuple(_places(config.get(f"{end}_layers"))) for end in ("input", "output"))
    if not inputs or not outputs:
        raise InputError("the model's configuration names no inputs or outputs; save it again.")
    names = _output_names(config["output_layers"], outputs)
    tensors = {*inputs, *outputs, *(each for call in calls.values() for each in call.inputs)}
    return KerasModel(layers, calls, inputs, outputs, names, _numbers(calls, tensors))


def _numbers(
    calls: Mapping[tuple[str, int], KerasCall], tensors: Iterable[Tensor]
) -> dict[tuple[str, int], int]:
    """Return the stored number of each call that tensors number otherwise.

    Something takes the output of every call that is stored, so that their order tells the numbers.
    """
    taken: dict[str, set[int]] = {}
    for tensor in tensors:
        taken.setdefault(tensor.layer, set()).add(tensor.call)
    stored: dict[str, list[int]] = {}
    for name, number in calls:
        stored.setdefault(name, []).append(number)
    found: dict[tuple[str, int], int] = {}
    for name, numbers in taken.items():
        known = stored.get(name, [])
        if not numbers <= set(known) and len(numbers) == len(known):
            found |= {(name, old): new for old, new in zip(sorted(numbers), known, strict=True)}
    return found


def _output_names(listed: Any, outputs: tuple[Tensor, ...]) -> tuple[str, ...]:
    """Return the keys of outputs by name, or else the layers, numbered where one has several."""
    if isinstance(listed, dict) and len(listed) == len(outputs):
        return tuple(map(str, listed))
    layers = [tensor.layer for tensor in outputs]
    return tuple(
        name if layers.count(name) == 1 else f"{name}.{layers[:place].count(name)}"
        for place, name in enumerate(layers)
    )


def _call(layer: KerasLayer, call: Any) -> KerasCall:
    """Return one call, as Keras 3 (arguments by name) or Keras 2 (a list of tensors) writes it."""
    if layer.operation:
        return _operation_call(layer, call)
    if isinstance(call, dict):
        inputs = tuple(_tensors(call.get("args")))
        named = call.get("kwargs") or {}
        if not isinstance(named, dict):
            raise InputError(f"{layer} has damaged inputs; save the model again.")
        found = {name: tuple(_tensors(value)) for name, value in named.items()}
    else:
        inputs = tuple(_places(call))
        found = {
            name: tuple(_places(value))
            for each in (call if isinstance(call, list) else [])
            if isinstance(each, list) and len(each) > 3 and isinstance(each[3], dict)
            for name, value in each[3].items()
        }
    if not inputs and "inputs" in found:
        inputs = found.pop("inputs")
    extra = tuple(tensor for tensors in found.values() for tensor in tensors)
    return KerasCall(layer, inputs + extra, tuple(name for name in found if found[name]))


def _operation_call(layer: KerasLayer, call: Any) -> KerasCall:
    """Return the call of an operation with all its arguments, of which some are numbers."""
    if isinstance(call, dict):
        given, named = call.get("args") or [], call.get("kwargs") or {}
    else:
        several = isinstance(call, list) and call and isinstance(call[0], list)
        tensors = call if several else [call]
        if not all(isinstance(each, list) and len(each) >= 3 for each in tensors):
            raise InputError(f"{layer} has damaged inputs; save the model again.")
        named = tensors[0][3] if len(tensors[0]) > 3 else {}
        given = [[each[:3] for each in tensors]] if several else [call[:3]]
    if not isinstance(given, list) or not isinstance(named, dict):
        raise InputError(f"{layer} has damaged inputs; save the model again.")
    options = {name: _operand(value) for name, value in named.items()}
    operands = (*map(_operand, given), *(options.pop(n) for n in ("y", "x2") if n in options))
    inputs = tuple(_tensors_in((operands, tuple(options.values()))))
    return KerasCall(layer, inputs, (), operands, options)


def _operand(value: Any) -> Any:
    """Return an argument of an operation: a tensor, a slice, an ellipsis, or what it is."""
    if isinstance(value, dict):
        kind, config = value.get("class_name"), value.get("config")
        if kind == "__keras_tensor__":
            return next(_tensors(value), None)
        if kind == "__ellipsis__":
            return ...
        found = config if kind == "__slice__" else value
        if isinstance(found, dict) and {"start", "stop", "step"} <= set(found):
            return slice(found["start"], found["stop"], found["step"])
        return value
    if not isinstance(value, list):
        return value
    if len(value) == 3 and isinstance(value[0], str):
        if value[0] == "_CONSTANT_VALUE":
            return _operand(value[2])
        return next(_places(value), None)
    return tuple(map(_operand, value))


def _tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested tuples."""
    if isinstance(value, Tensor):
        yield value
    for each in value if isinstance(value, tuple) else ():
        yield from _tensors_in(each)


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in the arguments of a call that Keras 3 wrote."""
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__" and isinstance(value.get("config"), dict):
            yield from _places(value["config"].get("keras_history"))
            return
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _tensors(each)


def _places(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested lists of ``[layer, call, index]``."""
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return
    if len(value) >= 3 and isinstance(value[0], str):
        if all(isinstance(number, int) for number in value[1:3]):
            yield Tensor(value[0], value[1], value[2])
        return
    for each in value:
        yield from _places(each)
