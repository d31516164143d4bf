"""LMUs of other authors import with the answers that their own code gave.

The fixture holds weights, inputs and answers of that code (tests/fixtures/make_torch_lmus.py).
"""

import numpy as np
import pytest
import torch
from torch import nn
from torch_lmus import (
    NETWORKS,
    RECORDED,
    Cell,
    Classified,
    ConvolvedParallelLayer,
    Former,
    Layer,
    LoopedParallelLayer,
    loaded,
)

from converters.pytorch import from_torch
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.executor import Stream, run, run_stepwise
from lmu_deploy.core.graph.linear import Dense
from lmu_deploy.core.graph.lmu import LMU
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import Node
from lmu_deploy.core.graph.pointwise import Activation
from lmu_deploy.core.graph.recurrent import SimpleRNN
from lmu_deploy.core.graph.transforms import fold
from lmu_deploy.core.network import Memory

CLOSE = 1e-5


def close(found, expected):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=CLOSE * scale)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_other_authors(name):
    module = loaded(name, NETWORKS[name]())
    x, y = RECORDED[f"{name}/x"], RECORDED[f"{name}/y"]
    with torch.no_grad():
        close(module(torch.tensor(x)).numpy(), y)
    network = from_torch(module)
    if network.provenance["input layout"] == "batch features steps":
        x, y = x.swapaxes(1, 2), y.swapaxes(1, 2)
    close(run(network, x), y)
    close(run_stepwise(network, x), y)
    kinds = [type(node.operator) for node in network.nodes]
    assert LMU in kinds or LinearMemory in kinds
    folded = fold(network)
    np.testing.assert_allclose(run(folded, x), run(network, x), rtol=0, atol=1e-9)
    if name == "clashluke":  # the ReLU between the two is the encoder's
        assert "relu" not in folded.shapes and folded["memory"].operator.activation.name == "relu"


def test_thetas_are_found():
    networks = {name: from_torch(loaded(name, NETWORKS[name]())) for name in NETWORKS}
    memories = {
        name: [n.operator.memory for n in net.nodes if hasattr(n.operator, "memory")]
        for name, net in networks.items()
    }
    assert memories["hrshtv-lmu"][0].theta == 10 and memories["mannykao-fft"][0].theta == 12
    assert memories["clashluke"][0].theta == 14 and memories["clashluke"][0].channels == 2
    assert [m.theta for m in memories["lmuformer"]] == [128, 128]
    assert memories["hrshtv-fft"][0].discretizer == "zoh"
    assert memories["hrshtv-trained"][0].discretizer == "trained"
    assert "theta of lmu is taken as" in networks["hrshtv-trained"].provenance["assumed"]


def test_lmuformer_as_a_sequence_and_recurrently():
    x = RECORDED["lmuformer/x"]
    once = from_torch(loaded("lmuformer", Former(5, 8, 16, 4, blocks=2, steps=128)))
    close(run(once, x), RECORDED["lmuformer/y"])
    close(run_stepwise(once, x), RECORDED["lmuformer/recurrent"])
    each = from_torch(loaded("lmuformer", Former(5, 8, 16, 4, 2, 128, every_step=True)))
    assert each.return_sequences and not once.return_sequences
    close(run(each, x), RECORDED["lmuformer/every step"])
    stream = Stream(each, len(x))
    frames = [y for t in range(x.shape[1]) for y in stream.push(x[:, t])]
    assert len(frames) == x.shape[1] - 5  # five convolutions look one step ahead each
    frames += stream.finish()
    close(np.stack(frames, 1), RECORDED["lmuformer/every step, recurrent"])
    names = [node.name for node in each.nodes]
    assert {"patch_embed.conv_layers.0.0", "block.1.attn.lmu.memory", "head"} <= set(names)


@pytest.mark.parametrize("kind", [LoopedParallelLayer, ConvolvedParallelLayer])
def test_parallel_layers_in_other_spellings(kind):
    torch.manual_seed(0)
    module = Classified("lmu", kind(2, 6, 5, 16, 12), 6)
    network = from_torch(module)
    assert [n.name for n in network.nodes][:2] == ["lmu.memory", "lmu.concat"]
    x = torch.randn(2, 16, 2)
    with torch.no_grad():
        close(run(network, x.numpy()), module(x).numpy())


