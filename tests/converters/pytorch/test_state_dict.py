"""Networks imported from state dictionaries have the outputs of their modules."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from converters.importers import import_file
from converters.pytorch.state_dict import read_pytorch_lmu
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import save
from lmu_deploy.core.graph.executor import run

torch = pytest.importorskip("torch", reason="torch (the extra train) is absent")

from converters.pytorch import from_torch  # noqa: E402
from lmu_deploy.nn import LMU, LMUConfig, LSTMConfig, ModelConfig, SequenceModel  # noqa: E402

nn = torch.nn


def arrays_of(module):
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


def outputs_of(network, n_in):
    inputs = np.random.default_rng(0).normal(size=(3, 8, n_in))
    return run(network, inputs)


@st.composite
def stacks(draw):
    """Random Sequential modules, and the options that their files need."""
    torch.manual_seed(draw(st.integers(0, 10**6)))
    n_in = size = draw(st.integers(1, 3))
    activation = draw(st.sampled_from(["tanh", "relu", "linear"]))
    layers, options = [], {"activation": activation}
    for number in range(draw(st.integers(1, 3))):
        units = draw(st.integers(1, 4))
        if draw(st.booleans()):
            layers.append(nn.LSTM(size, units, draw(st.integers(1, 2)), bias=draw(st.booleans())))
        else:
            hidden = draw(st.sampled_from(["recurrent", "feedforward", "none"]))
            trained = draw(st.sampled_from([{}, {"train_theta": True}, {"train_memory": True}]))
            layer = LMU(
                size,
                0 if hidden == "none" else units,
                order=draw(st.integers(1, 5)),
                theta=draw(st.integers(2, 20)),
                channels=draw(st.integers(1, 2)),
                discretizer=draw(st.sampled_from(["zoh", "bilinear"])),
                activation=activation,
                hidden=hidden,
                input_to_hidden=draw(st.booleans()),
                hidden_to_memory=hidden != "none" and draw(st.booleans()),
                memory_to_memory=draw(st.booleans()),
                memory_bias=draw(st.booleans()),
                **trained,
            )
            options |= {f"{number}.discretizer": layer.memory.discretizer}
            options |= {f"{number}.order": str(layer.order)}
            if "train_memory" in trained:
                with torch.no_grad():
                    layer.memory.a_bar.mul_(0.9)
                options[f"{number}.theta"] = str(layer.memory.theta)
            layers.append(layer)
            units = layer.n_out
        size = units
    layers.append(nn.Linear(size, 2, bias=draw(st.booleans())))
    for layer in layers:
        layer.batch_first = True
    return n_in, nn.Sequential(*layers), options


@settings(max_examples=25, deadline=None)
@given(stack=stacks(), sequences=st.booleans())
def test_random_modules_are_restored_from_their_weights(tmp_path_factory, stack, sequences):
    n_in, module, options = stack
    path = tmp_path_factory.mktemp("weights") / "module.safetensors"
    save_file(arrays_of(module), path)
    options = {**options, "return_sequences": str(sequences).lower()}
    network = read_pytorch_lmu(path, options)
    expected = outputs_of(from_torch(module, return_sequences=sequences), n_in)
    found = outputs_of(network, n_in)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    assert {node.name.split(".")[0] for node in network.nodes} - {"last"} == {
        name for name, _ in module.named_children()
    }
    for name, layer in module.named_children():
        if isinstance(layer, LMU) and layer.order > 1:  # with one state, several methods fit
            found = network[name].operator.memory.theta
            assert found == pytest.approx(layer.memory.theta, rel=1e-5)


class Named(nn.Module):
    """Names whose alphabetical order is not that of the layers."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.second_comes_first = nn.LSTM(2, 3, batch_first=True)
        self.lmu = LMU(3, 4, order=5, theta=9.0, channels=2)
        self.answer = nn.Linear(4, 2)

    def forward(self, x):
        return self.answer(self.lmu(self.second_comes_first(x)[0])[0][:, -1])


def test_a_torch_file_is_recognized_and_keeps_the_order(tmp_path):
    module = Named()
    torch.save({"state_dict": module.state_dict(), "epoch": 3}, tmp_path / "module.pt")
    network = import_file(tmp_path / "module.pt", task="digits")
    assert network.task == "digits"
    assert network["lmu"].operator.memory.theta == 9.0
    np.testing.assert_allclose(
        outputs_of(network, 2), outputs_of(from_torch(module), 2), rtol=0, atol=1e-9
    )


