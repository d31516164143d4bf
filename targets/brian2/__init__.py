"""Target `brian2`: memories on spiking neurons simulated by Brian2, the rest on the host."""

from targets.brian2.target import Brian2Target

__all__ = ["Brian2Target"]
