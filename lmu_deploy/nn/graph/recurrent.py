"""PyTorch counterparts of the recurrent operators: memories, LMU, simple units, LSTM and GRU.

A sequence goes through the fastest form that its weights allow: blocks where a memory is fed by
nothing but the input (:mod:`lmu_deploy.nn.parallel`), the forms of :mod:`lmu_deploy.nn.lmu`, the
kernels of torch for LSTM and GRU; and step by step what none of these covers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lmu_deploy.core.graph.lmu import LMU
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.recurrent import GRU, LSTM, SimpleRNN
from lmu_deploy.core.network import Memory
from lmu_deploy.nn.graph.feedforward import activate
from lmu_deploy.nn.graph.operator import TorchOperator, counterpart_of, make, to_array
from lmu_deploy.nn.lmu import choose_form
from lmu_deploy.nn.memory import LegendreMemory
from lmu_deploy.nn.parallel import memory_states, run_parallel
from lmu_deploy.nn.products import ACTIVATIONS, TensorCache, matmul
from lmu_deploy.nn.recurrent import advance, scan
from lmu_deploy.nn.weights import Dynamics, LMUWeights


class Cell(TorchOperator):
    """An operator whose output at a step follows from its state and the input at that step."""

    def start(self, batch: int) -> Any:
        """Return the state before the first step."""
        raise NotImplementedError

    def advance(self, state: Any, x: Tensor) -> tuple[Any, Tensor]:
        """Advance by one step, x (batch, n_in); return the state and the output."""
        raise NotImplementedError

    def forward(self, *signals: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Advance step by step."""
        (x,) = signals
        state, outputs = self.start(len(x)), []
        for frame in x.unbind(1):
            state, output = self.advance(state, frame)
            outputs.append(output)
        return torch.stack(outputs, 1)

    def _repeated(self, initial: Tensor | None, batch: int) -> Tensor:
        like = next(self.parameters())
        if initial is None:
            return like.new_zeros(batch, self.operator.n_out)
        return initial.expand(batch, -1)


def _biased(z: Tensor, bias: Tensor | None) -> Tensor:
    return z if bias is None else z + bias