class Loop(nn.Module):
    """A model that calls the cell in a loop of its own, with time first."""

    def __init__(self):
        super().__init__()
        self.memory = Cell(3, 6, 6, 9.0)
        self.out = nn.Linear(6, 2)

    def forward(self, x):
        state = torch.zeros(x.shape[1], 6), torch.zeros(x.shape[1], 6)
        outputs = []
        for frame in x:
            state = self.memory(frame, state)
            outputs.append(self.out(state[0]))
        return torch.stack(outputs)


class Named(nn.Module):
    """A cell with the paper's names and weights on the right, looped inside the layer."""

    def __init__(self, theta=8.0):
        super().__init__()
        source = Cell(4, 4, 4, theta)
        names = {"x": "input", "h": "hidden", "m": "memory"}
        for letter, name in names.items():
            encoder, kernel = getattr(source, f"e_{letter}"), getattr(source, f"W_{letter}")
            self.register_parameter(f"{name}_encoders", nn.Parameter(encoder.detach().T))
            self.register_parameter(f"{name}_kernel", nn.Parameter(kernel.detach().T))
        self.register_buffer("AT", (source.A - torch.eye(4)).T.contiguous())
        self.register_buffer("BT", source.B.T.contiguous())

    def forward(self, x):
        h, m, found = torch.zeros(len(x), 4), torch.zeros(len(x), 4), []
        for t in range(x.shape[1]):
            u = x[:, t] @ self.input_encoders + h @ self.hidden_encoders + m @ self.memory_encoders
            m = m + m @ self.AT + u @ self.BT
            h = x[:, t] @ self.input_kernel + h @ self.hidden_kernel + m @ self.memory_kernel
            h = torch.relu(h)
            found.append(h)
        return torch.stack(found), h


@pytest.mark.parametrize("module", [Loop, lambda: nn.Sequential(Named(), nn.Linear(4, 2))])
def test_cells_in_loops(module):
    torch.manual_seed(1)
    network = from_torch(made := module())
    assert len(network.nodes) == 2 and isinstance(network.nodes[0].operator, LMU)
    x = torch.randn(2, 14, network.n_in)
    with torch.no_grad():
        if isinstance(made, Loop):
            expected = made(x.transpose(0, 1)).transpose(0, 1)
        else:
            expected = made[1](made[0](x)[0].transpose(0, 1))
    close(run(network, x.numpy()), expected.numpy())


@pytest.mark.parametrize(
    "names",
    [
        {"e_x": "ex", "e_h": "eh", "e_m": "em", "W_x": "Wx", "W_h": "Wh", "W_m": "Wm"},
        {"e_x": "input_encoder", "e_h": "hidden_encoder", "e_m": "memory_encoder"},
        {"e_x": "E_x", "e_h": "E_h", "e_m": "E_m", "W_m": "w_m"},
        {"A": "A_d", "B": "B_d"},
        {"A": "A_bar", "B": "B_bar", "W_h": "recurrent_kernel"},
    ],
)
def test_cells_with_other_names(names):
    """Weights are recognized by common names; the values decide whether the reading is right."""
    torch.manual_seed(4)

    class Renamed(Cell):
        def __init__(self):
            super().__init__(3, 5, 4, 8.0)
            for old, new in names.items():
                tensor = self._parameters.get(old, self._buffers.get(old))
                setattr(type(self), old, property(lambda self, new=new: getattr(self, new)))
                delattr(self, old)
                kind = isinstance(tensor, nn.Parameter)
                (self.register_parameter if kind else self.register_buffer)(new, tensor)

    module = nn.Sequential(Layer(3, 5, 4, 8.0), nn.Linear(5, 2))
    module[0].cell = Renamed()
    network = from_torch(module)
    assert isinstance(network.nodes[0].operator, LMU)
    assert network.nodes[0].operator.memory.theta == 8.0


