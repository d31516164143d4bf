"""The form for a large memory that only the input enters, with hidden units that recur.

The memory goes by blocks (`lmu_deploy.nn.drive`), the hidden units step by step
(`lmu_deploy.nn.driven_scan`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmu_deploy.nn.drive import drive_by_blocks
from lmu_deploy.nn.driven_scan import driven_scan
from lmu_deploy.nn.weights import LMUWeights


def run_driven(
    weights: LMUWeights,
    x: Tensor,
    m: Tensor,
    h: Tensor,
    lengths: Tensor | None,
    last_only: bool,
    length: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Go through sequences; see :func:`lmu_deploy.nn.recurrent.run_recurrent`.

    The layer must have recurrent hidden units, no hidden encoders, and no more inputs than
    channels. `length` is that of blocks, else the best is taken.
    """
    own = weights.recurrent_kernel
    assert own is not None
    batch, steps, _ = x.shape
    ends = torch.full((batch,), steps, device=x.device) if lengths is None else lengths
    drive, m = drive_by_blocks(weights, x, m, ends, length)
    features = drive.features.transpose(0, 1).contiguous()
    hiddens, h = driven_scan(
        features, drive.weights, own, h, weights.activation, ends, steps, last_only
    )
    return (h if last_only else hiddens), m, h
