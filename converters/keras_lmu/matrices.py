"""The memory matrices that Keras itself computed, for imports that agree with it to 1e-5.

keras-lmu stores no matrices: it makes them in float32 when a model is loaded, for order 256 with an
error of 2e-5, which moves logits by some 1e-4 (docs/results/keras-oracle.md). The importer makes
exact ones. Whoever wants Keras's own saves them with `examples/save_keras_matrices.py` where Keras
runs, as arrays ``LAYER/A`` (order, order) and ``LAYER/B`` (1, order), both transposed, as Keras
holds them.
"""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from converters.contained import limits
from converters.contained.parent import check_file
from lmu_deploy.checks import check_array
from lmu_deploy.errors import InputError
from lmu_deploy.network import LMULayer
from lmu_deploy.tasks.from_file import DAMAGED

TOLERANCE = 1e-3
Matrices = dict[str, np.ndarray]


def read_matrices(path: Path | str) -> Matrices:
    """Read the arrays of an `.npz` file.

    Raises
    ------
    InputError
        When there is no such file, it is damaged, or larger than weights may be.
    """
    path = check_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > limits.ARRAY_BYTES:
                raise InputError(f"{path} unpacks to more than {limits.ARRAY_BYTES} bytes.")
        with np.load(path, allow_pickle=False) as stored:
            return {name: np.asarray(stored[name]) for name in stored.files}
    except DAMAGED as error:
        raise InputError(
            f"{path} is no readable .npz file ({type(error).__name__}); save it again."
        ) from error


def with_matrices(layer: LMULayer, name: str, matrices: Matrices) -> LMULayer:
    """Put Keras's matrices in place of the exact ones.

    Raises
    ------
    InputError
        When those of the layer are missing, or differ from the exact ones by more than rounding.
    """
    memory = layer.memory
    if missing := [key for key in (f"{name}/A", f"{name}/B") if key not in matrices]:
        raise InputError(f"the file of matrices holds no {missing[0]}; save it from this model")
    a_bar = check_array("matrix A", matrices[f"{name}/A"], (memory.order, memory.order)).T
    b_bar = check_array("matrix B", matrices[f"{name}/B"], (1, memory.order))[0]
    distance = np.linalg.norm(a_bar - memory.a_bar) / np.linalg.norm(memory.a_bar)
    if distance > TOLERANCE:
        raise InputError(
            f"matrix A differs from that of the model's order and theta by {distance:.1g} of its "
            f"norm, more than {TOLERANCE:g}; save it from this model"
        )
    a_bar, b_bar = np.ascontiguousarray(a_bar), np.ascontiguousarray(b_bar)
    return replace(layer, memory=replace(memory, a_bar=a_bar, b_bar=b_bar))
