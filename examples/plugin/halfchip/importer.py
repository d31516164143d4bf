"""Importer `halfchip`: networks of one LMU layer from the chip's own JSON files.

{"halfchip": 1, "order": 4, "theta": 8.0, "activation": "tanh",
"input_encoders": [[...]], "memory_kernel": [[...]], "readout": [[...]]}
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from converters.importers import Sniff
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, Memory, Readout

BEGINNING = b'{"halfchip"'
LARGEST_BYTES = 2**26
FIELDS = ("order", "theta", "activation", "input_encoders", "memory_kernel", "readout")


class HalfChipImporter:
    """Reads the chip's JSON files."""

    name = "halfchip"
    reads = "halfchip: the chip's own .json"

    def recognizes(self, sniff: Sniff) -> bool:
        """Return whether a file begins as the chip's compiler writes it."""
        return sniff.head.startswith(BEGINNING)

    def read(self, path: Path, architecture: Path | None, options: dict[str, str]) -> LMUNetwork:
        """Read a network; the file says everything, so nothing else may be given."""
        if architecture is not None or options:
            raise InputError("a halfchip file says everything; leave other options out.")
        values = _parse(path)
        if wrong := sorted(set(values) ^ {"halfchip", *FIELDS}):
            raise InputError(f"{path} has wrong or missing fields: {', '.join(wrong)}.")
        try:
            encoders, kernel, readout = (
                np.array(values[name], dtype=np.float64)
                for name in ("input_encoders", "memory_kernel", "readout")
            )
            if encoders.ndim != 2:
                raise InputError(f"{path}: input_encoders is no table of numbers.")
            memory = Memory.legendre(values["order"], values["theta"], encoders.shape[1])
            hidden = Hidden(kernel, None, None, None, values["activation"])
            layer = LMULayer(encoders, None, None, None, memory, hidden)
            return LMUNetwork((layer,), Readout(readout, None))
        except (TypeError, ValueError) as error:
            raise InputError(f"{path} holds no numbers ({error}); write it again.") from error


def _parse(path: Path) -> dict[str, Any]:
    if path.stat().st_size > LARGEST_BYTES:
        raise InputError(f"{path} has more than {LARGEST_BYTES} bytes; no network of the chip has.")
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON ({error}); write it again.") from error
    if not isinstance(values, dict) or values.get("halfchip") != 1:
        raise InputError(f"{path} is no halfchip file of version 1; write it again.")
    return values
