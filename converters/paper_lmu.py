r"""Weights that the paper's own `lmu` package saved (HDF5) as an LMUNetwork.

The file holds, for each layer, input_encoders (inputs, 1), hidden_encoders (units, 1),
memory_encoders (order, 1), input_kernel, hidden_kernel, memory_kernel, perhaps a bias,
:math:`AT = (\bar A - I)^T` and :math:`BT = \bar B^T`, and then kernel and bias of a dense layer.
One step is ``u = x e_x + h e_h + m e_m``, then ``m += m AT + u BT``, then
``h = tanh(x W_x + h W_h + m W_m)`` with the new m (Voelker, Kajic, Eliasmith 2019, equations 5 to
7).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from converters.bare_weights import Group, Options, network_of
from converters.contained import Contents, read_contained
from converters.recognise_memory import recognise_memory
from converters.sniff import HDF5_SIGNATURE, Sniff
from lmu_deploy.checks import check_array
from lmu_deploy.errors import InputError
from lmu_deploy.network import Hidden, Layer, LMULayer, LMUNetwork, Readout

ROLES = (
    "input_encoders",
    "hidden_encoders",
    "memory_encoders",
    "input_kernel",
    "hidden_kernel",
    "memory_kernel",
    "AT",
    "BT",
)


class PaperLMUImporter:
    """Weights-only `.h5` / `.hdf5` files of the paper's package."""

    name = "paper-lmu"
    reads = "paper-lmu: weights-only .h5 / .hdf5 of the paper's lmu package"

    def recognises(self, sniff: Sniff) -> bool:
        """Whether an HDF5 file names the paper's weights."""
        if not sniff.head.startswith(HDF5_SIGNATURE) or sniff.is_nir:
            return False
        return sniff.holds(b"memory_encoders")

    def read(self, path: Path, architecture: Path | None, options: dict[str, str]) -> LMUNetwork:
        """Read a network; `theta` is told from the matrices, `activation` is tanh if not given."""
        if architecture is not None:
            raise InputError(f"{self.name} needs no architecture file; leave --architecture away.")
        return read_paper_lmu(path, options)


def read_paper_lmu(path: Path | str, options: dict[str, str] | None = None) -> LMUNetwork:
    """Read a network.

    Parameters
    ----------
    path : path
    options : dict of str to str, optional
        theta (of every layer, where the matrices were trained), activation (tanh if not given),
        return_sequences (true or false).

    Raises
    ------
    InputError
        When the file is damaged or holds anything else; everything is named at once.
    """
    chosen = Options(options or {})

    def read(name: str, group: Group) -> list[Layer] | Readout:
        if "AT" in group:
            return [_make_layer(group, chosen.number("theta", name), chosen.activation(name))]
        if "kernel" in group and set(group) <= {"kernel", "bias"}:
            return Readout(group["kernel"], group.get("bias"))
        raise InputError(f"{', '.join(sorted(group))} cannot be represented")

    return network_of(
        path, _groups(read_contained("hdf5", path)), read, chosen, "the paper's lmu package"
    )


def _groups(contents: Contents) -> dict[str, Group]:
    """Sort arrays by the layer they belong to, in the order of the layers."""
    names = contents.header["attributes"].get("", {}).get("layer_names")
    order = names if isinstance(names, list) else []
    groups: dict[str, Group] = {}
    for path, array in contents.arrays.items():
        layer = path.partition("/")[0]
        groups.setdefault(layer, {})[path.rpartition("/")[2].partition(":")[0]] = array
    place = {name: number for number, name in enumerate(order)}
    return dict(sorted(groups.items(), key=lambda item: place.get(item[0], len(order))))


def _make_layer(group: Group, theta: float | None, activation: str) -> LMULayer:
    if missing := [role for role in ROLES if role not in group]:
        raise InputError(f"{', '.join(missing)} missing")
    if surplus := sorted(set(group) - {*ROLES, "bias"}):
        raise InputError(f"{', '.join(surplus)} cannot be represented")
    at = check_array("AT", group["AT"], (None, None))
    order = len(at)
    at = check_array("AT", at, (order, order))
    bt = check_array("BT", group["BT"], (1, order))
    bias = group.get("bias")
    a_bar = at.T.astype(np.float64) + np.eye(order)
    return LMULayer(
        input_encoders=check_array("input_encoders", group["input_encoders"], (None, 1)),
        hidden_encoders=group["hidden_encoders"],
        memory_encoders=group["memory_encoders"],
        memory_bias=None,
        memory=recognise_memory(a_bar, bt[0].astype(np.float64), theta),
        hidden=Hidden(
            memory_kernel=group["memory_kernel"],
            input_kernel=group["input_kernel"],
            recurrent_kernel=group["hidden_kernel"],
            bias=None if bias is None else bias.reshape(-1),
            activation=activation,
        ),
    )
