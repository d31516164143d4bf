"""Which way through time a layer takes. All give the same; they differ in speed alone."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from lmu_deploy.nn.coupled import run_coupled
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
        return run_recurrent if form == "recurrent" else run_parallel
    saved = batch * weights.states * (weights.units + weights.states)
    return run_coupled if saved > _WORTH_BLOCKS else run_recurrent
