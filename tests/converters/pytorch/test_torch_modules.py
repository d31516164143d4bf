"""Networks converted from torch modules have the modules' answers; refusals name everything."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from graphs import networks
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import lmu_deploy
from converters.pytorch import from_torch
from converters.pytorch.state_dict import read_pytorch_lmu
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.graph.linear import Dense
from lmu_deploy.core.graph.lmu import LMU as LMUOperator  # noqa: N811 (a class, LMU too)
from lmu_deploy.core.loading import load
from lmu_deploy.nn import LMU, LMUConfig, LSTMConfig, ModelConfig, SequenceModel

STEPS = 9


def agree(module, inputs, given=None, tolerance=1e-6):
    """Assert that a module and its network have equal outputs, relative to the largest."""
    network = from_torch(module)
    expected = run(network, inputs)
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
    kinds = draw(st.lists(st.sampled_from(["lmu", "lstm", "gru", "linear"]), max_size=3))
    for kind in [*kinds, "lmu"]:
        units = draw(st.integers(1, 5))
        if kind == "linear":
            layers.append(nn.Linear(size, units, bias=draw(st.booleans())))
        elif kind in ("lstm", "gru"):
            count, bias = draw(st.integers(1, 2)), draw(st.booleans())
            layer = {"lstm": nn.LSTM, "gru": nn.GRU}[kind]
            layers.append(layer(size, units, count, bias=bias, batch_first=True))
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
    network = agree(module, draw_inputs(n_in, seed))
    names = {name.split(".")[0] for name in network.shapes} - {"input", "last", "getitem"}
    assert names == {name for name, _ in module.named_children()}


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
    outputs = run(network, inputs)
    odds = outputs - np.log(np.exp(outputs).sum(-1, keepdims=True))
    with torch.no_grad():
        np.testing.assert_allclose(module(torch.tensor(inputs)).numpy(), odds, atol=1e-6)
    assert network.task == "digits" and network.provenance["seed"] == "0"
    assert "softmax" in network.provenance["left out"]
    assert [node.name for node in network.nodes] == ["core.l0", "core.l1", "lmu", "lmu.last", "out"]


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
    network = from_torch(module := Pixels())
    with torch.no_grad():
        answers = module(torch.tensor(inputs[..., 0])).numpy()
    np.testing.assert_allclose(answers, run(network, inputs)[..., 0], atol=1e-6)
    assert network.provenance["input layout"] == "batch steps"


@pytest.mark.parametrize("sequences", [True, False])
def test_a_sequential_is_converted_in_its_order(sequences):
    torch.manual_seed(2)
    a, b = LMU(2, 3, order=4, theta=9.0), LMU(3, 5, order=2, theta=5.0, hidden_to_memory=True)
    head, inputs = nn.Linear(5, 2), draw_inputs(2)
    network = from_torch(nn.Sequential(a, nn.Dropout(0.3), b, head), return_sequences=sequences)
    with torch.no_grad():
        answers = head(b(a(torch.tensor(inputs))[0])[0]).numpy()
    np.testing.assert_allclose(
        answers if sequences else answers[:, -1],
        run(network, inputs),
        rtol=0,
        atol=1e-6 * np.abs(answers).max(),
    )
    assert "not its states" in network.provenance["assumed"]
    assert [node.name for node in network.nodes][:3] == ["0", "2", "3"]


class First(nn.Module):
    def forward(self, both):
        return both[0]


def test_a_sequential_that_runs():
    torch.manual_seed(3)
    body = nn.Sequential(LMU(1, 3, order=4, theta=9.0), First(), nn.Identity(), nn.Linear(3, 2))
    assert agree(body, draw_inputs(1)).return_sequences


def test_return_sequences_leaves_out_the_last_step_or_adds_it():
    torch.manual_seed(4)
    module, inputs = Chain([nn.GRU(2, 3, batch_first=True)], nn.Linear(3, 2), True, 0.0), None
    inputs = draw_inputs(2)
    last, each = from_torch(module), from_torch(module, return_sequences=True)
    assert not last.return_sequences and each.return_sequences
    np.testing.assert_allclose(run(each, inputs)[:, -1], run(last, inputs), rtol=0, atol=1e-12)
    mean = Mean()
    with pytest.raises(InputError, match="return_sequences cannot be true"):
        from_torch(mean, return_sequences=True)
    assert not from_torch(mean, return_sequences=False).return_sequences


class Mean(nn.Module):
    """Several results, of which one is a mean over time."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(2, 3, batch_first=True)

    def forward(self, x):
        y = self.gru(x)[0]
        return y.mean(1), {"all": y}, y.std()


