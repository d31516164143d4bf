"""Convert a torch module to a Network, and compare both on random inputs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from converters.importers import ASSUMED, LEFT_OUT, raise_problems
from converters.pytorch.inputs import Example, examples
from converters.pytorch.loops.operators import learned
from converters.pytorch.loops.steps import Readings
from converters.pytorch.signals import ONE_STEP, Draft, Signal, Sketch, UnreadableError
from converters.pytorch.trace import Tracer
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.operator import Operator
from lmu_deploy.core.graph.time import Reduce
from lmu_deploy.nn.graph.module import GraphModule

TOLERANCE, ROUNDED = 1e-6, 1e-4
"""Largest difference of the outputs in float64, relative to the largest output; the second where
the module itself computes with a rounded impulse response."""
Converter = Callable[[nn.Module], Operator | Sequence[Operator] | Sequence[Node]]


def from_torch(
    module: nn.Module,
    *,
    inputs: Tensor | None = None,
    layout: str | None = None,
    leaves: Mapping[type[nn.Module], Converter] | None = None,
    ignore: Sequence[str] = (),
    output: int | str | None = None,
    task: str | None = None,
    return_sequences: bool | None = None,
    provenance: Mapping[str, str] | None = None,
) -> Network:
    """Convert a module to a network of the operators that its forward consists of.

    A copy of the module runs in evaluation mode and float64, and every function of torch that it
    calls becomes a node, or none where it only names the axes of a tensor otherwise; the how-to
    page "Import a network" lists the functions. Recurrent layers, the layers of `lmu_deploy.nn` and
    LMU layers of other authors are operators as a whole. A softmax at the end is left out, so that
    the outputs are logits. In a ``torch.nn.Sequential`` the outputs of a recurrent layer are passed
    on without its states, which torch itself cannot do. What had to be assumed is in the network's
    provenance.

    Parameters
    ----------
    module : Module
        Its forward takes one tensor.
    inputs : Tensor, optional
        An input that the module takes. By default shapes are tried, with the sizes that the
        module's layers have.
    layout : str, optional
        The axes of the input by name, such as "batch steps features", "batch features steps",
        "steps batch features", "batch steps" or "batch steps channels height width". By default the
        first of these that the module can run with.
    leaves : mapping of type to callable, optional
        For modules that cannot be read: a function from the module to its operator, to a list of
        operators one behind the other, or to a list of nodes whose first inputs are "input" and
        whose last is the output.
    ignore : sequence of str, optional
        Names of submodules that are skipped: they return their first argument.
    output : int or str, optional
        Which of several results to take; by default the first.
    task : str, optional
        Name of the task for which it was trained.
    return_sequences : bool, optional
        Whether the network has an output at every step, or one after the last; by default as in the
        forward.
    provenance : mapping of str to str, optional
        Entries to record in the network.

    Returns
    -------
    Network
        Nodes have the names of the submodules. Weights have the module's own precision, at least
        float32.

    Raises
    ------
    InputError
        When the module cannot be run; when something in it cannot be represented (all of it is
        listed); or when module and network have different outputs for random inputs, with the first
        node that differs.
    """
    if not isinstance(module, nn.Module):
        raise InputError(f"a torch module is needed here, not {type(module).__name__}.")
    module = getattr(module, "_orig_mod", module)  # the module that torch.compile wrapped
    if isinstance(module, GraphModule):  # what lmu_deploy.to_torch made is its own description
        network = module.to_network()
        notes = {**network.provenance, "imported from": "a torch module", **(provenance or {})}
        network = replace(network, task=task or network.task, provenance=notes)
        return network if return_sequences is None else _answering(network, return_sequences)
    for name in ignore:
        _submodule(module, name)
    _copy(module)
    reader = _Reader(module, dict(leaves or {}), tuple(ignore), output)
    traced = reader.best(examples(module, inputs, layout), every=inputs is not None)
    network = _network(traced, task, dict(provenance or {}))
    checked = reader.verify(traced, network)
    network = replace(network, provenance={**network.provenance, "verified": checked})
    return network if return_sequences is None else _answering(network, return_sequences)


@dataclass(frozen=True)
class _Traced:
    """A module traced with one input.

    Attributes
    ----------
    module : str
        Name of the class.
    example : Example
    sketch : Sketch
    end : Draft
        The output.
    input : ndarray
        The input as a network takes it.
    problems : list of str
    misfits : int
        How many of them are about axes.
    notes : dict of str to str
    """

    module: str
    example: Example
    sketch: Sketch
    end: Draft
    input: np.ndarray
    problems: list[str]
    misfits: int
    notes: dict[str, str]


@dataclass(frozen=True)
class _Reader:
    """Traces a module with one input after the other."""

    module: nn.Module
    leaves: Mapping[type[nn.Module], Converter]
    ignore: tuple[str, ...]
    output: int | str | None

    def best(self, given: Iterable[Example], every: bool) -> _Traced:
        """Return the first trace without a problem, otherwise that whose axes fit best.

        Parameters
        ----------
        given : iterable of Example
        every : bool
            Whether to try all of them; otherwise no other length after a module has run, and no
            other layout after all axes were as expected.

        Raises
        ------
        InputError
            When the module runs with no input, or there is a problem.
        """
        best: _Traced | None = None
        first: Exception | None = None
        tried = []
        for example in given:
            fits = best is not None and (not best.misfits or example.steps != best.example.steps)
            if fits and not every:
                break
            tried.append(example.described)
            try:
                traced = self.trace(example)
            except Exception as error:  # the forward is arbitrary user code
                first = first or error
                continue
            if not traced.problems:
                return traced
            if best is None or traced.misfits < best.misfits:
                best = traced
        name = type(self.module).__name__
        if best is None:
            raise InputError(
                f"{name} cannot be run: {type(first).__name__}: {str(first)[:300]}. Inputs tried: "
                f"{'; '.join(tried[:4])}, ...; pass inputs=, a tensor that it takes."
            ) from first
        raise_problems(
            best.problems,
            f"{name} cannot be converted; leaves={{Class: converter}} gives an operator for a "
            "module that cannot be read",
        )
        raise AssertionError

    def trace(self, example: Example) -> _Traced:
        """Trace the module with one input, again where that shows what its loops compute."""
        readings: Readings = {}
        opened: set[str] = set()
        backward: set[Any] = set()
        while True:
            before = len(opened)
            traced, tracer = self._once(example, readings, opened, backward)
            if not traced.problems:
                return traced
            if not tracer.tape.backward() <= backward:
                backward |= tracer.tape.backward()
                readings, opened = {}, set()
                continue
            with _in_float64(), torch.no_grad():
                more, reasons = learned(tracer.tape, traced.sketch, readings)
            if not more and len(opened) == before:
                break
            readings.update(more)
        rest = [each for each in traced.problems if not reasons or ONE_STEP not in each]
        return replace(traced, problems=list(dict.fromkeys([*reasons, *rest])))

    def _once(
        self, example: Example, readings: Readings, opened: set[str], backward: set[Any]
    ) -> tuple[_Traced, Tracer]:
        """Trace the module with one input once."""
        with _in_float64():
            module = _copy(self.module)
            given = example.tensor
            sketch = Sketch(example.batch, example.steps)
            ignored = [_submodule(module, name) for name in self.ignore]
            tracer = Tracer(sketch, self.leaves, ignored, readings, opened, backward)
            result = tracer.run(module, given, example.axes)
        signal, notes = self._chosen(result, sketch), {}
        if isinstance(signal, Signal) and signal.draft.logits is not None:
            notes[LEFT_OUT] = "the softmax at the end: outputs are logits"
            signal = signal.draft.logits
        whole, problem = _finished(signal, sketch)
        end = whole.draft
        problems = [*_problems(end), *tracer.decided, *([problem] if problem else [])]
        problems = list(dict.fromkeys(problems))
        if end.value is None and not problems:
            end.value = tracer.value_of(signal, whole)
        if not problems and end.operator is None:
            problems.append("its output is its input")
        values = sketch.drafts[0].value
        assert values is not None
        name = type(module).__name__
        traced = _Traced(name, example, sketch, end, values, problems, tracer.misfits, notes)
        return traced, tracer

    def _chosen(self, result: Any, sketch: Sketch) -> Any:
        """Return the one of several results that is the output."""
        if isinstance(result, Signal):
            return result
        if isinstance(result, Mapping):
            keys: list[Any] = list(result)
        elif isinstance(result, tuple | list):
            keys = list(range(len(result)))
        else:
            return result
        key = self.output if self.output is not None else keys[0]
        if key not in keys:
            raise InputError(f"the module has the outputs {keys}, none of which is {key!r}.")
        if self.output is None and len(keys) > 1:
            sketch.note(f"the output is result {key!r} of {len(keys)}")
        found = result[key]
        while isinstance(found, tuple | list) and found:
            found = found[0]
        return found

    def verify(self, traced: _Traced, network: Network) -> str:
        """Compare a network with the module, also for sequences of another length.

        Returns
        -------
        str
            What was compared, for the provenance.

        Raises
        ------
        InputError
            When they differ; the message names the first node that does.
        """
        gap = self._compare(traced, network)
        lengths = [traced.example.steps]
        fixed = ""
        try:
            other = self.trace(traced.example.again())
        except Exception:  # the module takes sequences of one length alone
            fixed = f"; the module takes sequences of {lengths[0]} steps alone"
        else:
            if other.problems:
                fixed = f"; compared for sequences of {lengths[0]} steps alone"
            else:
                gap = max(gap, self._compare(other, network))
                lengths.append(other.example.steps)
        return (
            f"{traced.example.batch} random sequences of {' and '.join(map(str, lengths))} steps, "
            f"largest difference {gap:.1e} of the largest output{fixed}"
        )

    def _compare(self, traced: _Traced, network: Network) -> float:
        expected = traced.end.value
        name = traced.module
        outputs = run(network, traced.input)
        if expected is None or outputs.shape != expected.shape:
            shape = None if expected is None else expected.shape
            raise InputError(
                f"{name} has outputs of shape {shape} for {traced.example.described}, and the "
                f"network converted from it of shape {outputs.shape}; simplify its forward."
            )
        gap = _gap(outputs, expected)
        tolerance = ROUNDED if traced.sketch.rounded else TOLERANCE
        if gap <= tolerance:
            return gap
        raise InputError(
            f"the outputs of {name} and of the network converted from it differ by {gap:.2g} of "
            f"the largest output for {traced.example.described}, more than {tolerance:g}"
            f"{_first_difference(traced, network, tolerance)}; give its operator with leaves=."
        )


def _gap(outputs: np.ndarray, expected: np.ndarray) -> float:
    gap = float(np.abs(outputs - expected).max() / (np.abs(expected).max() + 1e-30))
    return gap if np.isfinite(gap) else np.inf


def _first_difference(traced: _Traced, network: Network, tolerance: float) -> str:
    """Name the first node whose output is not what the module computed there."""
    recorded = {draft.name: draft.value for draft in traced.sketch.drafts}
    values = {INPUT: traced.input}
    for node in network.nodes:
        values[node.name] = node.operator.forward(*(values[name] for name in node.inputs))
        expected = recorded.get(node.name)
        if expected is None or expected.shape != values[node.name].shape:
            continue
        gap = _gap(values[node.name], expected)
        if gap > tolerance:
            what = node.operator.describe()
            return f"; the first node that differs is {node.name} ({what}), by {gap:.2g}"
        values[node.name] = expected
    return "; every node agrees, so the forward depends on the number of steps"


@contextmanager
def _in_float64() -> Iterator[None]:
    """Make tensors that a forward creates float64, as the weights of the copy are."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _copy(module: nn.Module) -> nn.Module:
    """Return a copy of a module in float64 and evaluation mode, on the processor."""
    try:
        twin = copy.deepcopy(module)
    except Exception as error:  # a module may hold what cannot be copied
        raise InputError(
            f"{type(module).__name__} cannot be copied ({type(error).__name__}: {error}); detach "
            "the tensors that it keeps between calls."
        ) from error

    for part in twin.modules():
        if type(part).__name__ == "RMSNorm" and getattr(part, "eps", 0.0) is None:
            weight = getattr(part, "weight", None)  # the epsilon is that of the type of the input
            kind = weight.dtype if isinstance(weight, Tensor) else torch.float32
            setattr(part, "eps", torch.finfo(kind).eps)  # noqa: B010

    def widened(tensor: Tensor) -> Tensor:
        tensor = tensor.cpu()
        if tensor.is_complex():
            return tensor.to(torch.complex128)
        return tensor.double() if tensor.is_floating_point() else tensor

    apply: Any = twin._apply
    apply(widened)
    return twin.eval()


