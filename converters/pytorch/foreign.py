r"""Layers of other authors, recognized by the names and shapes of their weights and buffers.

Two families are known. Cells with feedback (Voelker, Kajic, Eliasmith 2019, equations 4, 6 and 7),

.. math::
   u_t &= x_t e_x + h_{t-1} e_h + m_{t-1} e_m \\
   m_t &= A m_{t-1} + B u_t, \qquad h_t = f(x_t W_x + h_{t-1} W_h + m_t W_m)

and parallel ones (Chilkuri, Eliasmith 2021, equations 18 to 20) with
:math:`u_t = f_u(x_t W_u + b_u)` and :math:`h_t = f_h((m_t, x_t) W_h + b_h)`. Weights may be stored
for either side of a product, and A as it is, transposed, or without the identity. All readings that
the shapes allow are offered; the module's own outputs decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import permutations, product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from converters.importers import MOST_ORDER
from converters.pytorch.registry import numbers
from converters.pytorch.signals import Sketch
from converters.weight_files import recognize_memory
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.frames import RMSNorm
from lmu_deploy.core.graph.linear import Dense
from lmu_deploy.core.graph.lmu import LMU
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT
from lmu_deploy.core.graph.operator import Operator
from lmu_deploy.core.graph.pointwise import Activation, Concat
from lmu_deploy.core.graph.recurrent import SimpleRNN
from lmu_deploy.core.legendre import impulse_response
from lmu_deploy.core.network import Memory

Chain = Sequence[tuple[str, Operator, tuple[str, ...]]]
"""Nodes by the suffix of their name, with the suffixes of their inputs; INPUT is the module's."""

_ROLES: Mapping[str, tuple[str, ...]] = {
    "e_x": ("ex", "inputencoders", "inputencoder", "encoderx", "eu"),
    "e_h": ("eh", "hiddenencoders", "hiddenencoder", "encoderh"),
    "e_m": ("em", "memoryencoders", "memoryencoder", "encoderm"),
    "W_x": ("wx", "inputkernel"),
    "W_h": ("wh", "hiddenkernel", "recurrentkernel"),
    "W_m": ("wm", "memorykernel"),
    "W_u": ("wu",),
    "A": ("A", "AT", "Ad", "dA", "Abar"),
    "B": ("B", "BT", "Bd", "dB", "Bbar"),
    "b": ("b", "bias", "hiddenbias", "bh"),
    "b_u": ("bu",),
}
"""Names of weights without underscores, in lower case where they are not those of A and B."""
_CLOSE = 1e-4
"""Largest difference of a response from that of a memory, relative to its largest value."""
_IGNORED = ("H", "fft_H", "kernel", "C", "D", "theta")
"""Buffers that follow from the others."""
_ACTIVATIONS: Mapping[type, str] = {
    nn.ReLU: "relu",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
    nn.Identity: "linear",
    nn.GELU: "gelu",
    nn.SiLU: "silu",
}


def weights_of(module: nn.Module) -> dict[str, np.ndarray] | None:
    """Return the weights of a layer by role; None where there are others than are known.

    The name of one cell inside the layer, and ``.weight`` of linear layers, do not count.
    """
    found: dict[str, np.ndarray] = {}
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        parts = name.split(".")
        bias = len(parts) > 1 and parts[-1] == "bias"
        if len(parts) > 1 and parts[-1] in ("weight", "bias"):
            parts.pop()
        role = _role(parts[-1])
        if role is None and parts[-1] in _IGNORED:
            continue
        role = f"{role}.bias" if bias and role is not None else role
        if role is None or role in found or tensor.is_complex():
            return None
        found[role] = numbers(tensor)
    return found if {"A", "B"} <= set(found) else None


def _role(name: str) -> str | None:
    """Return what a weight of a name is in the equations; None if the name is unknown."""
    short = name.replace("_", "")
    for role, names in _ROLES.items():
        folded = short if role in ("A", "B") or len(short) == 1 else short.lower()
        if folded in names:
            return role
    return None


def chains_of(module: nn.Module) -> Callable[[], Iterator[Chain]] | None:
    """Return what yields the chains of operators that a parallel layer may be."""
    weights = weights_of(module)
    if weights is None or not {"W_u", "W_h"} <= set(weights) or "W_m" in weights:
        return None
    return lambda: _parallel(module, weights)


