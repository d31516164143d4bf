"""The importer of PyTorch state dictionaries, in `.pt`, `.pth` and `.safetensors` files.

Layers of `lmu_deploy.nn` and of torch are built from their weights alone. Shapes determine units,
order and channels, and which parts a layer has; the matrices of the memory determine theta and the
discretizer. The rest is given by options: the activation (tanh by default), theta where the
matrices were trained, and where theta itself was trained the discretizer (zoh by default) and,
without hidden units, the order.

LMU layers of other people's PyTorch code are recognized by the names of their weights. Two sets of
names are known, both with one memory channel and row-major (outputs, inputs) weights:

- e_x, e_h, e_m, W_x, W_h, W_m, A, B (pytorch-lmu), A and B discrete;
- input_encoders, hidden_encoders, memory_encoders, input_kernel, hidden_kernel, memory_kernel, AT,
  BT (ports of the paper's package), where AT is A - I, in spite of its name not transposed.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from converters.importers import MOST_ORDER, Sniff
from converters.sandbox import process, read_in_sandbox
from converters.sandbox.process import check_file
from converters.weight_files import (
    PAPER_NAMES,
    Group,
    Options,
    network_of,
    one_channel_layer,
    recognize_memory,
)
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import HEADER
from lmu_deploy.core.graph.network import INPUT, Network
from lmu_deploy.core.legendre import DISCRETIZERS
from lmu_deploy.core.network import Hidden, Layer, LMULayer, LSTMLayer, Memory, Readout
from lmu_deploy.core.validation import check_array, check_choice, check_integer, check_number

OPTIONS = ("theta", "activation", "return_sequences", "discretizer", "order", "layers", "ignore")
A_BAR, B_BAR, LOG_THETA = "memory.a_bar", "memory.b_bar", "memory.log_theta"
LMU_WEIGHTS = (
    "input_encoders",
    "hidden_encoders",
    "memory_encoders",
    "memory_bias",
    "memory_kernel",
    "input_kernel",
    "recurrent_kernel",
    "bias",
)
_GATES = {1: "RNN", 3: "GRU"}
_LONGEST_LOGARITHM = 27.0
SHORT = ("e_x", "e_h", "e_m", "W_x", "W_h", "W_m", "A", "B")
"""Names of the weights in pytorch-lmu, in the order of PAPER_NAMES."""


class PyTorchLMUImporter:
    """`.pt`, `.pth` and `.safetensors` files of a state dictionary."""

    name = "pytorch-lmu"
    reads = "pytorch-lmu: .pt / .pth / .safetensors with the state dictionary of a torch module"

    def recognizes(self, sniff: Sniff) -> bool:
        """Return whether the file is a PyTorch archive, or has the weight names of our layers."""
        if any(entry.endswith("/data.pkl") for entry in sniff.entries):
            return True
        return (
            _is_safetensors(sniff.head) and sniff.holds(b"input_encoders") and not _is_ours(sniff)
        )

    def read(self, path: Path, architecture: Path | None, options: dict[str, str]) -> Network:
        """Read a network; see :func:`read_pytorch_lmu`."""
        if architecture is not None:
            raise InputError(f"{self.name} needs no architecture file; leave out --architecture.")
        return read_pytorch_lmu(path, options)


def read_pytorch_lmu(path: Path | str, options: dict[str, str] | None = None) -> Network:
    """Read a network from the weights of a module that is a chain of layers.

    Such a file does not describe operations without weights: activations between layers, or where
    the last step is taken. Convert a module that has such operations with
    :func:`lmu_deploy.from_torch`, which also traces the forward.

    Parameters
    ----------
    path : path
        Read with `torch.load(weights_only=True)`, or as `.safetensors`.
    options : dict of str to str, optional
        theta (where the matrices were trained), activation (tanh by default), return_sequences
        (true or false), discretizer and order (where theta was trained), each for all layers or
        for one, as NAME.theta; layers (names of the modules, separated by commas, where signals do
        not pass through them in the order of the file); ignore (names of modules or weights,
        separated by commas, that are no part of the network, such as losses and averages).

    Raises
    ------
    InputError
        When the file is damaged or has other contents; all problems are listed.
    """
    chosen = Options(options or {}, OPTIONS)
    names: list[str] = []

    def read(name: str, group: Group) -> list[Layer] | Readout:
        names.append(name or "layer")
        if is_lmu(group):
            return [make_lmu(name, group, chosen)]
        if is_foreign(group):
            return [make_foreign(group, chosen.number("theta", name), chosen.activation(name))]
        if is_lstm(group):
            layers = make_lstm(group)
            if len(layers) > 1:
                names[-1:] = [f"{name or 'layer'}.l{number}" for number in range(len(layers))]
            return layers
        if is_linear(group):
            return make_linear(group)
        raise InputError(f"{', '.join(sorted(group))} cannot be represented")

    path = check_file(path)
    with path.open("rb") as file:
        in_safetensors = _is_safetensors(file.read(64))
    arrays, unreal = _read_safetensors(path) if in_safetensors else _read_archive(path)
    arrays, ignored = _without_ignored(arrays, unreal, chosen, path)
    groups = _in_order(_by_module(arrays), chosen, path, in_safetensors)
    network = network_of(path, groups, read, chosen, "a state dictionary of PyTorch")
    if ignored:
        left_out = f"{', '.join(ignored)} (option ignore)"
        network = replace(network, provenance={**network.provenance, "left out": left_out})
    own = tuple(f"{name}_" if name == INPUT else name for name in names)
    return Network.from_layers(replace(network, names=own))


def _read_archive(path: Path) -> tuple[Group, dict[str, str]]:
    contents = read_in_sandbox("pytorch", path)
    return contents.arrays, contents.header.get("complex", {})


def _without_ignored(
    arrays: Group, unreal: dict[str, str], options: Options, path: Path
) -> tuple[Group, list[str]]:
    """Return the weights of the network, and the names of what the user leaves out.

    Parameters
    ----------
    arrays : Group
    unreal : dict of str to str
        Types of complex weights.
    options : Options
    path : Path

    Raises
    ------
    InputError
        When a name is that of no weight, or a complex weight stays.
    """
    names = [name.strip() for name in (options.text("ignore") or "").split(",") if name.strip()]

    def belongs(key: str, name: str) -> bool:
        return key == name or key.startswith(f"{name}.")

    keys = [*arrays, *unreal]
    if idle := [name for name in names if not any(belongs(key, name) for key in keys)]:
        raise InputError(
            f"option ignore names {idle[0]}, and {path} has no weight of that name or module; it "
            f"has {', '.join(keys[:20])}."
        )
    kept = [key for key in keys if not any(belongs(key, name) for name in names)]
    if left := [key for key in kept if key in unreal]:
        raise InputError(
            f"{path}: weight {left[0]!r} has type {unreal[left[0]]}, as buffers have that are "
            "computed from other weights (the transformed impulse response of LMUFFT, say); leave "
            f"it out with --option ignore={left[0]}, or convert the module with from_torch, which "
            "also reads its forward (LMUFFT has a ReLU before the memory)."
        )
    return {key: arrays[key] for key in kept}, names


def _by_module(arrays: Group) -> dict[str, Group]:
    """Group ``module.weight`` by module, in the order of the file; an LMU includes its memory."""
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
    """Order modules as signals pass through them.

    By default this is the order of the file, in which the modules were created. `.safetensors`
    stores no order; there modules are sorted by name, numbers as numbers, linear maps last.
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
    order = sorted(groups, key=lambda name: (is_linear(groups[name]), _natural(name)))
    return {name: groups[name] for name in order}


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts layer2 before layer10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _read_safetensors(path: Path) -> tuple[Group, dict[str, str]]:
    try:
        with safe_open(path, framework="numpy") as file:
            if HEADER in (file.metadata() or {}):
                raise InputError(f"{path} is already a file of lmu-deploy; it needs no import.")
            names = list(file.keys())
            if len(names) > process.OBJECTS or path.stat().st_size > process.ARRAY_BYTES:
                raise InputError(f"{path} has more than {process.ARRAY_BYTES} bytes of weights.")
            arrays = {name: np.asarray(file.get_tensor(name)) for name in names}
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path} is not a readable .safetensors file of real numbers ({type(error).__name__}); "
            "save it again."
        ) from error
    unreal = {name: str(a.dtype) for name, a in arrays.items() if a.dtype.kind == "c"}
    real = {name: _real(path, name, a) for name, a in arrays.items() if name not in unreal}
    return real, unreal


