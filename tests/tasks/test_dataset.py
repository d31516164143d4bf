"""Dataset: arrays, files and built-in tasks as one object."""

import dataclasses
import json

import numpy as np
import pytest

import lmu_deploy as ld
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.graph.frames import Reshape
from lmu_deploy.core.graph.linear import Conv2d, Dense
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.pointwise import Activation
from lmu_deploy.core.graph.time import Reduce
from lmu_deploy.core.loading import load
from lmu_deploy.core.network import Memory
from lmu_deploy.tasks.arrays import StoredSplit
from lmu_deploy.tasks.base import get_task
from lmu_deploy.tasks.dataset import Dataset, find_task, load_task
from lmu_deploy.tasks.reading import ARRAYS
from lmu_deploy.tasks.selection import first_of, limited, task_for


@pytest.fixture
def arrays(rng):
    x = rng.normal(size=(30, 6, 2))
    return x, np.arange(30) % 3, x[:9], np.arange(9) % 3


def test_arrays_become_three_parts(arrays):
    data = Dataset(*arrays)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [27, 3, 9]
    both = np.concatenate([data.train.x, data.validation.x])
    assert {row.tobytes() for row in both} == {x.tobytes() for x in arrays[0].astype(np.float32)}
    assert np.bincount(data.validation.y).tolist() == [1, 1, 1]
    np.testing.assert_array_equal(data.test.x, arrays[2].astype(np.float32))
    assert data.test.y.dtype == np.int64
    assert (data.task.n_in, data.task.n_out, data.task.steps) == (2, 3, 6)


def test_parts_are_those_of_a_file_with_the_same_arrays(arrays, tmp_path):
    path = tmp_path / "own.npz"
    np.savez(path, **dict(zip(("x_train", "y_train", "x_test", "y_test"), arrays, strict=True)))
    stored, given = load_task(path), Dataset(*arrays)
    for part in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(stored, part).x, getattr(given, part).x)
        np.testing.assert_array_equal(getattr(stored, part).y, getattr(given, part).y)


def test_lists_and_signals_are_taken_too(rng):
    x, y = rng.normal(size=(12, 5, 1)), rng.normal(size=(12, 5, 2))
    data = Dataset(list(x), list(y), x.tolist(), y.tolist(), name="signals")
    assert data.task.kind == "regression"
    assert data.task.n_out == 2
    assert repr(data) == "Dataset('signals', regression, 5 steps of 1 input, 2 outputs)"


def test_built_in_task_is_loaded_when_it_is_used():
    data = ld.load_task("digits")
    assert repr(data) == "Dataset('digits', classification, 8 steps of 8 inputs, 10 outputs)"
    assert data.train is get_task("digits").load().train
    assert data.test.x.shape[1:] == (8, 8)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        (0, np.zeros((3, 4)), "x_train"),
        (0, np.zeros((30, 6, 2, 1)), r"samples of shape \(6, 2, 1\) and x_test of \(6, 2\)"),
        (0, np.zeros((30, 6, 2, 1, 1, 1, 1)), "x_train has shape"),
        (0, np.zeros(30), "x_train has shape"),
        (0, np.zeros((30, 0, 2)), "without steps"),
        (0, [np.zeros((2, n)) for n in (4, 5, 6)], r"give \[s.T for s in x_train\]"),
        (0, np.full((30, 6, 2), np.nan), "x_train"),
        (0, [[["a"]]] * 30, "x_train"),
        (1, np.eye(3)[np.arange(30) % 3], r"give y_train.argmax\(axis=1\)"),
        (1, np.ones((30, 6)), r"y_train\[:, :, None\]"),
        (1, np.full((30, 4), np.nan), "y_train holds NaN"),
        (1, list("ab") * 15, "labels of different types"),
        (2, np.zeros((9, 5, 2)), "the two must be equal"),
        (3, np.zeros((9, 6, 1)), "both must be the same"),
        (3, np.zeros(8, dtype=int), "y_test"),
    ],
)
def test_arrays_that_do_not_fit_are_rejected(arrays, part, value, message):
    given = list(arrays)
    given[part] = value
    with pytest.raises(InputError, match=message):
        Dataset(*given)


