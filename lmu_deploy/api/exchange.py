"""Exchange networks with other programs: import their files, and export files that they read."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import check_output, save
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.loading import AnyNetwork, as_network
from lmu_deploy.core.spiking.network import SpikingNetwork
from lmu_deploy.core.validation import check_choice, check_integer

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


FLOAT_FORMS = ("onnx", "onnx-step")
INTEGER_FORMS = ("onnx-int", "onnx-int-step", "onnx-qdq")
FORMS = (*FLOAT_FORMS, *INTEGER_FORMS, "c", "nir")


def export(
    network: AnyNetwork | Path | str,
    *,
    to: str,
    out: Path | str,
    dt: float | None = None,
    tau: float | None = None,
    integrator: str | None = None,
    sparse: bool = False,
    pack: bool = False,
) -> Path:
    """Export `network`.

    Parameters
    ----------
    network : Network, IntegerNetwork, SpikingNetwork or path
        Each form takes one of them; NIR takes a float or a spiking network.
    to : {"onnx", "onnx-step", "onnx-int", "onnx-int-step", "onnx-qdq", "c", "nir"}
        Of a float network the whole sequence as one ONNX graph, or one step with its states as
        inputs and outputs; of an integer network the same two in integer operators, or a
        graph of real numbers with Q/DQ pairs for int8 runtimes, or a folder of C99 without any
        dependency; or a NIR graph of the memories and what NIR has nodes for. What of a float
        network is not in that is logged as a warning.
    out : path
        File, or for C the folder.
    dt : float, optional
        Of a float network to NIR: seconds that a step lasts; 0.001 if absent.
    tau : float, optional
        Of a float network to NIR: time constant of the leaky integrators that hold the memory,
        seconds; 8 dt if absent.
    integrator : {"euler", "exponential"}, optional
        To NIR: how the simulator that reads the graph steps; euler, as Norse and snnTorch do, if
        absent.
    sparse : bool
        To C: store only the nonzero weights of connections where that takes less memory.
    pack : bool
        To C: store two weights in a byte, for connections whose weights have at most 4 bits.

    Returns
    -------
    path
        `out`.

    Raises
    ------
    InputError
        When the form is unknown, the file holds no network of that form, or an option is of no use
        for it.
    """
    check_choice("export form", to, FORMS)
    if to != "c":
        check_output(out, network)
        _check_suffix(Path(out), to)
    options = {"dt": dt, "tau": tau, "integrator": integrator}
    given = {name: value for name, value in options.items() if value is not None}
    if to == "nir":
        return _export_nir(network, Path(out), given)
    if given:
        raise InputError(
            f"{', '.join(given)} of an export is for nir alone, not {to}; leave it out."
        )
    for name, wished in (("sparse", sparse), ("pack", pack)):
        if wished and to != "c":
            raise InputError(f"{name} of an export is for c alone, not {to}; leave it out.")
    path = network if isinstance(network, str | Path) else None
    network = as_network(network)
    wanted = Network if to in FLOAT_FORMS else IntegerNetwork
    if not isinstance(network, wanted):
        raise InputError(
            f"export to {to} needs {_NEEDS[wanted]}, not {type(network).__name__}; {_REMEDIES[to]}."
        )
    if to == "c":
        assert isinstance(network, IntegerNetwork)
        return _export_c(network, Path(out), path, sparse, pack)
    from converters import onnx

    makers: dict[str, Callable[[Any], Any]] = {
        "onnx": onnx.to_onnx,
        "onnx-step": onnx.to_onnx_step,
        "onnx-int": onnx.to_onnx_integer,
        "onnx-int-step": onnx.to_onnx_integer_step,
        "onnx-qdq": onnx.to_onnx_qdq,
    }
    onnx.save_onnx(makers[to](network), out)
    return Path(out)


def _check_suffix(out: Path, to: str) -> None:
    """Raise InputError if a file is named as one of another format."""
    suffix = ".nir" if to == "nir" else ".onnx"
    if out.suffix in {".onnx", ".nir", ".safetensors"} - {suffix}:
        raise InputError(
            f"{out} is named as another kind of file than an export to {to}; name it "
            f"{out.with_suffix(suffix).name}."
        )


_NEEDS: dict[type, str] = {
    Network: "a float network",
    IntegerNetwork: "an integer network",
}
_REMEDIES = {
    "onnx": "give the float file, or export an integer network as onnx-int",
    "onnx-step": "give the float file, or export an integer network as onnx-int-step",
    **dict.fromkeys((*INTEGER_FORMS, "c"), "make one with lmu-deploy quantize"),
}


def _export_c(
    network: IntegerNetwork, out: Path, path: Path | str | None, sparse: bool, pack: bool
) -> Path:
    from converters.c.project import write_project

    name = Path(path).stem if path is not None else network.task or "network"
    source = write_project(network, out, name, sparse, pack)
    _LOG.info(
        f"{source.name}.c: {source.flash:,} bytes of constant arrays in flash, {source.ram:,} "
        "bytes of RAM."
    )
    return out


def vectors(
    network: IntegerNetwork | Path | str,
    out: Path | str,
    *,
    samples: int = 2,
    steps: int = 32,
    seed: int = 0,
) -> Path:
    """Write test vectors of an integer network: inputs, and every state of every frame.

    The file is JSON that any language reads: the network with the rule of every population and the
    weights of every edge, and what each computes for some sequences of random messages. Another
    implementation of docs/reference/integer-semantics.md can be checked with it.

    Parameters
    ----------
    network : IntegerNetwork or path
    out : path
    samples, steps : int
        Sequences, and the frames of each.
    seed : int
        Of the inputs.

    Returns
    -------
    path
        `out`.

    Raises
    ------
    InputError
        When the network is no integer network or runs partly on the host, or `out` cannot be
        written.
    """
    from converters.vectors import write_vectors

    found = as_network(network)
    if not isinstance(found, IntegerNetwork):
        raise InputError(
            f"vectors needs an integer network, not {type(found).__name__}; make one with "
            "lmu-deploy quantize."
        )
    samples = check_integer("samples", samples, 1, 1000)
    steps = check_integer("steps", steps, 1, 100_000)
    seed = check_integer("seed", seed, 0, 2**32 - 1)
    return write_vectors(found, out, samples=samples, steps=steps, seed=seed)


def _export_nir(network: AnyNetwork | Path | str, out: Path, options: dict[str, Any]) -> Path:
    from converters.nir import left_to_host, to_nir, write_nir

    loaded = as_network(network)
    if not isinstance(loaded, Network | SpikingNetwork):
        raise InputError(
            f"export to nir needs a float or a spiking network, not {type(loaded).__name__}; give "
            "the float file that it was made from."
        )
    write_nir(to_nir(loaded, **options), out)
    if isinstance(loaded, Network) and (parts := left_to_host(loaded)):
        _LOG.warning("not in the NIR graph, which ends before: %s", "; ".join(parts))
    return out
