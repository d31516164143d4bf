"""The registry of importers, the recognition of files, and the import command."""

from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import lmu_deploy
from converters import importers
from converters.importers import ASSUMED, Importer, get_importer, import_file, importer_names
from lmu_deploy.api.exchange import parse_options
from lmu_deploy.cli import app
from lmu_deploy.core import plugins
from lmu_deploy.core.errors import InputError, MissingDependencyError
from lmu_deploy.core.loading import load
from lmu_deploy.core.network import Memory
from lmu_deploy.core.reference import run_reference
from lmu_deploy.nn.convert import to_torch

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures/keras_lmu"
FEEDBACK = FIXTURES / "keras3-feedback.keras"


def test_our_importers_are_registered_and_implement_the_protocol():
    assert {"keras-lmu", "paper-lmu", "pytorch-lmu", "onnx"} <= set(importer_names())
    for name in importer_names():
        importer = get_importer(name)
        assert isinstance(importer, Importer)
        assert importer.name == name
        assert importer.reads.startswith(name)


def test_an_unknown_format_lists_the_known_ones():
    with pytest.raises(InputError, match="unknown format 'caffe'; choose one of keras-lmu, "):
        import_file(FEEDBACK, "caffe")


def register(monkeypatch, value):
    entries = [*entry_points(group=importers.GROUP), EntryPoint("ours", value, importers.GROUP)]
    monkeypatch.setattr(plugins, "entry_points", lambda group: entries)


def test_a_broken_importer_does_not_affect_other_formats(monkeypatch):
    register(monkeypatch, "no_such_package:Importer")
    with pytest.raises(MissingDependencyError, match="importer ours cannot be imported"):
        get_importer("ours")
    assert import_file(FEEDBACK).n_out == 3


def test_an_ambiguous_file_needs_a_format(monkeypatch):
    register(monkeypatch, "converters.keras_lmu:KerasLMUImporter")
    with pytest.raises(InputError, match=r"could be read as .*; choose one with --format"):
        import_file(FEEDBACK)


@pytest.mark.parametrize("content", [b"", b"PK", b"hello", b"PK\x03\x04" + bytes(100)])
def test_a_file_of_no_known_format_is_refused(tmp_path, content):
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(InputError, match="has no known format"):
        import_file(tmp_path / "a.bin")
    with pytest.raises(InputError, match="no such file"):
        import_file(tmp_path / "absent.keras")
    with pytest.raises(InputError, match="is a folder; name the file that holds the network"):
        import_file(tmp_path)


def test_foreign_files_are_recognized_by_their_content(tmp_path):
    def refused(name, content, said):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=said):
            import_file(tmp_path / name)

    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n"
    refused("model.keras", pointer, "is a pointer of Git LFS .* run git lfs pull")
    old = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e") + b"..."
    refused("old.pt", old, "a file of torch before 1.6; load it with torch.load and write it again")
    refused("any.bin", b"\x80\x04\x95" + bytes(20), "a pickle of Python, which could run any code")
    refused("model.tflite", b"\x1c\0\0\0TFL3" + bytes(9), "a model of TensorFlow Lite")
    refused("run.index", b"\0\0\x01", "part of a checkpoint of TensorFlow, .*model.load_weights")
    refused("model.json", b' {"class_name": "Sequential"}', "without weights; .* --architecture")
    own = Path(__file__).parents[2].joinpath("examples/models/digits.safetensors").read_bytes()
    refused("digits.safetensors", own, "is a file of lmu_deploy already and needs no import")
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(InputError, match=r"SavedModel folder .* model.save\('model.keras'\)"):
        import_file(tmp_path)


def test_networks_of_other_programs_in_hdf5_are_named(tmp_path):
    h5py = pytest.importorskip("h5py", reason="HDF5 files")
    with h5py.File(tmp_path / "a.net", "w") as file:
        group = file.create_group("layer/0")
        group["type"], group["neuron/type"] = np.array([b"dense"]), np.array([b"CUBA"])
        group["weight"] = np.ones((2, 3), np.float32)
    with pytest.raises(InputError, match="is a lava-dl network of spiking neurons"):
        import_file(tmp_path / "a.net")
    with h5py.File(tmp_path / "a.nir", "w") as file:  # with a shape that nir itself refuses
        file["node/type"] = "NIRGraph"
        file["node/nodes/output/shape"] = np.array([1, 1, 1])
    with pytest.raises(InputError, match="NIR graph that was not made by lmu_deploy"):
        import_file(tmp_path / "a.nir")


