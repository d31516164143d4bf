r"""Torch modules that compute what an integer network does, and pass gradients through rounding.

Trained weights are rounded at every forward pass by the quantizer's own code
(:class:`converters.quantize.connections.Rounding`), and the gradient passes the rounding unchanged
(the straight-through estimator; Bengio, Léonard, Courville 2013, section 4).

**Layers** of a chain compute in floats with the weights of an integer network. The memory and
everything that enters it have the weights that the quantizer chose. They are fixed, so the fast
forms of `lmu_deploy.nn` apply, which cache what they compute from a fixed memory. Those forms need
the memory's inputs through a few ports, :math:`m_t = m_{t-1} T + v_t B`. Inputs and bias have a
port each. Feedback from hidden units has one port per channel before rounding and full rank after
it; `rank` ports carry its largest singular directions.

**Graphs** (:class:`IntegerValues`) have the values of the integers. In the forward pass the weights
as they are now are lowered to an integer network, which a simulator runs on the batch. The value of
every node that is a population is that of its messages, and the output is that of the integers,
exactly. The gradient is that of the float operators at these values; it passes the rounding of
messages and states unchanged too, and is zero where a message has reached the limit of its format.
Recurrent units compute with rounded weights, so that the states over which their gradients go are
those of the chip up to the rounding of messages. Formats are those of the calibration. Windows of
memories and what enters a memory without an activation are not trained, so that a memory in
integers stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from converters.quantize.calibration import Calibration
from converters.quantize.connections import Rounding, round_to_format
from converters.quantize.lowering.lower import Lowering
from converters.quantize.memory_analysis import LinearMemory, linear_memory
from converters.quantize.ptq import lower
from converters.quantize.settings import Settings
from lmu_deploy.core.graph.linear import Affine
from lmu_deploy.core.graph.lmu import LMU
from lmu_deploy.core.graph.memory import LinearMemory as MemoryOperator
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.recurrent import GRU
from lmu_deploy.core.graph.transforms import input_scaling
from lmu_deploy.core.integer.layered import IntegerLayer, IntegerReadout
from lmu_deploy.core.integer.network import HostNodes, IntegerNetwork
from lmu_deploy.core.integer.parts import Format, Place
from lmu_deploy.core.integer.populations import Input
from lmu_deploy.nn import lmu as layers
from lmu_deploy.nn.config import LMUConfig
from lmu_deploy.nn.graph.module import GraphModule
from lmu_deploy.nn.graph.operator import TorchOperator
from lmu_deploy.nn.graph.recurrent import Cell
from lmu_deploy.nn.lmu import LMUState
from lmu_deploy.nn.weights import Dynamics, LMUWeights
from lmu_deploy.training.scaling import Channels

FROZEN = ("input_encoders", "hidden_encoders", "memory_encoders", "memory_bias")
"""Weights of a layer that enter its memory; they are not trained."""


@dataclass(frozen=True)
class PortedWeights(LMUWeights):
    """Weights of a layer whose memory is any linear map; ports take the place of channels.

    Attributes
    ----------
    own : Dynamics
        The memory's map, with `channels` ports.
    """

    own: Dynamics | None = None

    @property
    def states(self) -> int:
        """Number of memory states."""
        return len(self.dynamics().transition)

    def dynamics(self) -> Dynamics:
        """Return the memory's map."""
        assert self.own is not None
        return self.own


