"""The paper's layer, whose memory has one channel, from its eight weights as they lie in files.

One step is ``u = x e_x + h e_h + m e_m``, then ``m = m A^T + u B^T``, then
``h = f(x W_x + h W_h + m W_m + b)`` with the new m (Voelker, Kajic, Eliasmith 2019, equations 5 to
7). The paper's package and what followed it store A - I, which the step adds to m.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from converters.recognise_memory import recognise_memory
from lmu_deploy.checks import check_array
from lmu_deploy.network import Hidden, LMULayer

PAPER_NAMES = (
    "input_encoders",
    "hidden_encoders",
    "memory_encoders",
    "input_kernel",
    "hidden_kernel",
    "memory_kernel",
    "AT",
    "BT",
)
"""Names of the weights in the paper's package; those of A - I and B last."""


def one_channel_layer(
    weights: Sequence[tuple[str, np.ndarray]],
    bias: np.ndarray | None,
    theta: float | None,
    activation: str,
    *,
    incremental: bool,
) -> LMULayer:
    """Make the layer.

    Parameters
    ----------
    weights : sequence of (str, ndarray)
        Names, for messages, and arrays: e_x (inputs, 1), e_h (units, 1), e_m (order, 1), W_x
        (inputs, units), W_h (units, units), W_m (order, units), A^T (order, order), B^T (1, order).
    bias : ndarray, optional
        Of as many entries as there are units.
    theta : float, optional
        Where the matrices do not tell it.
    activation : str
    incremental : bool
        Whether A stands for A - I.

    Raises
    ------
    InputError
        When a weight has the wrong shape, or theta can neither be told nor is given.
    """
    names, arrays = zip(*weights, strict=True)
    e_x, e_h, e_m, w_x, w_h, w_m, a, b = arrays
    order = len(check_array(names[6], a, (None, None)))
    a_bar = check_array(names[6], a, (order, order)).T.astype(np.float64)
    b_bar = check_array(names[7], b, (1, order))[0].astype(np.float64)
    return LMULayer(
        input_encoders=check_array(names[0], e_x, (None, 1)),
        hidden_encoders=e_h,
        memory_encoders=e_m,
        memory_bias=None,
        memory=recognise_memory(a_bar + np.eye(order) if incremental else a_bar, b_bar, theta),
        hidden=Hidden(
            memory_kernel=w_m,
            input_kernel=w_x,
            recurrent_kernel=w_h,
            bias=None if bias is None else bias.reshape(-1),
            activation=activation,
        ),
    )
