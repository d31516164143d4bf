r"""Networks from files of bare weights, which have no architecture.

Such a file has arrays by module. Importers recognize each module by the names and shapes of its
weights, and differ only in how they read one module; :func:`network_of` makes the network. What the
weights do not determine is given by :class:`Options`: `NAME.theta` is theta of the module NAME,
`theta` that of all modules.

:func:`one_channel_layer` makes the layer of the paper, whose memory has one channel. One step is
``u = x e_x + h e_h + m e_m``, then ``m = m A^T + u B^T``, then ``h = f(x W_x + h W_h + m W_m + b)``
with the new m (Voelker, Kajic, Eliasmith 2019, equations 5 to 7). The paper's package and its ports
store A - I, which the step adds to m.

:func:`recognize_memory` infers window length and discretizer of a Legendre memory from
:math:`\bar A` and :math:`\bar B`. The first state is the mean of the window, so one step of input
raises it by about :math:`\bar B_0 = 1 / \theta`. From this estimate, theta is refined until the
distance to the stored matrices is smallest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from converters.importers import ASSUMED, MOST_ORDER, MOST_STATES, raise_problems
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

Group = dict[str, np.ndarray]
"""Arrays of one module by their role in it."""


@dataclass(frozen=True)
class Options:
    """The user's options for a file of bare weights.

    Attributes
    ----------
    texts : mapping of str to str
        Values by name, ``theta`` or ``NAME.theta``.
    known : tuple of str
        Names that are valid for this kind of file.
    assumed : list of str
        Assumptions, for settings that no option gives.
    """

    texts: Mapping[str, str]
    known: tuple[str, ...] = ("theta", "activation", "return_sequences")
    assumed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        unknown = [name for name in self.texts if name.rpartition(".")[2] not in self.known]
        if unknown:
            raise InputError(
                f"unknown option {min(unknown)!r}; choose from {', '.join(self.known)}."
            )

    def text(self, name: str, module: str = "") -> str | None:
        """Return an option: that of the module if there is one, otherwise that of all modules."""
        return self.texts.get(f"{module}.{name}", self.texts.get(name))

    def number(self, name: str, module: str = "") -> float | None:
        """Return an option as a number; raise InputError when it is not a number."""
        if (text := self.text(name, module)) is None:
            return None
        try:
            return float(text)
        except ValueError as error:
            raise InputError(f"option {name} is {text!r}; give a number.") from error

    def activation(self, module: str = "") -> str:
        """Return the activation of hidden units, by default tanh."""
        if (text := self.text("activation", module)) is None:
            self._assume("hidden units are tanh (option activation)")
        return check_choice("option activation", text or "tanh", ACTIVATIONS)

    def _assume(self, what: str) -> None:
        if what not in self.assumed:
            self.assumed.append(what)

    @property
    def return_sequences(self) -> bool:
        """Whether the network has an output at every step; by default it does not."""
        if (text := self.text("return_sequences")) is None:
            self._assume("the network answers after the last step (option return_sequences)")
        text = (text or "false").lower()
        return check_choice("option return_sequences", text, ("true", "false")) == "true"


def network_of(
    path: Path | str,
    groups: Mapping[str, Group],
    read: Callable[[str, Group], list[Layer] | Readout],
    options: Options,
    origin: str,
) -> LMUNetwork:
    """Build a network from a chain of modules, the last of which is linear.

    Parameters
    ----------
    path : path
        Path of the file, for messages.
    groups : mapping of str to Group
        Arrays by module, in the order in which signals pass through the modules.
    read : callable
        Returns the layers, or the readout, of one module.
    options : Options
    origin : str
        Kind of file, for `provenance`.

    Raises
    ------
    InputError
        When something cannot be represented; all problems are listed.
    """
    check_choice("option activation", options.texts.get("activation", "tanh"), ACTIVATIONS)
    layers: list[Layer] = []
    readout: Readout | None = None
    problems: list[str] = []
    for name, group in groups.items():
        try:
            part = read(name, group)
            if readout is not None:
                raise InputError("it follows a linear layer, and what is between them is unknown")
            if isinstance(part, Readout):
                readout = part
            else:
                layers.extend(part)
                _check_states(layers)
        except InputError as error:
            problems.append(f"module {name!r}: {str(error).rstrip('.')}")
    if not problems and (not layers or readout is None):
        problems.append("it has no recurrent layer" if not layers else "it has no linear layer")
    raise_problems(problems, f"{path} cannot be imported")
    assert readout is not None
    sequences = options.return_sequences
    if "layers" in options.known and options.text("layers") is None and len(groups) > 1:
        options.assumed.append("modules follow each other as in the file (option layers)")
    notes = {"imported from": origin}
    if options.assumed:
        notes[ASSUMED] = "; ".join(options.assumed)
    try:
        return LMUNetwork(tuple(layers), readout, sequences, provenance=notes)
    except InputError as error:
        hint = (
            "; give the order with --option layers=NAME,NAME,..."
            if "layers" in options.known
            else ""
        )
        raise InputError(f"{path}: {str(error).rstrip('.')}{hint}.") from error


def _check_states(layers: list[Layer]) -> None:
    orders = sum(layer.memory.order for layer in layers if isinstance(layer, LMULayer))
    if orders > MOST_STATES:
        raise InputError(
            f"with it the orders of all memories add up to {orders}, more than {MOST_STATES}"
        )


TOLERANCE = 1e-4
_LONGEST = 1e9
_MOST_REFINED = 256


def recognize_memory(a_bar: np.ndarray, b_bar: np.ndarray, theta: float | None = None) -> Memory:
    """Build a Memory from stored matrices, which are kept unchanged.

    Parameters
    ----------
    a_bar : ndarray, shape (order, order)
    b_bar : ndarray, shape (order,)
    theta : float, optional
        Window length, where it is known.

    Returns
    -------
    memory : Memory
        Its discretizer is zoh, bilinear or euler if the matrices agree with it to 1e-4, otherwise
        "trained".

    Raises
    ------
    InputError
        When the matrices are not a Legendre memory and `theta` is not given.
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
            "the window length cannot be inferred from the matrices A and B, which were trained; "
            "pass --option theta=...."
        )
    return Memory(order, 1, theta, "trained", a_bar, b_bar)


