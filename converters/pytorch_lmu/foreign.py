"""LMU layers that people wrote in PyTorch, told by the names of their weights.

Two ways of naming are known, both with one memory channel and row-major (outputs, inputs) weights:

- e_x, e_h, e_m, W_x, W_h, W_m, A, B (pytorch-lmu), A and B discrete;
- input_encoders, hidden_encoders, memory_encoders, input_kernel, hidden_kernel, memory_kernel, AT,
  BT (ports of the paper's package), where AT holds A - I as it is, in spite of its name.
"""

from __future__ import annotations

import numpy as np

from converters.bare_weights import Group
from converters.one_channel import PAPER_NAMES, one_channel_layer
from lmu_deploy.checks import check_array
from lmu_deploy.errors import InputError
from lmu_deploy.network import LMULayer

SHORT = ("e_x", "e_h", "e_m", "W_x", "W_h", "W_m", "A", "B")


def is_foreign(group: Group) -> bool:
    """Whether a module has all weights of one of the two."""
    return set(SHORT) <= set(group) or set(PAPER_NAMES) <= set(group)


def make_foreign(group: Group, theta: float | None, activation: str) -> LMULayer:
    """Make the layer.

    Raises
    ------
    InputError
        When a weight has the wrong shape, there are others, or theta can neither be told nor is
        given.
    """
    names = SHORT if "A" in group else PAPER_NAMES
    if surplus := sorted(set(group) - set(names)):
        raise InputError(f"{', '.join(surplus)} cannot be represented")
    turned = [
        (name, np.ascontiguousarray(check_array(name, group[name], (None, None)).T))
        for name in names
    ]
    return one_channel_layer(turned, None, theta, activation, incremental=names is PAPER_NAMES)
