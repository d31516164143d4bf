"""Target `spiking`: the bit-exact simulator of LoihiNetworks in NumPy.

It implements docs/reference/loihi-semantics.md and produces the spikes of target `lava-lif`, but
faster.
"""

from targets.spiking.target import SpikingTarget

__all__ = ["SpikingTarget"]
