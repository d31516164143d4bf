"""Networks of every population, drawn: the simulator equals a plain loop over frames by ==."""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from integer_graphs import fewest_steps, frames_of, graph_runs, inputs_for, integer_graphs
from needs import ENGINES, needs

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.executor import run_stepwise
from lmu_deploy.core.graph.network import Network, Node
from lmu_deploy.core.graph.pointwise import Activation
from lmu_deploy.core.integer.functions import PiecewiseLinear
from lmu_deploy.core.integer.gated import GRUUnits, LSTMUnits
from lmu_deploy.core.integer.graph import frame_counts, latency, sources
from lmu_deploy.core.integer.memories import Series
from lmu_deploy.core.integer.network import HostNodes, IntegerNetwork, Reading
from lmu_deploy.core.integer.parts import Connection, Edge, Format, Place, largest
from lmu_deploy.core.integer.populations import Input, Output, Pointwise, Product
from lmu_deploy.core.integer.reductions import Reduction
from lmu_deploy.core.loading import load
from targets.base import Run, get_target
from targets.host import each
from targets.integer import IntegerTarget, step
from targets.integer.engine import choose_engine
from targets.integer.run import finish

POPULATIONS = Pointwise, Product, LSTMUnits, GRUUnits, Reduction


class Loop:
    """One sample, frame by frame, in int64, from the equations: each frame asks for what it reads.

    `Population.update` is the rule; everything between populations is computed here.
    """

    def __init__(self, network: IntegerNetwork, sample: np.ndarray) -> None:
        self.network, self.sample = network, sample
        self.frames = frames_of(network, len(sample))
        self.saturations: Counter[str] = Counter()
        self.cached = cache(self._frame)
        self.held = cache(self._held)
        self.on_host = cache(self._on_host)
        self.drive_of = cache(self._drive)
        for n in range(max(self.frames.values())):
            for population in network.populations:
                if n < self.frames[population.place]:
                    self.message(population.place, n)

    def back(self, edge: Edge) -> bool:
        """Return whether an edge leads back in the order of computation."""
        return self.network.order(edge.source) >= self.network.order(edge.target)

    def message(self, place: Place, n: int) -> np.ndarray:
        """Return the message of a frame; before the first and after the last it is zero."""
        if not 0 <= n < self.frames[place]:
            return np.zeros(self.network[place].size, np.int64)
        return self.cached(place, n)[1]

    def limit(self, values: np.ndarray, limit: int, place: str) -> np.ndarray:
        limited = np.clip(values, -limit, limit)
        self.saturations[place] += int((limited != values).sum())
        return limited

    def _frame(self, place: Place, n: int):
        """Return the state after a frame, and its message."""
        population = self.network[place]
        if isinstance(population, Input):
            if place not in sources(self.network):
                return None, np.zeros(population.size, np.int64)
            row = self.sample[n]
            if population.tokens:
                one = round(1.0 / population.message.scale)
                return None, (np.arange(population.size) == row[0]) * np.int64(one)
            x = np.array([round(float(v) / population.message.scale) for v in row], np.int64)
            return None, self.limit(x, population.message.limit, str(place))
        if isinstance(population, HostNodes):
            if population.message is None:
                return None, np.zeros(population.size, np.int64)
            values = self.on_host(place)[n] / population.message.scale
            return None, self.limit(
                np.rint(values).astype(np.int64), population.message.limit, str(place)
            )
        if isinstance(population, Reduction):
            state = population.start(1)
            edges = self.network.entering(place)
            for t in range(min(self.count(e) for e in edges)):
                state = self.update(population, state, t)[0]
            message, counts = population.finish(state)
            self.add(population, counts)
            return state, message[0]
        before = self.cached(place, n - 1)[0] if n else population.start(1)
        return self.update(population, before, n)

    def count(self, edge: Edge) -> int:
        """Return how many frames an edge can drive."""
        frames = self.frames[edge.source] + edge.after - 1 - max(edge.offsets)
        return max(frames // edge.stride + 1, 0)

    def update(self, population, state, n: int):
        drive = self.drive_of(population.entrance, n)[None]
        state, message, counts = population.update(state, drive)
        self.add(population, counts)
        return state, message[0]

    def add(self, population, counts) -> None:
        whole = isinstance(population, Series)
        for name, number in counts.items():
            self.saturations[name if whole else f"{population.place}/{name}"] += number

    def received(self, edge: Edge, m: int) -> np.ndarray:
        """Return what an edge reads of frame m of its source."""
        first = self.network[edge.source].first_message if self.back(edge) else None
        if m == -1 and first is not None:
            return first.astype(np.int64)
        if edge.connection.threshold and 0 <= m < self.frames[edge.source]:
            return self.held(edge.source, edge.connection.threshold, m)[0]
        return self.message(edge.source, m)

    def _held(self, place: Place, threshold: int, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Return what receivers know after a frame, and the changes that were sent."""
        if n:
            before = self.held(place, threshold, n - 1)[0]
        else:
            first = getattr(self.network[place], "first_message", None)
            before = np.zeros(self.network[place].size, np.int64) if first is None else first
        change = self.message(place, n) - before
        change[np.abs(change) < threshold] = 0
        return before + change, change

    def _drive(self, entrance: Place, n: int) -> np.ndarray:
        """Sum the drives of all edges that enter, one synapse row at a time."""
        population = self.network[entrance]
        total = np.zeros(population.drive_size, np.int64)
        for edge in self.network.entering(entrance):
            c = edge.connection
            signal = np.concatenate(
                [self.received(edge, edge.stride * n + offset) for offset in edge.offsets]
            )
            for k, weights in enumerate(c.slices.astype(np.int64)):
                sums = (weights * signal).sum(axis=1)
                sums = self.limit(sums, largest(c.accumulator_bits), f"{edge.place}/slice{k}")
                for i, a in enumerate(sums):
                    g, s = int(c.multiplier[k, i]), int(c.shift[k, i])
                    total[edge.row + i] += (int(a) * g + (1 << s >> 1)) >> s
        return total

    def _on_host(self, place: Place) -> np.ndarray:
        """Return the real values of nodes on the host, (frames, size)."""
        network, read = self.network, []
        into = [r for r in network.readings if r.target == place]
        frames = min(self.frames[r.source] for r in into)
        for reading in into:
            source = network[reading.source]
            if isinstance(source, Input) and not source.tokens:
                real = self.sample
            elif isinstance(source, HostNodes) and source.message is None:
                real = self.on_host(reading.source)
            else:
                rows = [self.message(reading.source, n) for n in range(frames)]
                real = np.array(rows) * source.message.scale
            read.append(
                real[:frames] if reading.matrix is None else each(real[:frames], reading.matrix.T)
            )
        values = run_stepwise(network[place].network, sum(read[1:], read[0])[None])[0]
        return values.reshape(-1, network[place].size)

    def recorded(self, place: Place) -> np.ndarray:
        """Return what a recording holds, (frames, size)."""
        population, frames = self.network[place], self.frames[place]
        if isinstance(population, HostNodes):
            return self.on_host(place)
        if isinstance(population, Reduction):
            return np.array([self.message(place, 0)])
        each = [self.cached(place, n) for n in range(frames)]
        rows = [np.ravel(population.recorded(state, message)) for state, message in each]
        return np.array(rows).reshape(frames, population.size)

    def traffic(self) -> tuple[dict[str, np.ndarray], int, dict[str, int]]:
        """Return events by source and frame, synaptic operations, and events by edge."""
        network, events, synops, carried = self.network, {}, 0, {}
        read = {r.source for r in network.readings}
        for place in sources(network):
            population = network[place]
            if population.place != place:  # the terms of a series
                own = population.place
                states = [self.cached(own, n)[0] for n in range(self.frames[own])]
                sent = [state[2].sum() for state in states]
                events[str(place)] = np.array(sent)
                carried |= {e.place: int(sum(sent)) for e in population.inner_edges}
                synops += int(sum(sent)) * population.order
                continue
            leaving = [e for e in network.edges if e.source == place]
            thresholds = {e.connection.threshold for e in leaving}
            if not leaving or place in read:
                thresholds.add(0)
            counts = np.zeros(self.frames[place], np.int64)
            for threshold in thresholds:
                own = [e for e in leaving if e.connection.threshold == threshold]
                total = 0
                for n in range(self.frames[place]):
                    sent = (
                        self.held(place, threshold, n)[1] if threshold else self.message(place, n)
                    )
                    counts[n] += np.count_nonzero(sent)
                    total += np.count_nonzero(sent)
                    synops += sum(self.synapses(e, n, j) for e in own for j in np.flatnonzero(sent))
                carried |= {e.place: total for e in own}
            events[str(place)] = counts
        return events, synops, carried

    def synapses(self, edge: Edge, n: int, j: int) -> int:
        """Count the synapses that an event of a neuron reaches over an edge."""
        taps = [k for k, offset in enumerate(edge.offsets) if (n - offset) % edge.stride == 0]
        columns = [k * edge.n_source + j for k in taps]
        return int((edge.connection.slices[:, :, columns] != 0).sum())


def differences(network: IntegerNetwork, run: Run, inputs: np.ndarray) -> list[str]:
    """Return what a run differs in from plain loops over the same samples."""
    loops = [Loop(network, sample) for sample in inputs]
    found = []
    for population in network.populations[1:]:
        theirs = np.array([loop.recorded(population.place) for loop in loops])
        mine = run.states.parts[str(population.place)]
        if not np.array_equal(mine, theirs.reshape(mine.shape)):
            found.append(f"states of {population.place}")
    y = np.array([loop.recorded(network.output) for loop in loops]) * network.y_scale
    if not np.array_equal(run.outputs, y if network.return_sequences else y[:, -1]):
        found.append("outputs")
    traffic = [loop.traffic() for loop in loops]
    for place, events in run.events.items():
        if not np.array_equal(events, [each[0][place] for each in traffic]):
            found.append(f"events of {place}")
    if set(run.events) != set(traffic[0][0]):
        found.append("sources")
    if run.synops != sum(each[1] for each in traffic):
        found.append("synaptic operations")
    carried = sum((Counter(each[2]) for each in traffic), Counter())
    if {k: n for k, n in run.carried.items() if n} != {k: n for k, n in carried.items() if n}:
        found.append("carried")
    saturations = sum((loop.saturations for loop in loops), Counter())
    found += [
        f"saturations at {place}"
        for place in sorted(set(saturations) | set(run.saturations))
        if run.saturations.get(place) != saturations[place]
    ]
    return found


def runs_on(network: IntegerNetwork, engine: str) -> bool:
    """Return whether an engine can represent all values of a network."""
    try:
        choose_engine(network, engine)
    except InputError:
        return False
    return True


@given(given_run=graph_runs(), chunk=st.sampled_from([1, 2, 5, 1024]))
@pytest.mark.parametrize("engine", ENGINES)
def test_simulator_equals_a_plain_loop(engine, given_run, chunk):
    network, inputs = given_run
    assume(runs_on(network, engine))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("targets.integer.machine._LONGEST_CHUNK", chunk)
        run = IntegerTarget(engine).run(network, inputs, record=True)
    assert differences(network, run, inputs) == []


@given(network=integer_graphs(), steps=st.integers(1, 3), seed=st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("engine", ENGINES)
def test_a_few_steps_are_computed_or_refused(engine, network, steps, seed):
    """Where every population has a frame, the loops agree; else a sentence says what it takes."""
    assume(runs_on(network, engine))
    inputs, least = inputs_for(network, 2, steps, seed), fewest_steps(network)
    if steps >= least:
        run = IntegerTarget(engine).run(network, inputs, record=True)
        assert differences(network, run, inputs) == []
        return
    with pytest.raises(InputError, match=rf"gives? no frame of \S+; give at least {least} steps"):
        IntegerTarget(engine).run(network, inputs)


@given(given_run=graph_runs())
@pytest.mark.parametrize("engine", ENGINES)
def test_a_stream_gives_the_frames_of_whole_sequences(engine, given_run):
    network, inputs = given_run
    assume(runs_on(network, engine))
    whole = IntegerTarget(engine).run(network, inputs, record=True)
    stream, frames = None, []
    for t in range(inputs.shape[1]):
        before = stream
        y, stream = step(network, inputs[:, t], before, engine)
        again, _ = step(network, inputs[:, t], before, engine)
        assert np.array_equal(y, again), "a stream that was given is not changed"
        frames += [y] if y.ndim == 2 else list(y)
    frames += list(finish(stream))
    assert np.array_equal(np.stack(frames, axis=1), whole.states.y)


@settings(max_examples=15)
@given(given_run=graph_runs(samples=5))
def test_tiles_change_nothing(given_run):
    network, inputs = given_run
    whole = IntegerTarget("numpy").run(network, inputs, record=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("targets.integer.run._BATCH", 2)
        parts = IntegerTarget("numpy").run(network, inputs, record=True)
    for place, values in whole.states.parts.items():
        assert np.array_equal(parts.states.parts[place], values)
    assert (whole.saturations, whole.synops) == (parts.saturations, parts.synops)
    assert whole.carried == parts.carried


@settings(max_examples=15)
@given(given_run=graph_runs())
def test_a_file_holds_the_same_network(tmp_path_factory, given_run):
    network, inputs = given_run
    path = tmp_path_factory.mktemp("graph") / "network.safetensors"
    network.save(path)
    run = IntegerTarget("numpy").run(load(path), inputs, record=True)
    theirs = IntegerTarget("numpy").run(network, inputs, record=True)
    for place, values in theirs.states.parts.items():
        assert np.array_equal(run.states.parts[place], values)
    assert np.array_equal(run.outputs, theirs.outputs)
    assert (run.saturations, run.synops) == (theirs.saturations, theirs.synops)


@given(network=integer_graphs(), steps=st.integers(0, 30))
def test_frame_counts_equal_those_of_the_tests(network, steps):
    steps += fewest_steps(network)
    assert frame_counts(network, steps) == frames_of(network, steps)
    assert latency(network) >= 0


@cache
def hundred(**options: object) -> list[IntegerNetwork]:
    """Return a hundred drawn networks, the same at every call."""
    found: list[IntegerNetwork] = []

    @settings(max_examples=100, phases=[Phase.generate], derandomize=True, database=None)
    @given(integer_graphs(**options))
    def collect(network: IntegerNetwork) -> None:
        found.append(network)

    collect()
    return found


def drawn(*wanted: type, **options: object) -> IntegerNetwork:
    """Return the smallest of a hundred networks that has populations of all these classes."""
    found = [n for n in hundred(**options) if set(wanted) <= {type(p) for p in n.populations}]
    return min(found, key=lambda network: len(network.populations))


def test_the_strategy_draws_every_population_and_edge():
    kinds, edges, engines = Counter(), [], Counter()

    @settings(max_examples=150, phases=[Phase.generate], derandomize=True, database=None)
    @given(integer_graphs())
    def collect(network: IntegerNetwork) -> None:
        kinds.update(type(p).__name__ for p in network.populations)
        edges.extend(network.edges)
        engines.update(engine for engine in ("numpy", "torch") if runs_on(network, engine))

    collect()
    assert set(kinds) == {
        "Input", "Integrators", "Series", "Pointwise", "Product", "LSTMUnits", "GRUUnits",
        "Maximum", "Reduction", "Output", "HostNodes",
    }  # fmt: skip
    assert {e.stride for e in edges} >= {1, 2, 3}
    assert {len(e.offsets) for e in edges} >= {1, 2, 3}
    assert {e.connection.threshold for e in edges} >= {0, 1, 2, 9}
    assert any(e.after > 0 for e in edges)
    assert any(e.after < 0 for e in edges)
    assert any(e.row for e in edges)
    assert min(engines.values()) > 100


@pytest.mark.parametrize("kind", ["Pointwise", "Product", "LSTMUnits", "GRUUnits", "Reduction"])
def test_a_changed_rule_is_detected(monkeypatch, kind):
    """The comparison is not blind: a state that is off by one shows in every population."""
    network = drawn(next(cls for cls in POPULATIONS if cls.__name__ == kind), most=3)
    inputs = inputs_for(network, 2, fewest_steps(network) + 8)
    run = IntegerTarget("numpy").run(network, inputs, record=True)
    (place,) = [p.place for p in network.populations if type(p).__name__ == kind][:1]
    run.states.parts[str(place)][-1, -1, -1] += 1
    assert differences(network, run, inputs) == [f"states of {place}"]


def network_of(populations: list, edges: list, output: Place, readings: tuple = ()):
    return IntegerNetwork(tuple(populations), tuple(edges), readings, output)


def plain(n_out: int, n_in: int, threshold: int = 0) -> Connection:
    ones = np.ones((1, n_out), int)
    return Connection(np.ones((1, n_out, n_in), int), ones, 0 * ones, threshold=threshold)


FORM, WIDE = Format(8, 0.1), Format(16, 0.1)
IN, MEAN, UNITS, OUT = Place("input"), Place("mean"), Place("units"), Place("readout")
LINE = PiecewiseLinear(np.array([1]), np.array([0]), 0, "linear")


def check_alike(network: IntegerNetwork, inputs: np.ndarray) -> Run:
    for engine in ("numpy", "torch"):
        run = IntegerTarget(engine).run(network, inputs, record=True)
        assert differences(network, run, inputs) == []
    return run


def test_a_reduction_sends_a_change_only_at_the_end():
    network = network_of(
        [Input(IN, 1, FORM), Reduction(MEAN, 1, WIDE, FORM, "sum"), Output(OUT, 1, WIDE)],
        [Edge(IN, MEAN, "input", plain(1, 1)), Edge(MEAN, OUT, "", plain(1, 1, threshold=5))],
        OUT,
    )
    run = check_alike(network, np.full((1, 4, 1), 0.1))
    assert run.events["mean"].tolist() == [[0]], "a sum of 4 is no change of at least 5"
    run = check_alike(network, np.full((1, 6, 1), 0.1))
    assert run.outputs.tolist() == [[pytest.approx(0.6)]]


def test_receivers_of_changes_know_the_message_before_the_first_frame():
    units = Pointwise(UNITS, 1, WIDE, FORM, LINE, initial=np.array([3]))
    network = network_of(
        [Input(IN, 1, FORM), units, Output(OUT, 1, WIDE)],
        [Edge(IN, UNITS, "input", plain(1, 1)), Edge(UNITS, OUT, "", plain(1, 1, threshold=5))],
        OUT,
    )
    run = check_alike(network, np.full((1, 2, 1), 0.7))
    assert run.states.y[0, :, 0].tolist() == [3, 3], "from 3 to 7 is no change of at least 5"


LATE = {"offsets": (-1,)}
HOST = HostNodes(
    Place("host"), Network((Node("tanh", Activation("tanh"), ("input",)),), (1,), "tanh"), FORM
)


@pytest.mark.parametrize(
    ("middle", "edges", "readings", "message"),
    [
        ([Pointwise(UNITS, 1, WIDE, FORM, LINE)], [], (), "nothing before units drives it"),
        ([HOST], [], (), "nothing before host drives it"),
        (
            [Reduction(MEAN, 1, WIDE, FORM, "sum")],
            [Edge(IN, MEAN, "input", plain(1, 1)), Edge(MEAN, MEAN, "own", plain(1, 1), **LATE)],
            (),
            "mean is part of a loop",
        ),
        (
            [
                Pointwise(UNITS, 1, WIDE, FORM, LINE),
                HOST,
                Pointwise(Place("last"), 1, WIDE, FORM, LINE),
            ],
            [
                Edge(IN, UNITS, "input", plain(1, 1)),
                Edge(HOST.place, Place("last"), "input", plain(1, 1)),
                Edge(Place("last"), UNITS, "back", plain(1, 1), **LATE),
            ],
            (Reading(UNITS, HOST.place),),
            "host is part of a loop",
        ),
        (
            [
                Pointwise(UNITS, 1, WIDE, FORM, LINE),
                Pointwise(Place("last"), 1, WIDE, FORM, LINE),
            ],
            [
                Edge(IN, UNITS, "input", plain(1, 1)),
                Edge(UNITS, Place("last"), "input", plain(1, 2), offsets=(0, -1)),
                Edge(Place("last"), UNITS, "back", plain(1, 1), **LATE),
            ],
            (),
            "last/input is part of a loop",
        ),
    ],
)
def test_graphs_that_no_step_can_compute_are_refused(middle, edges, readings, message):
    populations = [Input(IN, 1, FORM), *middle, Output(OUT, 1, WIDE)]
    with pytest.raises(InputError, match=message):
        network_of(populations, [*edges, Edge(IN, OUT, "", plain(1, 1))], OUT, readings)


@pytest.mark.parametrize(
    "target", ["integer", "c", pytest.param("onnxruntime", marks=needs("onnxruntime"))]
)
def test_too_few_steps_are_refused(target):
    edge = Edge(IN, OUT, "", plain(1, 3), offsets=(0, 1, 2))
    network = network_of([Input(IN, 1, FORM), Output(OUT, 1, WIDE)], [edge], OUT)
    check_alike(network, np.full((1, 3, 1), 0.7))
    words = "2 steps of the input give no frame of readout; give at least 3 steps"
    with pytest.raises(InputError, match=words):
        get_target(target).run(network, np.zeros((1, 2, 1)))
