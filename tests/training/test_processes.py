"""Training by several processes equals that of one, and products in bfloat16 learn the same."""

import subprocess
import sys

import numpy as np
import pytest

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import to_tree
from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.loading import load
from lmu_deploy.core.metrics import NO_CLASS
from lmu_deploy.tasks.base import Split
from lmu_deploy.tasks.dataset import Dataset

pytest.importorskip("lightning", reason="training needs lightning")

import lmu_deploy as ld
from lmu_deploy.training import train
from lmu_deploy.training.module import Batches

SETTINGS = "epochs = 2\nbatch_size = 7\ndropout = 0.0\nadversary = 0.1\n"
COMMAND = "import sys; from lmu_deploy.cli import main; sys.exit(main())"


def sequences(count, seed):
    """Sequences of 8 steps whose class is the sign of their mean."""
    x = np.random.default_rng(seed).normal(size=(count, 8, 2)).astype(np.float32)
    return x, (x.mean(axis=(1, 2)) > 0).astype(np.int64)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Own data of 29 training samples: the last batch of 7 has one sample for two processes."""
    path = tmp_path_factory.mktemp("data") / "signs.npz"
    parts = {"train": sequences(29, 0), "val": sequences(30, 1), "test": sequences(40, 2)}
    arrays = {f"{k}_{name}": a for name, xy in parts.items() for k, a in zip("xy", xy, strict=True)}
    np.savez(path, **arrays)
    return path


@pytest.mark.timeout(240)
def test_two_processes_train_as_one(data, tmp_path):
    (tmp_path / "settings.toml").write_text(SETTINGS)

    def command(name, *more):
        common = ["train", str(data), "--model", "lmu", "--config", "settings.toml", "--out", name]
        return [sys.executable, script, *common, "--device", "cpu", *more]

    script = tmp_path / "command.py"
    script.write_text(COMMAND)
    more = ("--devices", "2", "--strategy", "ddp", "--checkpoint", "state.ckpt")
    done = subprocess.run(command("two", *more), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test accuracy") == 1  # the further process is silent
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == [
        "command.py", "settings.toml", "state.ckpt", "two",
    ]  # fmt: skip
    # Not a stack, whose batch normalization has the statistics of each process.
    settings = {"config": tmp_path / "settings.toml", "progress": False}
    one = train(data, "lmu", **settings)
    two = load(tmp_path / "two")
    assert "--devices 2" in two.provenance["command"]
    trees = [to_tree(network)[1] for network in (one.network, two)]
    assert trees[0].keys() == trees[1].keys()
    for name, values in trees[0].items():
        np.testing.assert_allclose(trees[1][name], values, rtol=0, atol=1e-5, err_msg=name)
    # The file of two processes is the state of one: nothing is left to train.
    again = train(data, "lmu", checkpoint=tmp_path / "state.ckpt", **settings)
    assert [row["epoch"] for row in again.history] == [1.0, 2.0]
    assert again.history[-1]["train_loss"] == pytest.approx(one.history[-1]["train_loss"], abs=1e-4)


@pytest.mark.parametrize("lengths", [None, np.arange(1, 10) % 8 + 1])
def test_shares_of_a_batch_are_the_batch(lengths):
    x, y = sequences(9, 3)
    split = Split(x, y, lengths)
    whole = list(Batches(split, 4, (0, 1)))
    shares = [list(Batches(split, 4, (0, 1), (rank, 2))) for rank in range(2)]
    assert len(whole) == len(shares[0]) == len(shares[1]) == 3
    for batch, *parts in zip(whole, *shares, strict=True):
        answered = [(part[1] != NO_CLASS).numpy() for part in parts]
        given = np.concatenate([p[0].numpy()[a] for p, a in zip(parts, answered, strict=True)])
        assert given.shape[1] == batch[0].shape[1]  # cut to the longest of the whole batch
        assert sorted(map(bytes, given)) == sorted(map(bytes, batch[0].numpy()))
    assert [len(part[-1][1]) for part in shares] == [1, 1]
    assert (shares[1][-1][1] == NO_CLASS).all()


@pytest.mark.parametrize("model", ["lmu", "parallel", "stack", "lstm"])
def test_products_in_bfloat16_learn_the_same(model, tmp_path):
    x_val, y_val = sequences(100, 6)
    own = Dataset(*sequences(300, 4), *sequences(200, 5), x_val=x_val, y_val=y_val)
    settings = {"config": {"batch_size": 50}, "epochs": 6, "progress": False}
    state = tmp_path / "state.ckpt"
    mixed = train(own, model, precision="bf16-mixed", checkpoint=state, **settings)
    plain = train(own, model, **settings)
    one, other = mixed.figures["test_accuracy"], plain.figures["test_accuracy"]
    assert other > 0.65
    assert one == pytest.approx(other, abs=0.05)
    assert "--precision bf16-mixed" in mixed.network.provenance["command"]
    x = sequences(20, 7)[0]
    difference = np.abs(run(mixed.network, x) - run(plain.network, x)).max()
    assert 0 < difference < 1.0  # trained in another precision, and alike
    with pytest.raises(InputError, match="other data, seed or settings"):
        train(own, model, checkpoint=state, **settings)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"devices": 0}, "devices"),
        ({"strategy": "fsdp"}, "strategy is 'fsdp'; choose one of auto, ddp"),
        ({"precision": "8"}, "precision is '8'; choose one of 32, bf16-mixed"),
    ],
)
def test_unknown_ways_to_train_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        ld.train("digits", **wrong)
