"""Target `lava-lif`: LoihiNetworks as Lava's LIF neurons and Dense synapses.

Written from docs/reference/loihi-semantics.md, so that its spikes equal those of target `spiking`.
Lava runs in a separate interpreter, as for target `lava`; importing this package does not import
it.
"""

from targets.lava_lif.target import LavaLifTarget

__all__ = ["LavaLifTarget"]