@counterpart_of(SimpleRNN)
class TorchSimpleRNN(Cell):
    """Recurrent units, or a dense layer without recurrent weights."""

    kernel: Tensor
    recurrent_kernel: Tensor | None
    bias: Tensor | None
    initial: Tensor | None

    def __init__(self, operator: SimpleRNN, dtype: torch.dtype, train_theta: bool = False) -> None:
        super().__init__(operator, dtype, train_theta)
        if self.initial is not None and self.recurrent_kernel is None:
            # Nothing reads it but the encoders of an LMU around these units.
            self.initial.requires_grad_(False)

    def start(self, batch: int) -> Tensor:
        """Return the initial state."""
        return self._repeated(self.initial, batch)

    def advance(self, state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Advance by one step."""
        z = _biased(x @ self.kernel, self.bias)
        if self.recurrent_kernel is not None:
            z = z + state @ self.recurrent_kernel
        h = activate(self.operator.activation, z)
        return h, h

    def forward(self, *signals: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Compute all steps as one product, or one product for each step."""
        (x,), activation = signals, self.operator.activation
        if self.recurrent_kernel is None:
            return activate(activation, _biased(matmul(x, self.kernel), self.bias))
        if activation.name not in ACTIVATIONS:
            return super().forward(x)
        drive = _biased(matmul(x.transpose(0, 1).contiguous(), self.kernel), self.bias)
        start, units = self.start(len(x)), self.operator.n_out
        found = scan(drive.contiguous(), start, self.recurrent_kernel, units, activation.name)
        return found.transpose(0, 1)


class _Gated(Cell):
    """LSTM and GRU: the kernels of torch with its activations, step by step with others."""

    kernel: Tensor
    recurrent_kernel: Tensor
    bias: Tensor | None

    @property
    def usual(self) -> bool:
        """Whether the activations are tanh and the sigmoid, as in torch."""
        own = self.operator
        return own.activation.name == "tanh" and own.gate_activation.name == "sigmoid"

    def packed(self, *biases: Tensor | None) -> list[Tensor]:
        """Return the weights in the layout of torch."""
        zero = self.kernel.new_zeros(self.kernel.shape[1])
        each = [zero if bias is None else bias for bias in biases]
        return [self.kernel.t().contiguous(), self.recurrent_kernel.t().contiguous(), *each]


@counterpart_of(LSTM)
class TorchLSTM(_Gated):
    """Long short-term memory."""

    initial_h: Tensor | None
    initial_c: Tensor | None

    def start(self, batch: int) -> tuple[Tensor, Tensor]:
        """Return the initial h and c."""
        return self._repeated(self.initial_h, batch), self._repeated(self.initial_c, batch)

    def advance(self, state: Any, x: Tensor) -> tuple[Any, Tensor]:
        """Advance by one step."""
        (h, c), own = state, self.operator
        z = _biased(x @ self.kernel + h @ self.recurrent_kernel, self.bias)
        i, f, g, o = z.chunk(4, 1)
        kept = activate(own.gate_activation, f) * c
        c = kept + activate(own.gate_activation, i) * activate(own.activation, g)
        h = activate(own.gate_activation, o) * activate(own.activation, c)
        return (h, c), h

    def forward(self, *signals: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Compute all steps."""
        (x,) = signals
        if not self.usual:
            return super().forward(x)
        h, c = self.start(len(x))
        state = (h[None].contiguous(), c[None].contiguous())
        weights = self.packed(self.bias, None)
        return torch.lstm(x, state, weights, True, 1, 0.0, self.training, False, True)[0]


@counterpart_of(GRU)
class TorchGRU(_Gated):
    """Gated recurrent units."""

    recurrent_bias: Tensor | None
    initial: Tensor | None

    def start(self, batch: int) -> Tensor:
        """Return the initial state."""
        return self._repeated(self.initial, batch)

    def advance(self, state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Advance by one step."""
        own, h, units = self.operator, state, self.operator.n_out
        x_r, x_z, x_n = _biased(x @ self.kernel, self.bias).chunk(3, 1)
        zero = self.kernel.new_zeros(3 * units)
        bias = zero if self.recurrent_bias is None else self.recurrent_bias
        to_gates, to_n = torch.split(self.recurrent_kernel, [2 * units, units], 1)
        h_r, h_z = (h @ to_gates + bias[: 2 * units]).chunk(2, 1)
        r, z = activate(own.gate_activation, x_r + h_r), activate(own.gate_activation, x_z + h_z)
        if own.reset_after:
            from_state = r * (h @ to_n + bias[2 * units :])
        else:
            from_state = (r * h) @ to_n + bias[2 * units :]
        n = activate(own.activation, x_n + from_state)
        h = z * h + (1.0 - z) * n
        return h, h

    def forward(self, *signals: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Compute all steps."""
        (x,) = signals
        if not (self.usual and self.operator.reset_after):
            return super().forward(x)
        state = self.start(len(x))[None].contiguous()
        weights = self.packed(self.bias, self.recurrent_bias)
        return torch.gru(x, state, weights, True, 1, 0.0, self.training, False, True)[0]


class TorchMemory(LegendreMemory):
    """The matrices of a memory of a network: fixed, trained, or derived from a trained theta.

    Parameters
    ----------
    memory : Memory
    dtype : torch.dtype
    train_theta : bool
        Of no effect on a memory whose matrices are trained.
    """

    def __init__(self, memory: Memory, dtype: torch.dtype, train_theta: bool) -> None:
        trained = memory.discretizer == "trained"
        super().__init__(
            memory.order,
            max(memory.theta, 1.0),
            "zoh" if trained else memory.discretizer,
            train_theta and not trained,
            trained,
            dtype=dtype,
        )
        self.source = memory
        if not self.train_theta:
            with torch.no_grad():
                self.a_bar.copy_(torch.tensor(memory.a_bar))
                self.b_bar.copy_(torch.tensor(memory.b_bar))

    def to_memory(self) -> Memory:
        """Return the memory; a fixed one exactly as it was."""
        old = self.source
        if self.train_memory:
            parts = to_array(self.a_bar), to_array(self.b_bar)
            return Memory(old.order, old.channels, old.theta, "trained", *parts)
        if self.train_theta:
            return Memory.legendre(old.order, self.theta, old.channels, old.discretizer)
        return old


class _WithMemory(Cell):
    """An operator with a memory in it."""

    def __init__(
        self, operator: LinearMemory | LMU, dtype: torch.dtype, train_theta: bool = False
    ) -> None:
        super().__init__(operator, dtype)
        self.memory = TorchMemory(operator.memory, dtype, train_theta)
        self._cache = TensorCache()

    def zeros(self, batch: int) -> Tensor:
        """Return the memory before the first step."""
        return next(self.parameters()).new_zeros(batch, self.operator.memory.size)

    def parts(self) -> dict[str, Any]:
        """Return the memory as it is now."""
        return {"memory": self.memory.to_memory()}


@counterpart_of(LinearMemory)
class TorchLinearMemory(_WithMemory):
    """A memory that only the input feeds."""

    encoders: Tensor
    bias: Tensor | None

    def _states(self, x: Tensor, only_end: bool) -> Tensor:
        u = activate(self.operator.activation, _biased(matmul(x, self.encoders), self.bias))
        a_bar, b_bar = self.memory()
        dynamics = Dynamics(u.shape[2], a_bar.t(), b_bar.unsqueeze(0), self.memory.cache())
        return memory_states(dynamics, u, only_end)

    def forward(self, *signals: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Compute all states."""
        return self._states(signals[0], only_end=False)

    def last(self, *signals: Tensor) -> Tensor:
        """Compute the last state as a product with the impulse response."""
        return self._states(signals[0], only_end=True)


@counterpart_of(LMU)
class TorchLMU(_WithMemory):
    """A memory with encoders and a hidden cell."""

    input_encoders: Tensor
    hidden_encoders: Tensor | None
    memory_encoders: Tensor | None
    memory_bias: Tensor | None

    def __init__(self, operator: LMU, dtype: torch.dtype, train_theta: bool = False) -> None:
        super().__init__(operator, dtype, train_theta)
        cell = None if operator.hidden is None else make(operator.hidden, dtype)
        assert cell is None or isinstance(cell, Cell)
        self.hidden = cell
        if isinstance(cell, TorchSimpleRNN) and cell.initial is not None:
            read = operator.hidden_encoders is not None or cell.recurrent_kernel is not None
            cell.initial.requires_grad_(read)

    def parts(self) -> dict[str, Any]:
        """Return the memory and the hidden cell as they are now."""
        hidden = None if self.hidden is None else self.hidden.to_operator()
        return {**super().parts(), "hidden": hidden}

    def _weights(self, cell: TorchSimpleRNN | None) -> LMUWeights:
        """Return the weights of the layer, with a cell of simple units or without a cell."""
        memory = own = recurrent = bias = None
        if cell is not None:
            size, recurrent, bias = self.operator.memory.size, cell.recurrent_kernel, cell.bias
            memory = cell.kernel[:size]
            own = cell.kernel[size:] if self.operator.hidden_takes_input else None
        a_bar, b_bar = self.memory()
        return LMUWeights(
            self.operator.memory.channels,
            "linear" if cell is None else cell.operator.activation.name,
            a_bar,
            b_bar,
            self.input_encoders,
            self.hidden_encoders,
            self.memory_encoders,
            self.memory_bias,
            memory,
            own,
            recurrent,
            bias,
            self.memory.cache(),
            self._cache,
        )

    def start(self, batch: int) -> Any:
        """Return m of zero, the state of the hidden cell and its output."""
        assert self.hidden is not None
        cell = self.hidden.start(batch)
        return self.zeros(batch), cell, cell[0] if isinstance(cell, tuple) else cell

    def advance(self, state: Any, x: Tensor) -> tuple[Any, Tensor]:
        """Advance by one step, as the equations are written."""
        assert self.hidden is not None
        m, cell, h = state
        m, _ = advance(self._weights(None), x, m, h)
        given = torch.cat([m, x], 1) if self.operator.hidden_takes_input else m
        cell, h = self.hidden.advance(cell, given)
        return (m, cell, h), h

    def _run(self, x: Tensor, last_only: bool) -> Tensor:
        cell, m = self.hidden, self.zeros(len(x))
        if isinstance(cell, TorchSimpleRNN) and cell.operator.activation.name in ACTIVATIONS:
            weights, h = self._weights(cell), cell.start(len(x))
            return choose_form("auto", weights, len(x))(weights, x, m, h, None, last_only)[0]
        if cell is not None and self.hidden_encoders is not None:
            found = super().forward(x)
            return found[:, -1] if last_only else found
        weights, h = self._weights(None), x.new_zeros(len(x), 0)
        states = run_parallel(weights, x, m, h, None, last_only and cell is None)[0]
        if cell is None:
            return states
        given = torch.cat([states, x], 2) if self.operator.hidden_takes_input else states
        outputs: Tensor = cell.last(given) if last_only else cell(given)
        return outputs

    def forward(self, *signals: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Compute all outputs in the fastest form that the weights allow."""
        return self._run(signals[0], last_only=False)

    def last(self, *signals: Tensor) -> Tensor:
        """Compute the output of the last step."""
        return self._run(signals[0], last_only=True)
