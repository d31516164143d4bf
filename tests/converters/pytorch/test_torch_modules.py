"""Networks converted from torch modules have the outputs of the modules."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from converters.pytorch import from_torch
from converters.pytorch.state_dict import read_pytorch_lmu
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.transforms import as_layers
from lmu_deploy.core.loading import load
from lmu_deploy.core.reference import run_reference
from lmu_deploy.nn import LMU, LMUConfig, LSTMConfig, ModelConfig, SequenceModel

STEPS = 9


def agree(module, inputs, given=None, tolerance=1e-6):
    """Assert that a module and its network have equal outputs, relative to the largest."""
    network = from_torch(module)
    expected = run_reference(network, inputs).outputs
    module.eval()
    with torch.no_grad():
        outputs = module(torch.tensor(inputs) if given is None else given).numpy()
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=tolerance * np.abs(expected).max())
    return network


def draw_inputs(n_in, seed=0):
    return np.random.default_rng(seed).normal(size=(4, STEPS, n_in)).astype(np.float32)


class Chain(nn.Module):
    """A chain of layers, with linear maps and dropout between them."""

    def __init__(self, layers, head, last, dropout):
        super().__init__()
        for number, layer in enumerate(layers):
            setattr(self, f"part{number}_of_it", layer)
        self.count, self.last, self.p = len(layers), last, dropout
        self.head = head

    def forward(self, x):
        for number in range(self.count):
            layer = getattr(self, f"part{number}_of_it")
            x = layer(x) if isinstance(layer, nn.Linear) else layer(x)[0]
            x = functional.dropout(x, self.p, self.training)
        return self.head(x[:, -1] if self.last else x)


@st.composite
def chains(draw):
    torch.manual_seed(draw(st.integers(0, 10**6)))
    n_in = size = draw(st.integers(1, 3))
    layers = []
    kinds = draw(st.lists(st.sampled_from(["lmu", "lstm", "linear"]), max_size=3))
    for kind in [*kinds, "lmu"]:
        units = draw(st.integers(1, 5))
        if kind == "linear":
            layers.append(nn.Linear(size, units, bias=draw(st.booleans())))
        elif kind == "lstm":
            count, bias = draw(st.integers(1, 2)), draw(st.booleans())
            layers.append(nn.LSTM(size, units, count, bias=bias, batch_first=True))
        else:
            hidden = draw(st.sampled_from(["recurrent", "feedforward", "none"]))
            layers.append(
                LMU(
                    size,
                    0 if hidden == "none" else units,
                    order=draw(st.integers(1, 5)),
                    theta=draw(st.floats(2.0, 20.0)),
                    channels=draw(st.integers(1, 2)),
                    hidden=hidden,
                    hidden_to_memory=hidden != "none" and draw(st.booleans()),
                    memory_bias=draw(st.booleans()),
                    train_theta=draw(st.booleans()),
                )
            )
            units = layers[-1].n_out
        size = units
    head = nn.Linear(size, draw(st.integers(1, 4)))
    return n_in, Chain(layers, head, draw(st.booleans()), draw(st.sampled_from([0.0, 0.5])))


@settings(max_examples=40, deadline=None)
@given(chain=chains(), seed=st.integers(0, 100))
def test_random_chains_have_the_outputs_of_their_networks(chain, seed):
    n_in, module = chain
    agree(module, draw_inputs(n_in, seed))


class States(nn.Module):
    """A module that reads the last outputs from states, starts at zeros, and has steps first."""

    def __init__(self):
        super().__init__()
        self.core = nn.LSTM(2, 3, num_layers=2)
        self.lmu = LMU(3, 4, order=3, theta=6.0, batch_first=False)
        self.out = nn.Linear(4, 2)

    def forward(self, x):
        x = x.permute(1, 0, 2)
        h0 = torch.zeros(2, x.size(1), 3).to(x.device)
        y, (_h, _c) = self.core(x, (h0, torch.zeros_like(h0)))
        _, state = self.lmu(y, self.lmu.initial_state(x.shape[1]))
        return functional.log_softmax(self.out(state.h), dim=-1)


def test_states_axes_and_a_softmax_at_the_end():
    torch.manual_seed(0)
    module, inputs = States(), draw_inputs(2)
    network = from_torch(module, task="digits", provenance={"seed": "0"})
    outputs = run_reference(network, inputs).outputs
    odds = outputs - np.log(np.exp(outputs).sum(-1, keepdims=True))
    with torch.no_grad():
        np.testing.assert_allclose(module(torch.tensor(inputs)).numpy(), odds, atol=1e-6)
    assert network.task == "digits" and network.provenance["seed"] == "0"
    assert "softmax" in network.provenance["left out"]
    assert len(as_layers(network, "test").layers) == 3


class Pixels(nn.Module):
    """Takes (batch, steps) and answers with one number a sequence."""

    def __init__(self):
        super().__init__()
        self.a = nn.ModuleDict({"lmu": LMU(1, 4, order=4, theta=8.0)})
        self.b = nn.LSTM(4, 3, batch_first=True)
        self.c = nn.Linear(3, 1)

    def forward(self, pixels):
        y, _ = self.a["lmu"](pixels.unsqueeze(-1).float())
        _, (h, _) = self.b(y)
        return self.c(h[-1]).squeeze(-1)


def test_sequences_of_pixels():
    torch.manual_seed(1)
    inputs = draw_inputs(1)
    network = from_torch(Pixels())
    torch.manual_seed(1)
    with torch.no_grad():
        answers = Pixels()(torch.tensor(inputs[..., 0])).numpy()
    expected = run_reference(network, inputs).outputs
    np.testing.assert_allclose(answers, expected[..., 0], atol=1e-6)


@pytest.mark.parametrize("sequences", [True, False])
def test_a_sequential_is_converted_in_its_order(sequences):
    torch.manual_seed(2)
    a, b = LMU(2, 3, order=4, theta=9.0), LMU(3, 5, order=2, theta=5.0, hidden_to_memory=True)
    head, inputs = nn.Linear(5, 2), draw_inputs(2)
    network = from_torch(nn.Sequential(a, nn.Dropout(0.3), b, head), return_sequences=sequences)
    with torch.no_grad():
        answers = head(b(a(torch.tensor(inputs))[0])[0]).numpy()
    expected = run_reference(network, inputs).outputs
    np.testing.assert_allclose(
        answers if sequences else answers[:, -1],
        expected,
        rtol=0,
        atol=1e-6 * np.abs(answers).max(),
    )


class First(nn.Module):
    def forward(self, both):
        return both[0]


def test_a_sequential_that_runs():
    torch.manual_seed(3)
    body = nn.Sequential(LMU(1, 3, order=4, theta=9.0), First(), nn.Identity(), nn.Linear(3, 2))
    assert agree(body, draw_inputs(1)).return_sequences


def test_a_model_of_the_trainer_inside_a_module_and_by_itself():
    torch.manual_seed(4)
    layers = (LMUConfig(units=3, order=4, theta=7.0), LSTMConfig(units=2))
    model = SequenceModel(ModelConfig(n_in=2, n_out=3, layers=layers))
    agree(model, draw_inputs(2))
    wrapped = nn.Sequential(model, nn.Linear(3, 2))
    wrapped.train()
    agree(wrapped, draw_inputs(2))


def test_training_modes_are_restored():
    module = nn.Sequential(LMU(1, 2, order=2, theta=4.0), First(), nn.Dropout(0.5))
    module.train()
    module[2].eval()
    from_torch(module)
    assert module.training and module[0].training and not module[2].training


class Crowded(nn.Module):
    """Much that cannot be represented, some of it twice."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.lmu = LMU(2, 3, order=2, theta=4.0)
        self.both = nn.LSTM(3, 3, batch_first=True, bidirectional=True)
        self.act = nn.ReLU()
        self.out = nn.Linear(6, 2)

    def forward(self, x):
        y = self.norm(x.transpose(1, 2)).transpose(1, 2)
        y, _ = self.lmu(y)
        y, _ = self.both(y + torch.tanh(y))
        return self.out(self.act(y).mean(1))