def test_every_way_to_name_data_leads_to_one_task():
    task = get_task("digits")
    for way in ("digits", task, load_task("digits")):
        assert find_task(way) is task


def test_network_takes_data_of_its_own_shape(arrays):
    network = load("examples/models/digits.safetensors")
    own = Dataset(np.zeros((20, 8, 8)), np.arange(20) % 4, np.zeros((2, 8, 8)), [0, 1])
    found = task_for(network, own)  # fewer classes than the network has outputs
    assert found.n_out == 10
    np.testing.assert_array_equal(found.load().test.y, [0, 1])
    with pytest.raises(InputError, match="task dataset has 2 inputs and 3 outputs"):
        task_for(network, Dataset(*arrays))
    with pytest.raises(InputError, match=r"array of shape \(20, 8, 8\) without answers"):
        task_for(network, np.zeros((20, 8, 8)))


LABELS = {
    "from one": np.array([1, 2, 3]),
    "huge": np.array([10**9, 2, 7]),
    "negative": np.array([-1, 0, 1]),
    "strings": np.array(["up", "down", "left"]),
    "numerals": np.array(["10", "9", "1"]),
    "floats": np.array([1.0, 2.0, 3.0]),
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_labels_of_any_kind_are_classes(labels, arrays):
    x, y, x_test, y_test = arrays
    data = Dataset(x, labels[y], x_test, labels[y_test])
    assert data.task.kind == "classification"
    assert data.task.n_out == 3
    names = np.array(data.classes)
    given = [str(int(v)) if labels.dtype.kind == "f" else str(v) for v in labels[y_test]]
    assert names[data.test.y].tolist() == given
    if labels.dtype.kind != "U" or labels[0] == "10":
        assert data.classes == tuple(sorted(data.classes, key=int))


def test_booleans_are_two_classes(arrays):
    x, y, x_test, y_test = arrays
    data = Dataset(x, y > 0, x_test, y_test > 0)
    assert data.classes == ("False", "True")
    np.testing.assert_array_equal(data.test.y, y_test > 0)


def test_a_real_vector_for_each_sample_is_a_task_that_answers_once(arrays, rng):
    x, _, x_test, _ = arrays
    y = rng.normal(size=(30, 4))
    data = Dataset(x, y, x_test, y[:9])
    assert (data.task.kind, data.task.every_step, data.task.n_out) == ("regression", False, 4)
    np.testing.assert_array_equal(data.test.y, y[:9].astype(np.float32))
    one = Dataset(x, y[:, 0], x_test, y[:9, 0])
    assert one.test.y.shape == (9, 1)
    assert one.task.score(one.test.y, one.test.y) == 0.0


def test_a_class_for_each_step_is_a_task_that_answers_at_every_step(arrays):
    x, _, x_test, _ = arrays
    y = np.arange(180).reshape(30, 6) % 4 + 5
    data = Dataset(x, y, x_test, y[:9])
    assert (data.task.kind, data.task.every_step, data.task.n_out) == ("classification", True, 4)
    np.testing.assert_array_equal(data.test.y, y[:9] - 5)


def test_sequences_of_different_lengths_are_padded_with_their_last_step(rng):
    lengths = np.array([5, 3, 8, 6] * 5)
    x = [rng.normal(size=(n, 2)) for n in lengths]
    data = Dataset(x, ["a", "b"] * 10, x[:2], ["a", "b"])
    assert data.task.steps == 8
    np.testing.assert_array_equal(data.test.lengths, [5, 3])
    np.testing.assert_array_equal(data.test.x[1, :3], x[1].astype(np.float32))
    np.testing.assert_array_equal(data.test.x[1, 3:], np.tile(data.test.x[1, 2], (2, 1)))


def test_padding_has_no_answers_and_does_not_count(rng):
    lengths = np.array([5, 3, 8, 6] * 5)
    x = [rng.normal(size=(n, 1)) for n in lengths]
    outputs = np.zeros((4, 8, 2))
    classes = Dataset(
        x, [np.arange(n) % 2 for n in lengths], x[:4], [np.arange(n) % 2 for n in lengths[:4]]
    )
    np.testing.assert_array_equal(classes.test.y[1], [0, 1, 0, -1, -1, -1, -1, -1])
    right = sum((n + 1) // 2 for n in lengths[:4]) / sum(lengths[:4])  # class 0 everywhere
    assert classes.task.score(outputs, classes.test.y) == pytest.approx(right)
    reals = Dataset(x, x, x[:4], x[:4])
    assert np.isnan(reals.test.y[1, 3:]).all()
    wrong = np.full((4, 8, 1), 7.0)
    expected = np.concatenate(x[:4])
    error = np.sqrt(np.mean((7.0 - expected) ** 2) / np.mean(expected**2))
    assert reals.task.score(wrong, reals.test.y) == pytest.approx(error, rel=1e-6)


def test_order_of_the_file_does_not_matter_for_what_is_in_a_part(rng):
    y = np.repeat([0, 1, 2], 100)
    data = Dataset(rng.normal(size=(300, 4, 1)), y, rng.normal(size=(300, 4, 1)), y)
    assert np.bincount(data.validation.y).tolist() == [10, 10, 10]
    assert np.bincount(limited(data.train, 60).y).tolist() == [20, 20, 20]
    assert np.bincount(limited(data.test, 9).y).tolist() == [3, 3, 3]
    assert first_of(data.test, 9).y.tolist() == [0] * 9
    np.testing.assert_array_equal(data.test.y, y)  # without a limit the order is the user's


def test_groups_stay_together_in_one_part(rng):
    groups = np.repeat(np.arange(20), 10)
    x, y = rng.normal(size=(200, 4, 1)), np.tile([0, 1], 100)
    data = Dataset(x, y, x[:2], y[:2], groups=groups)
    rows = [
        np.flatnonzero(x[:, 0, 0].astype(np.float32) == v)[0] for v in data.validation.x[:, 0, 0]
    ]
    assert len(rows) == 20
    assert not set(groups[rows]) & set(np.delete(groups, rows))


def test_given_validation_samples_are_used(arrays, rng):
    x, y, *test = arrays
    own = rng.normal(size=(4, 6, 2))
    data = Dataset(x, y, *test, x_val=own, y_val=[0, 1, 2, 0])
    assert (len(data.train), len(data.validation)) == (30, 4)
    np.testing.assert_array_equal(data.validation.x, own.astype(np.float32))
    with pytest.raises(InputError, match="x_val and y_val belong together"):
        Dataset(x, y, *test, x_val=own)


def test_hash_is_of_the_arrays_and_not_of_the_path(arrays, tmp_path):
    paths = [tmp_path / "one.npz", tmp_path / "TWO.NPZ"]
    for path in paths:
        with path.open("wb") as file:
            np.savez(file, **dict(zip(ARRAYS, arrays, strict=True)))
    first, second = (load_task(path) for path in paths)
    assert first.identity == second.identity == Dataset(*arrays).identity
    changed = [arrays[0] + 1e-3, *arrays[1:]]
    assert Dataset(*changed).identity != first.identity


def test_folder_of_arrays_is_read_in_batches(arrays, tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    for name, value in zip(ARRAYS, arrays, strict=True):
        np.save(folder / f"{name}.npy", value)
    stored, given = load_task(folder), Dataset(*arrays)
    assert isinstance(stored.train, StoredSplit)
    for part in ("train", "validation", "test"):
        mine, theirs = getattr(stored, part), getattr(given, part)
        np.testing.assert_array_equal(mine.batch(np.array([2, 0]))[0], theirs.x[[2, 0]])
        np.testing.assert_array_equal(mine.x, theirs.x)
        np.testing.assert_array_equal(mine.y, theirs.y)
    (folder / "x_train.npy").write_bytes(b"\x93NUMPY damaged")
    with pytest.raises(InputError, match=r"x_train.npy is no readable .npy file"):
        load_task(folder)


def test_saved_data_come_back_equal(rng, tmp_path):
    x = [rng.normal(size=(n, 2)) for n in [5, 3, 8, 6] * 5]
    data = Dataset(x, ["a", "b"] * 10, x[:2], ["a", "b"])
    again = load_task(data.save(tmp_path / "own.npz"))
    for part in ("train", "validation", "test"):
        mine, theirs = getattr(data, part), getattr(again, part)
        np.testing.assert_array_equal(mine.x, theirs.x)
        np.testing.assert_array_equal(mine.y, theirs.y)
        np.testing.assert_array_equal(mine.lengths, theirs.lengths)
    assert again.classes == ("a", "b")


def test_data_frames_are_taken(rng):
    pandas = pytest.importorskip("pandas", reason="frames need pandas")
    x, y = rng.normal(size=(20, 6)), pandas.Series(["a", "b"] * 10, index=range(5, 25))
    data = Dataset(pandas.DataFrame(x), y, x, y.to_numpy())
    np.testing.assert_array_equal(data.test.x[:, :, 0], x.astype(np.float32))
    keys = pandas.MultiIndex.from_tuples([(s, t) for s in range(20) for t in range(2 + s % 3)])
    long = pandas.DataFrame(rng.normal(size=(len(keys), 3)), index=keys)
    assert Dataset(long, y, long, y).test.lengths[:3].tolist() == [2, 3, 4]


def test_network_numbers_its_classes_by_name(arrays):
    _, y, _, y_test = arrays
    names = np.array(["a", "b", "c"])
    trained = load("examples/models/digits.safetensors")
    network = dataclasses.replace(
        trained, provenance={"classes": json.dumps(list("0c1b2a3456"))}, task=None
    )
    own = Dataset(np.zeros((30, 8, 8)), names[y], np.zeros((9, 8, 8)), names[y_test])
    found = task_for(network, own)
    expected = [{"a": 5, "b": 3, "c": 1}[name] for name in names[y_test]]
    assert found.load().test.y.tolist() == expected
    assert found.class_name(5) == "a"
    other = Dataset(np.zeros((30, 8, 8)), y + 20, np.zeros((9, 8, 8)), y_test + 20)
    with pytest.raises(InputError, match="has the class '20', and the network was trained on"):
        task_for(network, other)


def test_task_that_asks_at_every_step_is_refused_at_once():
    network = load("examples/models/digits.safetensors")
    own = Dataset(
        np.zeros((20, 8, 8)), np.zeros((20, 8, 10)), np.zeros((2, 8, 8)), np.zeros((2, 8, 10))
    )
    with pytest.raises(InputError, match="return_sequences=true"):
        task_for(network, own)


def test_network_says_how_to_name_data_that_are_gone(tmp_path):
    network = load("examples/models/digits.safetensors")
    moved = dataclasses.replace(network, task=str(tmp_path / "gone.npz"))
    with pytest.raises(InputError, match=r"was trained on .*gone.npz.* Name the data with --task"):
        task_for(moved, None)
    unnamed = dataclasses.replace(network, task=None, provenance={"data": "ab" * 32})
    with pytest.raises(InputError, match="trained on arrays that were given no name"):
        task_for(unnamed, None)


def test_parts_of_one_series_may_differ_in_length():
    series = np.sin(np.arange(301) / 7)[:, None]
    x, y = series[:-1], series[1:]
    data = Dataset([x[:200]], [y[:200]], [x[200:]], [y[200:]])
    assert (data.train.x.shape, data.test.x.shape) == ((1, 200, 1), (1, 100, 1))
    assert data.test.lengths.tolist() == [100]
    with pytest.raises(InputError, match="the two must be equal"):
        Dataset([x[:200]] * 2, [y[:200]] * 2, [x[200:]], [y[200:]])


def test_whole_floats_and_objects_are_what_they_hold(arrays):
    x, y, x_test, y_test = arrays
    for shape in (lambda a: a[:, None] * 1.0, lambda a: a[:, None], lambda a: a.astype(object)):
        data = Dataset(x, shape(y), x_test, shape(y_test))
        assert data.classes == ("0", "1", "2")
        np.testing.assert_array_equal(data.test.y, y_test)
    data = Dataset(x.astype(object), y, x_test.astype(object), y_test)
    np.testing.assert_array_equal(data.test.x, x_test.astype(np.float32))
    mixed = np.array(["a", 1, None], object)[np.arange(30) % 3]
    assert len(Dataset(x, y, x_test, y_test, groups=mixed).train) < 30


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (np.ma.masked_greater(x, 1.0), y), "masked values; replace them, as by"),
        (lambda x, y: (None, y), "x_train missing; give x_train, y_train"),
        (lambda x, y: (np.where(x > 1.0, None, x.astype(object)), y), "not finite in float32"),
        (lambda x, y: (np.where(x > 1.0, "a", x.astype(object)), y), "no array of numbers"),
        (lambda x, y: (x, np.eye(6, dtype=int)[y]), r"may be one-hot or one label for each of 6"),
        (lambda x, y: (x, np.repeat(y[:, None], 6, 1)[:, :, None]), "kind='classification' if"),
    ],
)
def test_what_has_two_meanings_or_none_is_refused(arrays, change, message):
    x, y, x_test, y_test = arrays
    given, test = change(x, y), change(x_test, y_test)
    with pytest.raises(InputError, match=message):
        Dataset(*given, x_test if given[0] is None else test[0], test[1])


