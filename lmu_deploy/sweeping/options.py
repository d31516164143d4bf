"""Which options the converters have, read off their signatures: a new one can be swept at once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

COMMAND = ("method", "epochs", "sparsity_threshold", "sparsity_loss", "budget_kib")
"""Options of the command `quantise` beyond its converter's: training on, sparsity, a budget."""

FORMS_OF = {"quantise": ("integer",), "spike": ("spiking", "loihi")}
"""Forms that are made with the options of a table of settings."""

_NEVER = ("profile", "progress", "saved")
"""The chip has a table of its own; the others are no settings."""


def converter(form: str) -> Callable[..., Any]:
    """Import the converter to a form.

    It takes a float network, calibration inputs, a chip profile, and the options.
    """
    if form == "integer":
        from converters.quantise import quantise

        return quantise
    if form == "spiking":
        from converters.spiking import spike

        return spike
    from converters.loihi_spiking import loihi_spike

    return loihi_spike


@cache
def converter_options(form: str) -> dict[str, Any]:
    """Give every option of the converter to a form, with its default."""
    found = _defaults(converter(form))
    if form == "integer":
        from lmu_deploy.commands.quantise import quantise

        found |= {name: _defaults(quantise)[name] for name in COMMAND}
    return found


def table_options(table: str) -> list[str]:
    """Name the options that a table of settings may hold, of all forms that it is for."""
    return list(dict.fromkeys(n for form in FORMS_OF[table] for n in converter_options(form)))


def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {
        p.name: p.default for p in parameters if p.default is not p.empty and p.name not in _NEVER
    }
