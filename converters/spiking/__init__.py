"""Lowering a float network's memories to spiking neurons of a virtual analog chip."""

from converters.spiking.lower import spike

__all__ = ["spike"]
