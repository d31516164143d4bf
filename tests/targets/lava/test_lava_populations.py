"""Every population, kind of edge and division by the host on Lava equals the simulator."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from equal_runs import differences
from integer_graphs import kinds_of
from needs import needs

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.frames import LayerNorm
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.integer.functions import PiecewiseLinear, Segments
from lmu_deploy.core.integer.gated import GRUUnits, LSTMUnits
from lmu_deploy.core.integer.graph import taken_frames
from lmu_deploy.core.integer.memories import Integrators, Series
from lmu_deploy.core.integer.network import HostNodes, IntegerNetwork, Reading
from lmu_deploy.core.integer.parts import Connection, Edge, Format, Place
from lmu_deploy.core.integer.populations import Input, Output, Pointwise, Population, Product
from lmu_deploy.core.integer.reductions import REDUCTIONS, Maximum, Reduction
from targets.integer import IntegerTarget
from targets.lava import LavaTarget
from targets.lava.plan import make_plan
from targets.lava.schedule import frame_rates, levels, stage_count

needs_lava = needs("lava")

MESSAGE, DRIVE, STATE = Format(9, 2.0**-7), Format(14, 2.0**-9), Format(18, 2.0**-13)


class Draft:
    """Populations and edges of a network under construction, with random weights."""

    def __init__(self, seed: int = 3, features: int = 3, tokens: bool = False) -> None:
        self.rng = np.random.default_rng(seed)
        self.populations = [Input(Place("input"), features, Format(8, 2.0**-6), tokens)]
        self.edges, self.readings = [], []

    def place(self) -> Place:
        return Place(f"node.{len(self.populations)}")

    def connection(self, rows: int, columns: int, threshold: int = 0, sparse: float = 0.3):
        weights = self.rng.integers(-127, 128, (2, rows, columns))
        weights[self.rng.random(weights.shape) < sparse] = 0
        shift = self.rng.integers(9, 12, (2, rows)) + np.array([[0], [6]])
        return Connection(
            weights,
            self.rng.integers(20, 90, (2, rows)),
            shift,
            accumulator_bits=16,
            threshold=threshold,
        )

    def join(self, source: Place, target: Place, rows: int | None = None, **more) -> None:
        """Add an edge; `more` are fields of the edge or arguments of its connection."""
        given = {k: more.pop(k) for k in ("threshold", "sparse") if k in more}
        sender, receiver = self.at(source), self.at(target)
        columns = sender.size * len(more.get("offsets", (0,)))
        wide = receiver.drive_size - more.get("row", 0) if rows is None else rows
        made = self.connection(wide, columns, **given)
        self.edges.append(Edge(source, receiver.entrance, f"e{len(self.edges)}", made, **more))

    def at(self, place: Place):
        return next(p for p in self.populations if place in (p.place, p.entrance))

    def add(self, population, *sources, **more) -> Place:
        """Add a population with an edge from each source."""
        self.populations.append(population)
        for source in sources:
            self.join(source, population.place, **more)
        return population.place

    def bias(self, size: int) -> np.ndarray:
        return self.rng.integers(-200, 200, size)

    def segments(self) -> Segments:
        points = np.sort(self.rng.choice(np.arange(-6000, 6000), 5, replace=False))
        return Segments(points, self.rng.integers(-900, 900, 6), self.rng.integers(-99, 99, 6), 11)

    def lines(self, kind: str = "odd") -> PiecewiseLinear:
        return PiecewiseLinear(np.array([3000, 700]), np.array([0, 90]), 14, kind)

    def gate(self) -> Segments:
        """Something like a sigmoid with 15 fraction bits, of drives of 14 bits."""
        return Segments(
            np.array([-4000, -1500, 1500, 4000]),
            np.array([700, 2200, 5200, 2200, 700]),
            np.array([9000, 12000, 16384, 20000, 24000]),
            10,
        )

    def tanh(self) -> Segments:
        """Something like a hyperbolic tangent with 15 fraction bits."""
        slope, intercept = np.array([300, 14000, 300]), np.array([-20000, 0, 20000])
        return Segments(np.array([-1500, 1500]), slope, intercept, 10)

    def initial(self, size: int) -> np.ndarray:
        """Messages and states before the first frame."""
        return self.rng.integers(-200, 200, 2 * size) * np.repeat([1, 40], size)

    def pointwise(self, *sources: Place, size: int = 4, **more) -> Place:
        made = Pointwise(self.place(), size, DRIVE, MESSAGE, self.segments(), self.bias(size))
        return self.add(made, *sources, **more)

    def lmu(self, source: Place, feedback: bool = True, threshold: int = 0) -> Place:
        """Add integrators and units with all kinds of recurrent edges."""
        memory = self.add(Integrators(self.place(), 4, STATE, MESSAGE, 6), source)
        self.join(memory, memory, offsets=(-1,), threshold=threshold)
        units = Pointwise(self.place(), 3, DRIVE, MESSAGE, self.lines(), self.bias(3))
        units = self.add(units, memory, source, threshold=threshold)
        self.join(units, units, offsets=(-1,))
        if feedback:
            self.join(units, memory, offsets=(-1,), threshold=threshold)
        return units

    def reads(self, source: Place, matrix: np.ndarray | None, host: Place) -> None:
        self.readings.append(Reading(source, host, matrix))

    def host(self, *sources: Place, message: Format | None = MESSAGE) -> Place:
        """Add a normalization on the host, of several sources if their sizes agree."""
        size = self.at(sources[0]).size
        operator = LayerNorm(self.rng.normal(size=size), self.rng.normal(size=size), 1e-3)
        place = self.place()
        network = Network((Node(place.node, operator, (INPUT,)),), (size,), place.node)
        self.populations.append(HostNodes(place, network, message))
        for source in sources:
            self.reads(source, self.rng.normal(size=(size, self.at(source).size)), place)
        return place

    def network(self, output: Place, sequences: bool = True) -> IntegerNetwork:
        parts = tuple(self.populations), tuple(self.edges), tuple(self.readings)
        return IntegerNetwork(*parts, output, sequences)

    def answered(self, *sources: Place, sequences: bool = True, **more) -> IntegerNetwork:
        """Add the output, and return the network."""
        end = Output(Place("readout"), 3, Format(12, 2.0**-8), self.bias(3))
        return self.network(self.add(end, *sources, **more), sequences)


def segments():
    draft = Draft()
    return draft.answered(draft.pointwise(INPUT_PLACE), threshold=3)


def products():
    draft = Draft()
    wide = Format(13, 2.0**-9)
    first = Product(draft.place(), 3, wide, wide, MESSAGE, 12, draft.lines(), draft.segments())
    first = draft.add(first, INPUT_PLACE)
    second = Product(draft.place(), 5, DRIVE, Format(20, 1.0), MESSAGE, 10, bias=draft.bias(10))
    draft.add(second)
    draft.join(first, second.place, rows=5)
    draft.join(INPUT_PLACE, second.place, row=5)
    return draft.answered(second.place)


def lstm(threshold: int = 0):
    draft, size = Draft(), 4
    units = LSTMUnits(
        draft.place(), size, DRIVE, STATE, MESSAGE, draft.gate(), draft.tanh(), draft.tanh(),
        15, 21, draft.bias(4 * size), draft.initial(size),
    )  # fmt: skip
    draft.add(units, INPUT_PLACE)
    draft.join(units.place, units.place, offsets=(-1,), threshold=threshold)
    return draft.answered(units.place, threshold=threshold, offsets=(-2, 0))


def lstm_that_sends_changes():
    return lstm(threshold=5)


def gru():
    draft, size = Draft(), 4
    units = GRUUnits(
        draft.place(), size, DRIVE, STATE, MESSAGE, draft.gate(), draft.tanh(), 2, 9,
        bias=draft.bias(4 * size), initial=draft.initial(size),
    )  # fmt: skip
    draft.add(units, INPUT_PLACE, rows=12)
    draft.join(units.place, units.place, rows=8, offsets=(-1,))
    draft.join(units.place, units.place, offsets=(-1,), row=12)
    return draft.answered(units.place)


def gru_with_early_reset():
    """The reset gate acts before the recurrent weights: three populations in a loop."""
    draft, size = Draft(), 3
    reset = draft.add(
        Pointwise(draft.place(), size, DRIVE, Format(16, 2.0**-15), draft.gate()), INPUT_PLACE
    )
    product = Product(draft.place(), size, DRIVE, Format(16, 2.0**-15), MESSAGE, 14)
    draft.add(product)
    draft.join(reset, product.place, row=size)
    units = GRUUnits(
        draft.place(), size, DRIVE, STATE, MESSAGE, draft.gate(), draft.tanh(), 2, 9, False,
        draft.bias(4 * size), draft.initial(size),
    )  # fmt: skip
    draft.add(units, INPUT_PLACE, rows=9)
    draft.join(product.place, units.place, rows=size, row=2 * size)
    draft.join(units.place, product.place, rows=size, offsets=(-1,), threshold=2)
    draft.join(units.place, reset, offsets=(-1,))
    draft.join(units.place, units.place, rows=2 * size, offsets=(-1,), threshold=2)
    return draft.answered(units.place, threshold=2)


def pooling():
    """The greatest of three frames, every second frame."""
    draft = Draft()
    units = draft.pointwise(INPUT_PLACE, size=3)
    most = Maximum(draft.place(), 3, MESSAGE, 3)
    draft.add(most)
    for number in range(3):
        draft.join(
            units, most.place, rows=3, row=3 * number, stride=2, offsets=(number - 1,), after=1
        )
    return draft.answered(most.place)


def reductions():
    draft = Draft()
    units = draft.pointwise(INPUT_PLACE)
    wide = Format(15, 2.0**-9)
    found = [
        draft.add(Reduction(draft.place(), 2, STATE, wide, kind, draft.bias(2)), units)
        for kind in REDUCTIONS
    ]
    return draft.answered(draft.pointwise(*found, size=5, threshold=2), sequences=False)


def residual():
    """A centered convolution beside the frames themselves, and before an LMU."""
    draft = Draft()
    units = draft.pointwise(INPUT_PLACE)
    centered = draft.pointwise(units, offsets=(-2, 0, 2), after=2, threshold=4)
    both = draft.pointwise(units, centered)
    late = draft.pointwise(INPUT_PLACE, offsets=(-3,), after=-3)
    return draft.answered(draft.lmu(both), late, offsets=(-1, 0))


def strides():
    """Frames that become fewer; the loop of the LMU fits into the longer period."""
    draft = Draft()
    fewer = draft.pointwise(INPUT_PLACE, stride=2, offsets=(0, 1), threshold=2)
    side = draft.pointwise(INPUT_PLACE, stride=2, offsets=(-1, 0, 1, 2), after=1)
    return draft.answered(draft.lmu(fewer, threshold=3), side, stride=3, offsets=(-1, 1), after=2)


def series():
    draft = Draft()
    shape = 2, 3
    order = np.arange(1, 4) * 20
    memory = Series(
        draft.place(), Place("terms"), *shape, 2, STATE, MESSAGE, 6, np.array([5, 4]),
        np.stack([order, order, order]), np.full((3, 3), 7), draft.bias(6), 12,
    )  # fmt: skip
    draft.add(memory, INPUT_PLACE, offsets=(-1, 0, 1), after=1)
    draft.join(memory.place, memory.place, offsets=(-1,), threshold=2)
    units = draft.pointwise(memory.place, INPUT_PLACE)
    draft.join(units, memory.place, offsets=(-1,))
    return draft.answered(units)


def tokens():
    draft = Draft(features=9, tokens=True)
    return draft.answered(draft.lmu(draft.pointwise(INPUT_PLACE)), sequences=False)


def sparse():
    draft = Draft()
    units = draft.pointwise(INPUT_PLACE, size=12, sparse=0.8)
    return draft.answered(units, sparse=0.9, offsets=(-3, -1, 0), threshold=2)


def hosts():
    """Messages around the host, two nodes in a row on it, and branches that it parts."""
    draft = Draft()
    units = draft.lmu(INPUT_PLACE, threshold=3)
    aside = draft.pointwise(INPUT_PLACE, size=3)
    normal = draft.host(draft.host(units, aside, message=None), INPUT_PLACE)
    joined = draft.pointwise(normal, units, offsets=(-1, 0, 1), after=1, threshold=3)
    alone = draft.pointwise(aside, threshold=1, stride=2)
    total = draft.add(Reduction(draft.place(), 4, STATE, MESSAGE, "mean"), joined)
    last = draft.add(Reduction(draft.place(), 4, STATE, MESSAGE, "max"), alone)
    return draft.network(draft.host(total, last, message=None), sequences=False)


INPUT_PLACE = Place("input")
NETWORKS = {
    made.__name__: made
    for made in (
        segments, products, lstm, lstm_that_sends_changes, gru, gru_with_early_reset, pooling,
        reductions, residual, strides, series, tokens, sparse, hosts,
    )
}  # fmt: skip


def drawn_inputs(network: IntegerNetwork, samples: int = 2, steps: int = 9) -> np.ndarray:
    """Normal inputs, a few beyond the format; or tokens."""
    rng = np.random.default_rng(11)
    if network.input.tokens:
        return rng.integers(0, network.input.size, (samples, steps, 1)).astype(float)
    return rng.normal(0.0, 0.9, (samples, steps, network.n_in))


@pytest.fixture(scope="module")
def runs():
    """Each network with its inputs and the run of Lava, all of them in few interpreters."""
    found = {name: make() for name, make in NETWORKS.items()}
    cases = [(network, drawn_inputs(network)) for network in found.values()]
    done = LavaTarget().run_each(cases, record=True)
    return {name: (*case, run) for name, case, run in zip(found, cases, done, strict=True)}


@needs_lava
@pytest.mark.parametrize("name", NETWORKS)
def test_lava_equals_the_simulator(name, runs):
    network, inputs, run = runs[name]
    simulator = IntegerTarget("numpy").run(network, inputs, record=True)
    assert differences(run, simulator) == []
    for place, states in simulator.states.parts.items():
        assert len(np.unique(states)) > 2, f"{place} says nothing"
        assert not np.array_equal(states[0], states[1]), f"{place} says always the same"
    for place, raster in run.rasters.items():
        assert raster.shape == (run.chip_steps, run.neurons[place])
        assert raster.sum() == run.events[place][0].sum()


@needs_lava
def test_one_changed_row_is_detected(runs):
    network, inputs, run = runs["residual"]
    edge = network.edges[0]
    slices = edge.connection.slices.copy()
    slices[0, 0] *= -1
    connection = dataclasses.replace(edge.connection, slices=slices)
    edges = (dataclasses.replace(edge, connection=connection), *network.edges[1:])
    other = dataclasses.replace(network, edges=edges)
    found = differences(run, IntegerTarget("numpy").run(other, inputs, record=True))
    assert "states node.1" in found
    assert "states readout" in found


def test_every_population_is_run():
    found = {type(p) for make in NETWORKS.values() for p in make().populations}
    assert found == {*kinds_of(Population), HostNodes}


def at(plan, place: str):
    return next(group for group in plan.groups if str(group.place) == place)


def delays(plan, place: str) -> list[tuple[int, ...]]:
    return [link.delays for link in at(plan, place).links]


def test_branches_are_aligned_by_delays():
    plan = make_plan(residual(), 1, 9)
    assert plan.timetable.period == 2, "hidden units feed back"
    ticks = {str(group.place): group.slot.enters for group in plan.groups}
    # The centered convolution waits for two steps of two chip steps each, and so do the frames
    # beside it; the LMU follows.
    assert ticks["node.2"] - ticks["node.1"] == 1 + 2 * 2
    assert delays(plan, "node.2") == [(8, 4, 0)]
    assert delays(plan, "node.3") == [(2 * 2 + 1,), (0,)]
    assert plan.longest_delay == 10
    assert plan.timetable.chip_steps == 1 + ticks["readout"] + (9 - 1) * 2


def test_a_delay_is_the_same_for_every_frame():
    for make in NETWORKS.values():
        network = make()
        for stage in range(stage_count(network)):
            for group in make_plan(network, 1, 9, stage).groups:
                for link in group.links:
                    if link.edge.source == link.edge.target == group.population.entrance:
                        continue
                    edge, works = link.edge, group.slot.works.period
                    for offset, delay in zip(edge.offsets, link.delays, strict=True):
                        sent = link.line.offset + offset * link.line.period
                        assert sent + 1 + delay == group.slot.enters
                        assert delay >= 0
                    assert works == edge.stride * link.line.period or group.slot.works.frames == 1


def test_a_loop_has_the_time_of_a_longer_period():
    """With a frame for every second step, one chip step a step is enough for two populations."""
    network = strides()
    plan = make_plan(network, 1, 9)
    rates = frame_rates(network, taken_frames(network, 9))[0]
    assert [int(rates[p.place]) for p in network.populations] == [1, 2, 2, 2, 2, 6]
    assert plan.timetable.period == 1
    assert at(plan, "node.3").slot.works.period == 2
    assert LavaTarget().unsupported(network) == []


def test_frames_of_different_rates_are_refused():
    draft = Draft()
    fewer = draft.pointwise(INPUT_PLACE, stride=2)
    both = draft.pointwise(fewer, INPUT_PLACE)
    (reason,) = LavaTarget().unsupported(draft.answered(both))
    assert "node.2 receives frames of different rates" in reason


def test_a_sequence_without_frames_is_refused():
    draft = Draft()
    wide = draft.pointwise(INPUT_PLACE, offsets=(0, 4))
    total = draft.add(Reduction(draft.place(), 4, STATE, MESSAGE, "mean"), wide)
    network = draft.answered(total, sequences=False)
    with pytest.raises(InputError, match=r"4 steps of the input give no frame of node\.1;"):
        LavaTarget().run(network, np.zeros((1, 4, 3)))


def test_the_host_divides_a_network_into_stages():
    network = hosts()
    level = levels(network)
    assert [level[p.place] for p in network.populations] == [0, 0, 0, 0, 1, 1, 1, 0, 1, 0, 2]
    first, second = (make_plan(network, 1, 9, stage) for stage in range(stage_count(network)))
    assert [str(group.place) for group in second.groups if group.replays] == ["node.2", "node.5"]
    assert [str(group.place) for group in second.groups if group.counted] == [
        "node.5", "node.6", "node.8",
    ]  # fmt: skip
    assert first.timetable.period == 2
    assert second.timetable.period == 1
    assert [str(group.place) for group in first.groups if group.kept] == [
        "node.2", "node.3", "node.9",
    ]  # fmt: skip


@needs_lava
def test_a_run_reports_delays_and_latency(runs):
    _, _, run = runs["residual"]
    assert run.settings["longest_delay"] == 10
    assert any("follows the last input by 2 steps" in note for note in run.notes)
    _, _, run = runs["hosts"]
    assert run.settings["nodes on the host"] == ["node.4", "node.5", "node.10"]
    assert any("On the host, in float64: node.4 (" in note for note in run.notes)