def test_places_that_contradict_the_shape_are_refused(arrays):
    x, y, x_test, y_test = arrays
    with pytest.raises(InputError, match="one answer for each sample; give one for each step"):
        Dataset(x, y, x_test, y_test, place="step")
    labels = np.repeat(y[:, None], 6, 1)[:, :, None], np.repeat(y_test[:, None], 6, 1)[:, :, None]
    assert Dataset(x, labels[0], x_test, labels[1], kind="classification").task.every_step


def filming(rng):
    """Return a convolution of frames of 4 x 3 pixels, a memory and a readout of two classes."""
    memory = LinearMemory(Memory.legendre(3, 5.0), rng.normal(size=(4, 1)), None, None)
    nodes = [
        Node("conv", Conv2d(rng.random((3, 2, 1, 2)) - 0.2, rng.normal(size=2)), (INPUT,)),
        Node("relu", Activation("relu"), ("conv",)),
        Node("flat", Reshape((2, 2, 2), (8,)), ("relu",)),
        Node("narrow", Dense(rng.normal(size=(8, 4))), ("flat",)),
        Node("memory", memory, ("narrow",)),
        Node("last", Reduce("last"), ("memory",)),
        Node("readout", Dense(rng.normal(size=(3, 2))), ("last",)),
    ]
    return Network(tuple(nodes), (4, 3, 1), "readout")


