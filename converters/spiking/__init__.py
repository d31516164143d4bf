"""Conversion of a float network to spiking neurons of virtual analog chips."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from converters.spiking.lower import spike, spike_again, spike_chips, spike_with

__all__ = ["spike", "spike_again", "spike_chips", "spike_with"]


def __getattr__(name: str) -> Any:
    """Import the conversion when it is used: targets need only the neurons, and start sooner."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from converters.spiking import lower

    return getattr(lower, name)
