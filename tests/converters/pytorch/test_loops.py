"""Loops over steps that a forward writes out, in the forms of public code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import lmu_deploy
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.legendre import discretize

N_IN, UNITS, ORDER, THETA = 3, 5, 4, 9.0


def memory_matrices(order=ORDER, theta=THETA, method="zoh"):
    """Return A (order, order) and B (order, 1) of a Legendre memory."""
    a, b = discretize(order, theta, method)
    return torch.tensor(a).float(), torch.tensor(b).float()[:, None]


class Base(nn.Module):
    """Weights that the forwards below use, each in its own way."""

    n_in = N_IN

    def __init__(self):
        super().__init__()
        a, b = memory_matrices()
        self.register_buffer("P", a)
        self.register_buffer("Q", b)
        self.ex = nn.Linear(N_IN, 1)
        self.eh = nn.Linear(UNITS, 1, bias=False)
        self.em = nn.Linear(ORDER, 1, bias=False)
        self.wx = nn.Linear(N_IN, UNITS)
        self.wh = nn.Linear(UNITS, UNITS, bias=False)
        self.wm = nn.Linear(ORDER, UNITS, bias=False)
        self.out = nn.Linear(UNITS, 2)

    def zeros(self, x, size):
        """Return a state of zero."""
        return x.new_zeros(x.shape[0], size)


class Inline(Base):
    """All of an LMU in one forward; the last step is read."""

    def forward(self, x):
        h, m = self.zeros(x, UNITS), self.zeros(x, ORDER)
        for t in range(x.shape[1]):
            u = self.ex(x[:, t]) + self.eh(h) + self.em(m)
            m = m @ self.P.T + u @ self.Q.T
            h = torch.tanh(self.wx(x[:, t]) + self.wh(h) + self.wm(m))
        return self.out(h)


class StepsFirst(Base):
    """Iterates over a tensor (steps, batch, features), and divides a sum by their number."""

    def forward(self, x):
        h = torch.zeros(x.size(1), UNITS, dtype=x.dtype)
        m, total = torch.zeros(x.size(1), ORDER, dtype=x.dtype), 0
        for x_t in x:
            u = functional.linear(x_t, self.ex.weight) + self.eh(h)
            m = functional.linear(m, self.P) + functional.linear(u, self.Q)
            h = torch.relu(self.wm(m) + self.wx(x_t))
            total = total + h
        return self.out(total / x.size(0)), (h, m)


class Euler(Base):
    """A memory with increments, hidden units of a concatenation, filled outputs."""

    def __init__(self):
        super().__init__()
        a, b = memory_matrices(method="euler")
        self.register_buffer("slope", (a - torch.eye(ORDER)) * THETA)
        self.register_buffer("gain", b * THETA)
        self.cell = nn.Linear(ORDER + N_IN + UNITS, UNITS)

    def forward(self, x):
        h, m = self.zeros(x, UNITS), self.zeros(x, ORDER)
        filled = x.new_empty(x.shape[0], x.shape[1], UNITS)
        for t, x_t in enumerate(x.unbind(1)):
            m = m + (m @ self.slope.t() + self.ex(x_t) @ self.gain.t()) / THETA
            h = functional.relu(self.cell(torch.cat([m, x_t, h], dim=-1)))
            filled[:, t] = h
        return self.out(filled)


class Rectified(Base):
    """Channels of an encoder with an activation, by einsum; residual; no recurrent units."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(N_IN)
        self.mix = nn.Linear(N_IN * ORDER, N_IN)

    def forward(self, x):
        y = self.norm(x)
        m, found = x.new_zeros(x.shape[0], N_IN, ORDER), []
        for t in range(x.shape[1]):
            u = torch.relu(y[:, t])
            m = torch.einsum("bci,oi->bco", m, self.P) + u.unsqueeze(-1) * self.Q.squeeze(-1)
            found.append(self.mix(m.flatten(1)))
        return x + functional.gelu(torch.stack(found, 1))


