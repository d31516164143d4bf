"""Conversion of a float network to spiking neurons of virtual analog chips."""

from converters.spiking.lower import spike, spike_chips, spike_with

__all__ = ["spike", "spike_chips", "spike_with"]
