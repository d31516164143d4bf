"""Assemble a Network from the configuration and the arrays of a Keras model.

Every class of layer has a reader, in :mod:`.pointwise`, :mod:`.frames` or :mod:`.recurrent`;
`READERS` lists them all. Nodes have the names of Keras's layers. What a layer needs beside its main
node gets its name and a part, such as ``dense.activation`` or ``lstm.last``; a layer of a model
inside the model gets both names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from converters.importers import LEFT_OUT, raise_problems
from converters.keras_lmu import frames, pointwise, recurrent
from converters.keras_lmu.architecture import MODELS, KerasLayer, KerasModel, Tensor, read_model
from converters.keras_lmu.build import (
    FLAT,
    FRAME,
    OPEN,
    Call,
    Graph,
    Reader,
    Signal,
    UnknownInputError,
)
from converters.keras_lmu.file import Arrays, FileWeights, KerasFile
from converters.keras_lmu.matrices import MemoryMatrices
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.frames import Reshape, Slice
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.operator import Operator
from lmu_deploy.core.graph.time import Reduce

READERS: Mapping[str, Reader] = {**pointwise.READERS, **frames.READERS, **recurrent.READERS}
"""Reader of each class of layer."""

REFUSED = "the model cannot be imported"
_DEEPEST = 16

INSTEAD: Mapping[str, str] = {
    "Lambda": "a Lambda holds Python code, which is not run; use layers of Keras in its place",
    "MultiHeadAttention": "attention has no counterpart; use an LMU",
    "Attention": "attention has no counterpart; use an LMU",
    "AdditiveAttention": "attention has no counterpart; use an LMU",
    "ConvLSTM1D": "use TimeDistributed(Conv1D), Flatten and LSTM",
    "ConvLSTM2D": "use TimeDistributed(Conv2D), Flatten and LSTM",
    "Conv3D": "use TimeDistributed(Conv2D)",
    "CuDNNLSTM": "its weights have another order; load them into LSTM and save that",
    "CuDNNGRU": "its weights have another order; load them into GRU and save that",
    "RepeatVector": "a frame cannot become a sequence; use return_sequences in the layer before",
    "UpSampling1D": "no operator repeats steps; use Conv1D with stride 1",
    "Conv1DTranspose": "no operator repeats steps; use Conv1D with stride 1",
    "PReLU": "use LeakyReLU, whose slope is one number",
    "GroupNormalization": "use LayerNormalization",
    "UnitNormalization": "use LayerNormalization",
    "SpectralNormalization": "save the layer inside it",
    "TFOpLambda": "an operation of TensorFlow; use the layer of Keras that does the same",
    "SlicingOpLambda": "an index of a tensor; use return_sequences=False for the last step",
    "GetItem": "an index of a tensor; use return_sequences=False for the last step",
    "LMUCellODE": "use LMUCell",
    "LMUCellGating": "use LMUCell",
}
"""For classes of layers without a reader, the reason and the nearest thing that works."""


def assemble(file: KerasFile, settings: Mapping[str, str]) -> Network:
    """Build the network from a configuration and its arrays.

    Parameters
    ----------
    file : KerasFile
        With a configuration.
    settings : mapping of str to str
        Values of `SETTINGS`.

    Raises
    ------
    InputError
        When something cannot be represented; all problems are listed.
    """
    assert file.config is not None
    model = read_model(file.config)
    matrices = MemoryMatrices(settings.get("matrices", "exact"))
    graph = Graph(matrices, _major(file, model), settings)
    weighted = [layer for layer in model.layers if _has_weights(layer)]
    weights = FileWeights(file.contents, weighted)
    assembly = _Assembly(graph)
    output = _chosen(model, settings.get("output"))
    given = [_input(model, tensor, graph) for tensor in model.inputs]
    (signal,) = assembly.calls(model, given, weights.of, "", [output], 0)
    raise_problems(assembly.problems, REFUSED)
    surplus = weights.left(assembly.used)
    raise_problems(
        [f"the file has weights of {n!r}, which no layer takes" for n in surplus], REFUSED
    )
    nodes = _without_idle_masks(graph)
    first, frame, names = _input_nodes(graph, given)
    nodes = [replace(n, inputs=tuple(names.get(i, i) for i in n.inputs)) for n in (*first, *nodes)]
    if not graph.nodes:
        raise InputError("the model has no layer that does anything; save one that has.")
    if signal.time == FLAT:
        graph.note("output", "Keras puts the frames of all steps one behind the other")
    return Network(tuple(nodes), frame, signal.node, None, _provenance(graph, file))


def _has_weights(layer: KerasLayer) -> bool:
    reader = READERS.get(layer.kind)
    return layer.kind != "InputLayer" and (reader is None or reader.weights)


def _major(file: KerasFile, model: KerasModel) -> int:
    """Return the major version of Keras, recorded or inferred from the configuration's form."""
    first = file.version.partition(".")[0]
    if first.isdigit() and len(first) < 3:
        return int(first)
    return 3 if any("batch_shape" in layer.config for layer in model.layers) else 2


