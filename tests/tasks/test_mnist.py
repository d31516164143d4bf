import gzip
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from lmu_deploy.core.errors import InputError
from lmu_deploy.tasks import digits as mnist
from lmu_deploy.tasks.base import get_task

NAMES = ("smnist", "psmnist", "psmnist-nru")


def _folder():
    named = os.environ.get("LMU_DEPLOY_DATA")
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    for folder in filter(None, (named, str(beside))):
        if (Path(folder) / "mnist" / "train-images-idx3-ubyte.gz").is_file():
            return folder
    return None


needs_mnist = pytest.mark.skipif(
    _folder() is None, reason="the MNIST files are absent; set LMU_DEPLOY_DATA to their folder"
)


@pytest.fixture
def data(monkeypatch):
    monkeypatch.setenv("LMU_DEPLOY_DATA", _folder())
    return lambda name: get_task(name).load()


@needs_mnist
@pytest.mark.parametrize("name", NAMES)
def test_sizes_types_and_range(data, name):
    task, parts = get_task(name), data(name)
    sizes = [len(s) for s in (parts.train, parts.validation, parts.test)]
    assert sizes == [50_000, 10_000, 10_000]
    inputs, targets = parts.test.batch(np.arange(200))
    assert inputs.shape == (200, task.steps, task.n_in) == (200, 784, 1)
    assert inputs.dtype == np.float32
    assert (inputs.min(), inputs.max()) == (0.0, 1.0)
    assert targets.dtype == np.int64
    assert set(targets) == set(range(10))


@needs_mnist
def test_large_parts_stay_bytes(data):
    train = data("psmnist").train
    assert train.pixels.dtype == np.uint8
    assert train.pixels.nbytes == 50_000 * 784


@needs_mnist
def test_orders_show_the_same_test_images(data):
    shown = {name: data(name).test.batch(slice(0, 20)) for name in NAMES}
    rows, labels = shown["smnist"]
    for name, order in (("psmnist", mnist.permuted_order), ("psmnist-nru", mnist.nru_order)):
        permuted, same_labels = shown[name]
        np.testing.assert_array_equal(permuted, rows[:, order()[1]])
        np.testing.assert_array_equal(same_labels, labels)


@needs_mnist
def test_nru_validates_on_the_last_images(data):
    images, labels, _, _ = mnist.read_mnist()
    order, pixels = mnist.nru_order()
    parts = data("psmnist-nru")
    np.testing.assert_array_equal(parts.train.pixels[:5], images[order[:5]][:, pixels])
    np.testing.assert_array_equal(
        parts.validation.pixels[:5], images[order[50_000:50_005]][:, pixels]
    )
    np.testing.assert_array_equal(parts.validation.targets, labels[order[50_000:]])


@needs_mnist
@pytest.mark.parametrize("name", NAMES)
def test_no_training_image_is_in_another_part(data, name):
    parts = data(name)
    digests = [
        {hashlib.md5(row.tobytes()).digest() for row in split.pixels}
        for split in (parts.train, parts.validation, parts.test)
    ]
    assert not digests[0] & digests[1]
    assert not digests[0] & digests[2]
    assert not digests[1] & digests[2]


def test_orders_are_fixed():
    def digest(order):
        return hashlib.sha256(order.astype("<i8").tobytes()).hexdigest()[:16]

    assert digest(mnist.permuted_order()[1]) == "fe62e3fef305ce16"
    images, pixels = mnist.nru_order()
    assert digest(images) == "fa99aca7e184d1a2"
    assert digest(pixels) == "dda347f72737de70"
    for order in (mnist.permuted_order()[1], pixels):
        np.testing.assert_array_equal(np.sort(order), np.arange(784))
    np.testing.assert_array_equal(np.sort(images), np.arange(60_000))


def test_folder_without_files_error_lists_them(tmp_path, monkeypatch):
    monkeypatch.setenv("LMU_DEPLOY_DATA", str(tmp_path))
    with pytest.raises(InputError) as caught:
        mnist.read_mnist()
    told = str(caught.value)
    assert str(tmp_path / "mnist") in told
    assert "t10k-labels-idx1-ubyte.gz" in told


def test_download_error_lists_files(tmp_path, monkeypatch):
    pooch = pytest.importorskip("pooch", reason="pooch downloads")
    monkeypatch.delenv("LMU_DEPLOY_DATA", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / name)

    def no_network(*args, **kwargs):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(pooch, "retrieve", no_network)
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte\.gz.*set LMU_DEPLOY_DATA"):
        mnist.read_mnist()


@pytest.mark.parametrize(
    "content",
    [b"not gzip", gzip.compress(b"\0" * 60_008, mtime=0), b""],
    ids=["no gzip", "too short", "empty"],  # the same in every process that collects tests
)
def test_wrong_contents_are_rejected(tmp_path, monkeypatch, content):
    (tmp_path / "mnist").mkdir()
    for name in mnist._FILES:
        (tmp_path / "mnist" / name).write_bytes(content)
    monkeypatch.setenv("LMU_DEPLOY_DATA", str(tmp_path))
    with pytest.raises(InputError, match="replace it"):
        mnist.read_mnist()


def test_decompression_bomb_is_rejected(tmp_path, monkeypatch):
    (tmp_path / "mnist").mkdir()
    path = tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(b"\0" * 50_000_000))
    read = []
    original = gzip.GzipFile.read

    def noting(self, size=-1):
        read.append(size)
        return original(self, size)

    monkeypatch.setattr(gzip.GzipFile, "read", noting)
    with pytest.raises(InputError, match="published"):
        mnist._unpack(path)
    assert max(read) == 10_009
