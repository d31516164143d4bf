"""Target `lava-lif`: a LoihiNetwork as processes of Intel's Lava, stock LIF neurons and Dense.

Written from loihi-semantics.md: its spikes must equal those of the target `spiking`. Lava
runs in an interpreter of its own, as for the target `lava`; importing this package does not import
it.
"""

from targets.lava_lif.target import LavaLifTarget

__all__ = ["LavaLifTarget"]
