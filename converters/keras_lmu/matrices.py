"""The memory matrices of a network imported from keras-lmu.

keras-lmu stores none: it computes them in float32 whenever a model is loaded, at order 256 with an
error of 2e-5, which moves logits by some 1e-4 (docs/results/keras-oracle.md). By default an
imported network has the exact matrices of the equations, so that one file gives one network on
every machine. Option ``keras`` computes them as Keras does, operation by operation
(:mod:`.tensorflow_matrices`), which depends on the size of the processor's first data cache. A
file gives those that Keras computed elsewhere: `examples/save_keras_matrices.py` writes one where
Keras runs, with arrays ``LAYER/A`` (order, order) and ``LAYER/B`` (1, order), both transposed, as
Keras stores them.
"""

from __future__ import annotations

import re
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from converters.sandbox import process
from converters.sandbox.process import check_file
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import DAMAGED
from lmu_deploy.core.network import Memory
from lmu_deploy.core.validation import check_array, check_integer

TOLERANCE = 1e-3
MOST_WORK = 512**3
"""Sum of cubed orders beyond which computing matrices as Keras does takes too long (5 s)."""
Matrices = dict[str, np.ndarray]


class MemoryMatrices:
    """The memory matrices of all layers of one network.

    Parameters
    ----------
    choice : str or path
        "exact" (those of the equations), "keras" (as keras-lmu computes them on this machine's
        processor), "keras:KIB" (on one with a first data cache of that many KiB), or the path of
        an `.npz` file.

    Attributes
    ----------
    note : str
        The choice in words, for `provenance`.
    used : bool
        Whether a memory took its matrices from here.

    Raises
    ------
    InputError
        When there is no such file, or it cannot be read.
    """

    def __init__(self, choice: Path | str = "exact") -> None:
        text = str(choice)
        self.used = False
        self._cache_kib = 0
        self._from_file: Matrices | None = None
        self._work = 0
        if text == "exact":
            self.note = "exact"
        elif found := re.fullmatch(r"keras(?::(\d{1,4}))?", text):
            self._cache_kib = _cache_kib(found.group(1))
            self.note = (
                f"as keras-lmu computes them on a processor with {self._cache_kib} KiB of L1"
            )
        else:
            self._from_file = read_matrices(choice)
            self.note = f"from {Path(choice).name}"

    def put_into(self, memory: Memory, name: str, theta_trained: bool) -> Memory:
        """Return the memory of a layer with the chosen matrices in place of its exact ones.

        Raises
        ------
        InputError
            When a file has none for the layer, or they differ by more than rounding.
        """
        self.used = True
        if self._from_file is not None:
            return with_matrices(memory, name, self._from_file)
        if not self._cache_kib:
            return memory
        self._work += memory.order**3
        if self._work > MOST_WORK:
            self.note += f"; exact in layer {name!r}, where that takes too long"
            return memory
        from converters.keras_lmu.tensorflow_matrices import keras_matrices

        a_bar, b_bar = keras_matrices(
            memory.order, memory.theta, memory.discretizer, theta_trained, self._cache_kib
        )
        return replace(memory, a_bar=a_bar, b_bar=b_bar)


def _cache_kib(text: str | None) -> int:
    """Return the size of the first data cache as the user gave it, or that of this processor."""
    if text is not None:
        return check_integer("cache", int(text), 1, 9999)
    from converters.keras_lmu.tensorflow_matrices import first_cache_kib

    return first_cache_kib()


def read_matrices(path: Path | str) -> Matrices:
    """Read the arrays of an `.npz` file.

    Raises
    ------
    InputError
        When there is no such file, it is damaged, or it is larger than weights may be.
    """
    path = check_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > process.ARRAY_BYTES:
                raise InputError(f"{path} unpacks to more than {process.ARRAY_BYTES} bytes.")
        with np.load(path, allow_pickle=False) as stored:
            return {name: np.asarray(stored[name]) for name in stored.files}
    except DAMAGED as error:
        raise InputError(
            f"{path} is no readable .npz file ({type(error).__name__}); save it again."
        ) from error


def with_matrices(memory: Memory, name: str, matrices: Matrices) -> Memory:
    """Return the memory of a layer with matrices that Keras computed in place of its exact ones.

    Raises
    ------
    InputError
        When a matrix of the layer is missing or differs from the exact one by more than rounding.
    """
    if missing := [key for key in (f"{name}/A", f"{name}/B") if key not in matrices]:
        raise InputError(f"the file of matrices has no {missing[0]}; save it from this model")
    a_bar = check_array("matrix A", matrices[f"{name}/A"], (memory.order, memory.order)).T
    b_bar = check_array("matrix B", matrices[f"{name}/B"], (1, memory.order))[0]
    distance = np.linalg.norm(a_bar - memory.a_bar) / np.linalg.norm(memory.a_bar)
    if distance > TOLERANCE:
        raise InputError(
            f"matrix A differs from that of the model's order and theta by {distance:.1g} of its "
            f"norm, more than {TOLERANCE:g}; save it from this model"
        )
    a_bar, b_bar = np.ascontiguousarray(a_bar), np.ascontiguousarray(b_bar)
    return replace(memory, a_bar=a_bar, b_bar=b_bar)
