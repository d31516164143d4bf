"""Faults that were found with data, files and habits of others: a test for each kind.

Kinds with tests of their own elsewhere: layers under autocast and tracing (`tests/nn/
test_torch_citizen.py`), formats of other programs and what a file does not say
(`tests/converters/test_importers.py`), whole models with the paper's cell (`tests/converters/
test_paper_lmu.py`), early stops on five samples (`tests/training/test_own_data.py`), activations
of the readout (`tests/converters/keras_lmu`), terminals, editors and scripts
(`tests/cli/test_surroundings.py`).
"""

import dataclasses
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from typer.testing import CliRunner

import lmu_deploy as ld
from lmu_deploy.cli import app
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.tasks.dataset import Dataset

pytest.importorskip("sklearn", reason="scikit-learn bundles the digits")
DIGITS = "examples/models/digits.safetensors"


def lmu(*arguments):
    """Run a command and return what it prints; errors are raised as they are."""
    result = CliRunner().invoke(app, [*map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def saved(path, x, y, x_test, y_test, **more):
    np.savez(path, x_train=x, y_train=y, x_test=x_test, y_test=y_test, **more)
    return path


def waves(samples, rng, offset=0.0):
    """Slow and fast waves of random phase around an offset."""
    classes = np.arange(samples) % 2
    phase = (1 + 2 * classes)[:, None] * np.arange(20) / 20 + rng.random((samples, 1))
    x = np.sin(2 * np.pi * phase) + 0.1 * rng.normal(size=phase.shape) + offset
    return x[:, :, None].astype(np.float32), classes


def small(n_in=1, n_out=6, return_sequences=False):
    """Return an LMU with random weights."""
    rng = np.random.default_rng(3)
    hidden = Hidden(rng.normal(size=(4, 5)), rng.normal(size=(n_in, 5)), None, None, "tanh")
    memory = Memory.legendre(4, 10.0)
    layer = LMULayer(rng.normal(size=(n_in, 1)), None, None, None, memory, hidden)
    readout = Readout(rng.normal(size=(5, n_out)), None)
    return Network.from_layers(LMUNetwork((layer,), readout, return_sequences))


def trained(data, caplog, **more):
    pytest.importorskip("lightning", reason="training needs lightning")
    from lmu_deploy.training import train

    layer = {"kind": "lmu", "units": 8, "order": 4, "theta": 20}
    settings = {"batch_size": 10, "learning_rate": 0.02, "layers": [layer], **more}
    caplog.set_level("INFO", "lmu_deploy")
    return train(data, config={"schedule": "one-cycle", **settings})


def test_few_samples_train_without_validation(caplog):
    series = np.sin(np.arange(101) / 7)[None, :, None].astype(np.float32)
    data = Dataset(series[:, :50], series[:, 1:51], series[:, 50:100], series[:, 51:101])
    assert trained(data, caplog, epochs=2).figures["epochs"] == 2
    assert "1 training sample of dataset leaves none to validate; give ten or" in caplog.text


def test_no_normalization_is_needed_for_large_offsets(rng, caplog):
    data = Dataset(*waves(200, rng, 350.0), *waves(60, rng, 350.0))
    assert trained(data, caplog, epochs=5).figures["test_accuracy"] > 0.9


def test_mixed_units_change_no_integer(tmp_path):
    task, network, scale = ld.load_task("digits"), ld.load(DIGITS), np.ones(8)
    scale[3] = 1e5
    first = network.nodes[0]
    encoders = first.operator.input_encoders / scale[:, None]
    operator = dataclasses.replace(first.operator, input_encoders=encoders)
    other = dataclasses.replace(
        network, nodes=(dataclasses.replace(first, operator=operator), *network.nodes[1:])
    )
    outputs = []
    for each, factor in ((network, np.ones(8)), (other, scale)):
        data = Dataset(task.train.x * factor, task.train.y, task.test.x * factor, task.test.y)
        outputs.append(ld.run(ld.quantize(each, data), data.test.x, reference=False).outputs)
    np.testing.assert_array_equal(*outputs)


def test_sorted_data_calibrate_as_shuffled_ones(tmp_path):
    task = ld.load_task("digits")
    order = np.argsort(task.train.y, kind="stable")
    test = np.argsort(task.test.y, kind="stable")
    file = saved(
        tmp_path / "sorted.npz",
        *(task.train.x[order], task.train.y[order], task.test.x[test], task.test.y[test]),
    )
    lmu("quantize", DIGITS, "--task", file, "--out", tmp_path / "q.safetensors")
    for options in ([], ["--limit", "90"]):
        said = tmp_path / "said.json"
        lmu(
            *("deploy", tmp_path / "q.safetensors", "--task", file, "--target", "integer"),
            *("--json", said, *options),
        )
        assert json.loads(said.read_text())["metric"]["value"] > 0.96


def test_late_task_mismatch_is_found_at_once(tmp_path):
    x = np.zeros((20, 12, 1), np.float32)
    file = saved(tmp_path / "seq.npz", x, x, x, x)
    small(n_out=1).save(tmp_path / "m.safetensors")
    said = r"answers once, after the last step, .*return_sequences=true"
    for arguments in (
        ["quantize", "--out", tmp_path / "q.safetensors"],
        ["validate", "--targets", "onnxruntime,integer", "--out", tmp_path / "report"],
    ):
        command, *rest = arguments
        with pytest.raises(InputError, match=said):
            lmu(command, tmp_path / "m.safetensors", "--task", file, *rest)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.safetensors", "seq.npz"]


def test_limit_one_regression_is_one_line(rng, tmp_path):
    x = rng.normal(size=(20, 12, 1)).astype(np.float32)
    file = saved(tmp_path / "seq.npz", x, x, x, x)
    small(n_out=1, return_sequences=True).save(tmp_path / "m.safetensors")
    pytest.importorskip("onnxruntime", reason="the target of the report")
    arguments = ("--target", "onnxruntime", "--task", file, "--limit", "1")
    line = lmu("deploy", tmp_path / "m.safetensors", *arguments).strip().splitlines()[-1]
    assert "nrmse" in line
    assert "on 1 sample" in line
    assert "(" not in line.split(";")[0]


def test_vector_answers_are_a_task(rng, tmp_path):
    x = rng.normal(size=(60, 24, 1)).astype(np.float32)
    y = rng.normal(size=(60, 6)).astype(np.float32)
    small().save(tmp_path / "m.safetensors")
    file = saved(tmp_path / "forecast.npz", x, y, x[:20], y[:20])
    lmu("quantize", tmp_path / "m.safetensors", "--task", file, "--out", tmp_path / "q.safetensors")
    labels = [(y[:, 0] > 0).astype(float), np.where(y[:, 0] > 0, "a", "b")]
    two = small(n_out=2)
    for each in labels:
        data = Dataset(x, each, x[:20], each[:20])
        assert data.task.kind == "classification" or each.dtype.kind == "f"
        ld.quantize(two, data)
    with pytest.raises(InputError, match="without steps; give at least one"):
        Dataset(x[:, :0], y, x[:, :0], y)


def test_environment_full_disk_leaves_nothing(tmp_path):
    """A file that cannot be written whole is not written, and one sentence says why."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192));"
    ignore = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
    program = f"{limit}{ignore}from lmu_deploy.cli import main; main()"
    out = tmp_path / "q.safetensors"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, "quantize", DIGITS, "--out", out],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert f"cannot write {out}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_output_replaced_is_a_regular_file_only(tmp_path):
    network = tmp_path / "q.safetensors"
    lmu("quantize", DIGITS, "--out", network)
    real, link, pipe = tmp_path / "real.json", tmp_path / "link.json", tmp_path / "pipe"
    link.symlink_to(real)
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        reader = pool.submit(pipe.read_text)
        for out in (link, pipe):
            lmu("deploy", network, "--target", "integer", "--limit", "5", "--json", out)
        found = [json.loads(text) for text in (reader.result(timeout=20), real.read_text())]
    assert found[0]["metric"] == found[1]["metric"]
    assert link.is_symlink()
    assert pipe.is_fifo()
    with pytest.raises(InputError, match="is the file that is read"):
        lmu("quantize", DIGITS, "--out", DIGITS)