def stored(folder, arrays, kind):
    """Return where arrays lie as an .npz file or as a folder of .npy files."""
    if kind == "file":
        np.savez(folder / "film.npz", **arrays)
        return folder / "film.npz"
    for name, value in arrays.items():
        np.save(folder / f"{name}.npy", value)
    return folder


@pytest.mark.parametrize("kind", ["arrays", "file", "folder"])
@pytest.mark.parametrize("frame", [(4, 3, 1), (4, 3), (12,)], ids=["channels", "pixels", "flat"])
def test_frames_of_several_axes_reach_a_convolution(rng, tmp_path, kind, frame):
    network = filming(rng)
    pixels = rng.integers(0, 256, (30, 5, 4, 3, 1), dtype=np.uint8)
    outputs = run(network, pixels.astype(np.float32))
    x = pixels.reshape(30, 5, *frame)
    arrays = dict(zip(ARRAYS, (x, outputs, x[:9], outputs[:9]), strict=True))
    data = Dataset(*arrays.values()) if kind == "arrays" else stored(tmp_path, arrays, kind)
    found = task_for(network, data)
    assert found.load().test.x.shape == (9, 5, 4, 3, 1)
    assert ld.run(network, data, target="reference").metric.value < 1e-6
    integers = ld.quantize(network, data)
    made = ld.run(integers, data, target="integer")
    expected = ld.run(integers, pixels[:9].astype(np.float32), target="integer")
    np.testing.assert_array_equal(made.outputs, expected.outputs)
    assert made.metric.value < 0.02
    report = ld.validate(network, data, targets="integer", attribution=2)
    assert report["integer"].samples == 9
    if kind == "arrays":
        assert data.test.x.shape == (9, 5, *frame)
        again = load_task(data.save(tmp_path / "again.npz"))
        np.testing.assert_array_equal(again.train.x, data.train.x)
        assert ("4 x 3" in repr(data)) == (len(frame) > 1)


