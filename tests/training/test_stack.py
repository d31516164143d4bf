"""The preset `stack`: sizes, settings of every task, training, and the network that it gives."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

import lmu_deploy as ld
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.graph.linear import Affine, Conv1d
from lmu_deploy.core.graph.transforms import fold
from lmu_deploy.tasks import mackey_glass
from lmu_deploy.tasks.base import Task, get_task, task_names

pytest.importorskip("lightning", reason="training needs lightning")
pytest.importorskip("sklearn", reason="scikit-learn bundles the digits")

from lmu_deploy.training.config import preset, read_settings
from lmu_deploy.training.run import train

SMALL = {"stack": {"width": 24, "channels": 4}, "epochs": 8}
MOST_PARAMETERS = 165_744
"""Of the parallel LMU that Chilkuri and Eliasmith (2021) trained on psMNIST."""

ROOT = Path(__file__).resolve().parents[2]
DATA = os.environ.get("LMU_DEPLOY_DATA") or str(ROOT.parent / "shared" / "data")


def small(task, **options):
    return train(task, "stack", config=SMALL, progress=False, **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("stack") / "digits.safetensors"
    return small("digits", out=path), path


@pytest.mark.parametrize("task", task_names())
def test_every_task_has_a_stack(task):
    task = get_task(task)
    settings = preset(task, "stack")
    config = settings.stack_for(task)
    assert (config.n_in, config.n_out, config.blocks) == (task.n_in, task.n_out, 2)
    assert config.return_sequences == task.every_step
    steps = task.steps // config.stem_stride
    assert config.theta == (settings.stack.theta or steps) <= steps
    assert config.order <= config.theta


def test_the_stack_for_psmnist_is_no_larger_than_the_published_network():
    from lmu_deploy.nn.graph.module import make_stack

    task = get_task("psmnist-nru")
    stack = make_stack(preset(task, "stack").stack_for(task))
    assert stack.to_network().n_parameters == 165_578 <= MOST_PARAMETERS


def test_a_window_is_scaled_with_the_sequence():
    short, long = get_task("capacity-100"), get_task("capacity-5000")
    assert preset(short, "stack").stack_for(short).theta == short.steps
    assert preset(long, "stack").stack_for(long).theta == long.steps


def test_a_stack_learns_and_its_file_holds_the_graph(trained):
    result, path = trained
    assert result.figures["test_accuracy"] > 0.9
    network = ld.load(path)
    assert network.fingerprint() == result.network.fingerprint()
    names = [node.name for node in network.nodes]
    assert names[0] == "stem"
    assert "block_1.memory" in names and "block_2.memory" in names
    assert isinstance(network["block_1.norm"].operator, Affine)
    task = get_task("digits")
    test = task.load().test
    assert task.score(run(network, test.inputs), test.targets) == result.figures["test_accuracy"]
    assert network.task == "digits"
    assert network.n_parameters == result.figures["parameters"]


def test_provenance_has_the_settings_and_the_command(trained):
    network = trained[0].network
    settings = json.loads(network.provenance["settings"])
    assert settings["stack"]["width"] == 24
    assert "--model stack" in network.provenance["command"]
    assert read_settings(settings, "provenance") == trained[0].config


def test_normalizations_before_memories_fold_into_them(trained):
    network = trained[0].network
    folded = fold(network)
    names = [node.name for node in folded.nodes]
    assert "block_1.norm" not in names and "block_2.norm" not in names
    inputs = get_task("digits").load().test.inputs[:20]
    np.testing.assert_allclose(run(folded, inputs), run(network, inputs), atol=1e-6)


def test_the_seed_determines_the_weights(trained):
    assert small("digits").network.fingerprint() == trained[0].network.fingerprint()
    assert small("digits", seed=1).network.fingerprint() != trained[0].network.fingerprint()


def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path):
    config = {**SMALL, "epochs": 4, "schedule": "constant"}
    whole = train("digits", "stack", config=config, progress=False)
    path = tmp_path / "state.ckpt"
    for epochs in (2, 4):
        resumed = train(
            "digits", "stack", config=config, epochs=epochs, progress=False, checkpoint=path
        )
    assert resumed.network.fingerprint() == whole.network.fingerprint()
    assert resumed.history == whole.history


def test_sizes_from_the_interface():
    result = ld.train("digits", "stack", epochs=1, blocks=3, width=8, stem_stride=2)
    network = result.network
    assert isinstance(network["stem"].operator, Conv1d)
    assert network["stem"].operator.kernel.shape == (2, 8, 8)
    assert "block_3.sum" in network.shapes and "block_4.sum" not in network.shapes
    assert network["block_1.memory"].operator.memory.theta == get_task("digits").steps // 2
    command = network.provenance["command"]
    assert "--blocks 3 --width 8 --stem-stride 2" in command


def test_a_stack_answers_at_every_step():
    task = mackey_glass.short_task(steps=120, n_series=64)
    settings = {**SMALL, "epochs": 40, "learning_rate": 0.005, "batch_size": 8}
    result = train(task, "stack", config=settings, progress=False)
    assert result.network.return_sequences
    assert result.figures["test_nrmse"] < 0.6  # 0.43 when this was written; zeros score 1


def test_sizes_that_do_not_fit_are_refused_before_training():
    own = Task("own.npz", "regression", n_in=3, n_out=2, steps=20, load=lambda: None)
    with pytest.raises(InputError, match="answer at every step; only stem_stride 1"):
        train(own, "stack", stem_stride=2)
    with pytest.raises(InputError, match="stem_stride is 9, and the sequences of task digits have"):
        train("digits", "stack", stem_stride=9)
    with pytest.raises(InputError, match="width: only a stack"):
        train("digits", "lmu", width=8)
    with pytest.raises(InputError, match="blocks"):
        train("digits", "stack", blocks=0)
    with pytest.raises(InputError, match="layers or stack"):
        read_settings({"stack": {}, "layers": [{"kind": "lstm", "units": 3}]}, "settings")
    with pytest.raises(InputError, match=r"stack\.depth"):
        read_settings({"stack": {"depth": 3}}, "settings")


@pytest.mark.skipif(
    not (Path(DATA) / "mnist" / "train-images-idx3-ubyte.gz").is_file(),
    reason="the MNIST files are absent; set LMU_DEPLOY_DATA to their folder",
)
def test_the_trained_example_reads_permuted_digits(monkeypatch):
    monkeypatch.setenv("LMU_DEPLOY_DATA", DATA)
    network = ld.load(ROOT / "examples" / "models" / "psmnist-stack.safetensors")
    assert network.n_parameters <= MOST_PARAMETERS
    task = get_task(network.task)
    settings = json.loads(network.provenance["settings"])
    assert read_settings(settings, "provenance") == preset(task, "stack")
    test = task.load().test
    inputs, _ = test.batch(slice(None))
    assert task.score(run(network, inputs), test.targets) >= 0.985
