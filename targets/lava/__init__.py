"""Target `lava`: the integer network as processes of Intel's Lava, simulating Loihi 2.

Stock Dense for synapses, own processes for the neurons, all written from integer-semantics.md:
its states must equal those of every other integer target. Lava runs in an interpreter of its own
(supervisor.py, worker.py); importing this package does not import it.
"""

from targets.lava.target import LavaTarget

__all__ = ["LavaTarget"]