def _chosen(model: KerasModel, name: str | None) -> Tensor:
    """Return the output of that name; the only one by default."""
    names = list(model.output_names)
    if name is None:
        if len(names) > 1:
            raise InputError(
                f"the model has the outputs {', '.join(names)}; choose one with --output NAME."
            )
        return model.outputs[0]
    if name in names:
        return model.outputs[names.index(name)]
    calls = [key for key in model.calls if key[0] == name]
    if not calls:
        raise InputError(f"the model has no output {name!r}; choose one of {', '.join(names)}.")
    return Tensor(name, calls[-1][1], 0)


def _input(model: KerasModel, tensor: Tensor, graph: Graph) -> Signal:
    """Return one input of the model, of which no layer has decided yet where its time is."""
    layer = model.calls[model.call_of(tensor)].layer
    shape = layer.config.get("batch_input_shape", layer.config.get("batch_shape"))
    name = graph.unique(layer.name)
    graph.inputs[name] = None
    if not isinstance(shape, list) or len(shape) < 2:
        return Signal(name, OPEN, None)
    axes = shape[1:]
    if not all(n is None or (isinstance(n, int) and 0 < n < 2**31) for n in axes):
        raise InputError(
            f"the input {layer.name!r} has the shape {str(shape)[:80]}; save it again."
        )
    if None in axes[1:]:
        return Signal(name, OPEN, None)
    return Signal(name, OPEN, tuple(n or 0 for n in axes))


