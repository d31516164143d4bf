"""Options of a conversion: dataclass fields with a help text, choices and a range.

Each conversion has one dataclass derived from :class:`Options`. The keyword arguments of the
Python interface, the command line, the settings of a sweep and the reference in the documentation
are derived from its fields.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from lmu_deploy.core.errors import InputError

INTEGRATORS = ("dense-incremental", "schur", "hessenberg", "fir")
SERIES = "sign-taylor"
REALIZATIONS = (*INTEGRATORS, SERIES)
"""Realizations of the memory of an integer network."""
NEURON_KINDS = ("lif", "dpi", "if", "poisson")
"""Neuron models of a virtual analog chip."""
CALIBRATIONS = ("none", "static", "dynamic")
"""Methods of calibrating the decoders of a virtual analog chip."""

_METADATA = "option"
_LARGEST_SHOWN = 1e6
"""Limits above this, such as that of a seed, tell a reader nothing."""
_Self = TypeVar("_Self", bound="Options")


@dataclass(frozen=True)
class Option:
    """One option of a conversion.

    Attributes
    ----------
    help : str
        One sentence without choices, range and default, which :attr:`description` adds.
    choices : tuple of str
        Allowed texts; empty if any text is allowed.
    low, high : float, optional
        Allowed range, both ends included. An end that depends on the chip is None and is checked
        by the converter.
    by_default : str
        What holds if the option is None.
    unit : str
    aliases : tuple of str
        Earlier names, which the command line, sweeps and stored studies still accept.
    sweep : bool
        Whether a sweep may vary it in the table of the conversion.
    name : str
    type : type
        int, float, bool, str, Path, or tuple for a pair of numbers.
    annotation : type
        The field's annotation, with None if that is allowed.
    default : object
    """

    help: str
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    by_default: str = ""
    unit: str = ""
    aliases: tuple[str, ...] = ()
    sweep: bool = True
    name: str = ""
    type: Any = None
    annotation: Any = None
    default: Any = None

    @property
    def description(self) -> str:
        """Help text with unit, choices, range and the meaning of an absent value."""
        parts = [self.help.rstrip(".") + (f", in {self.unit}." if self.unit else ".")]
        if self.choices:
            parts.append(f"One of {', '.join(self.choices)}.")
        if self.low is not None and self.high is not None and self.high <= _LARGEST_SHOWN:
            parts.append(f"From {self.low:g} to {self.high:,.10g}.")
        if self.by_default:
            parts.append(f"By default {self.by_default}.")
        return " ".join(parts)

    def checked(self, value: Any) -> Any:
        """Return `value` in the option's type.

        Raises
        ------
        InputError
            If the value has another type, is not a choice or is out of range.
        """
        # Validation imports NumPy, which the command line does not need for its help.
        from lmu_deploy.core.validation import (
            check_choice,
            check_flag,
            check_integer,
            check_number,
        )

        if value is None and type(None) in typing.get_args(self.annotation):
            return None
        if self.type is bool:
            return check_flag(self.name, value)
        if self.choices:
            return check_choice(self.name, value, self.choices)
        if self.type is Path:
            return Path(value)
        if self.type is tuple and isinstance(value, list):
            return tuple(value)
        if self.low is None or self.high is None:
            return value
        if self.type is int:
            return check_integer(self.name, value, int(self.low), int(self.high))
        if self.type is float:
            return check_number(self.name, value, self.low, self.high)
        return value


def option(
    default: Any,
    help: str,  # noqa: A002 (the word that command lines use)
    *,
    choices: tuple[str, ...] = (),
    low: float | None = None,
    high: float | None = None,
    by_default: str = "",
    unit: str = "",
    aliases: tuple[str, ...] = (),
    sweep: bool = True,
) -> Any:
    """Return a dataclass field that is an :class:`Option`."""
    described = Option(help, choices, low, high, by_default, unit, aliases, sweep)
    return field(default=default, metadata={_METADATA: described})


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base class of the options of a conversion; checks every value when it is built."""

    def __post_init__(self) -> None:
        for name, one in options_of(type(self)).items():
            object.__setattr__(self, name, one.checked(getattr(self, name)))

    @classmethod
    def build(cls: type[_Self], values: Mapping[str, Any]) -> _Self:
        """Build the options from names and values; earlier names are accepted.

        Raises
        ------
        InputError
            If a name is unknown or a value is out of range.
        """
        known = options_of(cls)
        named = {current_name(cls, name): value for name, value in values.items()}
        if unknown := [name for name in named if name not in known]:
            raise InputError(f"{unknown[0]} is not an option; known are {', '.join(known)}.")
        return cls(**named)

    def changed(self) -> dict[str, Any]:
        """Return the options whose value differs from the default, by name."""
        return {
            name: value
            for name, one in options_of(type(self)).items()
            if (value := getattr(self, name)) != one.default
        }

    def values(self) -> dict[str, Any]:
        """Return the value of every option by name."""
        return {name: getattr(self, name) for name in options_of(type(self))}

    def replace(self: _Self, **changes: Any) -> _Self:
        """Return a copy with some options replaced."""
        return replace(self, **changes)


def options_of(cls: type[Options]) -> dict[str, Option]:
    """Return the options of a class by name, in their order."""
    hints = typing.get_type_hints(cls)
    found = {}
    for each in fields(cls):
        if (described := each.metadata.get(_METADATA)) is None:
            continue
        annotation = hints[each.name]
        found[each.name] = replace(
            described,
            name=each.name,
            type=_plain(annotation),
            annotation=annotation,
            default=None if each.default is MISSING else each.default,
        )
    return found


def current_name(cls: type[Options], name: str) -> str:
    """Return the current name of an option that may be called by an earlier one."""
    for current, one in options_of(cls).items():
        if name in one.aliases:
            return current
    return name


def _plain(annotation: Any) -> Any:
    """Return the type without None, and tuple for a pair."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        (annotation,) = (part for part in typing.get_args(annotation) if part is not type(None))
    return typing.get_origin(annotation) or annotation
