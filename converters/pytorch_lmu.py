"""State dictionaries of the LMU layers that people wrote in PyTorch, as an LMUNetwork.

Two ways of naming are known, both with one memory channel and row-major (outputs, inputs) weights:

- e_x, e_h, e_m, W_x, W_h, W_m, A, B (pytorch-lmu), A and B discrete;
- input_encoders, hidden_encoders, memory_encoders, input_kernel, hidden_kernel, memory_kernel, AT,
  BT (ports of the paper's package), where AT holds A - I as it is, in spite of its name.

Layers follow one another in the order of the file; one linear layer (weight, bias) reads the last.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from converters.contained import read_contained
from converters.paper_lmu import OPTIONS, check_options
from converters.recognise_memory import recognise_memory
from converters.sniff import Sniff
from lmu_deploy.checks import check_array
from lmu_deploy.errors import InputError
from lmu_deploy.network import Hidden, LMULayer, LMUNetwork, Readout

SHORT = ("e_x", "e_h", "e_m", "W_x", "W_h", "W_m", "A", "B")
LONG = (
    "input_encoders",
    "hidden_encoders",
    "memory_encoders",
    "input_kernel",
    "hidden_kernel",
    "memory_kernel",
    "AT",
    "BT",
)
Group = dict[str, np.ndarray]


class PyTorchLMUImporter:
    """`.pt` / `.pth` files of a state dictionary."""

    name = "pytorch-lmu"
    reads = "pytorch-lmu: .pt / .pth with the state dictionary of an LMU layer and a linear one"

    def recognises(self, sniff: Sniff) -> bool:
        """Whether the file is an archive of PyTorch."""
        return any(entry.endswith("/data.pkl") for entry in sniff.entries)

    def read(self, path: Path, architecture: Path | None, options: dict[str, str]) -> LMUNetwork:
        """Read a network; `theta` is told from the matrices, `activation` is tanh if not given."""
        if architecture is not None:
            raise InputError(f"{self.name} needs no architecture file; leave --architecture away.")
        return read_pytorch_lmu(path, options)


def read_pytorch_lmu(path: Path | str, options: dict[str, str] | None = None) -> LMUNetwork:
    """Read a network with `torch.load(weights_only=True)`.

    Parameters
    ----------
    path : path
    options : dict of str to str, optional
        theta (of every layer, where A was trained), activation (tanh if not given),
        return_sequences (true or false).

    Raises
    ------
    InputError
        When the file is damaged or holds anything else; everything is named at once.
    """
    theta, activation, sequences = check_options(options or {}, OPTIONS)
    groups = _groups(read_contained("pytorch", path).arrays)
    layers: list[LMULayer] = []
    readout: Readout | None = None
    problems: list[str] = []
    for name, group in groups.items():
        try:
            if set(SHORT) <= set(group) or set(LONG) <= set(group):
                layers.append(_make_layer(group, theta, activation))
            elif readout is None and "weight" in group and set(group) <= {"weight", "bias"}:
                weight = check_array("weight", group["weight"], (None, None))
                readout = Readout(np.ascontiguousarray(weight.T), group.get("bias"))
            else:
                raise InputError(f"{', '.join(sorted(group))} cannot be represented")
        except InputError as error:
            problems.append(f"module {name!r}: {str(error).rstrip('.')}")
    if not problems and (not layers or readout is None):
        problems.append("it holds no LMU layer" if not layers else "it holds no linear layer")
    if problems or readout is None:
        raise InputError(f"{path} cannot be imported: {'; '.join(problems[:20])}.")
    try:
        return LMUNetwork(
            tuple(layers), readout, sequences, provenance={"imported from": "a PyTorch LMU"}
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _groups(arrays: Group) -> dict[str, Group]:
    """Sort ``module.weight`` by module, in the order of the file."""
    groups: dict[str, Group] = {}
    for key, array in arrays.items():
        module, _, role = key.rpartition(".")
        groups.setdefault(module, {})[role] = array
    return groups


def _make_layer(group: Group, theta: float | None, activation: str) -> LMULayer:
    names = SHORT if "A" in group else LONG
    if surplus := sorted(set(group) - set(names)):
        raise InputError(f"{', '.join(surplus)} cannot be represented")
    e_x, e_h, e_m, w_x, w_h, w_m, a, b = (
        np.ascontiguousarray(check_array(name, group[name], (None, None)).T) for name in names
    )
    order = len(a)
    a_bar = check_array(names[6], a, (order, order)).T.astype(np.float64)
    if names is LONG:
        a_bar = a_bar + np.eye(order)
    b_bar = check_array(names[7], b, (1, order))[0].astype(np.float64)
    return LMULayer(
        input_encoders=check_array(names[0], e_x, (None, 1)),
        hidden_encoders=e_h,
        memory_encoders=e_m,
        memory_bias=None,
        memory=recognise_memory(a_bar, b_bar, theta),
        hidden=Hidden(w_m, w_x, w_h, None, activation),
    )