class RoundedLMU(layers.LMU):
    """An LMU layer with the weights of an integer layer; its kernels and bias can be trained.

    Parameters
    ----------
    n_in : int
    config : LMUConfig
    integer : IntegerLayer
        Provides the memory, which stays fixed, and the formats of the hidden units.
    x : Format
        Format of the messages that enter the layer.
    roundings : mapping of str to Rounding
        Roundings of the hidden units' kernels, by the names memory, input and recurrent.
    rank : int, optional
        Ports of the hidden units' feedback; by default the number of channels.
    """

    transition: Tensor
    entry: Tensor
    port_encoders: Tensor
    port_feedback: Tensor | None
    port_bias: Tensor | None

    def __init__(
        self,
        n_in: int,
        config: LMUConfig,
        integer: IntegerLayer,
        x: Format,
        roundings: Mapping[str, Rounding],
        rank: int | None = None,
    ) -> None:
        super().__init__(n_in, **config.model_dump(exclude={"kind"}))
        self.roundings = dict(roundings)
        hidden = integer.hidden
        self.drive = None if hidden is None else hidden.drive
        linear = linear_memory(integer.memory, x, None if hidden is None else hidden.message)
        entry, encoders, feedback, bias = ports(linear, rank or self.channels)
        self.neurons = integer.memory.size
        self._keep("transition", linear.step.T)
        self._keep("entry", entry)
        self._keep("port_encoders", encoders)
        self._keep("port_feedback", feedback)
        self._keep("port_bias", bias)
        self._made: dict[Any, Any] = {}
        for name in FROZEN:
            if (weight := getattr(self, name)) is not None:
                weight.requires_grad_(False)
        for weight in self.memory.parameters():
            weight.requires_grad_(False)

    def _keep(self, name: str, values: np.ndarray | None) -> None:
        tensor = None if values is None else torch.tensor(values, dtype=torch.float32)
        self.register_buffer(name, tensor, persistent=False)

    def initial_state(self, batch: int) -> LMUState:
        """Return the initial state, all zero, for `batch` sequences."""
        like = self.input_encoders
        return LMUState(like.new_zeros(batch, self.neurons), like.new_zeros(batch, self.units))

    def weights(self, cached: bool = True) -> PortedWeights:
        """Return the weights that the integers represent."""
        own = Dynamics(1, self.transition, self.entry, self._made)
        return PortedWeights(
            channels=len(self.entry),
            activation=self.activation,
            a_bar=self.transition,
            b_bar=self.entry[0],
            input_encoders=self.port_encoders,
            hidden_encoders=self.port_feedback,
            memory_encoders=None,
            memory_bias=self.port_bias,
            memory_kernel=self._kernel("memory", self.memory_kernel),
            input_kernel=self._kernel("input", self.input_kernel),
            recurrent_kernel=self._kernel("recurrent", self.recurrent_kernel),
            bias=None if self.bias is None else rounded_bias(self.bias, self.drive),
            memory_cache=self._made,
            own=own,
        )

    def _kernel(self, name: str, kernel: Tensor | None) -> Tensor | None:
        return None if kernel is None else rounded(kernel, self.roundings[name])


class RoundedReadout(nn.Linear):
    """A readout with the weights of an integer readout; they can be trained.

    Parameters
    ----------
    n_in, n_out : int
    bias : bool
    integer : IntegerReadout
    rounding : Rounding
    """

    def __init__(
        self, n_in: int, n_out: int, bias: bool, integer: IntegerReadout, rounding: Rounding
    ) -> None:
        super().__init__(n_in, n_out, bias=bias)
        self.output, self.rounding = integer.output, rounding

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs for x (..., neurons)."""
        kernel = rounded(self.weight.t(), self.rounding)
        bias = None if self.bias is None else rounded_bias(self.bias, self.output)
        return nn.functional.linear(x, kernel.t(), bias)


def ports(
    memory: LinearMemory, rank: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Write the inputs of a memory as ports, ``v = x E_x + h E_h + b_u`` and ``m += v B``.

    Parameters
    ----------
    memory : LinearMemory
    rank : int
        Ports of the hidden units' feedback. If there would be as many ports as states, each state
        is a port instead, and the result is exact.

    Returns
    -------
    entry : ndarray, shape (ports, states)
        B.
    encoders : ndarray, shape (n_in, ports)
        E_x.
    feedback : ndarray, shape (units, ports), or None
        E_h.
    bias : ndarray, shape (ports,), or None
        b_u.
    """
    states, n_in = memory.input.shape
    count = n_in + (memory.bias is not None) + (0 if memory.hidden is None else rank)
    if count >= states:
        hidden = None if memory.hidden is None else memory.hidden.T
        return np.eye(states), memory.input.T, hidden, memory.bias
    identity = np.eye(count)
    entry = [memory.input.T]
    feedback, bias = None, None
    if memory.hidden is not None:
        u, s, v = np.linalg.svd(memory.hidden)
        entry.append((u[:, :rank] * s[:rank]).T)
        feedback = v[:rank].T @ identity[n_in : n_in + rank]
    if memory.bias is not None:
        entry.append(memory.bias[None])
        bias = identity[-1]
    return np.concatenate(entry), identity[:n_in], feedback, bias


def rounded(kernel: Tensor, rounding: Rounding) -> Tensor:
    """Round a kernel (n, n_out) as deployed, to (neurons, n_out); the gradient passes unchanged."""
    exact = kernel
    if rounding.basis is not None:
        exact = torch.tensor(rounding.basis, dtype=kernel.dtype, device=kernel.device).t() @ kernel
    real = rounding.real(kernel.detach().cpu().numpy().T).T
    return straight_through(exact, real)


