"""Our own NIR files, as the registry of importers knows them."""

from __future__ import annotations

from pathlib import Path

from converters.sniff import Sniff
from lmu_deploy.errors import InputError
from lmu_deploy.network import LMUNetwork


class NIRImporter:
    """`.nir` files that `lmu-deploy export` wrote."""

    name = "nir"
    reads = "nir: .nir that lmu-deploy export wrote"

    def recognises(self, sniff: Sniff) -> bool:
        """Whether the file is an HDF5 file with a graph of NIR."""
        return sniff.is_nir

    def read(self, path: Path, architecture: Path | None, options: dict[str, str]) -> LMUNetwork:
        """Read a float network; there is nothing to choose."""
        from converters.nir.file import read_nir

        if architecture is not None or options:
            raise InputError("a NIR file says it all; leave --architecture and --option away.")
        network = read_nir(path)
        if not isinstance(network, LMUNetwork):
            raise InputError(
                f"{path} holds a SpikingNetwork, and import gives float networks; read it with "
                "converters.nir.read_nir."
            )
        return network
