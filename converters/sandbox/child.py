"""Entry point of the sandboxed subprocess: set limits, read one file, write one `.safetensors`.

Run as ``python -m converters.sandbox.child READER PATH RESULT``. An error is the last line on
standard error, ``input<TAB>sentence`` or ``missing<TAB>sentence``, with exit code 2.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from converters.sandbox import process
from converters.sandbox.process import HEADER, ORDER
from lmu_deploy.core.errors import InputError, MissingDependencyError

Reader = Callable[[Path], tuple[dict[str, np.ndarray], dict[str, Any]]]

_NEEDED = {"hdf5": ("h5py", "import"), "nir": ("h5py", "nir"), "pytorch": ("torch", "train")}
"""Library of each reader, and the extra that installs it."""


def main(arguments: list[str]) -> int:
    """Read one file and write the result; return the exit code, 0 or 2."""
    name, path, result = arguments
    try:
        reader = find_reader(name)
        limit_resources()
        arrays, header = reader(Path(path))
        header = {**header, ORDER: list(arrays)}
        save_file(arrays, result, metadata={HEADER: json.dumps(header)})
    except MissingDependencyError as error:
        return _fail("missing", str(error))
    except InputError as error:
        return _fail("input", str(error))
    except MemoryError:
        return _fail("input", "it needs more memory than an import may take; save it again.")
    except Exception as error:  # a damaged file can make a library raise anything
        kind = type(error).__name__
        return _fail("input", f"it is damaged or of another kind ({kind}); save it again.")
    return 0


def find_reader(name: str) -> Reader:
    """Return a reader by name; this imports its library.

    Raises
    ------
    MissingDependencyError
        When the library is not installed.
    """
    try:
        if name == "pytorch":
            from converters.sandbox.pytorch import read_state_dict

            return read_state_dict
        from converters.sandbox import hdf5

        return hdf5.read_nir_tree if name == "nir" else hdf5.read_hdf5
    except ImportError as error:
        library, extra = _NEEDED[name]
        raise MissingDependencyError(
            f"the library {library} is absent; install it with: pip install 'lmu-deploy[{extra}]'."
        ) from error


def limit_resources() -> None:
    """Limit the memory and CPU time of this process, where the system supports it.

    The CPU time that was spent on importing libraries does not count.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = process.MEMORY_BYTES if hard < 0 else min(process.MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = math.ceil(used.ru_utime + used.ru_stime) + process.CPU_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _fail(kind: str, sentence: str) -> int:
    print(f"{kind}\t{' '.join(sentence.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
