"""Target `spiking`: a LoihiNetwork in NumPy, spike for spike what `lava-lif` does, and faster.

Written from docs/reference/loihi-semantics.md.
"""

from targets.spiking.target import SpikingTarget

__all__ = ["SpikingTarget"]
