"""Targets `c` and `cortex-m4`: the generated C code, compiled and run here or on an emulated chip.

What they run is what ``lmu-deploy export --to c`` writes. ``toolchain`` compiles it and starts the
program, ``target`` feeds it and reads what every population computed.
"""

from targets.c.target import CortexM4Target, CTarget

__all__ = ["CTarget", "CortexM4Target"]
