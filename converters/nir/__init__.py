"""Convert networks to and from NIR, the Neuromorphic Intermediate Representation."""

from __future__ import annotations

from lmu_deploy.core.errors import MissingDependencyError

try:
    from converters.nir.file import from_nir, read_nir, to_nir, write_nir
    from converters.nir.plan import INTEGRATORS, left_to_host
except ModuleNotFoundError as error:
    if (error.name or "").split(".")[0] not in ("nir", "h5py"):
        raise
    raise MissingDependencyError(
        f"the library {error.name} is absent; install it with: pip install 'lmu-deploy[nir]'."
    ) from error

__all__ = ["INTEGRATORS", "from_nir", "left_to_host", "read_nir", "to_nir", "write_nir"]
