"""Files of the paper's package and of PyTorch LMUs, compared with a loop over their equations."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from converters.importers import import_file
from converters.weight_files import recognize_memory
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.graph.transforms import with_logits
from lmu_deploy.core.legendre import discretize
from lmu_deploy.core.reference import run_reference
from lmu_deploy.tasks.base import get_task

N_IN, UNITS, ORDER, N_OUT = 2, 5, 6, 3


@pytest.fixture
def weights(rng):
    """Row-vector weights of one layer and a readout, in float32, from a memory of theta 14."""
    a_bar, b_bar = discretize(ORDER, 14.0)
    shapes = {
        "input_encoders": (N_IN, 1),
        "hidden_encoders": (UNITS, 1),
        "memory_encoders": (ORDER, 1),
        "input_kernel": (N_IN, UNITS),
        "hidden_kernel": (UNITS, UNITS),
        "memory_kernel": (ORDER, UNITS),
        "kernel": (UNITS, N_OUT),
        "bias": (1, N_OUT),
    }
    arrays = {name: 0.4 * rng.normal(size=shape) for name, shape in shapes.items()}
    arrays |= {"AT": (a_bar - np.eye(ORDER)).T, "BT": b_bar[None]}
    return {name: array.astype(np.float32) for name, array in arrays.items()}


@pytest.fixture
def inputs(rng):
    return rng.normal(size=(3, 9, N_IN))


def paper_answer(w, x):
    """The step of the paper's package, as its issue describes it."""
    h, m = np.zeros((len(x), UNITS)), np.zeros((len(x), ORDER))
    for t in range(x.shape[1]):
        u = x[:, t] @ w["input_encoders"] + h @ w["hidden_encoders"] + m @ w["memory_encoders"]
        m = m + m @ w["AT"] + u @ w["BT"]
        h = x[:, t] @ w["input_kernel"] + h @ w["hidden_kernel"] + m @ w["memory_kernel"]
        h = np.tanh(h)
    return h @ w["kernel"] + w["bias"]


def save_paper(path, weights, dense=("kernel", "bias")):
    h5py = pytest.importorskip("h5py", reason="h5py (the extra import) is absent")
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"rnn", b"dense"]
        for name, array in weights.items():
            layer = "dense/dense" if name in dense else "rnn/lmu_cell"
            file[f"{layer}/{name}:0"] = array[0] if name == "bias" else array
        file["rnn"].attrs["weight_names"] = [b"x"]


def test_a_file_of_the_paper_follows_the_equations_of_the_paper(tmp_path, weights, inputs):
    save_paper(tmp_path / "psmnist.hdf5", weights)
    network = import_file(tmp_path / "psmnist.hdf5")
    found = run_reference(network, inputs).outputs
    np.testing.assert_allclose(found, paper_answer(weights, inputs), rtol=0, atol=1e-12)
    assert network.nodes[0].operator.memory.theta == 14.0
    assert network.nodes[0].operator.memory.discretizer == "zoh"


def save_whole(path, weights, names=True):
    """Save the same model as Keras 2 saves whole models; its cell's configuration is empty."""
    h5py = pytest.importorskip("h5py", reason="h5py (the extra import) is absent")
    cell = {"class_name": "LMUCell", "config": {"name": "lmu_cell_1", "trainable": True}}
    rnn = {"name": "rnn", "return_sequences": True, "cell": cell}
    dense = {"name": "dense", "units": N_OUT, "activation": "softmax", "use_bias": True}
    layers = [{"class_name": "RNN", "config": rnn}, {"class_name": "Dense", "config": dense}]
    model = {"class_name": "Sequential", "config": {"name": "sequential", "layers": layers}}
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(model)
        file["optimizer_weights/Adam/iterations:0"] = 1
        root = file.create_group("model_weights")
        root.attrs["layer_names"] = [b"rnn", b"dense"]
        for name, array in weights.items():
            layer = "dense" if name in ("kernel", "bias") else "rnn"
            root[f"{layer}/{layer}/{name}:0"] = array[0] if name == "bias" else array
        for layer in ("rnn", "dense") if names else ():
            inside = [f"{layer}/{name}".encode() for name in root[f"{layer}/{layer}"]]
            root[layer].attrs["weight_names"] = inside


