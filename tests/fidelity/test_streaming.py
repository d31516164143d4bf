"""Streamed runs: memory does not grow with the test set, and figures equal those of one run."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from converters.quantize import quantize
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.fidelity import Result, assemble, write_fidelity
from lmu_deploy.fidelity.assemble import hash_array
from lmu_deploy.fidelity.measures.events import Counted
from lmu_deploy.fidelity.streaming import affordable, counted_of, run_streamed, samples_kept
from lmu_deploy.tasks.base import Split, Task
from targets.base import InParts, Run, States
from targets.integer import IntegerTarget
from targets.reference import ReferenceTarget

KEPT, PART, STEPS, OUTPUTS = 12, 48, 40, 3
TASK = Task("streamed", "classification", 2, OUTPUTS, STEPS, load=lambda: None)


@pytest.fixture(scope="module")
def networks():
    rng = np.random.default_rng(17)
    hidden = Hidden(rng.normal(size=(8, 6)) / 3, None, None, None, "tanh")
    layer = LMULayer(rng.normal(size=(2, 2)), None, None, None, Memory.legendre(4, 20.0, 2), hidden)
    layers = LMUNetwork((layer,), Readout(rng.normal(size=(6, OUTPUTS)), None))
    network = Network.from_layers(layers)
    known = rng.random((32, STEPS, 2))
    return network, quantize(network, known)


def samples(count):
    rng = np.random.default_rng(18)
    return Split(rng.random((count, STEPS, 2)), rng.integers(0, OUTPUTS, count))


def make(networks, split, folder, kept=KEPT, part=PART):
    network, integer = networks
    streamed = {"kept": kept, "part": part}
    results = [Result(run_streamed(IntegerTarget("numpy"), integer, split.inputs, **streamed))]
    reference = run_streamed(ReferenceTarget(), network, split.inputs, **streamed)
    found = assemble(results, reference, TASK, split, network, command="test", seed=0, date="now")
    write_fidelity(folder, *found)
    return found[0]


def peak(networks, count, folder, **parts):
    split = samples(count)
    tracemalloc.start()
    try:
        make(networks, split, folder, **parts)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_test_set(networks, tmp_path):
    few, many = 240, 960
    make(networks, samples(KEPT), tmp_path)  # what is loaded once is not counted
    small, large = (peak(networks, count, tmp_path) for count in (few, many))
    # Answers and sums of events stay, some 26 numbers a sample; not one number of each step does.
    assert large - small < 8 * STEPS * (many - few)
    # Of samples that are kept, states of two runs are: more than ten numbers a step.
    kept = peak(networks, few, tmp_path, kept=few)
    assert kept - small > 10 * 8 * STEPS * (few - KEPT)


def test_streamed_figures_are_those_of_one_run(networks, tmp_path):
    _, integer = networks
    split = samples(130)
    whole = IntegerTarget("numpy").run(integer, split.inputs, record=True)
    found = run_streamed(IntegerTarget("numpy"), integer, split.inputs, KEPT, part=PART)
    assert (found.outputs == whole.outputs).all()
    assert (found.states.m == whole.states.m[:KEPT]).all()
    for place, values in whole.states.parts.items():
        assert (found.states.parts[place] == values[:KEPT]).all()
    assert (found.synops, found.carried) == (whole.synops, whole.carried)
    assert found.saturations == whole.saturations
    assert list(found.events) == []
    for name, counts in whole.events.items():
        mine = counted_of(found)[name]
        assert (mine.by_step == counts.sum(axis=0)).all()
        assert (mine.by_sample == counts.sum(axis=1)).all()
        assert (found.rasters[name] == whole.rasters[name]).all()
    one = make(networks, split, tmp_path, kept=130)
    parts = make(networks, split, tmp_path)
    for name in ("metric", "events", "synops", "saturations", "costs", "answers", "neurons"):
        assert getattr(one.targets["integer"], name) == getattr(parts.targets["integer"], name)
    for name, population in one.targets["integer"].populations.items():
        assert population == parts.targets["integer"].populations[name]
    assert parts.targets["integer"].memory_error.samples == KEPT


class Random:
    """Target whose outputs are random numbers from its seed."""

    name, accepts = "drawn", (object,)

    def run(self, network, inputs, *, record=False, seed=0, progress=None):
        outputs = np.random.default_rng(seed).random((len(inputs), OUTPUTS))
        events = {"p": np.ones(inputs.shape[:2], np.int64)}
        if progress:
            progress(len(inputs), len(inputs))
        return Run("drawn", outputs, {"p": 1}, events, 1, {"x": 1}, STEPS, STEPS, 0.1, seed)


class RandomInParts(Random):
    """Same target, which generates its parts itself."""

    def parts(self, network, inputs, *, record=0, seed=0, progress=None):
        drawn = np.random.default_rng(seed)
        for first in range(0, len(inputs), 4):
            some = inputs[first : first + 4]
            run = super().run(network, some, seed=seed)
            values = np.arange(first, first + len(some))[:, None, None]
            ones = np.ones(1)
            states = States(values, values, values, ones, ones, parts={"p": values})
            states = states if first < record else None
            yield replace(run, outputs=drawn.random((len(some), OUTPUTS)), states=states)


@pytest.mark.parametrize("kept", [1, 4, 6, 10])
def test_a_target_with_parts_draws_the_numbers_of_one_run(kept):
    assert not isinstance(Random(), InParts)
    inputs = np.zeros((10, STEPS, 2))
    found = run_streamed(RandomInParts(), None, inputs, kept, part=3, seed=5)
    assert (found.outputs == Random().run(None, inputs, seed=5).outputs).all()
    for recorded in (found.states.m, found.states.h, found.states.y, found.states.parts["p"]):
        assert recorded.ravel().tolist() == list(range(kept))
    assert (found.synops, found.seed) == (3, 5)


def test_each_part_has_its_own_reproducible_numbers():
    inputs, reported = np.zeros((10, STEPS, 2)), []
    runs = [
        run_streamed(Random(), None, inputs, 4, part=4, progress=lambda *d: reported.append(d))
        for _ in range(2)
    ]
    assert (runs[0].outputs == runs[1].outputs).all()
    assert len(np.unique(runs[0].outputs)) == runs[0].outputs.size
    assert (runs[0].outputs[:4] == Random().run(None, inputs[:4]).outputs).all()
    assert reported == [(4, 10), (8, 10), (10, 10)] * 2
    assert (runs[0].synops, runs[0].saturations, runs[0].seed) == (3, {"x": 3}, 0)
    assert counted_of(runs[0])["p"].total == 10 * STEPS


def test_sums_are_joined_and_recorded_states_are_bounded(rng):
    counts = rng.integers(0, 9, (7, 5))
    parts = [Counted.of(counts[:3]), Counted.of(counts[3:])]
    whole = Counted.of(counts)
    assert (Counted.joined(parts).by_step == whole.by_step).all()
    assert (Counted.joined(parts).by_sample == whole.by_sample).all()
    assert samples_kept(360, 8, 100) == 360
    assert samples_kept(10_000, 8, 100) == 400
    assert 10 < samples_kept(10_000, 784, 500) < 100
    assert samples_kept(3, 10**6, 10**6) == 1


def test_a_hash_copies_nothing_and_depends_on_type_and_shape(rng):
    array = rng.random((50, 20, 100))
    tracemalloc.start()
    whole = hash_array(array)
    assert tracemalloc.get_traced_memory()[1] < array.nbytes / 10
    tracemalloc.stop()
    assert whole == hash_array(np.asfortranarray(array)) == hash_array(array.astype(">f8"))
    assert whole != hash_array(array.reshape(20, 50, 100)) != hash_array(array.astype("f4"))
    assert len(hash_array(np.zeros((0, 3)))) == 64


class Slow(IntegerTarget):
    """The simulator with an estimate, so that it runs a few samples at a time."""

    def estimated_seconds(self, network, samples, steps):
        return 3.0 * samples


def test_parts_of_a_slow_target_are_kept_and_equal_one_run(networks):
    integer, inputs, parts = networks[1], samples(40).inputs, {}

    def keep(make, start, stop):
        if (start, stop) not in parts:
            if len(parts) == most:
                raise KeyboardInterrupt
            parts[start, stop] = make()
        return parts[start, stop]

    most = 3
    with pytest.raises(KeyboardInterrupt):
        run_streamed(Slow("numpy"), integer, inputs, KEPT, keep=keep)
    assert list(parts) == [(0, 6), (6, 12), (12, 18)]
    most, seen = None, []
    found = run_streamed(
        Slow("numpy"), integer, inputs, KEPT, keep=keep, progress=lambda *done: seen.append(done)
    )
    whole = run_streamed(IntegerTarget("numpy"), integer, inputs, KEPT)
    assert seen[:3] == [(6, 40), (12, 40), (18, 40)]
    assert seen[-1] == (40, 40)
    assert np.array_equal(found.outputs, whole.outputs)
    assert found.saturations == whole.saturations
    assert found.counted.keys() == whole.counted.keys()
    for name, counts in whole.counted.items():
        assert np.array_equal(found.counted[name].by_step, counts.by_step)
        assert np.array_equal(found.counted[name].by_sample, counts.by_sample)
    for name in ("m", "h", "y"):
        assert np.array_equal(getattr(found.states, name), getattr(whole.states, name))
    for place, values in whole.states.parts.items():
        assert np.array_equal(found.states.parts[place], values)


def test_a_slow_target_runs_as_many_samples_as_fit(networks):
    assert [affordable(Slow("numpy"), networks[1], 40, STEPS, s) for s in (0, 7, 30, 999)] == [
        2, 2, 10, 40,
    ]  # fmt: skip
    assert affordable(Slow("numpy"), networks[1], 1, STEPS, 0.0) == 1
    assert affordable(IntegerTarget("numpy"), networks[1], 40, STEPS, 0.0) == 40
