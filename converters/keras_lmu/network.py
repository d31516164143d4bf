"""Import networks of Keras: the registered importer, and :func:`read_keras`.

In: a path, and the architecture where the file has none. Out: the network, in the precision of the
file; or one error that lists everything that cannot be represented.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from converters.importers import HDF5_SIGNATURE, Sniff
from converters.keras_lmu.architecture import architecture_from_options
from converters.keras_lmu.assembly import assemble
from converters.keras_lmu.file import CONFIG, WEIGHTS, KerasFile, open_keras, parse_json
from converters.sandbox.process import check_file
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.network import Network

SETTINGS = ("matrices", "output", "activation", "theta")
"""Options that say nothing of the architecture."""


class KerasLMUImporter:
    """`.keras`, whole-model `.h5`, and weights-only `.h5` files of Keras 2 and 3."""

    name = "keras-lmu"
    selects_output = True
    reads = "keras-lmu: .keras, .h5 / .hdf5 (whole models, or weights with --architecture)"

    def recognizes(self, sniff: Sniff) -> bool:
        """Return whether the file is an HDF5 file of Keras, or an archive with its entries."""
        if sniff.head.startswith(HDF5_SIGNATURE):
            whole = sniff.holds(b"model_config")
            return (whole or not sniff.holds(b"memory_encoders")) and not sniff.is_nir
        return CONFIG in sniff.entries or WEIGHTS in sniff.entries

    def read(self, path: Path, architecture: Path | None, options: dict[str, str]) -> Network:
        """Read a network; the architecture is needed for weights-only files only.

        Option `matrices` selects the memory's matrices: exact (the default), keras, keras:KIB, or
        a file of those that Keras computed; see :mod:`.matrices`. `output` names one of several
        outputs; `activation` and `theta` are those of the paper's cell, if the file lacks them.
        """
        settings = {name: options[name] for name in SETTINGS if name in options}
        rest = {name: options[name] for name in options if name not in SETTINGS}
        whole = open_keras(check_file(path))
        if whole.config is None and architecture is None and rest:
            rest |= {n: settings.pop(n) for n in ("activation", "theta") if n in settings}
        elif rest:
            raise InputError(
                f"option {min(rest)!r} is of an architecture, which the file or the architecture "
                f"file has; leave it out, or choose from {', '.join(SETTINGS)}."
            )
        described = architecture_from_options(rest) if rest else architecture
        return _read(path, whole, described, settings)


def read_keras(
    path: Path | str,
    architecture: Mapping[str, Any] | Path | str | None = None,
    matrices: Path | str = "exact",
    output: str | None = None,
) -> Network:
    """Read a network that Keras trained.

    Parameters
    ----------
    path : path
        `.keras`, whole-model `.h5` / `.hdf5`, or weights-only `.h5` / `.hdf5`, of Keras 2 or 3.
    architecture : dict or path, optional
        Output of ``model.to_json()``, parsed or as a file; needed for weights-only files, and not
        allowed for others.
    matrices : str or path
        The memory's matrices, which no file stores: "exact" (those of the equations), "keras" (as
        keras-lmu computes them on this machine's processor), "keras:KIB", or an `.npz` of those
        that Keras computed; see :class:`.matrices.MemoryMatrices`.
    output : str, optional
        Name of one of several outputs, or of any layer; what it does not need is left out.

    Returns
    -------
    network : Network

    Raises
    ------
    InputError
        When the file is damaged, or something cannot be represented; all problems are listed.
    """
    settings = {"matrices": str(matrices)} | ({} if output is None else {"output": output})
    path = check_file(path)
    return _read(path, open_keras(path), architecture, settings)


def _read(
    path: Path,
    file: KerasFile,
    architecture: Mapping[str, Any] | Path | str | None,
    settings: Mapping[str, str],
) -> Network:
    config: Mapping[str, Any] | None = file.config
    version = file.version
    if config is None and architecture is None:
        raise InputError(
            f"{path} has only weights; give the architecture with --architecture FILE "
            "(what model.to_json() writes) or with --option order=..., theta=..., units=...."
        )
    if config is not None and architecture is not None:
        raise InputError(f"{path} has its own architecture; leave out --architecture.")
    if isinstance(architecture, Mapping):
        config = architecture
    elif architecture is not None:
        config = parse_json(check_file(architecture).read_bytes(), str(architecture))
    assert config is not None
    version = version or str(config.get("keras_version", ""))
    try:
        return assemble(replace(file, config=dict(config), version=version), settings)
    except InputError as error:
        text = str(error)
        raise InputError(text if text.startswith(str(path)) else f"{path}: {text}") from error
    except RecursionError as error:
        raise InputError(
            f"{path}: its configuration is nested too deeply; it is damaged."
        ) from error
