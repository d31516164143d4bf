"""Target `brian2-cpp`: a spiking memory as one compiled program, for large networks and long runs.

Brian2 writes, compiles and runs it in a process of its own, since its choice of device is one for
a whole interpreter: whatever happens there, Brian2 is in this one as it was.
"""

from targets.brian2.standalone.target import Brian2CppTarget

__all__ = ["Brian2CppTarget"]