def rounded_bias(bias: Tensor, target: Format | None) -> Tensor:
    """Round a bias as deployed; the gradient passes unchanged."""
    assert target is not None
    return straight_through(
        bias, round_to_format(bias.detach().cpu().numpy(), target) * target.scale
    )


def straight_through(exact: Tensor, rounded: np.ndarray | Tensor) -> Tensor:
    """Return other values that were rounded; the gradient goes to the exact ones, unchanged."""
    values = torch.as_tensor(rounded, dtype=exact.dtype, device=exact.device)
    passed: Tensor = _StraightThrough.apply(exact, values)  # type: ignore[no-untyped-call]
    return passed


class _StraightThrough(torch.autograd.Function):
    """Return the second argument; pass the gradient to the first."""

    @staticmethod
    def forward(ctx: Any, exact: Tensor, rounded: Tensor) -> Tensor:
        return rounded

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


Simulator = Callable[[IntegerNetwork, np.ndarray], tuple[np.ndarray, Mapping[str, np.ndarray]]]
"""From an integer network and inputs to its real outputs, and the recorded frames by place."""


@dataclass(frozen=True)
class _Exact:
    """Values of a node in integers: those of all frames, and those at the end of each sequence."""

    frames: Tensor
    last: Tensor
    counts: list[int]


class IntegerValues(GraphModule):
    """A network that computes what its integer network does, and can be trained.

    Parameters
    ----------
    network : Network
    calibration : Calibration
    settings : Settings
    simulate : callable
        See :data:`Simulator`.
    outputs : Channels, optional
        The outputs are returned as ``(y - center) / spread``, for a loss of all channels alike.
    """

    def __init__(
        self,
        network: Network,
        calibration: Calibration,
        settings: Settings,
        simulate: Simulator,
        outputs: Channels | None = None,
    ) -> None:
        super().__init__(network)
        self._calibration, self._settings, self._simulate = calibration, settings, simulate
        self._outputs = outputs
        self._first = lower(network, calibration, settings)
        self._lowered = self._weights(), self._first
        self._exact: dict[str, _Exact] = {}
        fixed = {network.output, getattr(input_scaling(network), "name", None)}
        for node, module in self._pairs():
            affine = isinstance(node.operator, Affine) and node.name in fixed
            for name, weight in module.named_parameters():
                if affine or name in _entering(node):
                    weight.requires_grad_(False)

    def _weights(self) -> tuple[int, ...]:
        """Return numbers that differ once a weight has changed."""
        return tuple(weight._version for weight in self.parameters())

    @property
    def lowering(self) -> Lowering:
        """The weights as they are now, in integers, with the formats of the start."""
        weights = self._weights()
        if weights != self._lowered[0]:
            found = lower(self.to_network(), self._calibration, self._settings, self._first)
            self._lowered = weights, found
        return self._lowered[1]

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the outputs of the integer network."""
        self._exact, outputs = self._values(x, lengths)
        y = super().forward(self._replaced(INPUT, x, lengths), lengths)
        y = self._placed(y, outputs, lengths)
        if self._outputs is not None:
            center, spread = self._outputs.tensors(y)
            y = (y - center) / spread
        return y

    def _value(
        self,
        node: Node,
        module: TorchOperator,
        values: dict[str, Tensor],
        needed: dict[str, bool],
        lengths: Tensor | None,
    ) -> Tensor:
        if isinstance(module, Cell) and (weights := self._rounded(node, module)):
            rounding: Any = _WithWeights(module, weights)
            found = super()._value(node, rounding, values, needed, lengths)
        else:
            found = super()._value(node, module, values, needed, lengths)
        return self._replaced(node.name, found, lengths)

    def _rounded(self, node: Node, module: TorchOperator) -> dict[str, Tensor]:
        """Return the rounded recurrent weights of a node, by the names of its parameters."""
        prefix = "hidden." if isinstance(node.operator, LMU) else ""
        weights: dict[str, Tensor] = dict(module.named_parameters())
        name = f"{prefix}recurrent_kernel"
        kernel = weights.get(name)
        if kernel is None:
            return {}
        cell = node.operator.hidden if isinstance(node.operator, LMU) else node.operator
        place, roundings = f"{Place(node.name, 'hidden')}", self.lowering.connector.roundings
        parts: dict[str, Tensor] = {f"{place}/recurrent": kernel}
        if isinstance(cell, GRU):
            two = 2 * cell.n_out
            parts[f"{place}/recurrent"] = kernel[:, :two]
            parts[f"{place}/candidate"] = kernel[:, two:]
        if any(at not in roundings for at in parts):
            return {}
        return {name: torch.cat([rounded(w, roundings[at]) for at, w in parts.items()], 1)}

    def _replaced(self, name: str, value: Tensor, lengths: Tensor | None) -> Tensor:
        """Return the value of a node in integers, with the gradient of the float one."""
        exact = self._exact.get(name)
        if exact is None:
            return value
        source = self.lowering.forms[name].single
        if source is not None and source.basis is None and name != INPUT:
            limit = source.format.limit * source.format.scale
            value = value.clamp(-limit, limit)
        return self._placed(value, exact, lengths)

    def _placed(self, value: Tensor, exact: _Exact, lengths: Tensor | None) -> Tensor:
        frames = exact.frames.to(value)
        if value.numel() == exact.last.numel() and value.shape != frames.shape:
            return straight_through(value, exact.last.to(value).reshape(value.shape))
        frames = frames.reshape(len(value), -1, *value.shape[2:])
        if lengths is None:
            return straight_through(value, frames)
        whole = value.detach().clone()
        for sample, count in enumerate(exact.counts):
            whole[sample, :count] = frames[sample, :count]
        return straight_through(value, whole)

    @torch.no_grad()
    def _values(self, x: Tensor, lengths: Tensor | None) -> tuple[dict[str, _Exact], _Exact]:
        """Run the integers; return the values of all nodes that are populations, and the output."""
        inputs = x.detach().cpu().numpy()
        ends = np.full(len(inputs), inputs.shape[1])
        if lengths is not None:
            ends = lengths.cpu().numpy()
        found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        for end in np.unique(ends):
            samples = np.flatnonzero(ends == end)
            for name, values in self._run(inputs[samples, :end]).items():
                found.setdefault(name, []).append((samples, values))
        joined = {name: _joined(parts, len(inputs)) for name, parts in found.items()}
        return joined, joined.pop("")

    def _run(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Return the values of nodes, (samples, frames, size), and the output without a name."""
        lowering = self.lowering
        network = lowering.result
        outputs, recorded = self._simulate(network, inputs)
        found = {"": outputs.reshape(len(outputs), -1, network.n_out)}
        for name, form in lowering.forms.items():
            if (source := form.single) is None:
                continue
            if source.place == network.input.place:
                if not network.input.tokens:
                    found[name] = _inputs(network.input, inputs, source.basis, name == INPUT)
                continue
            frames = recorded.get(str(source.place))
            if frames is None:  # on the host, together with the node that reads it
                continue
            population = network[source.place]
            if isinstance(population, HostNodes):
                found[name] = frames
                continue
            values = population.sent(frames) * source.format.scale
            found[name] = values if source.basis is None else values @ source.basis.T
        return found