def test_one_of_several_outputs():
    network = from_torch(Mean())
    assert network.output == "mean" and "result 0 of 3" in network.provenance["assumed"]
    with pytest.raises(InputError, match="none of which is 7"):
        from_torch(Mean(), output=7)
    with pytest.raises(InputError, match="std has no operator"):
        from_torch(Mean(), output=2)


def test_a_model_of_the_trainer_inside_a_module_and_by_itself():
    torch.manual_seed(4)
    layers = (LMUConfig(units=3, order=4, theta=7.0), LSTMConfig(units=2))
    model = SequenceModel(ModelConfig(n_in=2, n_out=3, layers=layers))
    agree(model, draw_inputs(2))
    wrapped = nn.Sequential(model, nn.Linear(3, 2))
    wrapped.train()
    agree(wrapped, draw_inputs(2))


def test_the_module_is_left_as_it_was():
    module = nn.Sequential(LMU(1, 2, order=2, theta=4.0), First(), nn.Dropout(0.5))
    module.train()
    module[2].eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    from_torch(module)
    assert module.training and module[0].training and not module[2].training
    assert all("forward" not in vars(part) for part in module.modules())
    for name, tensor in module.state_dict().items():
        assert tensor.dtype == torch.float32 and torch.equal(tensor, before[name])
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_short_precisions_widen_to_float32(kind):
    module = nn.Sequential(nn.Linear(2, 3), nn.GRU(3, 2, batch_first=True)).to(kind)
    network = from_torch(module)
    kernel = network["0"].operator.kernel
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel, module[0].weight.detach().float().numpy().T)
    wide = from_torch(nn.Linear(2, 2, dtype=torch.float64))
    assert wide.nodes[0].operator.kernel.dtype == np.float64


class Quantizer(nn.Module):
    """Rounds what passes through it, and adds up a loss."""

    def forward(self, x):
        self.loss = torch.sum(torch.abs(x))
        return torch.round(x * 8) / 8