def _real(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "fiub":
        raise InputError(f"{path}: weight {name!r} has type {array.dtype}; save real numbers.")
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _is_safetensors(head: bytes) -> bool:
    """Return whether a file begins with the length of a JSON header and the header."""
    return head[8:10] in (b'{"', b"{ ")


def _is_ours(sniff: Sniff) -> bool:
    return sniff.holds(f'"{HEADER}"'.encode())


def is_lmu(group: Group) -> bool:
    """Return whether a module is an LMU of `lmu_deploy.nn`."""
    return A_BAR in group or LOG_THETA in group


def is_lstm(group: Group) -> bool:
    """Return whether a module is one of torch's recurrent layers."""
    return "weight_ih_l0" in group


def is_linear(group: Group) -> bool:
    """Return whether a module is a linear map."""
    return "weight" in group and set(group) <= {"weight", "bias"} and group["weight"].ndim == 2


def make_linear(group: Group) -> Readout:
    """Build a linear map; torch stores the transposed weight."""
    weight = check_array("weight", group["weight"], (None, None))
    return Readout(_transpose(weight), group.get("bias"))


def make_lstm(group: Group) -> list[Layer]:
    """Build the layers of a torch LSTM; its two biases are added.

    Raises
    ------
    InputError
        When it is a GRU or an RNN, bidirectional, or projects its outputs.
    """
    for pattern, what in ((r"_reverse$", "is bidirectional"), (r"^weight_hr_", "projects outputs")):
        if any(re.search(pattern, role) for role in group):
            raise InputError(f"it {what}, which cannot be represented")
    layers: list[Layer] = []
    while f"weight_ih_l{len(layers)}" in group:
        level = f"l{len(layers)}"
        recurrent = check_array("weight_hh", group.get(f"weight_hh_{level}"), (None, None))
        rows, units = recurrent.shape
        if rows != 4 * units:
            kind = _GATES.get(rows // units, "layer of another kind")
            raise InputError(f"it is a {kind}, not an LSTM")
        kernel = check_array("weight_ih", group[f"weight_ih_{level}"], (rows, None))
        biases = [group[role] for b in ("ih", "hh") if (role := f"bias_{b}_{level}") in group]
        checked = [check_array("bias", bias, (rows,)) for bias in biases]
        bias = sum(checked[1:], checked[0]) if checked else np.zeros(rows, kernel.dtype)
        layers.append(LSTMLayer(_transpose(kernel), _transpose(recurrent), bias))
    return layers


def make_lmu(name: str, group: Group, options: Options) -> LMULayer:
    """Build the LMU called `name`.

    Raises
    ------
    InputError
        When a weight has the wrong shape or is unknown, or an option is needed.
    """
    if surplus := sorted(set(group) - {*LMU_WEIGHTS, A_BAR, B_BAR, LOG_THETA}):
        raise InputError(f"{', '.join(surplus)} cannot be represented")
    if "input_encoders" not in group:
        raise InputError("input_encoders are missing")
    encoders = check_array("input_encoders", group["input_encoders"], (None, None))
    channels = encoders.shape[1]
    hidden = None
    if (kernel := group.get("memory_kernel")) is not None:
        hidden = Hidden(
            memory_kernel=kernel,
            input_kernel=group.get("input_kernel"),
            recurrent_kernel=group.get("recurrent_kernel"),
            bias=group.get("bias"),
            activation=options.activation(name),
        )
    elif without := sorted({"input_kernel", "recurrent_kernel", "bias"} & set(group)):
        raise InputError(f"it has {', '.join(without)} but no memory_kernel")
    return LMULayer(
        input_encoders=encoders,
        hidden_encoders=group.get("hidden_encoders"),
        memory_encoders=group.get("memory_encoders"),
        memory_bias=group.get("memory_bias"),
        memory=_make_memory(name, group, options, channels),
        hidden=hidden,
    )


def _make_memory(name: str, group: Group, options: Options, channels: int) -> Memory:
    if LOG_THETA not in group:
        a_bar = check_array("a_bar", group[A_BAR], (None, None))
        b_bar = check_array("b_bar", group.get(B_BAR), (len(a_bar),))
        known = recognize_memory(a_bar, b_bar, options.number("theta", name))
        return replace(known, channels=channels)
    logarithm = float(check_array("log_theta", group[LOG_THETA], ()))
    theta = float(np.exp(check_number("log_theta", logarithm, 0.0, _LONGEST_LOGARITHM)))
    method = options.text("discretizer", name) or "zoh"
    check_choice("option discretizer", method, DISCRETIZERS)
    memory = Memory.legendre(_order(name, group, options, channels), theta, channels, method)
    dtype = group[LOG_THETA].dtype
    return replace(memory, a_bar=memory.a_bar.astype(dtype), b_bar=memory.b_bar.astype(dtype))


def _order(name: str, group: Group, options: Options, channels: int) -> int:
    """Infer the order from the shape of another weight, or take the option."""
    for role in ("memory_kernel", "memory_encoders"):
        if role in group:
            states = len(check_array(role, group[role], (None, None)))
            return check_integer("order", states // channels, 1, MOST_ORDER)
    if (given := options.number("order", name)) is None:
        raise InputError(
            f"the order cannot be inferred from the weights; pass --option {name}.order=..."
        )
    return check_integer("option order", int(given), 1, MOST_ORDER)


def _transpose(weight: np.ndarray) -> np.ndarray:
    """Transpose a weight (outputs, inputs) to (inputs, outputs)."""
    return np.ascontiguousarray(weight.T)


def is_foreign(group: Group) -> bool:
    """Return whether a module has all weights of an LMU layer of other people's code."""
    return set(SHORT) <= set(group) or set(PAPER_NAMES) <= set(group)


def make_foreign(group: Group, theta: float | None, activation: str) -> LMULayer:
    """Build an LMU layer of other people's code.

    Raises
    ------
    InputError
        When a weight has the wrong shape or is unknown, or theta is neither given nor can be
        inferred.
    """
    names = SHORT if "A" in group else PAPER_NAMES
    if surplus := sorted(set(group) - set(names)):
        raise InputError(f"{', '.join(surplus)} cannot be represented")
    transposed = [
        (name, np.ascontiguousarray(check_array(name, group[name], (None, None)).T))
        for name in names
    ]
    return one_channel_layer(transposed, None, theta, activation, incremental=names is PAPER_NAMES)
