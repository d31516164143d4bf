"""Layers of `lmu_deploy.nn` and of torch, made of their weights alone.

Shapes say units, order and channels, and which parts a layer has; matrices of the memory say theta
and the discretiser. What they do not say are options: the activation (tanh if not given), theta
where the matrices were trained, and where theta itself was trained the discretiser (zoh if not
given) and, without hidden units, the order.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from converters.bare_weights import Group, Options
from converters.recognise_memory import MOST_ORDER, recognise_memory
from lmu_deploy.checks import check_array, check_choice, check_integer, check_number
from lmu_deploy.errors import InputError
from lmu_deploy.legendre import DISCRETISERS
from lmu_deploy.network import Hidden, Layer, LMULayer, LSTMLayer, Memory, Readout

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


def is_lmu(group: Group) -> bool:
    """Whether a module is an LMU of `lmu_deploy.nn`."""
    return A_BAR in group or LOG_THETA in group


def is_lstm(group: Group) -> bool:
    """Whether a module is one of torch's recurrent layers."""
    return "weight_ih_l0" in group


def is_linear(group: Group) -> bool:
    """Whether a module is a linear map."""
    return "weight" in group and set(group) <= {"weight", "bias"} and group["weight"].ndim == 2


def make_linear(group: Group) -> Readout:
    """Make a linear map; torch stores it transposed."""
    weight = check_array("weight", group["weight"], (None, None))
    return Readout(_turn(weight), group.get("bias"))


def make_lstm(group: Group) -> list[Layer]:
    """Make the layers of a torch LSTM; its two biases do the same and become one.

    Raises
    ------
    InputError
        When it is a GRU or an RNN, runs in both directions or projects its outputs.
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
        layers.append(LSTMLayer(_turn(kernel), _turn(recurrent), bias))
    return layers


def make_lmu(name: str, group: Group, options: Options) -> LMULayer:
    """Make the LMU that is called `name`.

    Raises
    ------
    InputError
        When a weight has the wrong shape, there are others, or something has to be said by an
        option.
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
        raise InputError(f"it has {', '.join(without)} and no memory_kernel")
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
        known = recognise_memory(a_bar, b_bar, options.number("theta", name))
        return replace(known, channels=channels)
    logarithm = float(check_array("log_theta", group[LOG_THETA], ()))
    theta = float(np.exp(check_number("log_theta", logarithm, 0.0, _LONGEST_LOGARITHM)))
    method = options.text("discretiser", name) or "zoh"
    check_choice("option discretiser", method, DISCRETISERS)
    made = Memory.legendre(_order(name, group, options, channels), theta, channels, method)
    dtype = group[LOG_THETA].dtype
    return replace(made, a_bar=made.a_bar.astype(dtype), b_bar=made.b_bar.astype(dtype))


def _order(name: str, group: Group, options: Options, channels: int) -> int:
    """Tell the order by the number of states that another weight meets."""
    for role in ("memory_kernel", "memory_encoders"):
        if role in group:
            states = len(check_array(role, group[role], (None, None)))
            return check_integer("order", states // channels, 1, MOST_ORDER)
    if (given := options.number("order", name)) is None:
        raise InputError(f"its order is not told by any weight; give --option {name}.order=...")
    return check_integer("option order", int(given), 1, MOST_ORDER)


def _turn(weight: np.ndarray) -> np.ndarray:
    """Give a weight (outputs, inputs) as ours are, (inputs, outputs)."""
    return np.ascontiguousarray(weight.T)