class Quantized(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.quantize, self.head = nn.Linear(2, 3), Quantizer(), nn.Linear(3, 1)
        self.average = nn.Linear(2, 3)  # of the weights, for other uses

    def forward(self, x):
        self.activity = self.fc(x).abs().sum()
        return self.head(self.quantize(self.fc(x)))


def test_submodules_to_ignore():
    with pytest.raises(InputError, match="'quantize' \\(Quantizer\\): round has no operator"):
        from_torch(Quantized())
    network = from_torch(Quantized(), ignore=["quantize"])
    assert [node.name for node in network.nodes] == ["fc", "head"]
    assert "quantize was ignored" in network.provenance["assumed"]
    with pytest.raises(InputError, match="ignore names 'loss', which is none of fc, quantize"):
        from_torch(Quantized(), ignore=["loss"])


class Crowded(nn.Module):
    """Much that has no operator, some of it twice."""

    def __init__(self):
        super().__init__()
        self.norm = nn.GroupNorm(1, 2)
        self.lmu = LMU(2, 3, order=2, theta=4.0)
        self.attention = nn.MultiheadAttention(3, 1, batch_first=True)
        self.conv = nn.Conv1d(3, 3, 3, padding=1, padding_mode="circular")
        self.out = nn.Linear(3, 2)

    def forward(self, x):
        y, _ = self.lmu(self.norm(x.transpose(1, 2)).transpose(1, 2))
        y = self.attention(y, y, y)[0] + torch.exp(y)
        y = self.conv(y.transpose(1, 2)).transpose(1, 2)
        return self.out(y[:, 3] + torch.exp(y).std(1))


def test_all_problems_are_reported_at_once():
    with pytest.raises(InputError) as caught:
        from_torch(Crowded())
    text = str(caught.value)
    assert text.startswith("Crowded cannot be converted; leaves={Class: converter} gives")
    for part in (
        "'norm' (GroupNorm): group_norm has no operator",
        "'attention' (MultiheadAttention): multi_head_attention_forward has no operator",
        "exp has no operator",
        "'conv' (Conv1d): it pads with other values than zeros",
        "std has no operator",
    ):
        assert part in text, text
    assert text.count("exp has no operator") == 1


def of(function, *parameters):
    """Return a module with a linear layer and a function of its outputs."""

    class Made(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 4)
            self.more = nn.ModuleList(parameters)

        def forward(self, x):
            return function(self, self.fc(x))

    return Made()


REFUSED = {
    "condition": (lambda m, y: y if y.sum() > 0 else -y, "depends on the values of a signal"),
    "item": (lambda m, y: y * y.max().item(), "depends on the values of a signal"),
    "step": (lambda m, y: y[:, 3], "takes step 3 of the sequence alone"),
    "steps": (lambda m, y: y[:, 2:], "leaves out 2 steps of the sequence"),
    "samples": (lambda m, y: y.tanh().mean((0, 1)), "mixes the samples"),
    "all axes": (lambda m, y: y / y.sum(), "over all axes mixes the samples"),
    "mixed": (lambda m, y: y.reshape(len(y), 4, -1).transpose(1, 2), "mixes steps or samples"),
    "steps as channels": (
        lambda m, y: functional.conv1d(y, torch.ones(5, y.shape[1], 1)).mT,
        "acts on the axis of steps",
    ),
    "norm over steps": (lambda m, y: functional.layer_norm(y.mT, y.shape[1:2]).mT, "axis of steps"),
    "positions": (lambda m, y: y + torch.arange(y.shape[1])[:, None], "differ from step to step"),
    "broadcast": (lambda m, y: y + y.mean(1, keepdim=True), "one frame for all its steps"),
    "product": (lambda m, y: y @ y.mT @ y, "multiplies two signals as matrices"),
    "quotient": (lambda m, y: y / (1 + y * y), "only a division of a signal by constants"),
    "dropout": (lambda m, y: functional.dropout(y), "dropout stays active"),
    "batch statistics": (
        lambda m, y: functional.batch_norm(y.mT, None, None, training=True).mT,
        "statistics of the batch",
    ),
    "mask": (lambda m, y: y.masked_fill(y > 0, 0.0), "masked_fill has no operator"),
    "gather": (lambda m, y: y[torch.arange(len(y)), -1], "selects by the values of a tensor"),
    "constant": (lambda m, y: torch.ones(3, 5, 2), "does not depend on its input"),
    "cell state": (lambda m, y: m.more[0](y)[1][1][0], "a state or an index|such as a state"),
    "other start": (lambda m, y: m.more[0](y, (y[None, :, 0], y[None, :, 0]))[0], "initial state"),
    "view": (lambda m, y: written(y), "changed in place through another view"),
    "cumulative maximum": (lambda m, y: y.cummax(1).values, "cummax has no operator"),
    "clip": (lambda m, y: y.clamp(-2, 3), "clips to -2 and 3"),
    "future": (lambda m, y: torch.cat([y, y], 1), "puts sequences one behind the other"),
}


def written(y):
    view = y[..., :2]
    y.mul_(2)
    return view


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_operator(name):
    function, words = REFUSED[name]
    with pytest.raises(InputError, match=words):
        from_torch(of(function, nn.LSTM(4, 4, batch_first=True)))


class Own(nn.Module):
    """A module that keeps its state between calls."""

    def __init__(self):
        super().__init__()
        self.lmu = LMU(1, 2, order=2, theta=4.0)
        self.m, self.h = nn.Parameter(torch.ones(1, 2)), nn.Parameter(torch.ones(1, 2))

    def forward(self, x):
        return self.lmu(x, (self.m.expand(len(x), -1), self.h.expand(len(x), -1)))[0]


def test_refusals_of_modules():
    with pytest.raises(InputError, match=r"its outputs are not .* a state of zero; they differ"):
        from_torch(Own())
    with pytest.raises(InputError, match="a torch module is needed here, not str"):
        from_torch("text")
    with pytest.raises(InputError, match=r"Identity cannot .*its output is its input"):
        from_torch(nn.Identity())
    with pytest.raises(InputError, match="takes the steps as a side of an image"):
        from_torch(nn.Sequential(nn.Conv2d(3, 4, 3)))
    with pytest.raises(InputError, match=r"cannot be run: .*Inputs tried: .*pass inputs="):
        from_torch(of(lambda m, y: y @ torch.ones(3, 3)))
    with pytest.raises(InputError, match="must name batch, steps"):
        from_torch(nn.Linear(2, 2), layout="rows features")
    with pytest.raises(InputError, match="have 6 axes"):
        from_torch(nn.Linear(2, 2), inputs=torch.zeros(1, 1, 1, 1, 1, 2))


def test_the_user_can_give_the_layout():
    torch.manual_seed(6)
    module, inputs = nn.Linear(2, 3), draw_inputs(2)
    first = from_torch(module, layout="steps, batch, features")
    assert first.provenance["input layout"] == "steps batch features"
    with torch.no_grad():
        expected = module(torch.tensor(inputs)).numpy()
    np.testing.assert_allclose(run(first, inputs), expected, atol=1e-6)
    again = from_torch(module, inputs=torch.zeros(5, 7, 2), layout="(batch, time, features)")
    assert again.provenance["input layout"] == "batch steps features"


class Backwards(LMU):
    """A layer that runs backwards in time, which its weights do not show."""

    def forward(self, x, *more, **named):
        return super().forward(x.flip(1), *more, **named)


class Tampered(nn.Module):
    """A function of torch whose result is changed where no reader sees it."""

    def __init__(self):
        super().__init__()
        self.fc, self.act, self.out = nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)

    def forward(self, x):
        y = self.act(self.fc(x))
        y.data_ptr()
        y.untyped_storage()[:8] = b"\0" * 8
        return self.out(y)