def _refine(a_bar: np.ndarray, method: str, guess: float) -> float:
    """Find theta near an estimate; an integer that fits takes precedence."""
    for whole in sorted({max(1.0, np.round(guess) + k) for k in (-1, 0, 1)}):
        if _distance(a_bar, method, whole) < TOLERANCE / 10:
            return float(whole)
    if len(a_bar) > _MOST_REFINED:
        return guess
    from scipy.optimize import minimize_scalar

    best = minimize_scalar(
        lambda theta: _distance(a_bar, method, float(theta)),
        bounds=(max(1.0, 0.95 * guess - 1.0), 1.05 * guess + 1.0),
        method="bounded",
        options={"xatol": 1e-8 * guess, "maxiter": 60},
    )
    whole = max(1.0, float(np.round(best.x)))
    return whole if _distance(a_bar, method, whole) < TOLERANCE / 10 else float(best.x)


def _distance(a_bar: np.ndarray, method: str, theta: float) -> float:
    try:
        exact = discretize(len(a_bar), theta, method)[0]
    except InputError:  # Euler's method diverges
        return float("inf")
    least = np.finfo(float).tiny  # an exact matrix may be zero
    return float(np.linalg.norm(exact - a_bar) / max(np.linalg.norm(exact), least))


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
    """Build the layer of the paper from its weights.

    Parameters
    ----------
    weights : sequence of (str, ndarray)
        Names, for messages, and arrays: e_x (inputs, 1), e_h (units, 1), e_m (order, 1), W_x
        (inputs, units), W_h (units, units), W_m (order, units), A^T (order, order), B^T (1, order).
    bias : ndarray, optional
        One entry per unit.
    theta : float, optional
        Window length, where it cannot be inferred from the matrices.
    activation : str
    incremental : bool
        Whether the stored A is A - I.

    Raises
    ------
    InputError
        When a weight has the wrong shape, or theta is neither given nor can be inferred.
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
