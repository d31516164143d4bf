"""Every spelling that the registry knows gives a network with the module's answers."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from converters.pytorch import from_torch
from converters.pytorch.registry import coverage
from lmu_deploy.core.graph.executor import run, run_stepwise
from lmu_deploy.core.graph.network import OPERATORS

STEPS, N = 11, 4


class Applied(nn.Module):
    """A linear layer, a function of its outputs (batch, steps, 4), and the layers it uses."""

    def __init__(self, function, **layers):
        super().__init__()
        self.start = nn.Linear(3, N)
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.function(self, self.start(x))


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def answers(module, x):
    """Return the answers of a module in float64 and evaluation mode."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            return module.double().eval()(x).numpy()
    finally:
        torch.set_default_dtype(before)


def agree(module, x=None, tolerance=1e-9, **options):
    """Assert that a network has its module's answers, as a whole and frame by frame."""
    network = from_torch(module, **options)
    x = draw(2, STEPS, 3) if x is None else x
    expected = answers(module, x)
    found = run(network, x.numpy())
    scale = tolerance * np.abs(expected).max()
    np.testing.assert_allclose(found, expected.reshape(found.shape), rtol=0, atol=scale)
    np.testing.assert_allclose(run_stepwise(network, x.numpy()), found, rtol=0, atol=scale)
    return network


def normalized(layer):
    """Give a normalization statistics and weights of its own."""
    generator = torch.Generator().manual_seed(1)
    for tensor in [*layer.buffers(), *layer.parameters()]:
        if tensor.is_floating_point():
            tensor.data = torch.rand(tensor.shape, generator=generator) + 0.5
    return layer


def conv(*args, **options):
    """Return a convolution over steps of signals (batch, steps, features)."""
    layer = nn.Conv1d(*args, **options)
    return {"conv": layer}


def over_steps(layer):
    return lambda m, y: layer(m, y.transpose(1, 2)).transpose(1, 2)


