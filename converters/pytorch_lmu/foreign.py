"""LMU layers that people wrote in PyTorch, told by the names of their weights.

Two ways of naming are known, both with one memory channel and row-major (outputs, inputs) weights:

- e_x, e_h, e_m, W_x, W_h, W_m, A, B (pytorch-lmu), A and B discrete;
- input_encoders, hidden_encoders, memory_encoders, input_kernel, hidden_kernel, memory_kernel, AT,
  BT (ports of the paper's package), where AT holds A - I as it is, in spite of its name.
"""

from __future__ import annotations

import numpy as np

from converters.bare_weights import Group
from converters.recognise_memory import recognise_memory
from lmu_deploy.checks import check_array
from lmu_deploy.errors import InputError
from lmu_deploy.network import Hidden, LMULayer

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


def is_foreign(group: Group) -> bool:
    """Whether a module has all weights of one of the two."""
    return set(SHORT) <= set(group) or set(LONG) <= set(group)


def make_foreign(group: Group, theta: float | None, activation: str) -> LMULayer:
    """Make the layer.

    Raises
    ------
    InputError
        When a weight has the wrong shape, there are others, or theta can neither be told nor is
        given.
    """
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