def _submodule(module: nn.Module, name: str) -> nn.Module:
    try:
        return module.get_submodule(name)
    except AttributeError as error:
        names = ", ".join(name for name, _ in module.named_modules() if name)
        raise InputError(f"ignore names {name!r}, which is none of {names}.") from error


def _finished(signal: Any, sketch: Sketch) -> tuple[Signal, str]:
    """Return the output as one frame or a whole sequence, and what is wrong with it."""
    if not isinstance(signal, Signal):
        return Signal(sketch.fail("", []), ()), "its output does not depend on its input"
    try:
        return signal if signal.draft.shape is None else sketch.whole(signal), ""
    except UnreadableError as error:
        return signal, f"the output: {error}"


def _problems(end: Draft) -> list[str]:
    """Return the problems of all drafts that one depends on, in the order of the forward."""
    return [draft.problem for draft in _needed(end) if draft.problem]


def _needed(end: Draft) -> list[Draft]:
    """Return the drafts that one depends on, inputs first."""
    found: dict[Draft, None] = {}
    waiting = [(end, False)]
    while waiting:
        draft, done = waiting.pop()
        if draft in found:
            continue
        if done:
            found[draft] = None
        else:
            waiting.append((draft, True))
            waiting += [(each, False) for each in reversed(draft.inputs)]
    return list(found)


