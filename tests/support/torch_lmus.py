"""LMU layers in torch as other people write them, from the equations of the papers.

Parameters and buffers have the names that are common in published code, so that weights made there
load, and layers are recognized. The feedback cell is that of Voelker, Kajic, Eliasmith 2019
(equations 4, 6, 7), the parallel layer that of Chilkuri, Eliasmith 2021 (equations 18 to 26), the
network of blocks that of Liu et al. 2024 (LMUFormer, without spikes).
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from lmu_deploy.core.legendre import discretize, impulse_response


def keep_matrices(module, order, theta, steps=None):
    """Keep A and B as buffers, and the impulse response H and its transform for some steps."""
    a, b = discretize(order, theta)
    module.register_buffer("A", torch.tensor(a, dtype=torch.float32))
    module.register_buffer("B", torch.tensor(b[:, None], dtype=torch.float32))
    if steps is not None:
        response = torch.tensor(impulse_response(a, b, steps).T, dtype=torch.float32)
        module.register_buffer("H", response)
        module.register_buffer("fft_H", torch.fft.rfft(response, n=2 * steps))


def convolved(u, transform):
    """Return the states (batch, order, steps) of a memory fed with u (batch, 1, steps)."""
    steps = u.shape[-1]
    product = torch.fft.rfft(u, n=2 * steps) * transform
    return torch.fft.irfft(product, n=2 * steps)[..., :steps]


class Cell(nn.Module):
    """One step of a memory with feedback and of its hidden units."""

    def __init__(self, n_in, units, order, theta):
        super().__init__()
        keep_matrices(self, order, theta)
        for name, size in (("x", n_in), ("h", units), ("m", order)):
            self.register_parameter(f"e_{name}", nn.Parameter(torch.randn(1, size) / 4))
            self.register_parameter(f"W_{name}", nn.Parameter(torch.randn(units, size) / 4))

    def forward(self, x, state):
        h, m = state
        parts = {"x": x, "h": h, "m": m}
        u = sum(v @ getattr(self, f"e_{k}").T for k, v in parts.items())
        parts["m"] = m @ self.A.T + u @ self.B.T
        h = torch.tanh(sum(v @ getattr(self, f"W_{k}").T for k, v in parts.items()))
        return h, parts["m"]


class Layer(nn.Module):
    """A sequence through a cell; returns all outputs and the last state."""

    def __init__(self, n_in, units, order, theta):
        super().__init__()
        self.cell = Cell(n_in, units, order, theta)

    def forward(self, x):
        h = x.new_zeros(len(x), self.cell.W_h.shape[0])
        m = x.new_zeros(len(x), self.cell.A.shape[0])
        outputs = []
        for frame in x.unbind(1):
            h, m = self.cell(frame, (h, m))
            outputs.append(h)
        return torch.stack(outputs, 1), (h, m)


class ParallelLayer(nn.Module):
    """A memory without feedback as a product of transforms, and units that read it."""

    def __init__(self, n_in, units, order, steps, theta):
        super().__init__()
        self.W_u, self.f_u = nn.Linear(n_in, 1), nn.ReLU()
        self.W_h, self.f_h = nn.Linear(order + n_in, units), nn.ReLU()
        keep_matrices(self, order, theta, steps)

    def states(self, u):
        return convolved(u.mT, self.fft_H).mT

    def forward(self, x):
        m = self.states(self.f_u(self.W_u(x)))
        h = self.f_h(self.W_h(torch.cat([m, x], -1)))
        return h, h[:, -1]


class LoopedParallelLayer(ParallelLayer):
    """The same, with the memory advanced in a loop of the layer's own."""

    def states(self, u):
        m, found = torch.zeros(len(u), len(self.A)), []
        for t in range(u.shape[1]):
            m = m @ self.A.T + u[:, t] @ self.B.T
            found.append(m)
        return torch.stack(found, 1)


class ConvolvedParallelLayer(ParallelLayer):
    """The same, with the impulse response as the kernel of a convolution."""

    def states(self, u):
        steps = self.H.shape[1]
        past = functional.pad(u.mT, (steps - 1, 0))
        return functional.conv1d(past, self.H.flip(1)[:, None]).mT


class ChannelsParallelLayer(nn.Module):
    """Several memories and a path around them, on signals (batch, features, steps)."""

    def __init__(self, n_in, units, order, steps, theta, channels):
        super().__init__()
        self.units, self.theta = units, theta
        self.W_u = nn.Conv1d(n_in, units + channels, 1)
        self.W_h = nn.Conv1d(order * channels, units, 1)
        keep_matrices(self, order, theta, steps)
        self.register_buffer("fft_H", self.fft_H[None])
        del self.A, self.B, self.H

    def forward(self, x):
        around, u = self.W_u(x).split([self.units, self.W_u.out_channels - self.units], 1)
        states = convolved(functional.relu(u).flatten(0, 1).unsqueeze(1), self.fft_H)
        return around + self.W_h(states.reshape(len(x), -1, x.shape[2]))


