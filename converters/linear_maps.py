"""An identity matrix as a linear map, of a size that is checked."""

from __future__ import annotations

import numpy as np

from lmu_deploy.core.errors import InputError

_LARGEST_IDENTITY = 4096


def identity(size: int) -> np.ndarray:
    """Return an identity matrix, for a model that has no linear map at this place.

    Raises
    ------
    InputError
        When it would be far larger than the file that needs it.
    """
    if size > _LARGEST_IDENTITY:
        raise InputError(
            f"{size} signals are passed on unchanged, more than {_LARGEST_IDENTITY}; "
            "give the model a linear layer (in Keras a kernel or a Dense layer) there."
        )
    return np.eye(size, dtype=np.float32)