def test_all_problems_are_reported_at_once():
    with pytest.raises(InputError) as caught:
        from_torch(Crowded())
    text = str(caught.value)
    assert text.startswith("Crowded cannot be converted: ")
    for part in ("'norm' (BatchNorm1d)", "'act' (ReLU)", "add after 'lmu'", "mean after 'act'"):
        assert f"{part} cannot be represented" in text, text
    assert "'both' (LSTM): it is bidirectional" in text


class Conditional(nn.Module):
    def __init__(self):
        super().__init__()
        self.lmu = LMU(1, 2, order=2, theta=4.0)

    def forward(self, x):
        return self.lmu(x)[0] if x.sum() > 0 else x


class Own(nn.Module):
    """A module that keeps its state between calls."""

    def __init__(self):
        super().__init__()
        self.lmu = LMU(1, 2, order=2, theta=4.0)
        self.m, self.h = nn.Parameter(torch.ones(1, 2)), nn.Parameter(torch.ones(1, 2))

    def forward(self, x):
        return self.lmu(x, (self.m, self.h), lengths=x.sum(1))[0]


class Early(nn.Module):
    def __init__(self):
        super().__init__()
        self.lmu = LMU(1, 2, order=2, theta=4.0)
        self.after = nn.LSTM(2, 2)

    def forward(self, x):
        y = torch.softmax(self.lmu(x)[0], -1)
        return self.after(functional.dropout(y[-1].unsqueeze(-1)))[0]


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (Conditional(), ["forward of Conditional cannot be traced", "conditions on the data"]),
        (Own(), ["a state that is not zero", "given lengths"]),
        (
            Early(),
            [
                "softmax before the end",
                "selects something other than a step",
                "unsqueeze after",
                "batch_first = False",
                "takes only the last output",
                "dropout after 'lmu'",
            ],
        ),
        (nn.Linear(2, 2), ["no LMU or LSTM layer"]),
        (nn.GRU(2, 2), ["'0' (GRU) cannot be represented"]),
        (LMU(1, 2, 2, 4.0).half(), ["Sequential"]),
        ("text", ["a torch module is needed here, not str"]),
    ],
)
def test_refusals(module, words):
    if words == ["Sequential"]:
        assert from_torch(module).nodes[0].operator.input_encoders.dtype == np.float32
        return
    with pytest.raises(InputError) as caught:
        from_torch(module)
    for word in words:
        assert word in str(caught.value)


