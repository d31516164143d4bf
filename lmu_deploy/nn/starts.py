"""How the weights of an LMU layer are drawn before it trains."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

STARTS = ("random", "memory")


def draw(weights: Iterable[tuple[str, Tensor]], start: str) -> None:
    """Draw weights anew, in place.

    Parameters
    ----------
    weights : iterable of (str, Tensor)
        Names as in `lmu_deploy.nn.lmu.LMU`, and what they name.
    start : {"random", "memory"}
        "random": encoders of input and hidden units LeCun uniform, kernels Xavier normal, memory
        encoders and biases zero (Voelker et al. 2019, section 2.2 "Layer Design"). "memory": the
        layer starts as a plain delay line read out at random: input encoders one, memory kernel
        Xavier normal, all else zero (the settings of the paper's psMNIST experiment).
    """
    with torch.no_grad():
        for name, weight in weights:
            random = start == "random" or name == "memory_kernel"
            if name == "input_encoders" and start == "memory":
                weight.fill_(1.0)
            elif random and name in ("input_encoders", "hidden_encoders"):
                limit = math.sqrt(3.0 / weight.shape[0])
                weight.uniform_(-limit, limit)
            elif random and name.endswith("kernel"):
                nn.init.xavier_normal_(weight)
            else:
                weight.zero_()