class Odd(nn.Module):
    """A layer whose memory is clipped at every step, which no operator does."""

    def __init__(self):
        super().__init__()
        self.inner = Cell(2, 3, 4, 6.0)

    def forward(self, x):
        h, m, found = torch.zeros(len(x), 3), torch.zeros(len(x), 4), []
        for t in range(x.shape[1]):
            h, m = self.inner(x[:, t], (h, m.clamp(-0.1, 0.1)))
            found.append(h)
        return torch.stack(found, 1)


class Plain(nn.Module):
    """A leaky integrator that is written out step by step."""

    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        y, found = torch.zeros_like(x[:, 0]), []
        for t in range(x.shape[1]):
            y = y + self.rate * (torch.abs(x[:, t]) - torch.abs(y))
            found.append(y)
        return torch.stack(found, 1)


class Doubled(nn.Module):
    """Two steps of code that no reader knows, as a converter may describe them."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 3))

    def forward(self, x):
        return torch.special.expm1(torch.special.log1p((x @ self.weight).abs()))


def test_leaves_that_the_user_converts():
    torch.manual_seed(2)
    module = nn.Sequential(nn.Linear(2, 3), Doubled(), nn.Linear(3, 1))
    with pytest.raises(InputError, match="'1' \\(Doubled\\): abs has no operator") as caught:
        from_torch(module)
    assert "leaves={Class: converter}" in str(caught.value)
    absolute = [Activation("leaky-relu", -1.0)]

    def chain(part):
        return [Dense(part.weight.detach().numpy()), *absolute]

    def nodes(part):
        kernel = part.weight.detach().numpy()
        return [
            Node("product", Dense(kernel), ("input",)),
            Node("size", absolute[0], ("product",)),
        ]

    networks = [from_torch(module, leaves={Doubled: each}) for each in (chain, nodes)]
    assert [n.name for n in networks[0].nodes] == ["0", "1.0", "1", "2"]
    assert [n.name for n in networks[1].nodes] == ["0", "1.product", "1.size", "2"]
    x = torch.randn(2, 5, 2)
    with torch.no_grad():
        for network in networks:
            close(run(network, x.numpy()), module(x).numpy())
    wrong = {Doubled: lambda part: Dense(part.weight.detach().numpy())}
    with pytest.raises(InputError, match=r"'1' .*its converter; they differ by"):
        from_torch(module, leaves=wrong)
    with pytest.raises(InputError, match="converter of Doubled returned"):
        from_torch(module, leaves={Doubled: lambda part: ["relu"]})


def test_a_recurrent_leaf():
    torch.manual_seed(3)
    module = nn.Sequential(nn.Linear(2, 3), Plain())
    memory = Memory(1, 3, 2.0, "trained", np.full((1, 1), 0.5), np.full(1, 0.5))
    wrong = LinearMemory(memory, np.eye(3))
    with pytest.raises(InputError, match="abs has no operator"):
        from_torch(module)
    with pytest.raises(InputError, match="outputs are not those"):
        from_torch(module, leaves={Plain: lambda part: wrong})
    cell = SimpleRNN(np.eye(3), None, None, Activation("linear"))
    with pytest.raises(InputError, match="outputs are not those"):
        from_torch(module, leaves={Plain: lambda part: cell})


def test_a_cell_that_is_not_an_lmu():
    with pytest.raises(InputError) as caught:
        from_torch(nn.Sequential(nn.Linear(2, 2), Odd()))
    assert "'1' (Odd): it clips to -0.1 and 0.1" in str(caught.value)


class CellState(nn.Module):
    """The other state of an LSTM is an output."""

    def __init__(self):
        super().__init__()
        self.inner = nn.LSTMCell(2, 3)

    def forward(self, x):
        state, found = None, []
        for t in range(x.shape[1]):
            state = self.inner(x[:, t], state)
            found.append(state[1])
        return torch.stack(found, 1)


def test_a_state_that_no_operator_has_as_its_output():
    with pytest.raises(InputError, match="'inner': a state of the cell is used"):
        from_torch(CellState())