def test_modules_and_complex_buffers_are_left_out_on_request(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch files")
    from lmu_deploy.nn import LMU

    lmu, readout = LMU(1, units=3, order=2, theta=5.0), torch.nn.Linear(3, 2)
    weights = {f"lmu.{k}": v.half() for k, v in lmu.state_dict().items() if "bar" not in k}
    weights |= {f"lmu.{k}": v for k, v in lmu.state_dict().items() if "bar" in k}
    weights |= {f"fc.{k}": v.bfloat16() for k, v in readout.state_dict().items()}
    extra = {"lmu.H": torch.zeros(2, dtype=torch.complex64), "ema.fc.weight": torch.ones(2, 3)}
    torch.save({**weights, **extra}, tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"weight 'lmu.H' has type .*complex64.*ignore=lmu.H"):
        import_file(tmp_path / "a.pt")
    with pytest.raises(InputError, match="option ignore names loss, and "):
        import_file(tmp_path / "a.pt", options={"ignore": "loss"})
    found = import_file(tmp_path / "a.pt", options={"ignore": "lmu.H, ema"})
    assert found.provenance["left out"] == "lmu.H, ema (option ignore)"
    kernel = readout.weight.detach().bfloat16().float().numpy().T
    np.testing.assert_array_equal(found["fc"].operator.kernel, kernel)


def test_exported_onnx_is_imported_unchanged(tmp_path):
    onnx = pytest.importorskip("converters.onnx", reason="onnx is absent")
    network = import_file(FEEDBACK)
    onnx.save_onnx(onnx.to_onnx(network), tmp_path / "network.onnx")
    back = import_file(tmp_path / "network.onnx")
    kernels = [each.nodes[-1].operator.kernel for each in (back, network)]
    np.testing.assert_array_equal(*kernels)
    with pytest.raises(InputError, match="an ONNX file is complete"):
        import_file(tmp_path / "network.onnx", options={"theta": "3"})


def test_the_command_writes_a_network_file(tmp_path):
    out = tmp_path / "network.safetensors"
    arguments = ["import", str(FEEDBACK), "--out", str(out), "--task", "delay"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert load(out).task == "delay"
    again = lmu_deploy.import_network(FEEDBACK, task="delay")
    assert again.fingerprint() == load(out).fingerprint()


def test_the_command_takes_options_for_bare_weights(tmp_path):
    out = tmp_path / "network.safetensors"
    options = "memory_d=2 order=4 theta=6.5 units=5 hidden_to_memory=true memory_to_memory=true"
    arguments = ["import", str(FIXTURES / "keras2-feedback-weights.h5"), "--out", str(out)]
    for option in f"{options} input_to_hidden=true use_bias=true".split():
        arguments += ["--option", option]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert load(out).nodes[0].operator.memory.theta == 6.5


@pytest.mark.parametrize("texts", [["theta"], ["=3"], ["a=1", "a=2"]])
def test_malformed_options_are_refused(texts):
    with pytest.raises(InputError, match="option"):
        parse_options(texts)


def test_an_imported_network_can_be_converted_to_torch():
    pytest.importorskip("torch", reason="torch (the extra train) is absent")
    torch_model = to_torch(import_file(FEEDBACK))
    assert sum(parameter.numel() for parameter in torch_model.parameters()) > 100


def test_one_output_is_imported_with_what_it_needs(tmp_path):
    onnx = pytest.importorskip("converters.onnx", reason="onnx is absent")
    whole = import_file(FEEDBACK)
    first = whole.nodes[0].name
    onnx.save_onnx(onnx.to_onnx(whole), tmp_path / "network.onnx")
    out = tmp_path / "first.safetensors"
    inputs = np.random.default_rng(0).normal(size=(2, 9, whole.n_in))
    expected = run_reference(whole, inputs, nodes=[first]).nodes[first]
    for file in (FEEDBACK, tmp_path / "network.onnx"):  # one reader prunes itself, one does not
        arguments = ["import", str(file), "--output", first, "--out", str(out)]
        assert CliRunner().invoke(app, arguments).exit_code == 0
        part = load(out)
        assert {node.name.partition(".")[0] for node in part.nodes} == {first}
        found = run_reference(part, inputs).outputs
        wanted = expected if part.return_sequences else expected[:, -1]
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
    result = CliRunner().invoke(app, [*arguments[:3], "absent", "--out", str(out)])
    assert result.exit_code != 0


def test_what_a_file_does_not_say_is_recorded_and_logged(tmp_path, caplog):
    h5py = pytest.importorskip("h5py", reason="h5py (the extra import) is absent")
    arrays = {
        "input_encoders": (1, 1), "hidden_encoders": (2, 1), "memory_encoders": (3, 1),
        "input_kernel": (1, 2), "hidden_kernel": (2, 2), "memory_kernel": (3, 2),
    }  # fmt: skip
    memory = Memory.legendre(3, 6.0)
    with h5py.File(tmp_path / "paper.h5", "w") as file:
        file.attrs["layer_names"] = ["rnn", "dense"]
        for name, shape in arrays.items():
            file[f"rnn/rnn/{name}:0"] = np.full(shape, 0.1)
        file["rnn/rnn/AT:0"] = (memory.a_bar - np.eye(3)).T
        file["rnn/rnn/BT:0"] = memory.b_bar[None]
        file["dense/dense/kernel:0"] = np.ones((2, 1))
    caplog.set_level("INFO", "lmu_deploy")
    network = lmu_deploy.import_network(tmp_path / "paper.h5")
    assert network.provenance[ASSUMED] == (
        "hidden units are tanh (option activation); the network answers after the last step "
        "(option return_sequences)"
    )
    assert f"assumed: {network.provenance[ASSUMED]}" in caplog.messages
    options = {"activation": "relu", "return_sequences": "true"}
    said = lmu_deploy.import_network(tmp_path / "paper.h5", options=options)
    assert ASSUMED not in said.provenance