@pytest.mark.parametrize("names", [True, False])
def test_a_whole_model_with_the_cell_of_the_paper_equals_its_weights(
    tmp_path, weights, inputs, names
):
    save_paper(tmp_path / "bare.hdf5", weights)
    save_whole(tmp_path / "whole.hdf5", weights, names)
    bare, whole = (import_file(tmp_path / name) for name in ("bare.hdf5", "whole.hdf5"))
    assert whole.return_sequences, "the whole model says so, the bare weights cannot"
    assert not bare.return_sequences
    found = run_reference(with_logits(whole), inputs).outputs
    np.testing.assert_allclose(
        found[:, -1], run_reference(bare, inputs).outputs, rtol=0, atol=1e-12
    )
    assert "tanh" in whole.provenance["assumed"]


PUBLISHED = Path(os.environ.get("LMU_DEPLOY_DATA", ".")) / "published"


@pytest.mark.parametrize(
    ("name", "task"), [("psMNIST-standard", "psmnist-nru"), ("psMNIST-weights", "psmnist")]
)
def test_published_files_classify_their_images(name, task):
    """With another permutation of the pixels, or a wrong equation, it is one of ten."""
    if not (PUBLISHED / f"{name}.hdf5").is_file():
        pytest.skip("the published files are absent; set LMU_DEPLOY_DATA")
    network = import_file(PUBLISHED / f"{name}.hdf5")
    assert network.provenance["memory matrices"] == "from the file"
    images, labels = get_task(task).load().test.batch(slice(200))
    outputs = run(network, images)
    assert (outputs.argmax(axis=1) == labels).mean() > 0.95


def sigmoid(z):
    return 1.0 / (1.0 + np.exp(-z))


