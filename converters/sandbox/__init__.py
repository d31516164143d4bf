"""Parse untrusted files in a sandboxed subprocess.

The C libraries that parse HDF5 and PyTorch files were not written for hostile input. They run in a
short-lived interpreter with limits on memory and time (:mod:`.limits`), which returns plain arrays
and a JSON header in a `.safetensors` file. A damaged file can crash that process, but not the
caller.
"""

from converters.sandbox.process import FileContents, check_file, read_in_sandbox

__all__ = ["FileContents", "check_file", "read_in_sandbox"]
