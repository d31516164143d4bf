"""Our own float ONNX models, as the registry of importers knows them."""

from __future__ import annotations

from pathlib import Path

from converters.formats import Sniff
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.network import LMUNetwork


class OnnxImporter:
    """`.onnx` files that `lmu-deploy export` wrote."""

    name = "onnx"
    reads = "onnx: .onnx that lmu-deploy export wrote"

    def recognizes(self, sniff: Sniff) -> bool:
        """Whether the file is called .onnx; the format has no mark of its own."""
        return sniff.path.suffix.lower() == ".onnx"

    def read(self, path: Path, architecture: Path | None, options: dict[str, str]) -> LMUNetwork:
        """Read a network; there is nothing to choose."""
        from converters.onnx import read_onnx

        if architecture is not None or options:
            raise InputError("an ONNX file says it all; leave --architecture and --option away.")
        return read_onnx(path)