def lstm_answer(w, x):
    """The equations of an LSTM as Keras orders them: i, f, c, o."""
    units = len(w["recurrent_kernel"])
    h, c = np.zeros((len(x), units)), np.zeros((len(x), units))
    found = []
    for t in range(x.shape[1]):
        i, f, g, o = np.split(x[:, t] @ w["kernel"] + h @ w["recurrent_kernel"] + w["bias"], 4, 1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        found.append(h)
    return np.stack(found, axis=1)


def cell_answer(w, x):
    """The step of the paper's package with its bias, at every step."""
    units, order = w["hidden_kernel"].shape[0], len(w["AT"])
    h, m = np.zeros((len(x), units)), np.zeros((len(x), order))
    found = []
    for t in range(x.shape[1]):
        u = x[:, t] @ w["input_encoders"] + h @ w["hidden_encoders"] + m @ w["memory_encoders"]
        m = m + m @ w["AT"] + u @ w["BT"]
        z = x[:, t] @ w["input_kernel"] + h @ w["hidden_kernel"] + m @ w["memory_kernel"]
        h = np.tanh(z + w["bias"])
        found.append(h)
    return np.stack(found, axis=1)


@pytest.mark.parametrize("name", ["hybrid-mackey-glass", "lstm-mackey-glass"])
def test_published_predictors_follow_their_equations(rng, name):
    path = PUBLISHED / f"{name}.hdf5"
    if not path.is_file():
        pytest.skip("the published files are absent; set LMU_DEPLOY_DATA")
    h5py = pytest.importorskip("h5py", reason="h5py (the extra import) is absent")
    x = found = rng.normal(scale=0.3, size=(2, 120, 1))
    with h5py.File(path) as file:
        for layer in file["model_weights"].attrs["layer_names"]:
            layer = layer if isinstance(layer, str) else layer.decode()
            stored = file[f"model_weights/{layer}/{layer}"]
            w = {role.removesuffix(":0"): stored[role][()].astype(np.float64) for role in stored}
            if "AT" in w:
                found = cell_answer(w, found)
            elif "recurrent_kernel" in w:
                found = lstm_answer(w, found)
            else:
                found = np.tanh(found @ w["kernel"] + w["bias"])
    network = import_file(path)
    answer = run(network, x)
    assert np.ptp(answer) > 0.01
    np.testing.assert_allclose(answer, found, rtol=1e-6, atol=1e-9)
    assert network.return_sequences


def test_missing_and_surplus_weights_are_reported(tmp_path, weights):
    del weights["hidden_kernel"], weights["BT"]
    save_paper(tmp_path / "a.h5", {**weights, "gamma": np.ones(3)}, ("kernel", "bias", "gamma"))
    with pytest.raises(InputError) as caught:
        import_file(tmp_path / "a.h5", "paper-lmu")
    assert "hidden_kernel, BT missing" in str(caught.value)
    assert "module 'dense': bias, gamma, kernel cannot be represented" in str(caught.value)


def pytorch_state(torch, weights, names):
    """Column-vector weights under the names of a PyTorch implementation."""

    def column(name):
        return torch.tensor(np.ascontiguousarray(weights[name].T))

    state = {f"lmu.cell.{names[role]}": column(role) for role in names}
    state["classifier.weight"] = column("kernel")
    state["classifier.bias"] = torch.tensor(weights["bias"][0])
    return state


SHORT = {
    "input_encoders": "e_x",
    "hidden_encoders": "e_h",
    "memory_encoders": "e_m",
    "input_kernel": "W_x",
    "hidden_kernel": "W_h",
    "memory_kernel": "W_m",
    "AT": "A",
    "BT": "B",
}


def pytorch_answer(torch, state, inputs, whole_a):
    """One step as PyTorch implementations write it, with functional.linear."""
    linear = torch.nn.functional.linear
    w = {key.rpartition(".")[2]: value.double() for key, value in state.items() if "lmu" in key}
    x = torch.tensor(inputs)
    h, m = torch.zeros(len(x), UNITS).double(), torch.zeros(len(x), ORDER).double()
    e_x, e_h, e_m, w_x, w_h, w_m, a, b = w.values()
    for t in range(x.shape[1]):
        u = linear(x[:, t], e_x) + linear(h, e_h) + linear(m, e_m)
        m = (0 if whole_a else m) + linear(m, a) + linear(u, b)
        h = torch.tanh(linear(x[:, t], w_x) + linear(h, w_h) + linear(m, w_m))
    weight, bias = state["classifier.weight"].double(), state["classifier.bias"].double()
    return linear(h, weight, bias).numpy()


@pytest.mark.parametrize(("short", "nest"), [(True, None), (False, "state_dict")])
def test_a_state_dictionary_follows_its_equations(tmp_path, weights, inputs, short, nest):
    torch = pytest.importorskip("torch", reason="torch (the extra train) is absent")
    state = pytorch_state(torch, weights, SHORT if short else {name: name for name in SHORT})
    if short:  # A itself rather than A - I
        state["lmu.cell.A"] = state["lmu.cell.A"] + torch.eye(ORDER)
    torch.save({nest: state, "epoch": 3} if nest else state, tmp_path / "network.pt")
    network = import_file(tmp_path / "network.pt")
    expected = pytorch_answer(torch, state, inputs, short)
    np.testing.assert_allclose(run_reference(network, inputs).outputs, expected, rtol=0, atol=1e-9)
    assert network.nodes[0].operator.memory.theta == 14.0


def test_matrices_that_were_trained_need_a_theta(tmp_path, weights, inputs):
    weights["AT"] = weights["AT"] * np.float32(0.7)
    save_paper(tmp_path / "trained.h5", weights)
    with pytest.raises(InputError, match=r"which were trained; pass --option theta"):
        import_file(tmp_path / "trained.h5")
    network = import_file(tmp_path / "trained.h5", options={"theta": "14"})
    assert network.nodes[0].operator.memory.discretizer == "trained"
    found = run_reference(network, inputs).outputs
    np.testing.assert_allclose(found, paper_answer(weights, inputs), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("order", "theta", "method"),
    [(1, 3.5, "zoh"), (4, 6.5, "zoh"), (5, 9.3, "bilinear"), (3, 20.7, "euler"), (64, 200, "zoh")],
)
def test_a_memory_is_recognized_by_its_matrices(order, theta, method, dtype):
    a_bar, b_bar = (array.astype(dtype) for array in discretize(order, theta, method))
    memory = recognize_memory(a_bar, b_bar)
    assert memory.discretizer == method
    assert memory.theta == pytest.approx(theta, rel=1e-5)
    np.testing.assert_array_equal(memory.a_bar, a_bar)
