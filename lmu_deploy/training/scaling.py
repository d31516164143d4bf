"""Scaling of inputs and outputs: one scale and offset for each channel, fitted on training data.

A network is trained on ``(x - center) / spread`` of every channel. The outputs of a regression are
scaled in the same way. Both maps become nodes of the trained network (:meth:`Scaling.add_to`), so
that it takes and gives numbers in the user's units.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lmu_deploy.core.graph.linear import Affine
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.transforms import input_scaling
from lmu_deploy.core.validation import check_choice
from lmu_deploy.tasks.base import Split, Task
from lmu_deploy.tasks.selection import limited

METHODS = ("standard", "robust", "min-max", "none")
INPUT_NODE, OUTPUT_NODE = "input_scaling", "output_scaling"

_SAMPLES = 4096
"""Training samples that the statistics are computed from."""


@dataclass(frozen=True)
class Channels:
    """Center and spread of every channel of a signal, float64.

    Attributes
    ----------
    center, spread : ndarray, shape (channels,)
        A channel that never changes has the spread 1.
    """

    center: np.ndarray
    spread: np.ndarray

    @classmethod
    def fit(cls, values: np.ndarray, method: str) -> Channels:
        """Measure the channels of values of shape (frames, channels).

        Parameters
        ----------
        values : ndarray, shape (frames, channels), float64
            Rows with NaN are left out.
        method : {"standard", "robust", "min-max"}
            Mean and standard deviation; median and half the distance between the 5th and 95th
            percentile; or middle and half of the range, so that values are from -1 to 1.
        """
        check_choice("scaling", method, METHODS[:-1])
        values = values[~np.isnan(values).any(axis=1)]
        if method == "standard":
            center, spread = values.mean(axis=0), values.std(axis=0)
        elif method == "robust":
            low, center, high = np.percentile(values, [5.0, 50.0, 95.0], axis=0)
            spread = (high - low) / 2.0
        else:
            low, high = values.min(axis=0), values.max(axis=0)
            center, spread = (low + high) / 2.0, (high - low) / 2.0
        # Float32 data of one value have a spread of rounding errors.
        negligible = spread <= np.abs(center) * 1e-6
        return cls(center, np.where(negligible, 1.0, spread))

    @property
    def forward(self) -> Affine:
        """The map to scaled values."""
        return Affine(1.0 / self.spread, -self.center / self.spread)

    @property
    def backward(self) -> Affine:
        """The map from scaled values."""
        return Affine(self.spread, self.center)

    def tensors(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return center and spread with the type and device of a tensor."""
        pair = (self.center, self.spread)
        center, spread = (torch.as_tensor(x, dtype=like.dtype, device=like.device) for x in pair)
        return center, spread


@dataclass(frozen=True)
class Scaling:
    """Scaling of the inputs and outputs of a training; None leaves them as they are."""

    inputs: Channels | None = None
    outputs: Channels | None = None

    @classmethod
    def fit(cls, task: Task, train: Split, method: str) -> Scaling:
        """Fit to at most 4,096 training samples, chosen by seed.

        Parameters
        ----------
        task : Task
        train : Split
            Padding and steps without an answer do not count.
        method : {"standard", "robust", "min-max", "none"}
        """
        if method == "none":
            return cls()
        few = limited(train, min(_SAMPLES, len(train)))
        inputs = few.inputs.astype(np.float64)
        if few.lengths is not None:
            inputs = inputs[np.arange(inputs.shape[1]) < few.lengths[:, None]]
        scaled = Channels.fit(inputs.reshape(-1, inputs.shape[-1]), method)
        if task.kind == "classification":
            return cls(scaled)
        targets = few.targets.astype(np.float64)
        return cls(scaled, Channels.fit(targets.reshape(-1, targets.shape[-1]), method))

    @classmethod
    def of_inputs(cls, network: Network) -> Scaling:
        """Return the scaling of the inputs that a network has as its first node, if any."""
        node = input_scaling(network)
        if node is None:
            return cls()
        assert isinstance(node.operator, Affine)
        scale, offset = (x.astype(np.float64) for x in (node.operator.scale, node.operator.offset))
        return cls(Channels(-offset / scale, 1.0 / scale))

    def scale(self, inputs: Tensor) -> Tensor:
        """Return scaled inputs; the subtraction comes first and loses nothing of large offsets."""
        if self.inputs is None:
            return inputs
        center, spread = self.inputs.tensors(inputs)
        return (inputs - center) / spread

    def unscale(self, outputs: Tensor) -> Tensor:
        """Return outputs in the user's units."""
        if self.outputs is None:
            return outputs
        center, spread = self.outputs.tensors(outputs)
        return outputs * spread + center

    def targets(self, targets: Tensor) -> Tensor:
        """Return targets in the units of the trained outputs."""
        if self.outputs is None:
            return targets
        center, spread = self.outputs.tensors(targets)
        return (targets - center) / spread

    def add_to(self, network: Network) -> Network:
        """Return a network with both maps as its first and its last node."""
        nodes, output = list(network.nodes), network.output
        if self.inputs is not None:
            nodes = [
                replace(n, inputs=tuple(INPUT_NODE if i == INPUT else i for i in n.inputs))
                for n in nodes
            ]
            nodes.insert(0, Node(INPUT_NODE, self.inputs.forward, (INPUT,)))
        if self.outputs is not None:
            nodes.append(Node(OUTPUT_NODE, self.outputs.backward, (output,)))
            output = OUTPUT_NODE
        return replace(network, nodes=tuple(nodes), output=output)
