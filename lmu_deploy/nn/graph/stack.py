r"""The stack: residual blocks around a parallel LMU, for sequences that one layer cannot read.

With :math:`z_0 = \mathrm{stem}(x)`, a dense layer on one step, or on `stem_stride` steps that do
not overlap, block k = 1 ... K computes

.. math::
   u_t &= \max(0, N_k(z_{k-1,t}) E_k + b_k) && \text{(channels)} \\
   m_t[c] &= \bar A\, m_{t-1}[c] + \bar B\, u_t[c] && \text{(channels x order)} \\
   z_{k,t} &= z_{k-1,t} + \max(0, m_t U_k + c_k) V_k + d_k

where N normalizes every feature with the statistics of the batch. A last normalization, the mean
over time and a dense readout follow. The memory with a ReLU encoder is that of the parallel LMU
(Chilkuri, Eliasmith 2021, equations 18 and 19), the residual blocks are those of He et al. (2016,
"Identity mappings in deep residual networks", figure 1b). Nothing feeds back, so that training
computes all steps at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch

from lmu_deploy.core.graph.linear import Affine, Conv1d, Dense
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.operator import Operator
from lmu_deploy.core.graph.pointwise import Activation, Add
from lmu_deploy.core.graph.time import Reduce
from lmu_deploy.core.network import Memory
from lmu_deploy.nn.config import StackConfig
from lmu_deploy.nn.graph.module import GraphModule


def make_stack(config: StackConfig, dropout: float = 0.0) -> GraphModule:
    """Return a stack with random weights from torch's generator.

    Parameters
    ----------
    config : StackConfig
    dropout : float
        Dropout probability of the hidden units of every block and of the inputs of the readout.
    """
    nodes = tuple(_nodes(config))
    network = Network(nodes, (config.n_in,), nodes[-1].name)
    norms = [node.name for node in nodes if isinstance(node.operator, Affine)]
    dropped = [node.name for node in nodes if isinstance(node.operator, Activation)]
    before_readout = nodes[-1].inputs
    shares = dict.fromkeys((*dropped, *before_readout), dropout)
    return GraphModule(network, batch_norm=norms, dropout=shares)


def _nodes(config: StackConfig) -> Iterator[Node]:
    """Yield the nodes; the random weights come in their order."""
    width = config.width
    yield Node("stem", _stem(config), (INPUT,))
    before = "stem"
    for number in range(1, config.blocks + 1):
        block = f"block_{number}"
        memory = Memory.legendre(config.order, config.theta, config.channels)
        encoder = _uniform(width, width, config.channels), np.zeros(config.channels, np.float32)
        chain: list[tuple[str, Operator]] = [
            ("norm", _affine(width)),
            ("memory", LinearMemory(memory, *encoder, Activation("relu"))),
            ("units", _dense(memory.size, width)),
            ("relu", Activation("relu")),
            ("mix", _dense(width, width)),
        ]
        branch = before
        for name, operator in chain:
            yield Node(f"{block}.{name}", operator, (branch,))
            branch = f"{block}.{name}"
        yield Node(f"{block}.sum", Add(), (before, branch))
        before = f"{block}.sum"
    yield Node("norm", _affine(width), (before,))
    if not config.return_sequences:
        yield Node("mean", Reduce("mean"), ("norm",))
    last = "norm" if config.return_sequences else "mean"
    yield Node("readout", _dense(width, config.n_out), (last,))


def _stem(config: StackConfig) -> Operator:
    stride, n_in, width = config.stem_stride, config.n_in, config.width
    bias = np.zeros(width, np.float32)
    if stride == 1:
        return Dense(_uniform(n_in, n_in, width), bias)
    return Conv1d(_uniform(stride * n_in, stride, n_in, width), bias, stride)


def _affine(width: int) -> Affine:
    return Affine(np.ones(width, np.float32), np.zeros(width, np.float32))


def _dense(n_in: int, n_out: int) -> Dense:
    return Dense(_uniform(n_in, n_in, n_out), np.zeros(n_out, np.float32))


def _uniform(fan_in: int, *shape: int) -> np.ndarray:
    """Return weights of variance 1 / (3 fan_in)."""
    limit = 1.0 / math.sqrt(fan_in)
    return torch.empty(shape, dtype=torch.float32).uniform_(-limit, limit).numpy()
