"""The command line: output, exit codes and error messages."""

from __future__ import annotations

import json
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest

from lmu_deploy.api.validate import parse_targets
from lmu_deploy.cli import main
from lmu_deploy.core.errors import InputError, MissingDependencyError
from lmu_deploy.core.files import save
from lmu_deploy.core.loading import load
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.core.reference import run_reference
from lmu_deploy.tasks.base import get_task


@pytest.fixture
def float_file(tmp_path):
    """A network of the shape of the digits task with random weights."""
    rng = np.random.default_rng(0)
    memory = Memory.legendre(4, 8.0, channels=3)
    hidden = Hidden(rng.normal(size=(12, 10)) / 3, None, None, rng.normal(size=10), "tanh")
    layer = LMULayer(rng.normal(size=(8, 3)) / 3, None, None, None, memory, hidden)
    network = LMUNetwork((layer,), Readout(rng.normal(size=(10, 10)), None), task="digits")
    path = tmp_path / "float.safetensors"
    save(network, path)
    return path


@pytest.fixture
def integer_file(float_file, lmu):
    path = float_file.with_name("integer.safetensors")
    assert lmu("quantize", float_file, "--out", path)[0] == 0
    return path


def sentence(err: str) -> str:
    """Return the one line of an error on standard error, without progress lines."""
    lines = [line for line in err.splitlines() if line.startswith("lmu-deploy: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize(
    "command",
    [
        ["quantize", "absent.safetensors", "--out", "o.safetensors"],
        ["spike", "absent.safetensors", "--out", "o.safetensors"],
        ["export", "absent.safetensors", "--out", "o.onnx"],
        ["check", "absent.safetensors"],
        ["deploy", "absent.safetensors", "--target", "reference"],
        ["validate", "absent.safetensors", "--out", "report"],
    ],
)
def test_missing_file_error_names_the_file(lmu, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    code, _, err = lmu(*command)
    assert code == 2
    assert "absent.safetensors: no such file" in sentence(err)
    assert files(tmp_path) == set()


def test_file_that_is_not_a_network_is_refused(lmu, tmp_path):
    path = tmp_path / "notes.safetensors"
    path.write_bytes(b"not a network at all")
    code, _, err = lmu("deploy", path, "--target", "reference")
    assert code == 2
    assert "notes.safetensors" in sentence(err)


@pytest.mark.parametrize(
    ("options", "valid"),
    [
        (["--target", "nowhere"], "integer"),
        (["--target", "reference", "--task", "nothing"], "mackey-glass"),
        (["--target", "reference", "--limit", "0"], "at least 1"),
        (["--target", "integer"], "lmu-deploy quantize"),
        (["--target", "brian2"], "lmu-deploy spike"),
    ],
)
def test_deploy_error_names_the_valid_values(lmu, float_file, options, valid):
    code, _, err = lmu("deploy", float_file, *options)
    assert code == 2
    assert valid in sentence(err)


@pytest.mark.parametrize(
    ("command", "valid"), [("quantize", "loihi2"), ("spike", "generic-analog")]
)
def test_unknown_profile_error_lists_valid_profiles(lmu, float_file, command, valid):
    out = float_file.with_name("o.safetensors")
    code, _, err = lmu(command, float_file, "--out", out, "--profile", "loihi99")
    assert code == 2
    assert "'loihi99'" in sentence(err)
    assert valid in sentence(err)
    assert not out.exists()


@pytest.mark.parametrize("command", ["quantize", "spike", "export"])
def test_commands_for_float_networks_refuse_integer_networks(lmu, integer_file, command):
    out = integer_file.with_name("o.out")
    code, _, err = lmu(command, integer_file, "--out", out)
    assert code == 2
    assert "IntegerNetwork" in sentence(err)
    assert not out.exists()


def test_check_refuses_float_networks(lmu, float_file):
    code, _, err = lmu("check", float_file)
    assert code == 2
    assert "lmu-deploy quantize" in sentence(err)


def test_check_shows_the_placement_of_every_neuron(lmu, integer_file):
    code, out, _ = lmu("check", integer_file)
    assert code == 0
    verdict, header, *cores = out.strip().splitlines()
    assert verdict.endswith("fits loihi2.")
    assert "synapses" in header
    network = load(integer_file)
    neurons = sum(int(line.split()[1]) for line in cores)
    (memory,), (hidden,) = network.memories, network.units
    assert neurons == memory.size + hidden.size + network.n_out


def test_output_in_a_missing_folder_is_refused(lmu, float_file):
    out = float_file.parent / "absent" / "o.safetensors"
    code, _, err = lmu("quantize", float_file, "--out", out)
    assert code == 2
    assert "give a folder that exists" in sentence(err)


def test_missing_lava_error_names_the_command_that_installs_it(lmu, integer_file, monkeypatch):
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("targets.lava.compat.version", absent)
    code, _, err = lmu("deploy", integer_file, "--target", "lava", "--limit", "1")
    assert code == 2
    assert "lmu-deploy doctor --fix" in sentence(err)


@pytest.fixture
def data_file(tmp_path):
    """Function that writes own classification data of the shape of the digits task."""

    def write(**changes: np.ndarray) -> Path:
        rng = np.random.default_rng(1)
        arrays = {
            "x_train": rng.normal(size=(30, 8, 8)),
            "y_train": np.arange(30) % 10,
            "x_test": rng.normal(size=(12, 8, 8)),
            "y_test": np.arange(12) % 10,
        }
        path = tmp_path / "own.npz"
        np.savez(path, **{**arrays, **changes})
        return path

    return write


def test_own_data_can_be_run(lmu, float_file, data_file, tmp_path):
    result = tmp_path / "r.json"
    task = data_file()
    code, out, _ = lmu(
        "deploy", float_file, "--target", "reference", "--task", task, "--json", result
    )
    assert code == 0
    found = json.loads(result.read_text())
    assert found["n_samples"] == 12
    assert f"{found['metric']['value']:.4f}" in out


def test_nan_in_the_input_is_refused(lmu, float_file, data_file, tmp_path):
    x = np.zeros((12, 8, 8))
    x[3, 2, 1] = np.nan
    result, states = tmp_path / "r.json", tmp_path / "s.npz"
    task = data_file(x_test=x)
    code, _, err = lmu(
        "deploy", float_file, "--target", "reference", "--task", task,
        "--json", result, "--record", states,
    )  # fmt: skip
    assert code == 2
    assert "x_test has 1 number not finite in float32, the first in sample 3" in sentence(err)
    assert not result.exists()
    assert not states.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_test": np.zeros((12, 8, 7))}, "x_train has samples of shape (8, 8)"),
        ({"x_train": np.zeros((30, 8))}, "x_train has samples of shape (8, 1)"),
        ({"y_test": np.arange(11)}, "y_test has 11 answers, and there are 12 samples"),
        ({"y_train": np.arange(30) % 3 - 1}, "outputs"),
        ({"y_train": np.arange(30)}, "30 outputs"),
        ({"y_train": np.array(["a"] * 30)}, "labels of different types"),
        ({"x_train": np.array([None] * 30, dtype=object)}, "an array of Python objects"),
    ],
)
def test_invalid_own_data_is_refused(lmu, float_file, data_file, changes, message):
    code, _, err = lmu(
        "deploy", float_file, "--target", "reference", "--task", data_file(**changes)
    )
    assert code == 2
    assert message in sentence(err)


