r"""Scaling of inputs and outputs: one scale and offset for each channel, fitted on training data.

A network is trained on ``(x - center) / spread`` of every channel. The outputs of a regression are
scaled in the same way. Both maps become nodes of the trained network (:meth:`Scaling.add_to`), so
that it takes and gives numbers in the user's units.

A regression can have a direct path from the last value of the input, so that the layers learn how
much the answer differs from it, and a network that learns nothing repeats that value:

.. math:: y = x_T + c + s\, f(x_1, ..., x_T)

with the layers f, and center c and spread s of the differences on training data. A series with a
trend leaves the range that it was trained on, where saturating units cannot follow it; the direct
path can.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.linear import Affine, Dense
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.pointwise import Add
from lmu_deploy.core.graph.time import Reduce
from lmu_deploy.core.graph.transforms import input_scaling
from lmu_deploy.core.validation import check_choice
from lmu_deploy.nn.sequences import at_end
from lmu_deploy.tasks.base import Split, Task
from lmu_deploy.tasks.selection import limited

METHODS = ("standard", "robust", "min-max", "none")
INPUT_NODE, OUTPUT_NODE = "input_scaling", "output_scaling"
LAST_NODE, DIRECT_NODE, SUM_NODE = "last_value", "direct", "sum"

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
    """Scaling of the inputs and outputs of a training; None leaves them as they are.

    Attributes
    ----------
    inputs, outputs : Channels or None
    direct : {None, "sample", "step"}
        Whether outputs are differences from the last value of the sequence, or from the input of
        the same step. A single input is the last value of every output.
    """

    inputs: Channels | None = None
    outputs: Channels | None = None
    direct: str | None = None

    @classmethod
    def fit(cls, task: Task, train: Split, method: str, direct: str = "none") -> Scaling:
        """Fit to at most 4,096 training samples, chosen by seed.

        Parameters
        ----------
        task : Task
        train : Split
            Padding and steps without an answer do not count.
        method : {"standard", "robust", "min-max", "none"}
        direct : {"none", "last", "auto"}
            Whether there is a direct path from the last value; with auto, where there can be one
            and the answers are closer to the last value than to their mean.

        Raises
        ------
        InputError
            When `direct` is last and the task has no last value that its answers could repeat.
        """
        can = task.kind == "regression" and (task.n_in in (1, task.n_out))
        if direct == "last" and not (can and method != "none"):
            raise InputError(
                f"direct is last, and task {task.name} has {task.n_in} inputs and {task.n_out} "
                f"outputs of a {task.kind}, with scaling {method}; it needs a regression with one "
                "input or as many as outputs, and scaling."
            )
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
        flat = targets.reshape(-1, targets.shape[-1])
        if can and direct != "none":
            differences = targets - _last_values(few, task.every_step)
            differences = differences.reshape(flat.shape)
            deviations = flat - np.nanmean(flat, axis=0)
            if direct == "last" or np.nanmean(differences**2) < np.nanmean(deviations**2):
                place = "step" if task.every_step else "sample"
                return cls(scaled, Channels.fit(differences, method), place)
        return cls(scaled, Channels.fit(flat, method))

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

    def base(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor | None:
        """Return the last values, from which outputs differ; None without a direct path."""
        if self.direct is None:
            return None
        return inputs if self.direct == "step" else at_end(inputs, lengths)

    def unscale(self, outputs: Tensor, base: Tensor | None = None) -> Tensor:
        """Return outputs in the user's units; `base` as :meth:`base` returns it."""
        if self.outputs is None:
            return outputs
        center, spread = self.outputs.tensors(outputs)
        found = outputs * spread + center
        return found if base is None else found + base

    def targets(self, targets: Tensor, base: Tensor | None = None) -> Tensor:
        """Return targets in the units of the trained outputs."""
        if self.outputs is None:
            return targets
        center, spread = self.outputs.tensors(targets)
        return ((targets if base is None else targets - base) - center) / spread

    def add_to(self, network: Network) -> Network:
        """Return a network with both maps as its first and its last node, and the direct path."""
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
        if self.direct is not None:
            nodes += self._direct_path(len(self.outputs.center) if self.outputs else 1)
            output = SUM_NODE
        return replace(network, nodes=tuple(nodes), output=output)

    def _direct_path(self, n_out: int) -> list[Node]:
        """Return the nodes that add the last value, in the user's units, to the outputs."""
        assert self.inputs is not None
        center, spread = self.inputs.center, self.inputs.spread
        operator: Affine | Dense = self.inputs.backward
        if len(center) != n_out:
            operator = Dense(np.tile(spread[:, None], n_out), np.tile(center, n_out))
        nodes = [Node(DIRECT_NODE, operator, (INPUT_NODE,))]
        if self.direct == "sample":
            last = Node(LAST_NODE, Reduce("last"), (INPUT_NODE,))
            nodes = [last, Node(DIRECT_NODE, operator, (LAST_NODE,))]
        return [*nodes, Node(SUM_NODE, Add(), (OUTPUT_NODE, DIRECT_NODE))]


def _last_values(split: Split, every_step: bool) -> np.ndarray:
    """Return what repeating the last value answers, float64, one value for every output or one."""
    inputs = split.inputs.astype(np.float64)
    if every_step:
        return inputs
    ends = inputs.shape[1] if split.lengths is None else split.lengths
    return np.asarray(inputs[np.arange(len(inputs)), ends - 1])
