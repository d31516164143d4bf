"""Which way through time a layer takes. All give the same; they differ in speed alone."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from lmu_deploy.nn.coupled import run_coupled
from lmu_deploy.nn.drive import takes_channels
from lmu_deploy.nn.driven import run_driven
from lmu_deploy.nn.fused import has_fused
from lmu_deploy.nn.parallel import run_parallel
from lmu_deploy.nn.recurrent import run_recurrent
from lmu_deploy.nn.stepwise import run_stepwise
from lmu_deploy.nn.weights import LMUWeights

FORMS = ("auto", "step", "recurrent", "parallel")
Form = Callable[
    [LMUWeights, Tensor, Tensor, Tensor, Tensor | None, bool], tuple[Tensor, Tensor, Tensor]
]
"""See :func:`lmu_deploy.nn.recurrent.run_recurrent`."""

_WORTH_BLOCKS = 1e6
"""Products that blocks must save at a step to pay for their calls."""
_WORTH_DRIVING = 2e6
"""Products of a step from which on the drive is better made in that step than beforehand."""


def choose_form(form: str, weights: LMUWeights, batch: int) -> Form:
    """Choose the fastest way that `form` allows.

    Parameters
    ----------
    form : {"auto", "step", "recurrent", "parallel"}
        "auto" takes the parallel form whenever nothing but the input enters the memory, or
        nothing but the memory itself, which is linear.
    weights : LMUWeights
    batch : int
    """
    if form == "step":
        return run_stepwise
    if weights.hidden_encoders is None:
        if form == "recurrent":
            return run_recurrent
        return run_driven if _is_driven(weights, batch) else run_parallel
    saved = batch * weights.states * (weights.units + weights.states)
    return run_coupled if saved > _WORTH_BLOCKS else run_recurrent


def _is_driven(weights: LMUWeights, batch: int) -> bool:
    """Whether hidden units recur, and a step's products are large enough to hold their drive."""
    own = weights.recurrent_kernel
    if own is None or takes_channels(weights) or has_fused(own, weights.activation):
        return False
    return batch * weights.units * (weights.units + weights.states) > _WORTH_DRIVING