class Classified(nn.Module):
    """A layer and a classifier of the state after the last step."""

    def __init__(self, name, layer, units, classes=3):
        super().__init__()
        self.name = name
        self.add_module(name, layer)
        self.classifier = nn.Linear(units, classes)

    def forward(self, x):
        last = getattr(self, self.name)(x)[1]
        return self.classifier(last[0] if isinstance(last, tuple) else last)


class Pixels(nn.Module):
    """A convolution of one step, normalization, the parallel layer, and the mean over time."""

    def __init__(self, steps):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv1d(1, 3, 1), nn.BatchNorm1d(3)
        self.lmu_fft = ParallelLayer(3, 6, 7, steps, steps)
        self.classifier = nn.Linear(6, 4)

    def forward(self, x):
        y = self.bn1(self.conv1(x.mT)).mT
        return self.classifier(self.lmu_fft(y)[0].mean(1))


class Tokens(nn.Module):
    """Four convolutions and a residual one, on signals (batch, features, steps)."""

    def __init__(self, n_in, size):
        super().__init__()
        sizes = [n_in, size, size, size, size]
        self.conv_layers = nn.Sequential()
        for before, after in pairwise(sizes):
            layer = [near(before, after), nn.ReLU(), nn.Identity(), nn.BatchNorm1d(after)]
            self.conv_layers.append(nn.Sequential(*layer))
        self.rpe_conv = near(size, size)

    def forward(self, x):
        x = self.conv_layers(x)
        return self.rpe_conv(x.clone()) + x


def near(before, after):
    return nn.Conv1d(before, after, 3, padding=1, bias=False)


class Mixer(nn.Module):
    """A parallel layer and a projection."""

    def __init__(self, size, steps):
        super().__init__()
        self.lmu = ParallelLayer(size, size, size, steps, steps)
        self.proj_conv, self.proj_bn = nn.Conv1d(size, size, 1), nn.BatchNorm1d(size)

    def forward(self, x):
        return self.proj_bn(self.proj_conv(self.lmu(x.mT)[0].mT))


class Perceptron(nn.Module):
    """Two layers within every step."""

    def __init__(self, size, hidden):
        super().__init__()
        self.fc1_conv, self.fc1_bn = nn.Conv1d(size, hidden, 1), nn.BatchNorm1d(hidden)
        self.fc2_conv, self.fc2_bn = nn.Conv1d(hidden, size, 1), nn.BatchNorm1d(size)

    def forward(self, x):
        x = functional.gelu(self.fc1_bn(self.fc1_conv(x)).permute(2, 1, 0))
        return self.fc2_bn(self.fc2_conv(x.permute(2, 1, 0))).relu()


class Block(nn.Module):
    """Two residual branches."""

    def __init__(self, size, hidden, steps):
        super().__init__()
        self.attn, self.mlp = Mixer(size, steps), Perceptron(size, hidden)

    def forward(self, x):
        x = x + self.attn(x)
        return x + self.mlp(x)


class Former(nn.Module):
    """The whole network; its answers are the mean over time, or the mean so far at every step."""

    def __init__(self, n_in, size, hidden, classes, blocks, steps, every_step=False):
        super().__init__()
        self.patch_embed = Tokens(n_in, size)
        self.block = nn.ModuleList(Block(size, hidden, steps) for _ in range(blocks))
        self.head = nn.Linear(size, classes)
        self.every_step = every_step

    def forward(self, x):
        x = self.patch_embed(x.permute(0, 2, 1).contiguous())
        for block in self.block:
            x = block(x)
        if not self.every_step:
            return self.head(x.permute(0, 2, 1)).mean(dim=1)
        total = torch.cumsum(x.permute(2, 0, 1), dim=0)
        counts = torch.arange(1, len(total) + 1).view(-1, 1, 1).float()
        return self.head(total / counts.to(x.device))


RECORDED = np.load(Path(__file__).parents[1] / "fixtures" / "torch_lmus.npz")
NETWORKS = {
    "hrshtv-lmu": lambda: Classified("lmu", Layer(2, 6, 5, 10), 6),
    "hrshtv-trained": lambda: Classified("lmu", Layer(6, 6, 6, 10), 6),
    "hrshtv-fft": lambda: Classified("lmu_fft", ParallelLayer(2, 6, 5, 16, 16), 6),
    "mannykao-lmu": lambda: Classified("lmu", Layer(2, 6, 5, 9), 6),
    "mannykao-fft": lambda: Classified("lmu_fft", ParallelLayer(2, 6, 5, 16, 12), 6),
    "clashluke": lambda: ChannelsParallelLayer(3, 4, 5, 16, 14, 2),
    "lmuformer": lambda: Former(5, 8, 16, 4, blocks=2, steps=128),
    "lmuformer-psmnist": lambda: Pixels(20),
}
"""Networks whose weights, inputs and answers the fixture holds."""


def loaded(name, module):
    """Give a module the recorded weights; only what follows from A and B may be missing."""
    start = f"{name}/w/"
    weights = {
        key.removeprefix(start): torch.tensor(RECORDED[key])
        for key in RECORDED.files
        if key.startswith(start)
    }
    found = module.load_state_dict(weights, strict=False)
    assert not found.unexpected_keys
    derived = {"H", "fft_H", "num_batches_tracked"}
    assert {key.rpartition(".")[2] for key in found.missing_keys} <= derived
    return module.eval()
