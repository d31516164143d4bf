"""How large a file of another program, and what is in it, may be."""

from __future__ import annotations

FILE_BYTES = 512 * 2**20
"""Largest file that is opened at all."""

ARRAY_BYTES = 128 * 2**20
"""Most bytes of all arrays of one file together: 32 million weights of 4 bytes."""

JSON_BYTES = 4 * 2**20
"""Longest JSON text that is parsed."""

OBJECTS = 10_000
"""Most groups, arrays and attributes in one file."""

DEPTH = 32
"""Deepest nesting of groups."""

MEMORY_BYTES = 1000 * 2**20
"""Most memory that the process that reads may ask for."""

SECONDS = 120
"""Longest time that reading a file may take, whatever else the machine does."""

CPU_SECONDS = 5
"""Most computing that it may take: damaged HDF5 files can send their library round for ever."""