def test_deploy_writes_the_states_and_the_result(lmu, float_file, tmp_path):
    result, states = tmp_path / "r.json", tmp_path / "s.npz"
    code, out, err = lmu(
        "deploy", float_file, "--target", "reference", "--limit", 20,
        "--json", result, "--record", states,
    )  # fmt: skip
    assert code == 0
    assert "accuracy" in out
    assert "reference: 20 samples" in err
    found = json.loads(result.read_text())
    wanted = {
        "target", "task", "n_samples", "metric", "reference", "events", "synops", "saturations",
        "steps", "wall_seconds", "seed", "versions",
    }  # fmt: skip
    assert wanted <= set(found)
    assert found["reference"] == {
        "value": found["metric"]["value"],
        "agreement": 1.0,
        "deviation": 0.0,
    }
    from lmu_deploy.core.loading import load

    network = load(float_file)
    inputs = get_task("digits").load().test.inputs[:20]
    trace = run_reference(network, inputs, record=True)
    with np.load(states) as stored:
        np.testing.assert_array_equal(stored["m"], trace.m)
        np.testing.assert_array_equal(stored["h"], trace.h)
        np.testing.assert_array_equal(stored["y"], trace.y)


def test_help_of_every_command(lmu):
    code, out, _ = lmu("--help")
    assert code == 0
    commands = [
        "demo", "train", "quantize", "spike", "export", "check", "deploy", "validate", "report",
        "targets", "doctor",
    ]  # fmt: skip
    for command in commands:
        assert command in out
        code, text, _ = lmu(command, "--help")
        assert code == 0
        assert "Usage" in text


def test_unknown_option_exits_with_code_2(lmu):
    code, _, err = lmu("deploy", "--nonsense")
    assert code == 2
    assert "--nonsense" in err


def test_debug_shows_the_traceback(monkeypatch, tmp_path):
    arguments = ["lmu-deploy", "--debug", "check", str(tmp_path / "absent.safetensors")]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(InputError):
        main()


def test_targets_are_parsed_with_their_limits():
    assert parse_targets("integer, lava:8,brian2") == [
        ("integer", None),
        ("lava", 8),
        ("brian2", None),
    ]
    for wrong in ("", "integer,", "lava:", "lava:-3", "lava:x", "lava,lava:2"):
        with pytest.raises(InputError):
            parse_targets(wrong)


def test_a_missing_library_is_a_usage_error():
    assert MissingDependencyError("x").exit_code == 2
