"""Target `lava`: integer networks as processes of Intel's Lava, simulating Loihi 2.

Synapses are Lava's Dense, neurons are processes of this package. All are written from
docs/reference/integer-semantics.md, so that states equal those of every other integer target. Lava
runs in a separate interpreter (supervisor.py, worker.py); importing this package does not import
it.
"""

from targets.lava.target import LavaTarget

__all__ = ["LavaTarget"]
