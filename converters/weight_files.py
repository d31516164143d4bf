r"""Files of weights without an architecture: arrays by module, each told by its names and shapes.

What such a file does not say, the user does by options; `NAME.theta` is theta of the module NAME
alone, `theta` that of all. Importers of bare weights differ only in how they read one module.

The paper's layer, whose memory has one channel, from its eight weights as they lie in files.

One step is ``u = x e_x + h e_h + m e_m``, then ``m = m A^T + u B^T``, then
``h = f(x W_x + h W_h + m W_m + b)`` with the new m (Voelker, Kajic, Eliasmith 2019, equations 5 to
7). The paper's package and what followed it store A - I, which the step adds to m.

Which Legendre memory a pair of stored matrices is: its window length and its discretizer.

Files that hold :math:`\bar A, \bar B` alone do not say theta. The first state is the mean of the
window, so that one step of input raises it by about :math:`\bar B_0 = 1 / \theta`, within a step or
so. From there theta is found as the one whose matrices are nearest to those of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.legendre import DISCRETIZERS, discretize
from lmu_deploy.core.network import (
    ACTIVATIONS,
    Hidden,
    Layer,
    LMULayer,
    LMUNetwork,
    Memory,
    Readout,
)
from lmu_deploy.core.validation import check_array, check_choice

MOST_PROBLEMS = 20
MOST_STATES = 4096
"""Orders of all memories together: telling which memory one is costs its cube in time."""
Group = dict[str, np.ndarray]
"""Arrays of one module by their role in it."""


@dataclass(frozen=True)
class Options:
    """What the user says of a file of bare weights.

    Attributes
    ----------
    texts : mapping of str to str
        As given, ``theta`` or ``NAME.theta``.
    known : tuple of str
        Names that this kind of file has a use for.
    """

    texts: Mapping[str, str]
    known: tuple[str, ...] = ("theta", "activation", "return_sequences")

    def __post_init__(self) -> None:
        unknown = [name for name in self.texts if name.rpartition(".")[2] not in self.known]
        if unknown:
            raise InputError(
                f"unknown option {min(unknown)!r}; choose from {', '.join(self.known)}."
            )

    def text(self, name: str, module: str = "") -> str | None:
        """Give an option, of a module where it is said of that."""
        return self.texts.get(f"{module}.{name}", self.texts.get(name))

    def number(self, name: str, module: str = "") -> float | None:
        """Give an option that is a number; raises InputError when it is none."""
        if (text := self.text(name, module)) is None:
            return None
        try:
            return float(text)
        except ValueError as error:
            raise InputError(f"option {name} is {text!r}; give a number.") from error

    def activation(self, module: str = "") -> str:
        """Give the activation of hidden units, tanh if not said."""
        text = self.text("activation", module) or "tanh"
        return check_choice("option activation", text, ACTIVATIONS)

    @property
    def return_sequences(self) -> bool:
        """Whether the network answers at every step, which it does not if not said."""
        text = (self.text("return_sequences") or "false").lower()
        return check_choice("option return_sequences", text, ("true", "false")) == "true"


def network_of(
    path: Path | str,
    groups: Mapping[str, Group],
    read: Callable[[str, Group], list[Layer] | Readout],
    options: Options,
    origin: str,
) -> LMUNetwork:
    """Make a network of modules that follow one another, the last of them linear.

    Parameters
    ----------
    path : path
        Of the file, for messages.
    groups : mapping of str to Group
        By module, in the order in which signals pass them.
    read : callable
        Makes layers, or the readout, of one module.
    options : Options
    origin : str
        Whose file it is, for `provenance`.

    Raises
    ------
    InputError
        When something cannot be represented: everything is named at once.
    """
    options.activation()
    layers: list[Layer] = []
    readout: Readout | None = None
    problems: list[str] = []
    for name, group in groups.items():
        try:
            part = read(name, group)
            if readout is not None:
                raise InputError("it follows a linear layer, and what stands between is not said")
            if isinstance(part, Readout):
                readout = part
            else:
                layers.extend(part)
                _check_states(layers)
        except InputError as error:
            problems.append(f"module {name!r}: {str(error).rstrip('.')}")
    if not problems and (not layers or readout is None):
        problems.append("it holds no recurrent layer" if not layers else "it holds no linear layer")
    if problems or readout is None:
        shown = "; ".join(problems[:MOST_PROBLEMS])
        raise InputError(f"{path} cannot be imported: {shown}.")
    try:
        return LMUNetwork(
            tuple(layers),
            readout,
            options.return_sequences,
            provenance={"imported from": origin},
        )
    except InputError as error:
        hint = "; say it by --option layers=NAME,NAME,..." if "layers" in options.known else ""
        raise InputError(f"{path}: {str(error).rstrip('.')}{hint}.") from error


def _check_states(layers: list[Layer]) -> None:
    orders = sum(layer.memory.order for layer in layers if isinstance(layer, LMULayer))
    if orders > MOST_STATES:
        raise InputError(
            f"with it the orders of all memories add up to {orders}, more than {MOST_STATES}"
        )


TOLERANCE = 1e-4
MOST_ORDER = 1024
"""Largest order that is imported: checking the matrices takes order cubed operations."""
_LONGEST = 1e9
_MOST_REFINED = 256


def recognize_memory(a_bar: np.ndarray, b_bar: np.ndarray, theta: float | None = None) -> Memory:
    """Make a Memory of stored matrices; they are kept exactly as they are.

    Parameters
    ----------
    a_bar : ndarray, shape (order, order)
    b_bar : ndarray, shape (order,)
    theta : float, optional
        Window length where it is known.

    Returns
    -------
    memory : Memory
        Its discretizer is zoh, bilinear or euler if the matrices are such to 1e-4, else "trained".

    Raises
    ------
    InputError
        When the matrices are no Legendre memory and `theta` is not given.
    """
    a_bar = check_array("A", a_bar, (None, None))
    order = len(a_bar)
    if order > MOST_ORDER:
        raise InputError(f"the memory has order {order}, more than {MOST_ORDER} can be imported.")
    a_bar = check_array("A", a_bar, (order, order))
    b_bar = check_array("B", b_bar, (order,))
    first = float(b_bar[0])
    guess = theta if theta is not None else (1.0 / first if first > 0 else 0.0)
    for method in DISCRETIZERS if 0.5 < guess < _LONGEST else ():
        found = _refine(a_bar, method, guess) if theta is None else theta
        if _distance(a_bar, method, found) < TOLERANCE:
            return Memory(order, 1, found, method, a_bar, b_bar)
    if theta is None:
        raise InputError(
            "the matrices A and B are no Legendre memory whose window can be told (they were "
            "trained); give it with --option theta=...."
        )
    return Memory(order, 1, theta, "trained", a_bar, b_bar)


def _refine(a_bar: np.ndarray, method: str, guess: float) -> float:
    """Find theta near a guess; a whole number that fits is taken as meant."""
    for whole in sorted({max(1.0, np.round(guess) + k) for k in (-1, 0, 1)}):
        if _distance(a_bar, method, whole) < TOLERANCE / 10:
            return float(whole)
    if len(a_bar) > _MOST_REFINED:
        return guess
    best = minimize_scalar(
        lambda theta: _distance(a_bar, method, float(theta)),
        bounds=(max(1.0, 0.95 * guess - 1.0), 1.05 * guess + 1.0),
        method="bounded",
        options={"xatol": 1e-8 * guess, "maxiter": 60},
    )
    return float(best.x)


def _distance(a_bar: np.ndarray, method: str, theta: float) -> float:
    try:
        made = discretize(len(a_bar), theta, method)[0]
    except InputError:  # Euler's rule diverges there
        return float("inf")
    return float(np.linalg.norm(made - a_bar) / np.linalg.norm(made))


PAPER_NAMES = (
    "input_encoders",
    "hidden_encoders",
    "memory_encoders",
    "input_kernel",
    "hidden_kernel",
    "memory_kernel",
    "AT",
    "BT",
)
"""Names of the weights in the paper's package; those of A - I and B last."""