def cells_of(module: nn.Module) -> Callable[[], Iterator[LMU]] | None:
    """Return what yields the LMUs with feedback that a layer or a cell may be."""
    weights = weights_of(module)
    if weights is None or not {"e_x", "W_m"} <= set(weights):
        return None
    return lambda: _cells(module, weights)


def _cells(module: nn.Module, weights: Mapping[str, np.ndarray]) -> Iterator[LMU]:
    order = weights["A"].shape[0]
    units = weights["W_m"].size // order
    n_in = weights["e_x"].size
    sides = {
        "W_x": _turned(weights.get("W_x"), n_in, units),
        "W_h": _turned(weights.get("W_h"), units, units),
        "W_m": _turned(weights["W_m"], order, units),
    }
    bias = _biases(weights, "b", "W_x.bias", "W_h.bias", "W_m.bias")
    encoder_bias = _biases(weights, "b_u", "e_x.bias", "e_h.bias", "e_m.bias")
    encoders = [_column(weights.get(name)) for name in ("e_x", "e_h", "e_m")]
    names = ("f", "activation", "f_h", "act")
    functions = _activations(module, names, ("tanh", "relu", "linear", "sigmoid"))
    e_x, e_h, e_m = encoders
    assert e_x is not None
    for memory in _memories(module, weights):
        for activation, w_x, w_h, w_m in product(functions, *sides.values()):
            kernel = w_m if w_x is None else np.concatenate([w_m, w_x])
            cell = SimpleRNN(kernel, w_h, bias, Activation(activation))
            yield LMU(memory, e_x, cell, w_x is not None, e_h, e_m, encoder_bias)


def _parallel(module: nn.Module, weights: Mapping[str, np.ndarray]) -> Iterator[Chain]:
    order = weights["A"].shape[0]
    w_u, w_h = weights["W_u"], weights["W_h"]
    w_u, w_h = (
        w.reshape(w.shape[:2]) if w.ndim == 3 and w.shape[2] == 1 else w for w in (w_u, w_h)
    )
    if w_u.ndim != 2 or w_h.ndim != 2:
        return
    b_u, b_h = (
        weights.get("W_u.bias", weights.get("b_u")),
        weights.get("W_h.bias", weights.get("b")),
    )
    inner = _activations(module, ("f_u",), ("relu", "linear", "tanh"))
    outer = _activations(module, ("f_h",), ("relu", "linear", "tanh"))
    for memory in _memories(module, weights):
        for f_u, f_h, encoders, kernel in product(inner, outer, (w_u.T, w_u), (w_h.T, w_h)):
            n_in, channels = encoders.shape
            states = channels * order
            if kernel.shape[0] not in (states, states + n_in) or _misfit(b_u, encoders):
                continue
            activation = None if f_u == "linear" else Activation(f_u)
            several = replace(memory, channels=channels)
            start = [("memory", LinearMemory(several, encoders, b_u, activation), (INPUT,))]
            end = [("W_h", Dense(kernel, b_h), ("concat",)), ("f_h", Activation(f_h), ("W_h",))]
            if kernel.shape[0] == states:
                yield [*start, ("W_h", Dense(kernel, b_h), ("memory",)), end[1]]
                continue
            for inputs in (("memory", INPUT), (INPUT, "memory")):
                yield [*start, ("concat", Concat(), inputs), *end]


def _misfit(bias: np.ndarray | None, kernel: np.ndarray) -> bool:
    return bias is not None and len(bias) != kernel.shape[1]


def _memories(module: nn.Module, weights: Mapping[str, np.ndarray]) -> Iterator[Memory]:
    """Yield the memories of one channel that stored matrices may mean."""
    a, b = weights["A"].astype(np.float64), weights["B"].reshape(-1)
    if a.ndim != 2 or a.shape[0] != a.shape[1] or len(b) != len(a) or len(a) > MOST_ORDER:
        return
    named = [theta for part in module.modules() if (theta := theta_of(part)) is not None]
    theta = named[0] if named else None
    for matrix in (a, a.T, a + np.eye(len(a)), a.T + np.eye(len(a))):
        if np.abs(np.linalg.eigvals(matrix)).max() > 1.5:
            continue
        short = matrix.astype(np.float32)
        exact = short if (short == matrix).all() else matrix
        yield named_memory(np.ascontiguousarray(exact), b, theta)


