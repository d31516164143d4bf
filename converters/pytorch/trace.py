"""Trace a module's forward from the output back to the input, with torch.fx.

In: a module in evaluation mode. Out: the operations on the signal, from the input on, as the
events of :mod:`.assemble`, and a clause for each operation that cannot be represented. Calls
without weights either take the last step, swap or add axes, compute a softmax, or do nothing.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from converters.pytorch.assemble import (
    Bundle,
    CalledLayer,
    Event,
    Last,
    Narrow,
    Softmax,
    Swap,
    Widen,
)
from lmu_deploy.core.errors import InputError
from lmu_deploy.nn.lmu import LMU
from lmu_deploy.nn.model import LSTM

PASSED = ("contiguous", "float", "double", "to", "type", "detach", "clone", "cpu", "cuda")
"""Methods that do not change the values of a signal."""
RECURRENT = (LMU, LSTM, nn.LSTM)
IDENTITIES = (
    nn.AlphaDropout,
    nn.Dropout,
    nn.Dropout1d,
    nn.FeatureAlphaDropout,
    nn.Identity,
)
ZEROS = ("zeros", "new_zeros", "zeros_like", "initial_state")
_FUNCTIONS: dict[Any, str] = {
    operator.getitem: "getitem",
    torch.transpose: "transpose",
    torch.swapaxes: "transpose",
    torch.permute: "permute",
    torch.select: "select",
    torch.unsqueeze: "unsqueeze",
    torch.squeeze: "squeeze",
    torch.softmax: "softmax",
    torch.log_softmax: "log_softmax",
    functional.softmax: "softmax",
    functional.log_softmax: "log_softmax",
    functional.dropout: "dropout",
    torch.zeros: "zeros",
    torch.zeros_like: "zeros_like",
    getattr: "getattr",
}


def follow(module: nn.Module, problems: list[str]) -> list[Event]:
    """Return the operations on the signal, from input to output; add to `problems`.

    Raises
    ------
    InputError
        When the forward cannot be traced.
    """
    if isinstance(module, RECURRENT) or not _is_composed(module):
        module = nn.Sequential(module)
    graph = _trace(module)
    modules = dict(module.named_modules())
    (end,) = (node for node in graph.nodes if node.op == "output")
    return _Walk(modules, problems).back_from(end.args[0])


class _Tracer(fx.Tracer):
    """Tracer that treats the layers of `lmu_deploy.nn` as leaves, like those of torch."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, RECURRENT) or super().is_leaf_module(m, module_qualified_name)


def _is_composed(module: nn.Module) -> bool:
    """Return whether a module is composed of others, rather than one of torch's own layers."""
    return isinstance(module, nn.Sequential) or not type(module).__module__.startswith("torch.nn.")


def _trace(module: nn.Module) -> fx.Graph:
    parameters = inspect.signature(module.forward).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
    try:
        return _Tracer().trace(module, concrete_args=defaults)
    except Exception as error:  # the forward is arbitrary user code
        raise InputError(
            f"the forward of {type(module).__name__} cannot be traced ({type(error).__name__}: "
            f"{str(error)[:200]}); write it without loops over steps and without conditions on the "
            "data, or give its layers as a torch.nn.Sequential."
        ) from error


class _Walk:
    """Walk through a graph from the output to the input."""

    def __init__(self, modules: dict[str, nn.Module], problems: list[str]) -> None:
        self._modules = modules
        self._problems = problems

    def back_from(self, node: Any) -> list[Event]:
        events: list[Event] = []
        while isinstance(node, fx.Node) and node.op != "placeholder":
            found, node = self._one(node)
            events.extend(found)
        if not isinstance(node, fx.Node):
            self._problems.append(f"its output comes from {type(node).__name__}, not from a layer")
        return events[::-1]

    def _one(self, node: fx.Node) -> tuple[list[Event], Any]:
        """Return the events of a node, latest first, and the node before it."""
        if (layer := self._layer_of_last(node)) is not None:
            return [Last(None), *self._call(layer)], layer.args[0]
        if node.op == "call_module":
            bundled: list[Event] = [Bundle()] if self._is_recurrent(node) else []
            return bundled + self._call(node), _first(node)
        name, operands = _name(node), node.args[1:]
        before = _first(node)
        if name == "getitem" and operands == (0,) and self._is_recurrent(before):
            return self._call(before), _first(before)
        events = read_call(name, operands, dict(node.kwargs))
        if events is None:
            self._problems.append(f"{name} {_place(node)} cannot be represented")
        return events or [], before

    def _call(self, node: fx.Node) -> list[Event]:
        """Return the events of calling a module."""
        name, module = str(node.target), self._modules[str(node.target)]
        if isinstance(module, IDENTITIES):
            return []
        if isinstance(module, nn.Softmax | nn.LogSoftmax):
            return [Softmax(isinstance(module, nn.LogSoftmax))]
        layer = CalledLayer(name, module)
        if isinstance(module, nn.Linear):
            return [layer]
        if not isinstance(module, RECURRENT):
            self._problems.append(f"{layer} cannot be represented")
            return []
        arguments = dict(zip(("state", "lengths", "last_only"), node.args[1:], strict=False))
        arguments.update(node.kwargs)
        state = arguments.pop("state", arguments.pop("hx", None))
        if not _is_zero(state):
            self._problems.append(f"{layer} starts from a state that is not zero")
        if arguments.pop("lengths", None) is not None:
            self._problems.append(f"{layer} is given lengths of sequences")
        last = bool(arguments.pop("last_only", False))
        return [Last(None), layer] if last else [layer]

    def _is_recurrent(self, node: Any) -> bool:
        is_call = isinstance(node, fx.Node) and node.op == "call_module"
        return is_call and isinstance(self._modules[str(node.target)], RECURRENT)

    def _layer_of_last(self, node: fx.Node) -> fx.Node | None:
        """Return the call whose last output `node` takes from the returned states, if any."""
        keys, call = [], node
        while _name(call) in ("getitem", "getattr", "squeeze"):
            keys.append(call.args[1] if len(call.args) > 1 else None)
            call = _first(call)
        if not self._is_recurrent(call) or keys[-1:] != [1]:
            return None
        module = self._modules[str(call.target)]
        if isinstance(module, LMU):
            wanted = [[1, 0], [1, "m"]] if module.hidden == "none" else [[1, 1], [1, "h"]]
        elif isinstance(module, LSTM):
            wanted = [[1, 0], [1, "h"]]
        else:
            wanted = [[1, 0, -1], *([[1, 0, 0]] if module.num_layers == 1 else [])]
        return call if keys[::-1] in wanted else None