WEIGHTS = draw(N, 5, seed=3)
FUNCTIONS = {
    # pointwise
    "torch.relu": lambda m, y: torch.relu(y),
    "method relu": lambda m, y: y.relu(),
    "relu in place": lambda m, y: functional.relu(y.clone(), inplace=True),
    "relu_": lambda m, y: y.relu_(),
    "relu6": lambda m, y: functional.relu6(3 * y),
    "tanh": lambda m, y: y.tanh(),
    "sigmoid": lambda m, y: torch.sigmoid(y),
    "gelu": lambda m, y: functional.gelu(y),
    "gelu tanh": lambda m, y: functional.gelu(y, approximate="tanh"),
    "silu": lambda m, y: functional.silu(y),
    "swish": lambda m, y: y * torch.sigmoid(y),
    "elu": lambda m, y: functional.elu(y, 0.7),
    "selu": lambda m, y: functional.selu(y),
    "leaky relu": lambda m, y: functional.leaky_relu(y, negative_slope=0.2),
    "softplus": lambda m, y: functional.softplus(y),
    "softsign": lambda m, y: functional.softsign(y),
    "hardtanh": lambda m, y: functional.hardtanh(2 * y),
    "hardsigmoid": lambda m, y: functional.hardsigmoid(3 * y),
    "hardswish": lambda m, y: functional.hardswish(3 * y),
    "mish": lambda m, y: functional.mish(y),
    "clamp": lambda m, y: (2 * y).clamp(-1, 1),
    "clamp min": lambda m, y: y.clamp(min=0),
    "softmax inside": lambda m, y: torch.softmax(y, -1) * y,
    "glu": lambda m, y: functional.glu(y, dim=-1),
    "glu by chunk": lambda m, y: (lambda a, b: a * torch.sigmoid(b))(*y.chunk(2, -1)),
    "square": lambda m, y: y**2 + y.square() + y.pow(3),
    "numbers": lambda m, y: 2 * y + 1 - y / 4,
    "number minus": lambda m, y: 1.5 - y,
    "negative": lambda m, y: -y,
    "alpha": lambda m, y: torch.add(y, y.tanh(), alpha=0.3) - torch.sub(y, 1, alpha=2),
    "vector": lambda m, y: y * WEIGHTS[:, 0] + WEIGHTS[:, 1],
    "vector to a column": lambda m, y: y[..., :1] * WEIGHTS[:, 0],
    "column times frame": lambda m, y: y * torch.sigmoid(y.mean(-1, keepdim=True)),
    "in place": lambda m, y: y.mul_(2).add_(1),
    "augmented": lambda m, y: augmented(y),
    # linear
    "matmul": lambda m, y: y @ WEIGHTS,
    "matmul from the left": lambda m, y: (WEIGHTS.T @ y.transpose(1, 2)).transpose(1, 2),
    "matmul by a vector": lambda m, y: torch.matmul(y, WEIGHTS[:, 0]),
    "functional linear": lambda m, y: functional.linear(y, WEIGHTS.T, WEIGHTS[0]),
    "einsum": lambda m, y: torch.einsum("btc,co->bto", y, WEIGHTS),
    "einsum turned": lambda m, y: torch.einsum("oc,btc->bot", WEIGHTS.T, y).permute(0, 2, 1),
    # shapes
    "cat": lambda m, y: torch.cat([y, y.relu()], dim=-1),
    "cat on channels": lambda m, y: torch.cat([y.mT, y.mT.tanh()], 1).mT,
    "stack": lambda m, y: torch.stack([y, y.relu()], dim=2).flatten(2),
    "stack last": lambda m, y: torch.stack([y, y.relu()], dim=-1).reshape(len(y), -1, 2 * N),
    "stack and sum": lambda m, y: torch.stack([y, y.relu(), y.tanh()]).sum(0),
    "frames": lambda m, y: y.view(len(y), -1, 2, 2).transpose(2, 3).flatten(2),
    "frames of one axis more": lambda m, y: y.unflatten(-1, (2, 2)).mean(-1),
    "frames merged with samples": lambda m, y: m.inner(y.reshape(-1, N)).view(len(y), -1, 3),
    "turned about": lambda m, y: y.permute(2, 1, 0).relu().permute(2, 1, 0),
    "moved": lambda m, y: torch.movedim(y, 1, 2).movedim(-1, 1),
    "squeeze": lambda m, y: y.unsqueeze(1).tanh().squeeze(1),
    "one feature": lambda m, y: y[..., 2],
    "some features": lambda m, y: torch.cat([y[:, :, 1:3], y.narrow(2, 0, 1)], -1),
    "other features": lambda m, y: y[..., ::2],
    "index_select": lambda m, y: y.index_select(2, torch.tensor([3, 0])),
    "split": lambda m, y: (lambda a, b: a * b)(*y.split([2, 2], dim=-1)),
    "unbind": lambda m, y: torch.stack(y.unbind(-1)[::-1], -1),
    "flip features": lambda m, y: y.flip(-1),
    "expand": lambda m, y: y[..., :1].expand(-1, -1, 3),
    "repeat": lambda m, y: y[..., :1].repeat(1, 1, 3),
    "pad features": lambda m, y: functional.pad(y, (1, 2)),
    # time
    "last": lambda m, y: y[:, -1],
    "last, all axes": lambda m, y: y[:, -1, :],
    "last by its number": lambda m, y: y[:, y.shape[1] - 1],
    "last of time first": lambda m, y: y.transpose(0, 1)[-1],
    "last by select": lambda m, y: y.select(1, -1),
    "last of channels first": lambda m, y: y.permute(0, 2, 1)[..., -1],
    "mean": lambda m, y: y.mean(1),
    "mean of channels first": lambda m, y: y.transpose(1, 2).mean(dim=-1),
    "mean kept": lambda m, y: y.mean(dim=1, keepdim=True).squeeze(1),
    "sum": lambda m, y: torch.sum(y, dim=1),
    "max": lambda m, y: y.max(dim=1).values,
    "max unpacked": lambda m, y: torch.max(y, 1)[0],
    "amax": lambda m, y: y.amax(1),
    "mean over all": lambda m, y: y.mean((1, 2)),
    "features summed": lambda m, y: y.sum(-1, keepdim=True),
    "features' maximum": lambda m, y: y.amax(-1),
    "cumulative sum": lambda m, y: y.cumsum(1),
    "cumulative mean": lambda m, y: cumulative_mean(y),
    "reversed": lambda m, y: torch.flip(y, dims=(1,)),
    "delay": lambda m, y: functional.pad(y, (0, 0, 1, 0))[:, :-1],
    "delay by cat": lambda m, y: torch.cat([torch.zeros_like(y[:, :2]), y[:, :-2]], 1),
    "every second": lambda m, y: y[:, ::2],
    "residual": lambda m, y: y + torch.tanh(m.inner2(y)),
}  # fmt: skip