def _turned(weight: np.ndarray | None, n_in: int, n_out: int) -> tuple[np.ndarray | None, ...]:
    """Return the readings of a weight as (n_in, n_out)."""
    if weight is None:
        return (None,)
    if weight.shape == (n_out, n_in):
        turned = np.ascontiguousarray(weight.T)
        return (turned, weight) if n_in == n_out else (turned,)
    return (weight,) if weight.shape == (n_in, n_out) else ()


def _column(weight: np.ndarray | None) -> np.ndarray | None:
    return None if weight is None else np.ascontiguousarray(weight.reshape(-1, 1))


def _biases(weights: Mapping[str, np.ndarray], *names: str) -> np.ndarray | None:
    found = [weights[name].reshape(-1) for name in names if name in weights]
    return sum(found[1:], found[0]) if found else None


def _activations(module: nn.Module, names: Sequence[str], usual: Sequence[str]) -> tuple[str, ...]:
    """Return the activations that a layer may have: that of its module, or the usual ones."""
    for part in module.modules():
        for name in names:
            function = getattr(part, name, None)
            if type(function) in _ACTIVATIONS:
                return (_ACTIVATIONS[type(function)],)
    return tuple(usual)


def steps_alike(
    operator: LMU, forward: Callable, x: Tensor, states: Any, keywords: Mapping[str, Any]
) -> bool:
    """Return whether a cell does one step as an LMU does, from states drawn at random.

    Parameters
    ----------
    operator : LMU
    forward : callable
        Of the cell: takes x and its states.
    x : Tensor, shape (batch, n_in)
    states : sequence
        The further arguments of a call, whose tensors are replaced by drawn ones.
    keywords : mapping of str to object
    """
    generator = torch.Generator().manual_seed(0)
    drawn: list[Tensor] = []

    def redrawn(value: Any) -> Any:
        if isinstance(value, Tensor):
            drawn.append(torch.randn(value.shape, generator=generator, dtype=x.dtype))
            return drawn[-1]
        return type(value)(map(redrawn, value)) if isinstance(value, tuple | list) else value

    rest, named = redrawn(list(states)), {key: redrawn(v) for key, v in keywords.items()}
    if len(drawn) != 2:
        return True
    results = [numbers(t, narrow=False) for t in _tensors(forward(x, *rest, **named))]
    given = [numbers(t, narrow=False) for t in drawn]
    for m, h in permutations(given):
        if m.shape[1] != operator.memory.size or h.shape[1] != operator.n_out:
            continue
        (m, _, h), _ = operator.advance((m, h, h), numbers(x, narrow=False))
        if all(any(_same(r, wanted) for r in results) for wanted in (m, h)):
            return True
    return False


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)


def _same(array: np.ndarray, expected: np.ndarray) -> bool:
    return array.shape == expected.shape and bool(np.allclose(array, expected, 1e-6, 1e-9))


def is_norm(module: nn.Module) -> bool:
    """Return whether a module of another author is a root mean square normalization, by name."""
    kind = type(module)
    own = not kind.__module__.startswith("torch.nn.")
    return own and "rmsnorm" in kind.__name__.lower() and len(list(module.parameters())) <= 1


def norm_of(module: nn.Module) -> Iterator[Chain]:
    """Yield the normalizations that a module may be; the epsilon is its attribute."""
    weights = [numbers(p) for p in module.parameters()]
    named = [getattr(module, name, None) for name in ("eps", "epsilon", "variance_epsilon")]
    epsilons = [float(value) for value in named if isinstance(value, int | float)]
    for epsilon in epsilons or [1e-6, 1e-5, 1e-8]:
        if weights and weights[0].ndim == 1:
            try:
                yield [("", RMSNorm(weights[0], epsilon), (INPUT,))]
            except InputError:
                continue


# Memories


