"""Target `brian2-cpp`: spiking memories as compiled programs, for large networks and long runs.

Brian2's device applies to a whole interpreter, so Brian2 generates, compiles and runs each program
in a subprocess.
"""

from targets.brian2.standalone.target import Brian2CppTarget

__all__ = ["Brian2CppTarget"]