def test_frames_with_other_axes_are_refused(rng):
    network, labels = filming(rng), ["a", "b"] * 6
    x = rng.normal(size=(12, 5, 3, 4))
    with pytest.raises(InputError, match=r"frames of 3 x 4, and the network takes 4 x 3 x 1; give"):
        task_for(network, Dataset(x, labels, x, labels))
    films = [x[i, : 2 + i % 3] for i in range(12)]
    assert Dataset(films, labels, films, labels).test.x.shape == (12, 4, 3, 4)
    films[3] = films[3][:, :2]
    with pytest.raises(InputError, match=r"frames of shape \(2, 4\) and \(3, 4\); all need"):
        Dataset(films, labels, films, labels)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("table.csv", "read it, as by pandas.read_csv"),
        ("word.WAV", "read it, as by scipy.io.wavfile.read"),
        ("net.safetensors", "read it and give the arrays to lmu_deploy.Dataset"),
        ("gone.csv", "no such file"),
    ],
)
def test_files_of_other_kinds_are_refused_with_a_way(tmp_path, name, words):
    if not name.startswith("gone"):
        (tmp_path / name).write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=words):
        load_task(tmp_path / name)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_arrays_that_need_pickle_are_refused_with_a_way(arrays, tmp_path, kind):
    x, *others = arrays
    ragged = np.empty(len(x), object)
    ragged[:] = [sample[: 2 + i % 3] for i, sample in enumerate(x)]
    path = stored(tmp_path, dict(zip(ARRAYS, (ragged, *others), strict=True)), kind)
    with pytest.raises(InputError, match=r"array of Python objects.*or padded with lengths_train"):
        load_task(path)
    assert Dataset(ragged, *others).train.lengths is not None


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        (0, lambda x: 1_700_000_000 + (x > 0), "subtract an offset first, or choose another unit"),
        (0, lambda x: x * 1e-60, "float32 rounds that by up to"),
        (0, iter, "x_train is a list_iterator; give an array or a list"),
        (0, lambda x: "x.npy", "x_train is a str; give an array or a list"),
        (0, lambda x: x + 1j, "give real numbers"),
        (0, lambda x: np.where(np.arange(2) == 1, np.inf, x), "first in sample 0, feature 1"),
        (1, lambda y: ["a", None] * 15, "lacks 15 answers"),
        (1, lambda y: np.where(y == 0, np.nan, y).astype(object), "lacks 10 answers"),
        (1, lambda y: np.where(y == 0, np.nan, y), "y_train holds NaN"),
    ],
)
def test_numbers_that_no_network_can_use_are_refused(arrays, part, change, message):
    given = list(arrays)
    given[part] = change(list(given[part]) if change is iter else given[part])
    with pytest.raises(InputError, match=message):
        Dataset(*given)