class Gru(Base):
    """A GRU reads the memory and the input."""

    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(ORDER + N_IN, UNITS)

    def forward(self, x):
        h, m = self.zeros(x, UNITS), self.zeros(x, ORDER)
        for t in range(x.shape[1]):
            m = m @ self.P.T + self.ex(x[:, t]) @ self.Q.T
            h = self.cell(torch.cat([m, x[:, t]], 1), h)
        return self.out(h)


class Lstm(Base):
    """An LSTM reads the memory and the input, and feeds back to the memory."""

    def __init__(self):
        super().__init__()
        self.cell = nn.LSTMCell(N_IN + ORDER, UNITS)

    def forward(self, x):
        h, c, m = self.zeros(x, UNITS), self.zeros(x, UNITS), self.zeros(x, ORDER)
        found = []
        for t in range(x.shape[1]):
            m = m @ self.P.T + (self.ex(x[:, t]) + self.eh(h)) @ self.Q.T
            h, c = self.cell(torch.cat([x[:, t], m], 1), (h, c))
            found.append(h[:, None])
        return self.out(torch.cat(found, dim=1))


class Cells(nn.Module):
    """Recurrent units without a memory, several layers in one loop."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(N_IN + UNITS, UNITS)
        self.x2, self.h2 = nn.Linear(UNITS, UNITS), nn.Linear(UNITS, UNITS)

    def forward(self, x):
        states = [x.new_zeros(x.shape[0], UNITS) for _ in range(2)]
        found = []
        for t in range(x.shape[1]):
            states[0] = torch.tanh(self.first(torch.cat((x[:, t], states[0]), -1)))
            states[1] = torch.sigmoid(self.x2(states[0]) + self.h2(states[1]))
            found.append(states[1])
        return torch.stack(found, dim=1)


class Kept(Base):
    """States and outputs in buffers of a fixed number of samples, (steps, batch, features)."""

    def __init__(self):
        super().__init__()
        self.register_buffer("h", torch.ones(2, UNITS))
        self.register_buffer("m", torch.ones(2, ORDER))
        self.register_buffer("y", torch.ones(11, 2, 2))

    def forward(self, x):
        self.h, self.m = self.h.zero_().detach(), self.m.zero_().detach()
        self.y = self.y.zero_().detach()
        for t in range(x.size(0)):
            u = functional.linear(x[t], self.ex.weight) + self.eh(self.h)
            self.m = functional.linear(self.m, self.P) + functional.linear(u, self.Q)
            self.h = torch.tanh(self.wm(self.m) + self.wx(x[t]))
            self.y[t] = self.out(self.h)
        return self.y, self.h


class Both(Base):
    """An LMU in both directions; the backward one writes into a tensor or a list."""

    def __init__(self, into="tensor"):
        super().__init__()
        self.into = into
        self.out = nn.Linear(2 * UNITS, 2)

    def forward(self, x):
        first = torch.stack(self.run(x, range(x.shape[1]), []), 1)
        steps = range(x.shape[1] - 1, -1, -1)
        if self.into == "tensor":
            return self.out(torch.cat([first, self.run(x, steps, torch.zeros_like(first))], -1))
        second = self.run(x, steps, [])
        return self.out(torch.cat([first, torch.stack(second[::-1], 1)], -1))

    def run(self, x, steps, found):
        """Return the units at every step, in a tensor or in the order of the loop."""
        h, m = self.zeros(x, UNITS), self.zeros(x, ORDER)
        for t in steps:
            m = m @ self.P.T + (self.ex(x[:, t]) + self.eh(h)) @ self.Q.T
            h = torch.tanh(self.wm(m) + self.wx(x[:, t]))
            if isinstance(found, list):
                found.append(h)
            else:
                found[:, t] = h
        return found


class MemoryBeside(Base):
    """Outputs of hidden units and of the memory that they feed back to."""

    def __init__(self, own=True, last=False):
        super().__init__()
        self.own, self.last = own, last
        self.out = nn.Linear(UNITS + ORDER, 2)

    def forward(self, x):
        h, m, found = self.zeros(x, UNITS), self.zeros(x, ORDER), []
        for t in range(x.shape[1]):
            u = self.ex(x[:, t]) + self.eh(h) + (self.em(m) if self.own else 0.0)
            m = m @ self.P.T + u @ self.Q.T
            h = torch.tanh(self.wx(x[:, t]) + self.wh(h) + self.wm(m))
            found.append(torch.cat([h, m], -1))
        return self.out(found[-1] if self.last else torch.stack(found, 1))


class Cell(nn.Module):
    """An LMU with the names of weights by which a cell is recognized."""

    def __init__(self):
        super().__init__()
        a, b = memory_matrices()
        self.register_buffer("A", a)
        self.register_buffer("B", b)
        for name, size in (("x", N_IN), ("h", UNITS), ("m", ORDER)):
            setattr(self, f"e_{name}", nn.Parameter(torch.randn(1, size)))
            setattr(self, f"W_{name}", nn.Parameter(torch.randn(UNITS, size)))

    def forward(self, x, state):
        h, m = state
        linear = functional.linear
        u = linear(x, self.e_x) + linear(h, self.e_h) + linear(m, self.e_m)
        m = linear(m, self.A) + linear(u, self.B)
        h = torch.tanh(linear(x, self.W_x) + linear(h, self.W_h) + linear(m, self.W_m))
        return h, m


class LayerOfCells(nn.Module):
    """A layer around the cell, which returns its last states."""

    def __init__(self):
        super().__init__()
        self.cell = Cell()

    def forward(self, x):
        state, found = (x.new_zeros(len(x), UNITS), x.new_zeros(len(x), ORDER)), []
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
            found.append(state[0])
        return torch.stack(found, 1), state


class LastStates(nn.Module):
    """What reads the last states of such a layer, or the states of its cell."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.out = layer, nn.Linear(UNITS + ORDER, 2)

    def forward(self, x):
        _, (h, m) = self.layer(x)
        return self.out(torch.cat([h, m], -1))


