r"""The importer of weights that the paper's own `lmu` package saved in HDF5 files.

For each layer, the file contains input_encoders (inputs, 1), hidden_encoders (units, 1),
memory_encoders (order, 1), input_kernel, hidden_kernel, memory_kernel, optionally a bias,
:math:`AT = (\bar A - I)^T` and :math:`BT = \bar B^T`, followed by the kernel and bias of a dense
layer. :mod:`converters.weight_files` has the equations.
"""

from __future__ import annotations

from pathlib import Path

from converters.importers import HDF5_SIGNATURE, Sniff
from converters.sandbox import FileContents, read_in_sandbox
from converters.weight_files import PAPER_NAMES, Group, Options, network_of, one_channel_layer
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.network import Layer, LMULayer, LMUNetwork, Readout


class PaperLMUImporter:
    """Weights-only `.h5` / `.hdf5` files of the paper's package."""

    name = "paper-lmu"
    reads = "paper-lmu: weights-only .h5 / .hdf5 of the paper's lmu package"

    def recognizes(self, sniff: Sniff) -> bool:
        """Return whether an HDF5 file has the weight names of the paper's package."""
        if not sniff.head.startswith(HDF5_SIGNATURE) or sniff.is_nir:
            return False
        return sniff.holds(b"memory_encoders") and not sniff.holds(b"model_config")

    def read(self, path: Path, architecture: Path | None, options: dict[str, str]) -> LMUNetwork:
        """Read a network; see :func:`read_paper_lmu` for the options."""
        if architecture is not None:
            raise InputError(f"{self.name} needs no architecture file; leave out --architecture.")
        return read_paper_lmu(path, options)


def read_paper_lmu(path: Path | str, options: dict[str, str] | None = None) -> LMUNetwork:
    """Read a network from a file of the paper's package.

    Parameters
    ----------
    path : path
    options : dict of str to str, optional
        theta (of every layer; needed where the matrices were trained, otherwise inferred from
        them), activation (tanh by default), return_sequences (true or false).

    Raises
    ------
    InputError
        When the file is damaged or has other contents; all problems are listed.
    """
    chosen = Options(options or {})

    def read(name: str, group: Group) -> list[Layer] | Readout:
        if "AT" in group:
            return [_make_layer(group, chosen.number("theta", name), chosen.activation(name))]
        if "kernel" in group and set(group) <= {"kernel", "bias"}:
            return Readout(group["kernel"], group.get("bias"))
        raise InputError(f"{', '.join(sorted(group))} cannot be represented")

    return network_of(
        path, _groups(read_in_sandbox("hdf5", path)), read, chosen, "the paper's lmu package"
    )


def _groups(contents: FileContents) -> dict[str, Group]:
    """Group arrays by the layer to which they belong, in the order of the layers."""
    names = contents.header["attributes"].get("", {}).get("layer_names")
    order = names if isinstance(names, list) else []
    groups: dict[str, Group] = {}
    for path, array in contents.arrays.items():
        layer = path.partition("/")[0]
        groups.setdefault(layer, {})[path.rpartition("/")[2].partition(":")[0]] = array
    place = {name: number for number, name in enumerate(order)}
    return dict(sorted(groups.items(), key=lambda item: place.get(item[0], len(order))))


def _make_layer(group: Group, theta: float | None, activation: str) -> LMULayer:
    if missing := [name for name in PAPER_NAMES if name not in group]:
        raise InputError(f"{', '.join(missing)} missing")
    if surplus := sorted(set(group) - {*PAPER_NAMES, "bias"}):
        raise InputError(f"{', '.join(surplus)} cannot be represented")
    weights = [(name, group[name]) for name in PAPER_NAMES]
    return one_channel_layer(weights, group.get("bias"), theta, activation, incremental=True)