def test_tensors_are_arrays(arrays):
    torch = pytest.importorskip("torch", reason="tensors are of torch")
    x, y, x_test, y_test = arrays
    expected = Dataset(x, y, x_test, y_test)
    tensor = torch.tensor(x, dtype=torch.float32, requires_grad=True)
    for given in (tensor, list(tensor)):
        data = Dataset(given, torch.tensor(y), x_test, list(torch.tensor(y_test)))
        assert data.identity == expected.identity
    half = Dataset(tensor.bfloat16(), y, x_test, y_test)
    np.testing.assert_allclose(half.train.x, expected.train.x, rtol=2**-8)


def test_frames_of_pandas_with_other_levels_are_refused(arrays):
    pandas = pytest.importorskip("pandas", reason="frames need pandas")
    x, y, x_test, y_test = arrays
    keys = pandas.MultiIndex.from_product([range(30), range(6), [0]])
    long = pandas.DataFrame(x.reshape(180, 2), index=keys)
    wide = pandas.DataFrame(
        x.reshape(30, 12), columns=pandas.MultiIndex.from_product([list("ab"), range(6)])
    )
    for frame in (long, wide):
        with pytest.raises(InputError, match="give a row per sample, or a row per step"):
            Dataset(frame, y, x_test, y_test)