def augmented(y):
    y = y + 0
    y += 1
    y *= 0.5
    return y


def cumulative_mean(y):
    y = torch.cumsum(y.permute(1, 0, 2), dim=0)
    counts = torch.arange(1, y.shape[0] + 1).view(-1, 1, 1).float().to(y.device)
    return (y / counts).permute(1, 0, 2)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    torch.manual_seed(0)
    layers = {"inner": nn.Linear(N, 3), "inner2": nn.Linear(N, N)}
    agree(Applied(FUNCTIONS[name], **layers))


LAYERS = {
    "Conv1d valid": nn.Conv1d(N, 6, 3),
    "Conv1d same": nn.Conv1d(N, 6, 4, padding="same"),
    "Conv1d padded": nn.Conv1d(N, 6, 3, padding=1, stride=2, bias=False),
    "Conv1d dilated by groups": nn.Conv1d(N, 6, 3, dilation=2, groups=2, padding=2),
    "Conv1d depthwise": nn.Conv1d(N, N, 5, groups=N, padding=2),
    "Conv1d of one step": nn.Conv1d(N, 6, 1),
    "BatchNorm1d": normalized(nn.BatchNorm1d(N)),
    "BatchNorm1d without weights": normalized(nn.BatchNorm1d(N, affine=False)),
    "AvgPool1d": nn.AvgPool1d(3, stride=2, padding=1),
    "AvgPool1d without padding": nn.AvgPool1d(3, padding=1, count_include_pad=False),
    "MaxPool1d": nn.MaxPool1d(3, 2, padding=1),
    "Sequential": nn.Sequential(nn.Conv1d(N, 6, 3), nn.ReLU(), normalized(nn.BatchNorm1d(6))),
    "ConstantPad1d": nn.Sequential(nn.ConstantPad1d((4, 0), 0.0), nn.Conv1d(N, 3, 3, dilation=2)),
    "ZeroPad1d": nn.Sequential(nn.ZeroPad1d((2, 0)), nn.Conv1d(N, 3, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_on_channels_first(name):
    torch.manual_seed(1)
    agree(Applied(over_steps(lambda m, y: m.layer(y)), layer=LAYERS[name]))


FRAMEWISE = {
    "LayerNorm": normalized(nn.LayerNorm(N)),
    "LayerNorm without weights": nn.LayerNorm(N, elementwise_affine=False, eps=1e-3),
    "RMSNorm": normalized(nn.RMSNorm(N, eps=1e-4)),
    "ReLU in place": nn.ReLU(inplace=True),
    "PReLU": nn.PReLU(),
    "Dropout": nn.Dropout(0.5),
    "GLU": nn.GLU(),
    "Hardtanh": nn.Hardtanh(),
    "Identity": nn.Identity(),
    "MaxPool1d of features": nn.MaxPool1d(2),
    "AvgPool1d of features": nn.AvgPool1d(2, 1),
    "Unflatten": nn.Sequential(nn.Unflatten(-1, (2, 2)), nn.Flatten(2)),
    "LayerNorm of two axes": nn.Sequential(
        nn.Unflatten(-1, (2, 2)), normalized(nn.LayerNorm([2, 2])), nn.Flatten(2)
    ),
}


@pytest.mark.parametrize("name", FRAMEWISE)
def test_layers_on_frames(name):
    torch.manual_seed(2)
    agree(Applied(lambda m, y: m.layer(y), layer=FRAMEWISE[name]))


RECURRENT = {
    "RNN": nn.RNN(N, 3, batch_first=True),
    "RNN relu": nn.RNN(N, 3, 2, nonlinearity="relu", bias=False, batch_first=True),
    "LSTM": nn.LSTM(N, 3, batch_first=True),
    "LSTM of two layers": nn.LSTM(N, 3, 2, batch_first=True, dropout=0.3),
    "LSTM both ways": nn.LSTM(N, 3, 2, batch_first=True, bidirectional=True),
    "GRU": nn.GRU(N, 3, batch_first=True),
    "GRU both ways": nn.GRU(N, 3, batch_first=True, bidirectional=True, bias=False),
}


def last_states(m, y):
    state = m.layer(y)[1]
    h = state[0] if isinstance(state, tuple) else state
    return torch.cat([h[0], h[-1], h.transpose(0, 1).flatten(1)], dim=-1)


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("use", [lambda m, y: m.layer(y)[0], last_states], ids=["outputs", "h_n"])
def test_recurrent_layers(name, use):
    torch.manual_seed(3)
    agree(Applied(use, layer=RECURRENT[name]), tolerance=1e-6)  # torch keeps its biases apart


def test_time_first_and_initial_states():
    torch.manual_seed(4)
    gru, lstm = nn.GRU(N, 3), nn.LSTM(3, 2)
    h0 = nn.Parameter(torch.randn(1, 1, 2))

    def forward(m, y):
        y = m.gru(y.transpose(0, 1), torch.zeros(1, y.shape[0], 3))[0]
        start = m.h0.expand(-1, y.shape[1], -1).contiguous()
        return m.lstm(y, (start, torch.zeros_like(start)))[0].permute(1, 0, 2)

    network = agree(Applied(forward, gru=gru, lstm=lstm, h0=h0), tolerance=1e-6)
    np.testing.assert_array_equal(network["lstm"].operator.initial_h, h0.detach().numpy()[0, 0])


def loop(m, y):
    """Call cells step by step, a dense layer at each step, and collect the outputs."""
    h = torch.zeros(y.shape[0], 5)
    c = torch.zeros(y.shape[0], 5)
    s, outputs = None, []
    for t in range(y.size(1)):
        h, c = m.lstm(y[:, t], (h, c))
        s = m.gru(m.dense(h).relu(), s)
        outputs.append(s)
    return torch.stack(outputs, dim=1)


def loop_to_the_end(m, y):
    h = torch.zeros(y.shape[0], 5)
    for frame in y.unbind(1):
        h = m.rnn(frame, h)
    return m.dense(h)


def loop_into_a_tensor(m, y):
    h, outputs = torch.zeros(y.shape[0], 5), torch.zeros(y.shape[0], y.shape[1], 5)
    for t, frame in enumerate(y.transpose(0, 1)):
        h = m.rnn(frame, h)
        outputs[:, t] = h
    return m.dense(outputs)


@pytest.mark.parametrize("forward", [loop, loop_to_the_end, loop_into_a_tensor])
def test_loops_of_cells(forward):
    torch.manual_seed(5)
    cells = {"lstm": nn.LSTMCell(N, 5), "gru": nn.GRUCell(2, 3), "rnn": nn.RNNCell(N, 5)}
    network = agree(Applied(forward, dense=nn.Linear(5, 2), **cells), tolerance=1e-6)
    assert len(network.nodes) <= 5


def trimmed(m, y):
    """Trim a padded convolution, behind the activation that follows it."""
    return functional.relu(m.conv(y.transpose(1, 2)))[..., : -m.conv.padding[0]].transpose(1, 2)


def padded(m, y):
    y = functional.pad(y.transpose(1, 2), (4, 0))
    return m.conv(y).transpose(1, 2)


@pytest.mark.parametrize(
    ("forward", "padding"), [(trimmed, 4), (padded, 0)], ids=["trimmed", "padded"]
)
def test_causal_convolutions(forward, padding):
    torch.manual_seed(6)
    layer = nn.Conv1d(N, 5, 3, dilation=2, padding=padding)
    network = agree(Applied(forward, conv=layer))
    operator = network["conv"].operator
    assert (operator.left, operator.right) == (4, 0) and "causal" in operator.describe()
    assert len(network.nodes) == 3 - (padding == 0)


class Images(nn.Module):
    """Convolutions over the frames of a sequence of images, and a recurrent layer."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(2, 4, 3, stride=2, padding=1),
            normalized(nn.BatchNorm2d(4)),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 6, (1, 2), groups=2),
        )
        self.lstm = nn.LSTM(12, 3, batch_first=True)

    def forward(self, x):
        b, t = x.shape[:2]
        y = self.features(x.flatten(0, 1))
        y = torch.cat([y.flatten(1), y.mean((2, 3)), y.amax((-1, -2))], dim=1)
        return self.lstm(y.view(b, t, -1)[..., -12:])[0]


def test_images():
    torch.manual_seed(7)
    x = draw(2, STEPS, 2, 8, 12)
    module = Images()
    network = from_torch(module, inputs=torch.zeros(2, 5, 2, 8, 12))
    assert network.frame == (8, 12, 2)
    frames = x.permute(0, 1, 3, 4, 2).numpy()
    expected = answers(module, x)
    np.testing.assert_allclose(run(network, frames), expected, rtol=0, atol=1e-7)
    np.testing.assert_allclose(run_stepwise(network, frames), expected, rtol=0, atol=1e-7)


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(30, 6)
        self.head = nn.Linear(6 + 30, 3)

    def forward(self, tokens):
        hot = functional.one_hot(tokens, 30).float()
        return self.head(torch.cat([self.table(tokens), hot], -1)).mean(1)


def test_tokens():
    torch.manual_seed(8)
    tokens = torch.randint(0, 30, (4, STEPS))
    module = Words()
    network = from_torch(module)
    expected = answers(module, tokens)
    found = run(network, tokens[..., None].numpy())
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert network.provenance["input layout"] == "batch steps"


class Flat(nn.Module):
    """A dense layer on a whole sequence, in either order of its axes."""

    def __init__(self, turned):
        super().__init__()
        self.turned = turned
        self.lmu = nn.GRU(2, 3, batch_first=True)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(3 * 9, 5), nn.ReLU(), nn.Linear(5, 2))

    def forward(self, x):
        y = self.lmu(x)[0]
        return self.head(y.mT if self.turned else y)


@pytest.mark.parametrize("turned", [False, True])
def test_a_flattened_sequence(turned):
    torch.manual_seed(9)
    x = draw(2, 9, 2)
    network = agree(Flat(turned), x, inputs=x.float())
    assert "must have 9 steps" in network.provenance["assumed"]
    assert "9 steps alone" in network.provenance["verified"]


def test_the_registry_names_every_operator_that_torch_has():
    made = {name for row in coverage() for name in row.operators}
    own = {"LMU", "Mask"}  # layers of lmu_deploy.nn and of other authors; Keras alone masks
    assert made == {operator.__name__ for operator in OPERATORS} - own
    names = [name for row in coverage() for name in row.functions]
    assert len(names) == len(set(names))
    for row in coverage():
        for module in row.modules:
            assert hasattr(nn, module), module