def compared(module, seed=0, **kwargs):
    """Return the network of a module, compared with it on sequences of a length of its own."""
    torch.manual_seed(seed)
    network = lmu_deploy.from_torch(module, **kwargs)
    x = torch.randn(2, 11, N_IN, dtype=torch.float64)
    layout = network.provenance["input layout"]
    steps_first = layout.startswith("steps")
    with torch.no_grad():
        expected = module.double()(x.transpose(0, 1) if steps_first else x)
    expected = expected[0] if isinstance(expected, tuple) else expected
    expected = expected.transpose(0, 1) if steps_first and expected.ndim == 3 else expected
    np.testing.assert_allclose(run(network, x.numpy()), expected.numpy(), rtol=1e-7, atol=1e-7)
    return network


@pytest.mark.parametrize(
    ("kind", "kinds"),
    [
        (Inline, ["LMU", "Dense", "Reduce"]),
        (StepsFirst, ["LMU", "Reduce", "Dense"]),
        (Euler, ["LinearMemory", "Concat", "SimpleRNN", "Dense"]),
        (Rectified, ["LayerNorm", "Activation", "LinearMemory", "Dense", "Activation", "Add"]),
        (Gru, ["LinearMemory", "Concat", "GRU", "Dense", "Reduce"]),
        (Lstm, ["LMU", "Dense"]),
        (Cells, ["SimpleRNN", "SimpleRNN"]),
        (Kept, ["LMU", "Dense"]),
    ],
)
def test_a_loop_is_read_as_operators(kind, kinds):
    """The same outputs, and a memory that is recognized as Legendre with its theta."""
    torch.manual_seed(1)
    settings = {"layout": "steps batch features"} if kind is StepsFirst else {}
    if kind is Kept:  # the layout is found
        settings["inputs"] = torch.randn(11, 2, N_IN)
    network = compared(kind(), **settings)
    assert [type(node.operator).__name__ for node in network.nodes] == kinds
    memories = [node.operator.memory for node in network.nodes if hasattr(node.operator, "memory")]
    for memory in memories:
        assert (memory.order, memory.channels) == (ORDER, N_IN if kind is Rectified else 1)
        assert memory.theta == pytest.approx(THETA)
        assert memory.discretizer == ("euler" if kind is Euler else "zoh")
    assert memories or kind is Cells


