"""The importer of PyTorch's state dictionaries, in its own files or in `.safetensors`."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from converters.bare_weights import Group, Options, network_of
from converters.contained import limits, read_contained
from converters.contained.parent import check_file
from converters.pytorch_lmu import layers
from converters.pytorch_lmu.foreign import is_foreign, make_foreign
from converters.sniff import Sniff
from lmu_deploy.errors import InputError
from lmu_deploy.files import HEADER
from lmu_deploy.network import Layer, LMUNetwork, Readout

OPTIONS = ("theta", "activation", "return_sequences", "discretiser", "order", "layers")


class PyTorchLMUImporter:
    """`.pt`, `.pth` and `.safetensors` files of a state dictionary."""

    name = "pytorch-lmu"
    reads = "pytorch-lmu: .pt / .pth / .safetensors with the state dictionary of a torch module"

    def recognises(self, sniff: Sniff) -> bool:
        """Whether the file is an archive of PyTorch, or has the names of our layers' weights."""
        if any(entry.endswith("/data.pkl") for entry in sniff.entries):
            return True
        return (
            _is_safetensors(sniff.head) and sniff.holds(b"input_encoders") and not _is_ours(sniff)
        )

    def read(self, path: Path, architecture: Path | None, options: dict[str, str]) -> LMUNetwork:
        """Read a network; see :func:`read_pytorch_lmu`."""
        if architecture is not None:
            raise InputError(f"{self.name} needs no architecture file; leave --architecture away.")
        return read_pytorch_lmu(path, options)


def read_pytorch_lmu(path: Path | str, options: dict[str, str] | None = None) -> LMUNetwork:
    """Read a network from the weights of a module that passes layers one after another.

    Such a file says nothing of what has no weights: activations between layers, or where the last
    step is taken. Where there is more to a module than layers, take its network with
    :func:`lmu_deploy.from_torch`, which reads the forward too.

    Parameters
    ----------
    path : path
        Read with `torch.load(weights_only=True)`, or as `.safetensors`.
    options : dict of str to str, optional
        theta (where the matrices were trained), activation (tanh if not given), return_sequences
        (true or false), discretiser and order (where theta was trained), each for all layers or
        for one, as NAME.theta; layers (names of the modules with commas between, where signals do
        not pass them in the order of the file).

    Raises
    ------
    InputError
        When the file is damaged or holds anything else; everything is named at once.
    """
    chosen = Options(options or {}, OPTIONS)

    def read(name: str, group: Group) -> list[Layer] | Readout:
        if layers.is_lmu(group):
            return [layers.make_lmu(name, group, chosen)]
        if is_foreign(group):
            return [make_foreign(group, chosen.number("theta", name), chosen.activation(name))]
        if layers.is_lstm(group):
            return layers.make_lstm(group)
        if layers.is_linear(group):
            return layers.make_linear(group)
        raise InputError(f"{', '.join(sorted(group))} cannot be represented")

    path = check_file(path)
    with path.open("rb") as file:
        in_safetensors = _is_safetensors(file.read(64))
    arrays = _read_safetensors(path) if in_safetensors else read_contained("pytorch", path).arrays
    groups = _in_order(_by_module(arrays), chosen, path, in_safetensors)
    return network_of(path, groups, read, chosen, "a state dictionary of PyTorch")


def _by_module(arrays: Group) -> dict[str, Group]:
    """Sort ``module.weight`` by module, in the order of the file; an LMU's memory belongs to it."""
    groups: dict[str, Group] = {}
    for key, array in arrays.items():
        module, _, role = key.rpartition(".")
        if role in ("a_bar", "b_bar", "log_theta") and module.rpartition(".")[2] == "memory":
            module, role = module.removesuffix("memory").removesuffix("."), f"memory.{role}"
        groups.setdefault(module, {})[role] = array
    return groups


def _in_order(
    groups: dict[str, Group], options: Options, path: Path, by_name: bool
) -> dict[str, Group]:
    """Put modules in the order in which signals pass them.

    It is that of the file, which is that of their making. `.safetensors` keeps no order: there it
    is that of their names, numbers as numbers, linear maps last.
    """
    if (text := options.text("layers")) is not None:
        names = [name.strip() for name in text.split(",")]
        if sorted(names) != sorted(groups):
            raise InputError(
                f"option layers names {', '.join(names)}, and {path} has weights of "
                f"{', '.join(sorted(groups))}; name each of them once."
            )
        return {name: groups[name] for name in names}
    if not by_name:
        return groups
    order = sorted(groups, key=lambda name: (layers.is_linear(groups[name]), _natural(name)))
    return {name: groups[name] for name in order}


def _natural(name: str) -> list[tuple[int, str]]:
    """Give what sorts layer2 before layer10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _read_safetensors(path: Path) -> Group:
    try:
        with safe_open(path, framework="numpy") as file:
            if HEADER in (file.metadata() or {}):
                raise InputError(f"{path} is a file of lmu-deploy already; it needs no import.")
            names = list(file.keys())
            if len(names) > limits.OBJECTS or path.stat().st_size > limits.ARRAY_BYTES:
                raise InputError(f"{path} holds more than {limits.ARRAY_BYTES} bytes of weights.")
            arrays = {name: np.asarray(file.get_tensor(name)) for name in names}
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path} is no readable .safetensors file of real numbers ({type(error).__name__}); "
            "save it again."
        ) from error
    return {name: _real(path, name, array) for name, array in arrays.items()}


def _real(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "fiub":
        raise InputError(f"{path}: weight {name!r} has type {array.dtype}; save real numbers.")
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _is_safetensors(head: bytes) -> bool:
    """Whether a file begins with the length of a JSON header and the header."""
    return head[8:10] in (b'{"', b"{ ")


def _is_ours(sniff: Sniff) -> bool:
    return sniff.holds(f'"{HEADER}"'.encode())
