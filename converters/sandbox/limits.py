"""Limits on the size of an imported file and on the process that reads it."""

from __future__ import annotations

FILE_BYTES = 512 * 2**20
"""Largest file that is opened."""

ARRAY_BYTES = 128 * 2**20
"""Largest sum of the sizes of all arrays in one file: 32 million weights of 4 bytes."""

JSON_BYTES = 4 * 2**20
"""Longest JSON text that is parsed."""

OBJECTS = 10_000
"""Largest number of groups, arrays and attributes in one file."""

DEPTH = 32
"""Deepest nesting of groups."""

MEMORY_BYTES = 1000 * 2**20
"""Most memory that the reading process may allocate."""

SECONDS = 120
"""Longest wall-clock time for reading a file."""

CPU_SECONDS = 5
"""Most CPU time for reading a file: damaged HDF5 files can make the library loop forever."""
