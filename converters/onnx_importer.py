"""The importer of float ONNX models that lmu_deploy exported; it does not import onnx itself."""

from __future__ import annotations

from pathlib import Path

from converters.importers import Sniff
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.network import Network


class OnnxImporter:
    """`.onnx` files that `lmu-deploy export` wrote."""

    name = "onnx"
    reads = "onnx: .onnx that lmu-deploy export wrote"

    def recognizes(self, sniff: Sniff) -> bool:
        """Return whether the file is named .onnx; the format has no signature."""
        return sniff.path.suffix.lower() == ".onnx"

    def read(self, path: Path, architecture: Path | None, options: dict[str, str]) -> Network:
        """Read a network; there are no options."""
        from converters.onnx import read_onnx

        if architecture is not None or options:
            raise InputError("an ONNX file is complete; leave out --architecture and --option.")
        return read_onnx(path)