def test_a_layer_with_an_overridden_forward_is_refused():
    with pytest.raises(InputError, match="cannot be converted"):
        from_torch(nn.Sequential(Backwards(1, 2, order=2, theta=4.0), nn.Linear(2, 1)))


def test_a_difference_names_the_first_node(monkeypatch):
    module = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    monkeypatch.setattr(Dense, "apply", lambda self, x: 1.001 * (x @ self.kernel + self.bias))
    with pytest.raises(InputError) as caught:
        from_torch(module)
    assert "first node that differs is 0 (dense, 3 units), by 0.001" in str(caught.value)
    monkeypatch.undo()
    network = from_torch(module)
    assert "13 and 17 steps" in network.provenance["verified"]


class Length(nn.Module):
    """A forward that depends on the length of the sequence."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 3)

    def forward(self, x):
        return self.fc(x) * (1.0 if x.shape[1] == 13 else 2.0)


def test_sequences_of_another_length_are_compared_too():
    with pytest.raises(InputError, match="so the forward depends on the number of steps"):
        from_torch(Length())


def test_the_example_of_the_documentation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "import.md"
    _, section = page.read_text().split("\n## A PyTorch module of your own\n")
    first, second = re.findall(r"^```python\n(.*?)^```$", section, re.M | re.S)
    names = {"__name__": "example"}
    exec(compile(first, "import.md", "exec"), names)
    network, model = load("mine.safetensors"), names["model"]
    assert network.task == "digits"
    assert [node.name for node in network.nodes if isinstance(node.operator, LMUOperator)] == [
        "lmu"
    ]
    torch.save(model.state_dict(), "classifier.pt")
    with pytest.raises(InputError, match="'lmu': it follows a linear layer"):
        read_pytorch_lmu("classifier.pt")
    inputs = draw_inputs(8)
    with torch.no_grad():
        answers = model.eval()(torch.tensor(inputs)).numpy()
    found = run(network, inputs)
    np.testing.assert_allclose(answers, found, rtol=0, atol=1e-6 * np.abs(found).max())
    exec(compile(second, "import.md", "exec"), names)
    assert isinstance(names["network"], type(network))


@settings(max_examples=20, deadline=None)
@given(network=networks())
def test_modules_of_drawn_graphs_come_back(network):
    module = lmu_deploy.to_torch(network, torch.float64)
    again = from_torch(module, task="digits", provenance={"seed": "3"})
    assert again.fingerprint() == module.to_network().fingerprint()
    assert (again.task, again.provenance["seed"]) == ("digits", "3")


def test_a_module_of_a_graph_inside_another():
    torch.manual_seed(8)
    inner = from_torch(nn.Sequential(nn.Linear(3, 4), nn.GRU(4, 2, batch_first=True)))
    module = nn.Sequential(nn.Linear(2, 3), lmu_deploy.to_torch(inner), nn.Tanh())
    network = agree(module, draw_inputs(2))
    assert [node.name for node in network.nodes] == ["0", "1.0", "1.1", "2"]


def test_an_imported_chain_runs_is_quantized_and_saved():
    torch.manual_seed(7)
    module = Chain([LMU(8, 6, order=4, theta=8.0)], nn.Linear(6, 10), True, 0.0)
    network = from_torch(module, task="digits")
    result = lmu_deploy.run(network, limit=4)
    np.testing.assert_allclose(
        result.outputs, run(network, lmu_deploy.load_task("digits").test.x[:4]), atol=1e-9
    )