class _Assembly:
    """Reads the calls of a model and of the models inside it.

    Attributes
    ----------
    problems : list of str
        A clause for everything that has no counterpart.
    used : set of str
        Names of the layers of the whole model that were read.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.problems: list[str] = []
        self.used: set[str] = set()

    def calls(
        self,
        model: KerasModel,
        given: Sequence[Signal],
        arrays_of: Callable[[KerasLayer], Arrays],
        prefix: str,
        outputs: Sequence[Tensor],
        depth: int,
    ) -> list[Signal]:
        """Return some outputs of a model, given its inputs."""
        values: dict[tuple[str, int], list[Signal]] = {}
        for tensor, signal in zip(model.inputs, given, strict=True):
            values[model.call_of(tensor)] = [signal]
        for key in model.needed(outputs):
            if key in values:
                continue
            call = model.calls[key]
            layer, name = call.layer, f"{prefix}{call.layer.name}"
            before = len(self.problems)
            if not call.inputs:
                self.problems.append(f"{layer} has no input")
            if call.keywords:
                what = ", ".join(call.keywords)
                self.problems.append(f"{layer} takes {what} from another layer; leave it out")
            if len(self.problems) > before:
                values[key] = [_BROKEN]
                continue
            inputs = [self._output(model, tensor, values) for tensor in call.inputs]
            values[key] = self.layer(layer, name, arrays_of(layer), inputs, depth)
            if not prefix and len(self.problems) == before:
                self.used.add(layer.name)
        return [self._output(model, tensor, values) for tensor in outputs]

    def _output(
        self, model: KerasModel, tensor: Tensor, values: Mapping[tuple[str, int], list[Signal]]
    ) -> Signal:
        found = values[model.call_of(tensor)]
        if found == [_BROKEN]:
            return _BROKEN
        if not 0 <= tensor.index < len(found):
            self.problems.append(
                f"output {tensor.index} of layer {tensor.layer!r}, a state inside it, is taken; "
                "use its first output"
            )
            return _BROKEN
        return found[tensor.index]

    def layer(
        self, layer: KerasLayer, name: str, arrays: Arrays, inputs: list[Signal], depth: int
    ) -> list[Signal]:
        """Return the outputs of one call of a layer; what goes wrong becomes a problem."""
        try:
            return self._layer(layer, name, arrays, inputs, depth)
        except InputError as error:
            if not (isinstance(error, UnknownInputError) and _BROKEN in inputs):
                self.problems.append(f"{layer}: {str(error).rstrip('.')}")
            return [_BROKEN]

    def _layer(
        self, layer: KerasLayer, name: str, arrays: Arrays, inputs: list[Signal], depth: int
    ) -> list[Signal]:
        if depth > _DEEPEST:
            raise InputError(f"it is nested more than {_DEEPEST} deep")
        if layer.kind in MODELS:
            inner = read_model({"class_name": layer.kind, "config": layer.config})
            if len(inner.inputs) != len(inputs):
                raise InputError(f"it takes {len(inner.inputs)} inputs and is given {len(inputs)}")
            return self.calls(inner, inputs, arrays.of_layer, f"{name}.", inner.outputs, depth + 1)
        reader = READERS.get(layer.kind)
        if reader is None:
            raise InputError(INSTEAD.get(layer.kind, _unknown(layer)))

        def read(part: KerasLayer, of: str, own: Arrays, given: list[Signal]) -> list[Signal]:
            return self._layer(part, of, own, given, depth + 1)

        call = Call(layer, name, arrays, inputs, self.graph, read)
        found = reader.read(call)
        return found if isinstance(found, list) else [found]


_BROKEN = Signal("", OPEN, None)
"""The output of a layer that cannot be read."""


def _unknown(layer: KerasLayer) -> str:
    return (
        "this class of layer has no counterpart; docs/how-to/import.md lists those that have one"
        if layer.kind.isidentifier()
        else "its class has no name"
    )


def _without_idle_masks(graph: Graph) -> list[Node]:
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


def _input_nodes(
    graph: Graph, given: Sequence[Signal]
) -> tuple[list[Node], tuple[int, ...], dict[str, str]]:
    """Return the nodes that give each input of the model, and the axes of the network's input.

    Several inputs come one behind the other in every frame. An input without time is the last
    frame of a sequence.

    Returns
    -------
    nodes : list of Node
    frame : tuple of int
    names : dict of str to str
        For inputs without a node, the nodes in their place.
    """
    used = [form for signal in given if (form := graph.inputs[signal.node]) is not None]
    steps = {form.steps for form in used if form.time != FRAME}
    if len(steps - {None}) > 1:
        raise InputError(
            f"the inputs have {' and '.join(map(str, sorted(n for n in steps if n)))} steps; they "
            "come side by side and need equally many."
        )
    if len(used) == 1:
        (form,) = used
        assert form.frame is not None
        if form.time != FRAME:
            return [], form.frame, {form.node: INPUT}
        graph.note("input", "one frame without time; give sequences of one step")
        return [Node(form.node, Reduce("last"), (INPUT,))], form.frame, {}
    nodes: list[Node] = []
    begin = 0
    for form in used:
        assert form.frame is not None
        chain: list[Operator] = [Slice(begin, begin + form.size)]
        if len(form.frame) > 1:
            chain.append(Reshape((form.size,), form.frame))
        if form.time == FRAME:
            chain.append(Reduce("last"))
        before = INPUT
        for number, operator in enumerate(chain):
            name = form.node if number == len(chain) - 1 else graph.unique(f"{form.node}.features")
            nodes.append(Node(name, operator, (before,)))
            before = name
        begin += form.size
    order = ", ".join(f"{form.node} {_axes(form)}" for form in used)
    graph.note("input", f"in every frame one behind the other: {order}")
    return nodes, (begin,), {}


def _axes(form: Signal) -> str:
    shape = ", ".join(map(str, form.frame or ()))
    return f"({shape}){' of the last step' if form.time == FRAME else ''}"


def _provenance(graph: Graph, file: KerasFile) -> dict[str, str]:
    notes = {"imported from": "keras-lmu"}
    if file.version:
        notes["keras version"] = file.version[:100]
    if graph.matrices.used:
        graph.note("memory matrices", graph.matrices.note)
    return notes | {subject: "; ".join(texts)[:10_000] for subject, texts in graph.notes.items()}
