"""Trace a module: run it once on real numbers and read every function of torch that it calls.

Running the module, instead of tracing it symbolically with torch.fx, lets a forward use lengths in
conditions, loop over steps, and call code that cannot be traced; and it gives the values at every
node, with which the result is checked. What would make the graph depend on the values, such as a
condition on a signal, is refused.

The module is run in float64: casts to other precisions and devices have no effect.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from converters.pytorch.leaves import Leaf, leaf_of
from converters.pytorch.loops.steps import Entry, Readings, Tape, reading_of
from converters.pytorch.registry import Call, canonical, in_graph_order, is_standard, reader
from converters.pytorch.signals import (
    BATCH,
    STEPS,
    Axis,
    LayoutError,
    Signal,
    Sketch,
    UnreadableError,
)
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.operator import Shape
from lmu_deploy.core.graph.time import Reverse

_FLOATS = (torch.float16, torch.bfloat16, torch.float32)
_HARMLESS = (
    "size", "dim", "len", "numel", "nelement", "stride", "is_contiguous", "is_floating_point",
    "shape", "dtype", "device", "is_cuda", "ndim", "requires_grad", "grad_fn", "is_nested",
    "layout", "get_device", "is_complex", "element_size", "ndimension", "is_leaf", "is_sparse",
    "data_ptr", "storage_offset", "grad", "names", "is_quantized", "hash", "repr", "format",
    "is_inference", "is_same_size", "is_tensor", "is_meta", "is_mps", "is_signed", "itemsize",
    "zeros_like", "ones_like", "empty_like", "full_like", "new_zeros", "new_ones", "new_empty",
    "new_full", "new_tensor", "set_grad_enabled", "dim_order", "_version", "is_xpu", "is_cpu",
)  # fmt: skip
"""Functions of a signal whose results do not depend on its values."""
_CONVERSIONS = ("__bool__", "__float__", "__int__", "__index__", "__complex__", "__contains__")
"""Methods by which Python reads the values of a tensor."""

_DECIDES = "its forward depends on the values of a signal (a condition, or .item())"


@dataclass
class _Known:
    """A tensor that depends on the input; it is kept, so that its id stays its own."""

    tensor: Tensor
    signal: Signal
    version: int


class Tracer(TorchFunctionMode):
    """Reads functions while a module runs.

    Parameters
    ----------
    sketch : Sketch
        The graph that grows.
    leaves : mapping of type to callable
        Converters of modules that are not looked into.
    ignored : iterable of Module
        Modules whose calls return their first argument.
    readings : dict, optional
        What is known of calls in loops over steps.
    opened : set of str, optional
        Names of modules that are looked into, although their weights have the names of a cell's;
        those that are no such cell are added.
    backward : set, optional
        Places in the code where a loop takes the steps of a sequence from the last to the first.
        They are then those of the reversed sequence, from the first to the last.
    """

    def __init__(
        self,
        sketch: Sketch,
        leaves: Mapping[type, Callable[[Any], Any]],
        ignored: Iterable[nn.Module] = (),
        readings: Readings | None = None,
        opened: set[str] | None = None,
        backward: Set[Any] = frozenset(),
    ) -> None:
        super().__init__()
        self.tape = Tape()
        self._readings = readings or {}
        self._opened = set() if opened is None else opened
        self._backward = backward
        self.sketch = sketch
        self._leaves = leaves
        self._ignored = list(ignored)
        self._known: dict[int, _Known] = {}
        self._scopes: list[tuple[str, nn.Module]] = []
        self._paused = False
        self._alone: set[int] = set()
        self.decided: list[str] = []
        self.misfits = 0

    # What runs

    def run(self, module: nn.Module, given: Tensor, axes: tuple[Axis, ...]) -> Any:
        """Run a module on a tensor; return its result with signals in place of tensors.

        Parameters
        ----------
        module : Module
            A copy, whose forwards are replaced.
        given : Tensor
        axes : tuple of Axis
            What the axes of the tensor are.
        """
        frame = tuple(
            given.shape[axes.index(k)] for k in range(sum(isinstance(axis, int) for axis in axes))
        )
        draft = self.sketch.begin(frame or (1,))
        for name, part in module.named_modules():
            part.forward = self._around(name, part, part.forward)
        self._register(given, Signal(draft, axes))
        self.tape.begin(given, Signal(draft, axes))
        with warnings.catch_warnings(), torch.no_grad(), self:
            warnings.simplefilter("ignore")
            result = module(given)
        return self._signals(result)

    def value_of(self, signal: Signal, whole: Signal) -> np.ndarray | None:
        """Return the values of a tensor in a network's order, named as another signal names it."""
        for known in self._known.values():
            if known.signal is signal:
                return in_graph_order(known.tensor, whole, self.sketch.batch)
        return None

    def _around(self, name: str, module: nn.Module, forward: Callable) -> Callable:
        """Return a forward that records its place, and treats leaves as one operator."""
        ignored = any(module is each for each in self._ignored)
        leaf = None if ignored else leaf_of(module, self._leaves)
        if leaf is not None or is_standard(module):
            self._alone.add(id(module))

        def call(*args: Any, **kwargs: Any) -> Any:
            if self._paused:
                return forward(*args, **kwargs)
            if ignored:
                self.sketch.note(f"{name} was ignored: it passes its input on")
                return args[0] if args else next(iter(kwargs.values()))
            self._scopes.append((name, module))
            try:
                looked_into = name in self._opened
                if leaf is not None and not looked_into and self._has_signal((args, kwargs)):
                    return self._leaf(leaf, forward, args, kwargs)
                if type(module) is nn.Sequential:
                    return self._sequential(module, *args)
                return forward(*args, **kwargs)
            finally:
                self._scopes.pop()

        return call

    def _sequential(self, module: nn.Sequential, given: Any) -> Any:
        """Run a Sequential, in which outputs of recurrent layers are passed on without states."""
        name = self._scopes[-1][0]
        for key, part in module.named_children():
            if isinstance(given, tuple) and given and id(part) in self._alone:
                where = f"{name}.{key}".strip(".")
                self.sketch.note(
                    f"{where} takes the outputs of the layer before it, not its states"
                )
                given = given[0]
            given = part(given)
        return given

    # What is read

    def __torch_function__(
        self,
        func: Callable,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch, and read it if a signal is among its arguments."""
        named = dict(kwargs or {})
        name = _name(func)
        if self._paused:
            return func(*args, **named)
        args, named = _precise(args, named)
        if name in ("float", "half", "bfloat16", "cuda", "cpu") and args:
            return self._cast(args[0], name)
        if name in _HARMLESS:
            return func(*args, **named)
        live = self._has_signal((args, named))
        entry = self.tape.open(name, func, (args, named), self._located(""), live)
        result = self._called(entry, func, args, named)
        self.tape.close(entry, result, (args, named), self._signal)
        return result

    def _called(
        self, entry: Entry, func: Callable, args: tuple[Any, ...], named: dict[str, Any]
    ) -> Any:
        """Call a function; read it if a signal is among its arguments."""
        name = entry.name
        if not entry.live:
            return func(*args, **named)
        self.sketch.place = self._place()
        tensors: dict[int, Tensor] = {}
        given = self._signals((args, named), tensors)
        result = func(*args, **named)
        if name == "setitem":
            self._written(args, given[0])
            return result
        call = Call(
            self.sketch, name, result, tuple(part for _, part in reversed(self._scopes)), tensors
        )
        found, problem = None, ""
        try:
            if (reading := reading_of(self._readings, entry)) is not None:
                found = (reading.found(self.tape, self.sketch, entry.occurrence),)
            else:
                found = self._read(call, *given)
                if entry.place in self._backward and isinstance(found, Signal):
                    found = (self._turned(found),)
        except (UnreadableError, InputError) as error:
            problem = self._said(error)
        if problem or found is None:
            found = self._hole(name, problem, list(_found(given, Signal)), result)
        self._match(result, found, list(_found(given, Signal)))
        return result

    def _read(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not isinstance(call.result, Tensor | tuple | list):
            raise UnreadableError(_DECIDES)
        signals = list(_found((args, kwargs), Signal))
        if any(signal.draft.shape is None for signal in signals):
            return None
        entry = reader(call.name)
        if entry is None:
            raise UnreadableError(f"{call.name} has no operator")
        return entry(call, args, kwargs)

    def _turned(self, signal: Signal) -> Signal:
        """Return one step of a sequence as a step of the reversed sequence."""
        signal = self.sketch.settled(signal)
        if signal.step is None:
            return signal
        draft = self.sketch.add(Reverse(), signal.draft, suffix="reverse")
        return replace(signal, draft=draft, step=signal.draft.steps - 1 - signal.step)

    def _said(self, error: Exception) -> str:
        """Return the text of an error, and count those about axes."""
        self.misfits += isinstance(error, LayoutError)
        return str(error).rstrip(".")

    def _cast(self, value: Any, name: str) -> Any:
        if not isinstance(value, Tensor) or value.dtype == torch.float64 or name in ("cuda", "cpu"):
            return value
        return value.double() if id(value) not in self._known else self._doubled(value)

    def _doubled(self, value: Tensor) -> Tensor:
        """Return numbers of another type, such as tokens, as float64: the same signal."""
        known = self._known[id(value)]
        result = value.double()
        self._register(result, known.signal)
        return result

    def _hole(self, name: str, problem: str, signals: list[Signal], result: Any) -> Any:
        """Return placeholders for signals that could not be read."""
        drafts = [signal.draft for signal in signals]
        if problem:
            problem = self._located(problem)
        if not isinstance(result, Tensor):
            self.decided += [problem] if problem and not isinstance(result, tuple | list) else []
            return Signal(self.sketch.fail(problem, drafts, suffix=name), ())
        for signal in signals:
            if (shape := self._continued(signal, result)) is not None:
                steps = result.shape[signal.axes.index(STEPS)] if STEPS in signal.axes else 1
                made = self.sketch.fail(problem, drafts, shape, steps, name)
                return Signal(made, signal.axes)
        return Signal(self.sketch.fail(problem, drafts, suffix=name), ())

    def _continued(self, signal: Signal, result: Tensor) -> Shape | None:
        """Return the shape of what cannot be read, if its axes seem to be those of an input."""
        plain = not any(isinstance(axis, tuple) for axis in signal.axes) and signal.step is None
        if signal.draft.shape is None or len(signal.axes) != result.ndim or not plain:
            return None
        found = dict(zip(signal.axes, result.shape, strict=True))
        if found.get(BATCH, self.sketch.batch) != self.sketch.batch:
            return None
        frame = tuple(int(found.get(axis, 1)) for axis in range(len(signal.shape.frame)))
        return Shape(frame, signal.shape.sequence)

    def _located(self, problem: str) -> str:
        if not self._scopes or not self._scopes[-1][0]:
            return problem
        name, module = self._scopes[-1]
        place = f"{name!r} ({type(module).__name__})"
        return f"{place}: {problem}" if problem else place

    def _place(self) -> str:
        """Return the name for a node: that of the module, or of the function inside it."""
        name, module = self._scopes[-1]
        return name or (type(module).__name__.lower() if id(module) in self._alone else "")

    def _written(self, args: tuple[Any, ...], given: tuple[Any, ...]) -> None:
        """Note that a tensor was written into: entries of it depend on the input."""
        target = args[0]
        known = self._known.get(id(target))
        steps = self._filled(given, None if known is None else known.signal)
        if steps is None:
            problem = self._located("it writes into entries of a tensor")
            inputs = [signal.draft for signal in _found(given, Signal)]
            steps = Signal(self.sketch.fail(problem, inputs, suffix="setitem"), ())
            self._register(target, steps)
            return
        self._register(target, steps, written=given[2].step + 1)

    def _filled(self, given: tuple[Any, ...], before: Signal | None) -> Signal | None:
        """Return the sequence into which a loop writes one step after the other."""
        _, index, value = given
        if (
            not isinstance(value, Signal)
            or value.step is None
            or not isinstance(index, tuple | int)
        ):
            return None
        parts = list(index) if isinstance(index, tuple) else [index]
        if parts and parts[-1] is Ellipsis:
            parts.pop()
        places = [k for k, part in enumerate(parts) if part != slice(None)]
        if len(places) != 1 or (before is None) != (value.step == 0):
            return None
        last = value.draft.steps - 1
        if before is None:
            backward = 0 < last == parts[places[0]]
        else:
            backward = before.draft is not value.draft
        if parts[places[0]] != (last - value.step if backward else value.step):
            return None
        axes = (*value.axes[: places[0]], STEPS, *value.axes[places[0] :])
        draft = value.draft
        if backward:
            draft = self.sketch.add(Reverse(), draft, suffix="reverse")
        same = before is None or (before.draft is draft and before.axes == axes)
        return Signal(draft, axes) if same else None

    # Tensors and signals

    def _register(self, tensor: Tensor, signal: Signal, written: int | None = None) -> None:
        """Note what a tensor is, of which `written` steps are there if a loop writes into it."""
        self._known[id(tensor)] = _Known(tensor, signal, tensor._version)
        draft = signal.draft
        plain = not signal.before and not signal.behind and signal.spectrum is None
        plain &= written in (None, draft.steps)
        if plain and signal.step is None and draft.shape is not None and draft.value is None:
            draft.value = in_graph_order(tensor, signal, self.sketch.batch)

    def _signals(self, value: Any, tensors: dict[int, Tensor] | None = None) -> Any:
        """Return arguments with signals in place of tensors that depend on the input."""
        if isinstance(value, Tensor):
            known = self._known.get(id(value))
            if known is None:
                return value
            signal = known.signal
            if value._version != known.version:
                problem = self._located("a tensor was changed in place through another view of it")
                signal = Signal(self.sketch.fail(problem, [signal.draft], suffix="view"), ())
                self._register(value, signal)
            if tensors is not None:
                tensors[id(signal)] = value
            return signal
        if isinstance(value, tuple | list):
            items = [self._signals(item, tensors) for item in value]
            return tuple(items) if isinstance(value, tuple) else items
        if isinstance(value, dict):
            return {key: self._signals(item, tensors) for key, item in value.items()}
        return value

    def _fits(self, tensor: Tensor, signal: Signal) -> bool:
        """Return whether a tensor has the shape of a signal."""
        if signal.draft.shape is None:
            return True
        sizes = [signal.size(axis, self.sketch.batch) for axis in signal.axes]
        return sizes == list(tensor.shape)

    def _signal(self, value: Any) -> Signal | None:
        known = self._known.get(id(value)) if isinstance(value, Tensor) else None
        return None if known is None else known.signal

    def _has_signal(self, value: Any) -> bool:
        return any(id(tensor) in self._known for tensor in _found(value, Tensor))

    def _match(self, result: Any, found: Any, given: list[Signal]) -> None:
        """Register the tensors of a result; those that were not read are problems if used."""
        if isinstance(result, Tensor):
            if isinstance(found, tuple):
                found = found[0]
            if isinstance(found, Signal) and self._fits(result, found):
                self._register(result, found)
                return
            problem = self._located(
                "a result is used that has no operator, such as a state or an index"
            )
            drafts = [signal.draft for signal in given]
            self._register(result, Signal(self.sketch.fail(problem, drafts, suffix="state"), ()))
        elif isinstance(result, tuple | list):
            parts = found if isinstance(found, tuple) else (found,) * len(result)
            for part, signal in zip(result, (*parts, *[None] * len(result)), strict=False):
                self._match(part, signal, given)

    # Leaves

    def _leaf(self, leaf: Leaf, forward: Callable, args: tuple, kwargs: dict) -> Any:
        """Run a module that is one operator or a few, and register what it returns."""
        with self._pause():
            self.sketch.place = self._place()
            tensors: dict[int, Tensor] = {}
            given = self._signals((args, kwargs), tensors)
            signals = list(_found(given, Signal))
            entry = self.tape.open("leaf", forward, (args, kwargs), self._located(""), True)
            result = forward(*args, **kwargs)
            scopes = tuple(part for _, part in reversed(self._scopes))
            call = Call(self.sketch, "", result, scopes, tensors)
            found, problem = None, ""
            try:
                if all(signal.draft.shape is not None for signal in signals):
                    found = leaf.read(call, forward, *given)
            except (UnreadableError, InputError) as error:
                problem = self._said(error)
            if not problem or not leaf.transparent:
                if found is None:
                    found = self._hole("", problem, signals, result)
                self._match(result, found, signals)
                self.tape.close(entry, result, (args, kwargs), self._signal)
                return result
        self._opened.add(self._scopes[-1][0])
        return forward(*args, **kwargs)

    @contextmanager
    def _pause(self) -> Iterator[None]:
        self._paused = True
        try:
            yield
        finally:
            self._paused = False


def _found(value: Any, kind: type) -> Iterator[Any]:
    if isinstance(value, kind):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _found(item, kind)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _found(item, kind)


def _name(func: Callable) -> str:
    name = getattr(func, "__name__", type(func).__name__)
    if name in ("__get__", "__set__"):  # of a property
        return str(getattr(getattr(func, "__self__", None), "__name__", name))
    return "item" if name in _CONVERSIONS else canonical(name)


def _precise(
    args: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return arguments with float64 in place of narrower types, and with this device."""

    def precise(value: Any) -> Any:
        if isinstance(value, torch.device) or (isinstance(value, str) and value[:4] == "cuda"):
            return torch.device("cpu")
        return torch.float64 if isinstance(value, torch.dtype) and value in _FLOATS else value

    found = {key: precise(value) for key, value in named.items()}
    if found.get("device") is not None:
        found["device"] = torch.device("cpu")
    return tuple(map(precise, args)), found