@pytest.mark.parametrize("into", ["tensor", "list"])
def test_a_loop_from_the_last_step_to_the_first_is_a_reversed_sequence(into):
    """Not only with what it returns, but with the order of its steps."""
    torch.manual_seed(2)
    network = compared(Both(into))
    kinds = [type(node.operator).__name__ for node in network.nodes]
    assert kinds == ["LMU", "Reverse", "LMU", "Reverse", "Concat", "Dense"]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("own", [False, True])
def test_the_memory_beside_hidden_units_that_feed_back_is_an_output(own, last):
    """The memory is computed from the input and the hidden units of the step before."""
    torch.manual_seed(3)
    network = compared(MemoryBeside(own, last))
    kinds = [type(node.operator).__name__ for node in network.nodes]
    memory = "LMU" if own else "LinearMemory"
    tail = ["Reduce"] if last else []
    assert kinds == ["LMU", "Delay", "Concat", memory, "Concat", "Dense", *tail]
    alone = network.nodes[3].operator
    assert (alone.memory.order, alone.n_in) == (ORDER, N_IN + UNITS)


def test_the_last_memory_of_a_layer_of_cells_and_of_ours_is_an_output():
    """They are recognized by their weights, and the memory by its values."""
    torch.manual_seed(4)
    ours = lmu_deploy.nn.LMU(N_IN, units=UNITS, order=ORDER, theta=THETA, hidden_to_memory=True)
    for layer in (LayerOfCells(), ours):
        kinds = [type(node.operator).__name__ for node in compared(LastStates(layer)).nodes]
        assert kinds.count("LMU") + kinds.count("LinearMemory") == 2
        assert kinds.count("Delay") == 1


def test_matrices_and_encoders_are_those_of_the_module():
    """The memory is A and B, not A with the feedback of the memory in it."""
    torch.manual_seed(2)
    module = Inline()
    network = compared(module)
    layer = network.nodes[0].operator
    np.testing.assert_array_equal(layer.memory.a_bar, module.P.float().numpy())
    np.testing.assert_allclose(layer.input_encoders, module.ex.weight.detach().numpy().T, 1e-6)
    np.testing.assert_allclose(layer.hidden_encoders, module.eh.weight.detach().numpy().T, 1e-6)
    np.testing.assert_allclose(layer.memory_encoders, module.em.weight.detach().numpy().T, 1e-6)
    np.testing.assert_allclose(layer.memory_bias, module.ex.bias.detach().numpy(), 1e-6)


class Channels(nn.Module):
    """Channels in any form: as an axis before or behind the states, or in one matrix."""

    def __init__(self, order, channels, form):
        super().__init__()
        a, b = memory_matrices(order, 7.0)
        self.form, self.size = form, (channels, order)
        self.encode = nn.Linear(N_IN, channels)
        self.read = nn.Linear(channels * order, 2)
        eye = torch.eye(channels)
        if form == "flat":
            a, b = torch.kron(eye, a), torch.kron(eye, b)
        elif form == "flat, turned":
            a, b = torch.kron(a, eye), torch.kron(b, eye)
        self.register_buffer("P", a)
        self.register_buffer("Q", b)

    def forward(self, x):
        channels, order = self.size
        shape = {"before": (channels, order), "behind": (order, channels)}
        m = x.new_zeros(x.shape[0], *shape.get(self.form, (channels * order,)))
        found = []
        for t in range(x.shape[1]):
            u = self.encode(x[:, t])
            if self.form == "before":
                m = m @ self.P.T + u[:, :, None] * self.Q[:, 0]
            elif self.form == "behind":
                m = self.P @ m + self.Q * u[:, None, :]
            else:
                m = m @ self.P.T + u @ self.Q.T
            found.append(self.read(m.reshape(m.shape[0], -1)))
        return torch.stack(found, 1)