def test_the_order_of_safetensors_can_be_given(tmp_path):
    module, path = Named(), tmp_path / "module.safetensors"
    save_file(arrays_of(module), path)
    with pytest.raises(InputError, match=r"the two must be equal.*--option layers="):
        import_file(path)
    with pytest.raises(InputError, match=r"option layers names lmu, and .* name each of them once"):
        import_file(path, options={"layers": "lmu"})
    options = {"layers": "second_comes_first, lmu, answer", "lmu.activation": "tanh"}
    network = import_file(path, options=options)
    np.testing.assert_allclose(
        outputs_of(network, 2), outputs_of(from_torch(module), 2), rtol=0, atol=1e-7
    )


def test_a_model_of_the_trainer(tmp_path):
    torch.manual_seed(6)
    layers = (LMUConfig(units=3, order=4, theta=7.0), LSTMConfig(units=2))
    model = SequenceModel(ModelConfig(n_in=2, n_out=3, layers=layers))
    save_file(arrays_of(model), tmp_path / "model.safetensors")
    network = import_file(tmp_path / "model.safetensors")
    np.testing.assert_allclose(
        outputs_of(network, 2), outputs_of(from_torch(model), 2), rtol=0, atol=1e-9
    )


def lmu(**settings):
    return LMU(**{"n_in": 1, "units": 2, "order": 3, "theta": 8.0, **settings})


REFUSED = {
    "batch norm": (nn.Sequential(lmu(), nn.BatchNorm1d(2), nn.Linear(2, 1)), {}, "running_mean"),
    "layer norm": (nn.Sequential(lmu(), nn.LayerNorm(2), nn.Linear(2, 1)), {}, "module '1'"),
    "two heads": (nn.Sequential(lmu(), nn.Linear(2, 2), nn.Linear(2, 1)), {}, "is unknown"),
    "no head": (lmu(), {}, "it has no linear layer"),
    "no layer": (nn.Linear(2, 1), {}, "it has no recurrent layer"),
    "gru": (nn.Sequential(nn.GRU(1, 2), nn.Linear(2, 1)), {}, "it is a GRU, not an LSTM"),
    "rnn": (nn.Sequential(nn.RNN(1, 2), nn.Linear(2, 1)), {}, "it is a RNN, not an LSTM"),
    "both ways": (
        nn.Sequential(nn.LSTM(1, 2, bidirectional=True), nn.Linear(4, 1)),
        {},
        "is bidirectional",
    ),
    "projected": (nn.Sequential(nn.LSTM(1, 3, proj_size=2), nn.Linear(2, 1)), {}, "projects"),
    "no order": (
        nn.Sequential(lmu(units=0, hidden="none", train_theta=True), nn.Linear(3, 1)),
        {},
        "pass --option 0.order=",
    ),
    "unknown option": (nn.Sequential(lmu(), nn.Linear(2, 1)), {"gamma": "3"}, "option 'gamma'"),
    "no number": (nn.Sequential(lmu(), nn.Linear(2, 1)), {"theta": "wide"}, "give a number"),
    "no activation": (nn.Sequential(lmu(), nn.Linear(2, 1)), {"activation": "gelu"}, "'gelu'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_problems_are_reported(tmp_path, case):
    module, options, words = REFUSED[case]
    save_file(arrays_of(module), tmp_path / "module.safetensors")
    with pytest.raises(InputError) as caught:
        read_pytorch_lmu(tmp_path / "module.safetensors", options)
    assert words in str(caught.value)


def test_our_own_files_need_no_import(tmp_path):
    save(from_torch(Named()), tmp_path / "network.safetensors")
    with pytest.raises(InputError, match="is a file of lmu_deploy already"):
        import_file(tmp_path / "network.safetensors")
    with pytest.raises(InputError, match="is already a file of lmu-deploy"):
        read_pytorch_lmu(tmp_path / "network.safetensors", {})


def test_the_sum_of_orders_is_limited(tmp_path, monkeypatch):
    module = nn.Sequential(lmu(), lmu(n_in=2), nn.Linear(2, 1))
    monkeypatch.setattr("converters.weight_files.MOST_STATES", 5)
    save_file(arrays_of(module), tmp_path / "module.safetensors")
    with pytest.raises(InputError, match=r"module '1': with it the orders .* add up to 6"):
        read_pytorch_lmu(tmp_path / "module.safetensors")
