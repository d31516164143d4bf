"""Files of other programs, read in a process of its own: what breaks the reader breaks no more.

The C libraries that parse HDF5 and PyTorch's files were not written for hostile files. They run in
a short-lived interpreter with limits on memory and time; what comes back is a `.safetensors` file
of plain arrays and a JSON header.
"""

from converters.sandbox.parent import Contents, read_contained

__all__ = ["Contents", "read_contained"]