@settings(max_examples=6, deadline=None)
@given(
    order=st.integers(1, 5),
    channels=st.integers(1, 4),
    form=st.sampled_from(["before", "behind", "flat", "flat, turned"]),
)
def test_channels_are_found_in_any_form(order, channels, form):
    """As many channels as there are copies of one system."""
    torch.manual_seed(order * 10 + channels)
    network = compared(Channels(order, channels, form))
    memory = network.nodes[0].operator.memory
    assert (memory.order, memory.channels) == (order, channels)


class Varying(Inline):
    """One step in the middle is another one."""

    def forward(self, x):
        h, m = self.zeros(x, UNITS), self.zeros(x, ORDER)
        for t in range(x.shape[1]):
            m = m @ self.P.T + self.ex(x[:, t]) @ self.Q.T * (1.0 if t != 7 else 1.01)
            h = torch.tanh(self.wm(m))
        return self.out(h)


class Scaled(Inline):
    """Inputs are weighted by the number of the step."""

    def forward(self, x):
        h = self.zeros(x, UNITS)
        for t in range(x.shape[1]):
            h = torch.tanh(self.wx(x[:, t] * (1 + 0.1 * t)) + self.wh(h))
        return self.out(h)


class Gated(Inline):
    """A gate on the memory."""

    def forward(self, x):
        m = self.zeros(x, ORDER)
        for t in range(x.shape[1]):
            keep = torch.sigmoid(self.ex(x[:, t]) + self.em(m))
            m = keep * (m @ self.P.T) + self.ex(x[:, t]) @ self.Q.T
        return self.out(self.wm(m))


class Late(Inline):
    """Hidden units that read the memory of the step before and feed back."""

    def forward(self, x):
        h, m = self.zeros(x, UNITS), self.zeros(x, ORDER)
        for t in range(x.shape[1]):
            u = self.ex(x[:, t]) + self.eh(h)
            h = torch.tanh(self.wx(x[:, t]) + self.wm(m))
            m = m @ self.P.T + u @ self.Q.T
        return self.out(h)


class Started(Inline):
    """A memory that does not start from zero."""

    def forward(self, x):
        m = torch.ones(x.shape[0], ORDER)
        for t in range(x.shape[1]):
            m = m @ self.P.T + self.ex(x[:, t]) @ self.Q.T
        return self.out(self.wm(m))


class Jumping(Inline):
    """Every step as often as the others, but in another order."""

    def forward(self, x):
        m, steps = self.zeros(x, ORDER), x.shape[1]
        for t in range(steps):
            m = m @ self.P.T + self.ex(x[:, (t * 2) % steps]) @ self.Q.T
        return self.out(self.wm(m))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Varying, "depends on the step"),
        (Scaled, "depends on the step"),
        (Gated, "none of the operators"),
        (Late, "read the memory of the step before"),
        (Started, "do not start from zero"),
        (Jumping, "in another order"),
    ],
)
def test_other_loops_are_refused_with_the_reason(kind, reason):
    """By the name of the module that contains the loop."""

    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = kind()

        def forward(self, x):
            return self.inner(x)

    torch.manual_seed(3)
    with pytest.raises(InputError, match=rf"'inner' \({kind.__name__}\): .*{reason}"):
        lmu_deploy.from_torch(Around(), inputs=torch.randn(3, 13, N_IN))
