"""Files of weights without an architecture: arrays by module, each told by its names and shapes.

What such a file does not say, the user does by options; `NAME.theta` is theta of the module NAME
alone, `theta` that of all. Importers of bare weights differ only in how they read one module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lmu_deploy.checks import check_choice
from lmu_deploy.errors import InputError
from lmu_deploy.network import ACTIVATIONS, Layer, LMULayer, LMUNetwork, Readout

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