def _network(traced: _Traced, task: str | None, provenance: dict[str, str]) -> Network:
    """Return the network of the drafts that the output depends on."""
    names: dict[Draft, str] = {}
    nodes = []
    for draft in _needed(traced.end):
        if draft.operator is None:
            names[draft] = INPUT
            continue
        name, number = draft.name, 1
        while name in names.values():
            number += 1
            name = f"{draft.name}_{number}"
        names[draft] = draft.name = name
        nodes.append(Node(name, draft.operator, tuple(names[each] for each in draft.inputs)))
    notes = {"imported from": "a torch module", "module": traced.module}
    notes["input layout"] = traced.example.layout
    notes.update(traced.notes)
    if traced.sketch.notes:
        notes[ASSUMED] = "; ".join(traced.sketch.notes)
    frame = traced.sketch.drafts[0].shape
    assert frame is not None
    return Network(tuple(nodes), frame.frame, nodes[-1].name, task, {**notes, **provenance})


def _answering(network: Network, sequences: bool) -> Network:
    """Return a network that answers at every step, or once after the last.

    Raises
    ------
    InputError
        When it answers once because of something else than a selection of the last step.
    """
    if network.return_sequences == sequences:
        return network
    if not sequences:
        name = "last" if "last" not in network.shapes else f"{network.output}.last"
        last = Node(name, Reduce("last"), (network.output,))
        return replace(network, nodes=(*network.nodes, last), output=name)
    renamed: dict[str, str] = {}
    nodes = []
    for node in network.nodes:
        inputs = tuple(renamed.get(each, each) for each in node.inputs)
        if isinstance(node.operator, Reduce) and node.operator.kind == "last":
            renamed[node.name] = inputs[0]
        else:
            nodes.append(replace(node, inputs=inputs))
    try:
        found = replace(
            network,
            nodes=tuple(nodes),
            output=renamed.get(network.output, network.output),
        )
    except InputError as error:
        raise InputError(f"return_sequences cannot be true: {error}") from error
    if not found.return_sequences:
        raise InputError(
            "return_sequences cannot be true: the network reduces its sequence by something else "
            "than a selection of the last step."
        )
    return found
