"""Import networks from files of other programs."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import check_output, save
from lmu_deploy.core.graph.network import Network

_LOG = logging.getLogger(__name__)


def import_network(
    file: Path | str,
    *,
    out: Path | str | None = None,
    format: str | None = None,  # noqa: A002 (the option's own name)
    architecture: Path | str | None = None,
    options: Mapping[str, str] | None = None,
    output: str | None = None,
    task: str | None = None,
) -> Network:
    """Read a network from a file of Keras, the paper's package, a PyTorch LMU or our ONNX.

    Parameters
    ----------
    file : path
    out : path, optional
        The `.safetensors` file to write.
    format : str, optional
        keras-lmu, paper-lmu, pytorch-lmu, onnx or a plug-in's; recognized from the file when
        absent.
    architecture : path, optional
        For a weights-only file of Keras: what ``model.to_json()`` wrote.
    options : mapping of str to str, optional
        For bare weights, what they do not say, such as ``{"theta": "784"}``.
    output : str, optional
        Name of one of several outputs, or of any node; what it does not need is left out.
    task : str, optional
        Task to record in the network, which later commands use by default.

    Returns
    -------
    network : Network
        Its `provenance` has what the file does not say and was therefore assumed (``assumed``), and
        what of the file is not in the network (``left out``). Both are logged too, as is the form
        of inputs and outputs where it is not that of the file.

    Raises
    ------
    InputError
        When the file is damaged, or holds what cannot be represented: all of it is named.
    """
    from converters.importers import ANNOUNCED, import_file

    check_output(out, file)
    network = import_file(
        file, format, architecture=architecture, options=options, output=output, task=task
    )
    for key in ANNOUNCED:
        if key in network.provenance:
            _LOG.info("%s: %s", key, network.provenance[key])
    if out is not None:
        save(network, out)
    return network


def from_keras(
    model: Any,
    *,
    out: Path | str | None = None,
    architecture: Path | str | None = None,
    options: Mapping[str, str] | None = None,
    output: str | None = None,
    task: str | None = None,
) -> Network:
    """Convert a model of Keras, or read one from its file; see :func:`import_network`.

    Parameters
    ----------
    model : keras.Model or path
        A model, which its own `save` writes to a temporary file; or a ``.keras`` or ``.h5`` file,
        or one of bare weights.
    out, architecture, options, output, task
        As for :func:`import_network`.

    Raises
    ------
    InputError
        When the file is damaged, or holds what cannot be represented: all of it is named.
    """
    settings: dict[str, Any] = {"architecture": architecture, "options": options}
    settings |= {"out": out, "output": output, "task": task, "format": "keras-lmu"}
    if isinstance(model, Path | str):
        return import_network(model, **settings)
    if not callable(getattr(model, "save", None)):
        raise InputError(f"a {type(model).__name__} is no model of Keras; give one, or its file.")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.keras"
        try:
            model.save(file)
        except (ValueError, NotImplementedError):  # Keras before 2.12 has no such format
            file = file.with_suffix(".h5")
            model.save(file)
        return import_network(file, **settings)


def parse_options(texts: Sequence[str]) -> dict[str, str]:
    """Read options written as NAME=VALUE.

    Raises
    ------
    InputError
        When one has no equals sign, or a name comes twice.
    """
    options: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InputError(f"option {text!r} has no value; write it as NAME=VALUE.")
        if name in options:
            raise InputError(f"option {name!r} is given twice; give it once.")
        options[name] = value
    return options