def _name(node: Any) -> str:
    """Return the name of the function or method that a node calls."""
    if not isinstance(node, fx.Node):
        return ""
    if node.op == "call_method":
        return str(node.target)
    return _FUNCTIONS.get(node.target, getattr(node.target, "__name__", str(node.target)))


def _first(node: fx.Node) -> Any:
    """Return the signal that a node takes."""
    if node.args:
        return node.args[0]
    return node.kwargs.get("input", node.all_input_nodes[0] if node.all_input_nodes else None)


def _place(node: fx.Node) -> str:
    """Describe where in the forward a node is."""
    signals = [_module_before(each) for each in node.all_input_nodes]
    names = [name for name in dict.fromkeys(signals) if name]
    return f"after {' and '.join(map(repr, names))}" if names else "on the input"


def _module_before(node: Any) -> str:
    while isinstance(node, fx.Node) and node.op not in ("call_module", "placeholder"):
        node = _first(node)
    return str(node.target) if isinstance(node, fx.Node) and node.op == "call_module" else ""


def _is_zero(state: Any) -> bool:
    """Return whether an initial state is absent or zero."""
    if isinstance(state, tuple | list):
        return all(_is_zero(part) for part in state)
    while _name(state) in PASSED:
        state = _first(state)
    if isinstance(state, fx.Node) and isinstance(state.target, type):  # a named tuple of states
        return all(_is_zero(part) for part in state.args)
    return state is None or _name(state) in ZEROS


def read_call(name: str, args: tuple[Any, ...], more: dict[str, Any]) -> list[Event] | None:
    """Return the events of a call, latest first; None if it cannot be represented.

    Parameters
    ----------
    name : str
        Such as ``getitem`` or ``transpose``.
    args, more : tuple, dict
        Positional arguments after the signal, and keyword arguments.
    """
    if name in PASSED:
        return []
    return _READERS[name](args, more) if name in _READERS else None


def _axis(args: tuple[Any, ...], more: dict[str, Any]) -> Any:
    return args[0] if args else more.get("dim")


def _read_dropout(args: tuple[Any, ...], more: dict[str, Any]) -> list[Event] | None:
    """Return no event, unless dropout stays active in evaluation."""
    training = more.get("training", args[1] if len(args) > 1 else True)
    return None if training else []


def _read_index(args: tuple[Any, ...], more: dict[str, Any]) -> list[Event] | None:
    """Read ``x[-1]``, ``x[:, -1]`` or ``x[:, -1, :]``; return None for any other index."""
    index = args[0] if isinstance(args[0], tuple) else (args[0],)
    rest = [part for part in index if part not in (slice(None), Ellipsis)]
    if rest != [-1] or Ellipsis in index[: index.index(-1)] or index.index(-1) > 1:
        return None
    return [Last(index.index(-1))]


def _read_select(args: tuple[Any, ...], more: dict[str, Any]) -> list[Event] | None:
    axis, index = (*args, more.get("dim"), more.get("index"))[:2]
    return [Last(axis)] if index == -1 and axis in (0, 1) else None


def _read_transpose(args: tuple[Any, ...], more: dict[str, Any]) -> list[Event] | None:
    return [Swap()] if sorted([*args, *more.values()]) == [0, 1] else None


def _read_permute(args: tuple[Any, ...], more: dict[str, Any]) -> list[Event] | None:
    order = args[0] if args and isinstance(args[0], tuple | list) else (*args, *more.values())
    return [Swap()] if tuple(order) == (1, 0, 2) else None


def _read_widening(args: tuple[Any, ...], more: dict[str, Any]) -> list[Event] | None:
    return [Widen()] if _axis(args, more) in (-1, 2) else None


def _read_narrowing(args: tuple[Any, ...], more: dict[str, Any]) -> list[Event] | None:
    return [Narrow()] if _axis(args, more) in (-1, 2) else None


_READERS: dict[str, Callable[[tuple[Any, ...], dict[str, Any]], list[Event] | None]] = {
    "getitem": _read_index,
    "select": _read_select,
    "transpose": _read_transpose,
    "permute": _read_permute,
    "unsqueeze": _read_widening,
    "squeeze": _read_narrowing,
    "softmax": lambda args, more: [Softmax(False)],
    "log_softmax": lambda args, more: [Softmax(True)],
    "dropout": _read_dropout,
}