def memory_of(response: np.ndarray, scopes: Iterable[Any], sketch: Sketch) -> Memory | None:
    """Return the memory of one channel that has this impulse response.

    Parameters
    ----------
    response : ndarray, shape (order, steps)
    scopes : iterable of Module
        The modules that compute it, the innermost first; their matrices A and B and their theta
        are tried.
    sketch : Sketch
        Takes a note where theta is not known.

    Returns
    -------
    Memory or None
        None when no memory of this order has the response.
    """
    sketch.rounded = True
    scopes = list(scopes)
    for memory in _candidates(response, scopes):
        found = impulse_response(memory.a_bar.astype(np.float64), memory.b_bar, response.shape[1])
        if np.abs(found.T - response).max() <= _CLOSE * np.abs(response).max():
            steps = response.shape[1]
            note_theta(memory, scopes, sketch)
            sketch.note(f"the response in {sketch.place or 'the module'} ends after {steps} steps")
            return memory
    return None


def _candidates(response: np.ndarray, scopes: Iterable[Any]) -> Iterator[Memory]:
    order = len(response)
    thetas = []
    for module in scopes:
        if (theta := theta_of(module)) is not None:
            thetas.append(theta)
        if (pair := matrices(module, order)) is not None:
            yield named_memory(*pair, theta=thetas[-1] if thetas else None)
    first = float(response[0, 0])
    guesses = [*thetas, *([1.0 / first] if first > 0.0 else [])]
    for theta in guesses:
        for method in ("zoh", "bilinear", "euler"):
            for value in (theta, float(round(theta))):
                try:
                    yield Memory.legendre(order, max(value, 1.0), discretizer=method)
                except InputError:  # the method diverges for this window
                    continue
    if response.shape[1] > order + 1:
        a_bar = np.linalg.lstsq(response[:, :-1].T, response[:, 1:].T, rcond=None)[0].T
        yield named_memory(a_bar, response[:, 0], theta=None)


def note_theta(memory: Memory, modules: Iterable[Any], sketch: Sketch) -> None:
    """Note that the theta of trained matrices is an estimate, unless a module names it."""
    if memory.discretizer == "trained" and all(theta_of(module) is None for module in modules):
        sketch.note(
            f"theta of {sketch.place or 'the memory'} is taken as {memory.theta:g}: its matrices "
            "were trained"
        )


def theta_of(module: nn.Module) -> float | None:
    """Return the window length that a module keeps as ``theta``, if it does."""
    theta = getattr(module, "theta", None)
    single = isinstance(theta, int | float) or (isinstance(theta, Tensor) and theta.numel() == 1)
    return float(theta) if single else None  # type: ignore[arg-type]


def matrices(module: nn.Module, order: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the matrices A (order, order) and B (order,) that a module keeps, if it does."""
    a, b = (getattr(module, name, None) for name in "AB")
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return None
    if a.shape != (order, order) or b.numel() != order:
        return None
    return numbers(a), numbers(b).reshape(-1)


def named_memory(a_bar: np.ndarray, b_bar: np.ndarray, theta: float | None) -> Memory:
    """Return a memory of given matrices, whose theta is taken from them where it is not given."""
    known = _known(a_bar.tobytes(), str(a_bar.dtype), b_bar.tobytes(), str(b_bar.dtype), theta)
    if known is not None:
        method, window = known
        return Memory(len(a_bar), 1, window, method, a_bar, b_bar)
    first = float(b_bar[0])
    guess = theta or (1.0 / first if first > 1e-6 else float(len(a_bar)))
    return Memory(len(a_bar), 1, max(guess, 1.0), "trained", a_bar, b_bar)


@lru_cache(maxsize=64)
def _known(
    a: bytes, a_type: str, b: bytes, b_type: str, theta: float | None
) -> tuple[str, float] | None:
    """Return discretizer and theta of matrices, if they are those of a Legendre memory.

    A module is traced several times, and the search for theta takes seconds at order 256.
    """
    b_bar = np.frombuffer(b, b_type)
    a_bar = np.frombuffer(a, a_type).reshape(len(b_bar), -1)
    for given in dict.fromkeys((theta, None)):
        try:
            memory = recognize_memory(a_bar, b_bar, given)
        except InputError:
            continue
        if memory.discretizer != "trained":
            return memory.discretizer, memory.theta
    return None
