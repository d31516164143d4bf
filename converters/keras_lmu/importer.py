"""The importer of keras-lmu's files, as the registry of importers knows it."""

from __future__ import annotations

from pathlib import Path

from converters.keras_lmu.archive import CONFIG, WEIGHTS
from converters.keras_lmu.network import read_keras
from converters.keras_lmu.options import architecture_from_options
from converters.sniff import HDF5_SIGNATURE, Sniff
from lmu_deploy.errors import InputError
from lmu_deploy.network import LMUNetwork


class KerasLMUImporter:
    """`.keras`, whole-model `.h5`, and weights-only `.h5` files of Keras 2 and 3."""

    name = "keras-lmu"
    reads = "keras-lmu: .keras, .h5 / .hdf5 (whole models, or weights with --architecture)"

    def recognises(self, sniff: Sniff) -> bool:
        """Whether the file is an HDF5 file of Keras, or an archive with its entries."""
        if sniff.head.startswith(HDF5_SIGNATURE):
            return not sniff.holds(b"memory_encoders") and not sniff.is_nir
        return CONFIG in sniff.entries or WEIGHTS in sniff.entries

    def read(self, path: Path, architecture: Path | None, options: dict[str, str]) -> LMUNetwork:
        """Read a network; the architecture is needed for weights-only files alone.

        Option `matrices` says which the memory gets: keras (the default), keras:KIB, exact, or a
        file of those that Keras computed; see :mod:`.matrices`.
        """
        options = dict(options)
        matrices = options.pop("matrices", "keras")
        if architecture is not None and options:
            raise InputError("give an architecture file or options, not both.")
        described = architecture_from_options(options) if options else None
        return read_keras(path, architecture if described is None else described, matrices)