class _WithWeights:
    """A module with some of its weights replaced."""

    def __init__(self, module: TorchOperator, weights: Mapping[str, Tensor]) -> None:
        self._module, self._weights = module, dict(weights)

    def __call__(self, *signals: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Compute all steps."""
        found: Tensor = functional_call(self._module, self._weights, signals, {"lengths": lengths})
        return found

    def last(self, *signals: Tensor) -> Tensor:
        """Compute the frame of the last step alone."""
        return self(*signals)[:, -1]


def _entering(node: Node) -> tuple[str, ...]:
    """Return the weights of a node that enter its memory as they are."""
    if isinstance(node.operator, LMU):
        return FROZEN
    plain = isinstance(node.operator, MemoryOperator) and node.operator.activation is None
    return ("encoders", "bias") if plain else ()


def _inputs(
    population: Input, inputs: np.ndarray, basis: np.ndarray | None, whole: bool
) -> np.ndarray:
    """Return what the messages of the input stand for, in its own units or as they enter."""
    real = inputs.reshape(*inputs.shape[:2], -1).astype(np.float64)
    form = population.message
    messages = np.rint(population.scaled(real) / form.scale).clip(-form.limit, form.limit)
    if whole:
        return population.unscaled(messages)
    values = messages * form.scale
    return values if basis is None else values @ basis.T


def _joined(parts: list[tuple[np.ndarray, np.ndarray]], samples: int) -> _Exact:
    """Return the values of sequences of different lengths, with zeros behind the shorter ones."""
    frames = max(values.shape[1] for _, values in parts)
    whole = np.zeros((samples, frames, parts[0][1].shape[2]))
    last = np.zeros((samples, whole.shape[2]))
    counts = [0] * samples
    for index, values in parts:
        whole[index, : values.shape[1]] = values
        if values.shape[1]:
            last[index] = values[:, -1]
        for sample in index:
            counts[sample] = values.shape[1]
    return _Exact(torch.from_numpy(whole), torch.from_numpy(last), counts)
