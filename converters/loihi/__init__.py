"""Conversion of a float network to LIF neurons in Loihi's fixed point."""

from converters.loihi.lower import loihi_spike, loihi_spike_with

__all__ = ["loihi_spike", "loihi_spike_with"]