def one_channel_layer(
    weights: Sequence[tuple[str, np.ndarray]],
    bias: np.ndarray | None,
    theta: float | None,
    activation: str,
    *,
    incremental: bool,
) -> LMULayer:
    """Make the layer.

    Parameters
    ----------
    weights : sequence of (str, ndarray)
        Names, for messages, and arrays: e_x (inputs, 1), e_h (units, 1), e_m (order, 1), W_x
        (inputs, units), W_h (units, units), W_m (order, units), A^T (order, order), B^T (1, order).
    bias : ndarray, optional
        Of as many entries as there are units.
    theta : float, optional
        Where the matrices do not tell it.
    activation : str
    incremental : bool
        Whether A stands for A - I.

    Raises
    ------
    InputError
        When a weight has the wrong shape, or theta can neither be told nor is given.
    """
    names, arrays = zip(*weights, strict=True)
    e_x, e_h, e_m, w_x, w_h, w_m, a, b = arrays
    order = len(check_array(names[6], a, (None, None)))
    a_bar = check_array(names[6], a, (order, order)).T.astype(np.float64)
    b_bar = check_array(names[7], b, (1, order))[0].astype(np.float64)
    return LMULayer(
        input_encoders=check_array(names[0], e_x, (None, 1)),
        hidden_encoders=e_h,
        memory_encoders=e_m,
        memory_bias=None,
        memory=recognize_memory(a_bar + np.eye(order) if incremental else a_bar, b_bar, theta),
        hidden=Hidden(
            memory_kernel=w_m,
            input_kernel=w_x,
            recurrent_kernel=w_h,
            bias=None if bias is None else bias.reshape(-1),
            activation=activation,
        ),
    )
