"""GraphModule: a Network of any operators as a PyTorch module that can be trained; the stack."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.executor import check_steps, demands
from lmu_deploy.core.graph.linear import Affine, Conv1d, Dense
from lmu_deploy.core.graph.lmu import LMU
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.operator import Operator
from lmu_deploy.core.graph.pointwise import Activation, Add
from lmu_deploy.core.graph.time import Reduce
from lmu_deploy.core.network import Memory
from lmu_deploy.nn.config import StackConfig
from lmu_deploy.nn.graph import feedforward, recurrent
from lmu_deploy.nn.graph.operator import TorchOperator, array_names, make

__all__ = ["GraphModule", "feedforward", "recurrent"]

# Registers the counterparts of all operators.


class GraphModule(nn.Module):
    """The nodes of a network as modules, evaluated in their order.

    Parameters
    ----------
    network : Network
    dtype : torch.dtype, optional
        Type of the parameters; by default float64 if a trained weight of the network is, float32
        otherwise.
    train_theta, train_memory : bool
        Train the windows of the memories, or their matrices.
    batch_norm : collection of str
        Names of nodes with an Affine operator that normalize with the statistics of the batch
        during training.
    dropout : mapping of str to float
        Dropout probabilities of the outputs of nodes, by name.

    Attributes
    ----------
    network : Network
        The network that it was made from.

    Raises
    ------
    InputError
        When a name is no node, or no Affine where one is needed, or both a memory and its window
        are to be trained.
    """

    def __init__(
        self,
        network: Network,
        dtype: torch.dtype | None = None,
        *,
        train_theta: bool = False,
        train_memory: bool = False,
        batch_norm: Collection[str] = (),
        dropout: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        if train_theta and train_memory:
            raise InputError("train_theta and train_memory exclude each other; choose one.")
        names = {node.name for node in network.nodes}
        if missing := [name for name in (*batch_norm, *(dropout or {})) if name not in names]:
            raise InputError(f"the network has no node {missing[0]}; name one of its nodes.")
        self.network = network
        self.dropout = dict(dropout or {})
        dtype = dtype or _dtype(network)
        self.operators = nn.ModuleList()
        for node in network.nodes:
            operator = _with_trained_memory(node.operator) if train_memory else node.operator
            if node.name not in batch_norm:
                self.operators.append(make(operator, dtype, train_theta))
            elif isinstance(operator, Affine):
                self.operators.append(feedforward.BatchNorm(operator, dtype))
            else:
                raise InputError(
                    f"node {node.name} is no Affine; batch statistics can normalize only those."
                )

    def __getitem__(self, name: str) -> TorchOperator:
        """Return the module of the node of that name."""
        for node, module in self._pairs():
            if node.name == name:
                return module
        raise KeyError(name)

    def _pairs(self) -> list[tuple[Node, TorchOperator]]:
        modules: Any = self.operators
        return list(zip(self.network.nodes, modules, strict=True))

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the outputs of the network.

        Parameters
        ----------
        x : Tensor, shape (batch, steps, *frame)
        lengths : Tensor of int, shape (batch,), optional
            Steps of each sequence that count, from its first.

        Returns
        -------
        y : Tensor, shape (batch, steps, *frame) or (batch, *frame)

        Raises
        ------
        InputError
            When the input has another shape, or fewer steps than a node needs.
        """
        frame = self.network.frame
        if x.ndim != 2 + len(frame) or x.shape[2:] != frame or 0 in x.shape[:2]:
            wanted = ", ".join(map(str, ("batch", "steps", *frame)))
            raise InputError(f"the input has shape {tuple(x.shape)}; give ({wanted}).")
        check_steps(self.network, x.shape[1])
        needed = demands(self.network, lengths is not None)
        values = {INPUT: x if needed[INPUT] else x[:, -1]}
        counts: dict[str, Tensor | None] = {INPUT: lengths}
        for node, module in self._pairs():
            before = counts[node.inputs[0]]
            counts[node.name] = module.counted(before, *(values[name] for name in node.inputs))
            value = self._value(node, module, values, needed, before)
            if self.training and self.dropout.get(node.name):
                value = dropout(value, self.dropout[node.name])
            values[node.name] = value
        return values[self.network.output]

    def _value(
        self,
        node: Node,
        module: TorchOperator,
        values: dict[str, Tensor],
        needed: dict[str, bool],
        lengths: Tensor | None,
    ) -> Tensor:
        """Compute a node's output: all steps, or the frame of the last one.

        Under autocast, memories and recurrent units stay in the type of the weights.
        """
        kind = values[INPUT].device.type
        if isinstance(module, recurrent.Cell) and torch.is_autocast_enabled(kind):
            with torch.autocast(kind, enabled=False):
                wide = next(module.parameters()).dtype
                values = {**values, **{name: values[name].to(wide) for name in node.inputs}}
                return self._value(node, module, values, needed, lengths)
        given, shapes = [values[name] for name in node.inputs], self.network.shapes
        operator = node.operator
        found: Tensor
        if not shapes[node.inputs[0]].sequence:
            found = module(*given)
        elif isinstance(operator, Reduce) and operator.kind == "last" and lengths is None:
            (x,) = given
            found = x[:, -1] if needed[node.inputs[0]] else x
        elif needed[node.name] or not shapes[node.name].sequence:
            found = module(*given, lengths=lengths)
        elif operator.framewise:
            pairs = zip(node.inputs, given, strict=True)
            found = module(*(x[:, -1] if needed[name] else x for name, x in pairs))
        else:
            found = module.last(*given)
        return found

    def to_network(self) -> Network:
        """Return the network with the weights as they are now, and the same names."""
        nodes = tuple(
            Node(node.name, module.to_operator(), node.inputs) for node, module in self._pairs()
        )
        return replace(self.network, nodes=nodes)


def _dtype(network: Network) -> torch.dtype:
    """Return the widest type of the trained weights."""
    kinds = [
        getattr(part, name).dtype
        for node in network.nodes
        for part in (node.operator, getattr(node.operator, "hidden", None))
        if part is not None
        for name in array_names(part)
        if getattr(part, name) is not None
    ]
    return torch.float64 if np.result_type(np.float32, *kinds) == np.float64 else torch.float32


def _with_trained_memory(operator: Operator) -> Operator:
    if not isinstance(operator, LinearMemory | LMU):
        return operator
    return replace(operator, memory=replace(operator.memory, discretizer="trained"))


def make_stack(config: StackConfig, dropout: float = 0.0) -> GraphModule:
    r"""Return a stack with random weights from torch's generator.

    It has residual blocks around a parallel LMU, for sequences that one layer cannot read. With
    :math:`z_0 = \mathrm{stem}(x)`, a dense layer on one step, or on `stem_stride` steps that do
    not overlap, block k = 1 ... K computes

    .. math::
       u_t &= \max(0, N_k(z_{k-1,t}) E_k + b_k) && \text{(channels)} \\
       m_t[c] &= \bar A\, m_{t-1}[c] + \bar B\, u_t[c] && \text{(channels x order)} \\
       z_{k,t} &= z_{k-1,t} + \max(0, m_t U_k + c_k) V_k + d_k

    where N normalizes every feature with the statistics of the batch. A last normalization, the
    mean over time and a dense readout follow. The memory with a ReLU encoder is that of the
    parallel LMU (Chilkuri, Eliasmith 2021, equations 18 and 19), the residual blocks are those of
    He et al. (2016, "Identity mappings in deep residual networks", figure 1b). Nothing feeds back,
    so that training computes all steps at once.

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
