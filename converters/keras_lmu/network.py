"""Import networks of Keras: the registered importer, and the assembly of a Network.

In: a path, and the architecture where the file has none. Out: the network, in the precision of the
file; or one error that lists everything that cannot be represented.

Every class of layer has a reader, in :mod:`.pointwise`, :mod:`.frames` or :mod:`.recurrent`;
`READERS` lists them all. Nodes have the names of Keras's layers. What a layer needs beside its main
node gets its name and a part, such as ``dense.activation`` or ``lstm.last``; a layer of a model
inside the model gets both names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from converters.importers import HDF5_SIGNATURE, Sniff, raise_problems
from converters.keras_lmu import frames, pointwise, recurrent
from converters.keras_lmu.architecture import (
    MODELS,
    KerasLayer,
    KerasModel,
    Tensor,
    read_model,
)
from converters.keras_lmu.build import (
    FLAT,
    FRAME,
    OPEN,
    REFUSED,
    Call,
    Graph,
    Reader,
    Signal,
    UnknownInputError,
    without_idle_masks,
)
from converters.keras_lmu.configuration import architecture_from_options
from converters.keras_lmu.file import (
    CONFIG,
    WEIGHTS,
    Arrays,
    FileWeights,
    KerasFile,
    open_keras,
    parse_json,
)
from converters.keras_lmu.matrices import MemoryMatrices
from converters.keras_lmu.operations import OPERATIONS
from converters.sandbox.process import check_file
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.frames import Reshape, Slice
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.operator import Operator
from lmu_deploy.core.graph.time import Reduce
from lmu_deploy.core.graph.transforms import prune

READERS: Mapping[str, Reader] = {**pointwise.READERS, **frames.READERS, **recurrent.READERS}
"""Reader of each class of layer."""

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
    "GroupNormalization": "use LayerNormalization",
    "SpectralNormalization": "save the layer inside it",
    "EinsumDense": "use Dense",
    "Dot": "use Multiply and Dense",
    "Cropping1D": "no operator leaves out steps; leave them out of the data",
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
    if not graph.nodes:
        raise InputError("the model has no layer that does anything; save one that has.")
    nodes = list(prune(without_idle_masks(graph), signal.node))
    first, frame, names = _input_nodes(graph, given)
    nodes = [replace(n, inputs=tuple(names.get(i, i) for i in n.inputs)) for n in (*first, *nodes)]
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
            if call.keywords and layer.kind in READERS:
                what = ", ".join(call.keywords)
                self.problems.append(f"{layer} takes {what} from another layer; leave it out")
            if len(self.problems) > before:
                values[key] = [_BROKEN]
                continue
            inputs = [self._output(model, tensor, values) for tensor in call.inputs]
            known = dict(zip(call.inputs, inputs, strict=True))
            arguments = _signals_for(call.operands, known), call.options
            values[key] = self.layer(layer, name, arrays_of(layer), inputs, depth, arguments)
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
        self,
        layer: KerasLayer,
        name: str,
        arrays: Arrays,
        inputs: list[Signal],
        depth: int,
        arguments: Arguments = ((), {}),
    ) -> list[Signal]:
        """Return the outputs of one call of a layer; what goes wrong becomes a problem."""
        try:
            return self._layer(layer, name, arrays, inputs, depth, arguments)
        except InputError as error:
            if not (isinstance(error, UnknownInputError) and _BROKEN in inputs):
                self.problems.append(f"{layer}: {str(error).rstrip('.')}")
            return [_BROKEN]

    def _layer(
        self,
        layer: KerasLayer,
        name: str,
        arrays: Arrays,
        inputs: list[Signal],
        depth: int,
        arguments: Arguments = ((), {}),
    ) -> list[Signal]:
        if depth > _DEEPEST:
            raise InputError(f"it is nested more than {_DEEPEST} deep")
        if layer.kind in MODELS:
            inner = read_model({"class_name": layer.kind, "config": layer.config})
            if len(inner.inputs) != len(inputs):
                raise InputError(f"it takes {len(inner.inputs)} inputs and is given {len(inputs)}")
            return self.calls(inner, inputs, arrays.of_layer, f"{name}.", inner.outputs, depth + 1)
        reader = OPERATIONS.get(layer.operation) if layer.operation else READERS.get(layer.kind)
        if reader is None:
            raise InputError(INSTEAD.get(layer.operation or layer.kind, _unknown(layer)))

        def read(part: KerasLayer, of: str, own: Arrays, given: list[Signal]) -> list[Signal]:
            return self._layer(part, of, own, given, depth + 1)

        operands, options = arguments
        layer = replace(layer, config={**layer.config, **options})
        call = Call(layer, name, arrays, inputs, self.graph, read, operands)
        found = reader.read(call)
        return found if isinstance(found, list) else [found]


Arguments = tuple[tuple[Any, ...], Mapping[str, Any]]
"""Arguments of an operation: in their order, with signals for tensors, and by name."""


def _signals_for(value: Any, signals: Mapping[Tensor, Signal]) -> Any:
    """Return nested tuples with the signal of each tensor."""
    if isinstance(value, tuple):
        return tuple(_signals_for(each, signals) for each in value)
    return signals[value] if isinstance(value, Tensor) else value


_BROKEN = Signal("", OPEN, None)
"""The output of a layer that cannot be read."""


def _unknown(layer: KerasLayer) -> str:
    if layer.operation:
        return f"the operation {layer.operation} has no counterpart; use layers of Keras"
    return (
        "this class of layer has no counterpart; docs/how-to/import.md lists those that have one"
        if layer.kind.isidentifier()
        else "its class has no name"
    )


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


SETTINGS = ("matrices", "output", "activation", "theta")
"""Options that say nothing of the architecture."""


class KerasLMUImporter:
    """`.keras`, whole-model `.h5`, and weights-only `.h5` files of Keras 2 and 3."""

    name = "keras-lmu"
    selects_output = True
    reads = "keras-lmu: .keras, .h5 / .hdf5 (whole models, or weights with --architecture)"

    def recognizes(self, sniff: Sniff) -> bool:
        """Return whether the file is an HDF5 file of Keras, or an archive with its entries."""
        if sniff.head.startswith(HDF5_SIGNATURE):
            whole = sniff.holds(b"model_config")
            return (whole or not sniff.holds(b"memory_encoders")) and not sniff.is_nir
        return CONFIG in sniff.entries or WEIGHTS in sniff.entries

    def read(self, path: Path, architecture: Path | None, options: dict[str, str]) -> Network:
        """Read a network; the architecture is needed for weights-only files only.

        Option `matrices` selects the memory's matrices: exact (the default), keras, keras:KIB, or
        a file of those that Keras computed; see :mod:`.matrices`. `output` names one of several
        outputs; `activation` and `theta` are those of the paper's cell, if the file lacks them.
        """
        settings = {name: options[name] for name in SETTINGS if name in options}
        rest = {name: options[name] for name in options if name not in SETTINGS}
        whole = open_keras(check_file(path))
        if whole.config is None and architecture is None and rest:
            rest |= {n: settings.pop(n) for n in ("activation", "theta") if n in settings}
        elif rest:
            raise InputError(
                f"option {min(rest)!r} is of an architecture, which the file or the architecture "
                f"file has; leave it out, or choose from {', '.join(SETTINGS)}."
            )
        described = architecture_from_options(rest) if rest else architecture
        return _read(path, whole, described, settings)


def read_keras(
    path: Path | str,
    architecture: Mapping[str, Any] | Path | str | None = None,
    matrices: Path | str = "exact",
    output: str | None = None,
) -> Network:
    """Read a network that Keras trained.

    Parameters
    ----------
    path : path
        `.keras`, whole-model `.h5` / `.hdf5`, or weights-only `.h5` / `.hdf5`, of Keras 2 or 3.
    architecture : dict or path, optional
        Output of ``model.to_json()``, parsed or as a file; needed for weights-only files, and not
        allowed for others.
    matrices : str or path
        The memory's matrices, which no file stores: "exact" (those of the equations), "keras" (as
        keras-lmu computes them on this machine's processor), "keras:KIB", or an `.npz` of those
        that Keras computed; see :class:`.matrices.MemoryMatrices`.
    output : str, optional
        Name of one of several outputs, or of any layer; what it does not need is left out.

    Returns
    -------
    network : Network

    Raises
    ------
    InputError
        When the file is damaged, or something cannot be represented; all problems are listed.
    """
    settings = {"matrices": str(matrices)} | ({} if output is None else {"output": output})
    path = check_file(path)
    return _read(path, open_keras(path), architecture, settings)


def _read(
    path: Path,
    file: KerasFile,
    architecture: Mapping[str, Any] | Path | str | None,
    settings: Mapping[str, str],
) -> Network:
    config: Mapping[str, Any] | None = file.config
    version = file.version
    if config is None and architecture is None:
        raise InputError(
            f"{path} has only weights; give the architecture with --architecture FILE "
            "(what model.to_json() writes) or with --option order=..., theta=..., units=...."
        )
    if config is not None and architecture is not None:
        raise InputError(f"{path} has its own architecture; leave out --architecture.")
    if isinstance(architecture, Mapping):
        config = architecture
    elif architecture is not None:
        text = check_file(architecture).read_bytes()
        if not text.lstrip().startswith(b"{"):
            raise InputError(
                f"{architecture} is not the JSON of a model (YAML of old versions is not read); "
                "write it with model.to_json()."
            )
        config = parse_json(text, str(architecture))
    assert config is not None
    version = version or str(config.get("keras_version", ""))
    try:
        return assemble(replace(file, config=dict(config), version=version), settings)
    except InputError as error:
        reason = str(error)
        raise InputError(reason if reason.startswith(str(path)) else f"{path}: {reason}") from error
    except RecursionError as error:
        raise InputError(
            f"{path}: its configuration is nested too deeply; it is damaged."
        ) from error
