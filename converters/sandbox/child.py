"""The process that reads: limits first, then the library, then one `.safetensors` file.

Run as ``python -m converters.sandbox.child READER PATH ANSWER``. A refusal is the last line on
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

from converters.sandbox import limits
from converters.sandbox.parent import HEADER, ORDER
from lmu_deploy.core.errors import InputError, MissingDependencyError

Reader = Callable[[Path], tuple[dict[str, np.ndarray], dict[str, Any]]]


def main(arguments: list[str]) -> int:
    """Read one file and answer; the exit code is 0 or 2."""
    name, path, answer = arguments
    try:
        reader = find_reader(name)
        limit_resources()
        arrays, header = reader(Path(path))
        header = {**header, ORDER: list(arrays)}
        save_file(arrays, answer, metadata={HEADER: json.dumps(header)})
    except MissingDependencyError as error:
        return _refuse("missing", str(error))
    except InputError as error:
        return _refuse("input", str(error))
    except MemoryError:
        return _refuse("input", "it asks for more memory than an import may take; save it again.")
    except Exception as error:  # whatever a library makes of a damaged file
        kind = type(error).__name__
        return _refuse("input", f"it is damaged or of another kind ({kind}); save it again.")
    return 0


def find_reader(name: str) -> Reader:
    """Import a reader with its library."""
    if name == "hdf5":
        from converters.sandbox.hdf5 import read_hdf5

        return read_hdf5
    if name == "nir":
        from converters.sandbox.nir_tree import read_nir_tree

        return read_nir_tree
    from converters.sandbox.pytorch import read_state_dict

    return read_state_dict


def limit_resources() -> None:
    """Limit memory and computing of this process; where the system has no such limits, do nothing.

    What the process took until now, to import its library, does not count as computing.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = limits.MEMORY_BYTES if hard < 0 else min(limits.MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = math.ceil(used.ru_utime + used.ru_stime) + limits.CPU_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _refuse(kind: str, sentence: str) -> int:
    print(f"{kind}\t{' '.join(sentence.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