class Reversed(nn.Module):
    """A module whose layer runs backwards in time, which the traced graph does not show."""

    def __init__(self):
        super().__init__()
        self.lmu = Backwards(1, 2, order=2, theta=4.0)

    def forward(self, x):
        return self.lmu(x)[0]


class Backwards(LMU):
    def forward(self, x, *more, **named):
        return super().forward(x.flip(1), *more, **named)


def test_a_network_with_other_outputs_is_refused():
    with pytest.raises(InputError, match="and of the network converted from it differ"):
        from_torch(Reversed())


def test_the_example_of_the_documentation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "import.md"
    (block,) = re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    names = {"__name__": "example"}
    exec(compile(block, "import.md", "exec"), names)
    network, model = load("mine.safetensors"), names["model"]
    assert network.task == "digits" and len(as_layers(network, "test").layers) == 2
    torch.save(model.state_dict(), "classifier.pt")
    with pytest.raises(InputError, match="'lmu': it follows a linear layer"):
        read_pytorch_lmu("classifier.pt")
    inputs = draw_inputs(8)
    with torch.no_grad():
        answers = model.eval()(torch.tensor(inputs)).numpy()
    found = run_reference(network, inputs).outputs
    np.testing.assert_allclose(answers, found, rtol=0, atol=1e-6 * np.abs(found).max())
