"""The registry of what can be read: one entry for each function of torch, with its spellings.

Modules of torch.nn call functions, methods have the names of functions, and einops calls methods;
hence one entry per function reads all spellings. The documentation's table comes from
:func:`coverage`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from converters.pytorch.signals import BATCH, ONE, STEPS, Signal, Sketch, UnreadableError, atoms
from lmu_deploy.core.graph.frames import Reshape
from lmu_deploy.core.graph.operator import Operator

Found = Any
"""Result of a reader: a Signal, a tuple for several results of the function, or None for a result
that is no signal."""


@dataclass(frozen=True)
class Call:
    """One call of a function in a traced module.

    Attributes
    ----------
    sketch : Sketch
    name : str
        Name of the function.
    result : object
        What torch returned.
    scopes : tuple of Module
        The modules that are running, the innermost first.
    tensors : dict of int to Tensor
        The tensors of the signals among the arguments, by the id of the signal.
    """

    sketch: Sketch
    name: str
    result: Any
    scopes: tuple[Any, ...] = ()
    tensors: dict[int, Tensor] = field(default_factory=dict)

    @property
    def suffix(self) -> str:
        """Suffix of the name of a node after that of the module: empty in a module of torch."""
        return "" if self.scopes and is_standard(self.scopes[0]) else self.name

    def one(self, operator: Operator, signal: Signal) -> Signal:
        """Return the output of an operator that keeps the axes of its input."""
        return self.sketch.framewise(operator, signal, self.suffix)

    def flat(self, signal: Signal, operator: Operator) -> Signal:
        """Return the output of an operator on all values of a frame."""
        frame = signal.shape.frame
        size = int(np.prod(frame))
        draft = self.sketch.reshaped(signal.draft, Reshape(frame, (size,)))
        draft = self.sketch.add(operator, draft, suffix=self.suffix)
        return replace(signal, draft=self.sketch.reshaped(draft, Reshape((size,), frame)), parts=())


@dataclass(frozen=True)
class Entry:
    """Reader of one function.

    Attributes
    ----------
    names : tuple of str
        Names of functions and methods.
    modules : tuple of str
        The modules of torch.nn that call it.
    operators : tuple of type
        What it becomes; nothing where it costs no node.
    read : callable
        Takes a Call and the arguments, tensors that depend on the input as Signals.
    """

    names: tuple[str, ...]
    modules: tuple[str, ...]
    operators: tuple[type[Operator], ...]
    read: Callable[..., Found]

    @cached_property
    def signature(self) -> inspect.Signature:
        """Signature of the reader."""
        return inspect.signature(self.read)

    def __call__(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Found:
        """Read a call.

        Raises
        ------
        UnreadableError
            When nothing computes it.
        """
        names = {"axis": "dim", "self": "x", "input": "x", "keepdims": "keepdim"}
        named = {names.get(key, key): value for key, value in kwargs.items()}
        try:
            bound = self.signature.bind(call, *args, **named)
        except TypeError as error:
            raise UnreadableError(f"{call.name} has unknown arguments ({error})") from error
        return self.read(*bound.args, **bound.kwargs)


_ENTRIES: list[Entry] = []
_BY_NAME: dict[str, Entry] = {}


def reads(
    *names: str, modules: str = "", makes: tuple[type[Operator], ...] = ()
) -> Callable[[Callable[..., Found]], Callable[..., Found]]:
    """Register a reader of functions.

    Parameters
    ----------
    *names : str
        Names of functions and methods, without leading and trailing underscores.
    modules : str
        Modules of torch.nn that call them, separated by spaces.
    makes : tuple of type
        Operators that they become.
    """

    def register(read: Callable[..., Found]) -> Callable[..., Found]:
        entry = Entry(names, tuple(modules.split()), makes, read)
        _ENTRIES.append(entry)
        for name in names:
            assert name not in _BY_NAME, name
            _BY_NAME[name] = entry
        return read

    return register


def reader(function: str) -> Entry | None:
    """Return the entry of a function; operators, methods in place and functions are the same."""
    _load()
    return _BY_NAME.get(function)


def canonical(name: str) -> str:
    """Return the name of the function behind an operator or a method that works in place.

    Examples
    --------
    >>> canonical("__iadd__"), canonical("relu_"), canonical("__rsub__"), canonical("__getitem__")
    ('add', 'relu', 'rsub', 'getitem')
    """
    bare = name.strip("_")
    if name.startswith("__") and bare in _IN_PLACE:
        bare = bare[1:]
    return _SYNONYMS.get(bare, bare)


_IN_PLACE = ("iadd", "isub", "imul", "itruediv", "imatmul", "ipow")
_SYNONYMS = {
    "radd": "add",
    "rmul": "mul",
    "multiply": "mul",
    "truediv": "div",
    "true_divide": "div",
    "divide": "div",
    "rtruediv": "rdiv",
    "subtract": "sub",
    "negative": "neg",
    "concat": "cat",
    "concatenate": "cat",
    "swapaxes": "transpose",
    "swapdims": "transpose",
    "clip": "clamp",
    "moveaxis": "movedim",
    "max_pool1d_with_indices": "max_pool1d",
    "max_pool2d_with_indices": "max_pool2d",
}


@dataclass(frozen=True)
class Row:
    """One row of the table of what can be read from PyTorch.

    Attributes
    ----------
    operators : tuple of str
        Names of operators of :mod:`lmu_deploy.core.graph`; empty where no node is needed.
    modules, functions : tuple of str
    """

    operators: tuple[str, ...]
    modules: tuple[str, ...]
    functions: tuple[str, ...]


def coverage() -> list[Row]:
    """Return what can be read, one row for each reader, by operator."""
    _load()
    rows = [
        Row(tuple(each.__name__ for each in entry.operators), entry.modules, entry.names)
        for entry in _ENTRIES
    ]
    return sorted(rows, key=lambda row: (row.operators, row.functions))


def _load() -> None:
    """Import the readers, which register themselves."""
    from converters.pytorch import layers, pointwise, shapes, temporal

    assert layers and pointwise and shapes and temporal


def needed(signal: Any) -> Signal:
    """Return what must be a signal.

    Raises
    ------
    UnreadableError
        When it does not depend on the input, whereas another argument does.
    """
    if not isinstance(signal, Signal):
        raise UnreadableError("its first argument does not depend on the input, another one does")
    return signal


def constant(value: Any, what: str) -> Any:
    """Return a value that must not depend on the input.

    Raises
    ------
    UnreadableError
        When it is a signal.
    """
    if isinstance(value, Signal):
        raise UnreadableError(f"{what} depends on the input")
    return value.detach() if isinstance(value, Tensor) else value


def numbers(value: Any, narrow: bool = True) -> Any:
    """Return a constant as an array, None as None.

    Parameters
    ----------
    value : Tensor, number, sequence or None
    narrow : bool
        Whether to use float32 where that loses nothing: the weights of a module that was converted
        to float64 to be traced are what they were.
    """
    if value is None:
        return None
    value = constant(value, "a constant")
    array = value.resolve_conj().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    if array.dtype.kind in "iub":
        array = array.astype(np.float64)
    if narrow and array.dtype == np.float64:
        short = array.astype(np.float32)
        array = short if (short == array).all() else array
    return np.ascontiguousarray(array)


def in_graph_order(tensor: Tensor, signal: Signal, batch: int) -> np.ndarray | None:
    """Return the values of a tensor as (samples, steps, *frame), or (samples, *frame)."""
    labels = list(atoms(signal.axes))
    kept = [label for label in labels if label != ONE]
    if BATCH not in kept or signal.shape.sequence != (STEPS in kept):
        return None
    sizes = [signal.size(label, batch) for label in kept]
    array = numbers(tensor, narrow=False).reshape(sizes).copy()
    leading = [BATCH, STEPS] if STEPS in kept else [BATCH]
    frame = sorted(label for label in kept if isinstance(label, int))
    array = array.transpose([kept.index(label) for label in [*leading, *frame]])
    return np.asarray(array.reshape(*array.shape[: len(leading)], *signal.shape.frame))


def is_standard(module: Any) -> bool:
    """Return whether a module is one of torch's own."""
    return type(module).__module__.startswith("torch.nn.")
