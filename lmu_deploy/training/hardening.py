"""What keeps a network from learning its examples by heart: hidden units left out, inputs moved.

Both act while training alone; the network that comes out is an ordinary one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from lmu_deploy.nn.model import SequenceModel

_SMALLEST_NORM = 1e-12  # of a gradient; an input that has none stays where it is


def drop_hidden(model: SequenceModel, share: float) -> None:
    """Blank a random share of what the readout reads, and enlarge the rest to match.

    (Srivastava et al. 2014, "Dropout".) Only in training mode.

    Parameters
    ----------
    model : SequenceModel
    share : float
        From 0 to below 1.
    """

    def blank(readout: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
        return dropout(inputs[0], share, training=readout.training)

    model.readout.register_forward_pre_hook(blank)


def worst_case(loss: Tensor, inputs: Tensor, distance: float) -> Tensor:
    """Move every sequence by `distance` in the direction that raises the loss most.

    (Goodfellow, Shlens, Szegedy 2015, section 5, with a step of fixed Euclidean length.)

    Parameters
    ----------
    loss : Tensor, shape ()
        Of `inputs`; its graph is kept.
    inputs : Tensor, shape (batch, steps, n_in)
        Must require a gradient.
    distance : float
        Euclidean, over all steps and features of a sequence.

    Returns
    -------
    moved : Tensor, shape (batch, steps, n_in)
        Without a gradient.
    """
    (slope,) = torch.autograd.grad(loss, inputs, retain_graph=True)
    norms = torch.linalg.vector_norm(slope, dim=(1, 2), keepdim=True).clamp(min=_SMALLEST_NORM)
    return inputs.detach() + distance * slope / norms
