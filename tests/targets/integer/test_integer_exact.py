"""The simulator equals a naive execution in Python integers on networks of every kind."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layered import layered, relayered
from needs import ENGINES

from lmu_deploy.core.integer.functions import PiecewiseLinear
from lmu_deploy.core.integer.graph import memory_line
from lmu_deploy.core.integer.layered import (
    IntegerHidden,
    IntegerLayer,
    IntegerMemory,
    IntegerReadout,
    LayeredNetwork,
    SeriesMemory,
)
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.parts import Connection, Format
from targets.integer import IntegerTarget, step


class Naive:
    """One sample at a time, loops and Python integers, written from integer-semantics.md."""

    def __init__(self, network: IntegerNetwork) -> None:
        self.network = layered(network)
        self.saturations: Counter[str] = Counter()
        self.events: list[dict[str, list[int]]] = []
        self.synops = 0
        self.m, self.h, self.y = [], [], []

    def ms(self, v: int, g: int, s: int) -> int:
        return (v * g + (1 << (s - 1) if s > 0 else 0)) >> s

    def sat(self, v: int, bits: int, place: str) -> int:
        limit = 2 ** (bits - 1) - 1
        self.saturations[place] += abs(v) > limit
        return max(-limit, min(limit, v))

    def drive(self, c: Connection | None, messages: list[int], place: str) -> list[int]:
        drives = [0] * (0 if c is None else c.n_out)
        if c is not None and c.threshold:
            messages = self.last_sent.get(id(c), [0] * c.n_in)
        for k in range(0 if c is None else len(c.slices)):
            for i in range(c.n_out):
                a = sum(int(w) * x for w, x in zip(c.slices[k, i], messages, strict=True))
                a = self.sat(a, c.accumulator_bits, f"{place}/slice{k}")
                drives[i] += self.ms(a, int(c.multiplier[k, i]), int(c.shift[k, i]))
        return drives

    def activate(self, f: PiecewiseLinear, z: int, bits: int, place: str) -> int:
        p = {"odd": abs(z), "positive": max(z, 0), "linear": z}[f.kind]
        lines = zip(f.slope.tolist(), f.intercept.tolist(), strict=True)
        v = self.sat(min(self.ms(p, g, f.shift) + b for g, b in lines), bits, place)
        return -v if f.kind == "odd" and z < 0 else v

    def send(self, population: str, messages: list[int], leaving: list[Connection | None]) -> None:
        links = [c for c in leaving if c is not None]
        events = {t: self.events_of(t, messages, links) for t in {c.threshold for c in links}}
        self.events[-1].setdefault(population, []).append(sum(map(sum, events.values())))
        for c in links:
            for j, event in enumerate(events[c.threshold]):
                self.synops += int((c.slices[:, :, j] != 0).sum()) if event else 0

    def events_of(self, threshold: int, messages: list[int], links: list[Connection]) -> list[bool]:
        """Which messages are sent at a threshold; what their connections hold is kept."""
        if threshold == 0:
            return [v != 0 for v in messages]
        links = [c for c in links if c.threshold == threshold]
        before = self.last_sent.get(id(links[0]), [0] * len(messages))
        sent = [abs(q - s) >= threshold for q, s in zip(messages, before, strict=True)]
        after = [q if e else s for q, s, e in zip(messages, before, sent, strict=True)]
        self.last_sent.update({id(c): after for c in links})
        return sent

    def run(self, sample: np.ndarray) -> None:
        net = self.network
        m = [[0] * layer.memory.size for layer in net.layers]
        mm = [[0] * layer.memory.size for layer in net.layers]
        h = [[0] * (layer.hidden.units if layer.hidden else 0) for layer in net.layers]
        self.events.append({})
        self.last_sent = {}
        for values in (self.m, self.h, self.y):
            values.append([])
        for row in sample:
            x = [round(float(v) / net.input.scale) for v in row]
            x = [self.sat(v, net.input.bits, "input") for v in x]
            sent = "input"
            for i, layer in enumerate(net.layers):
                self.send(sent, x, self.entering(i)) if i == 0 else None
                own = [None, layer.hidden.memory if layer.hidden else None]
                if isinstance(layer.memory, SeriesMemory):
                    m[i], mm[i] = self.series(i, layer.memory, m[i], mm[i], x, h[i])
                    own[0] = layer.memory.feedback
                else:
                    m[i], mm[i] = self.memory(i, layer.memory, m[i], mm[i], x, h[i])
                    own[0] = layer.memory.recurrent
                if layer.hidden:
                    self.send(f"layer{i}/memory", mm[i], own)
                    h[i] = self.hidden(i, layer.hidden, mm[i], x, h[i])
                    after = [layer.hidden.recurrent, layer.memory.hidden, *self.entering(i + 1)]
                    self.send(f"layer{i}/hidden", h[i], after)
                else:
                    self.send(f"layer{i}/memory", mm[i], [own[0], *self.entering(i + 1)])
                x = h[i] if layer.hidden else mm[i]
            y = add(self.drive(net.readout.connection, x, "readout"), net.readout.bias)
            y = [self.sat(v, net.readout.output.bits, "readout/output") for v in y]
            self.m[-1].append([v for part in m for v in part])
            self.h[-1].append([v for part in h for v in part])
            self.y[-1].append(y)

    def entering(self, i: int) -> list[Connection | None]:
        if i == len(self.network.layers):
            return [self.network.readout.connection]
        layer = self.network.layers[i]
        return [layer.memory.input, layer.hidden.input if layer.hidden else None]

    def memory(self, i, layer, m, messages, x, h):
        place = f"layer{i}/memory"
        total = add(m, self.drive(layer.recurrent, messages, f"{place}/recurrent"), layer.bias)
        total = add(total, self.drive(layer.input, x, f"{place}/input"))
        if layer.hidden is not None:
            total = add(total, self.drive(layer.hidden, h, f"{place}/hidden"))
        m = [self.sat(v, layer.state.bits, f"{place}/state") for v in total]
        sent = [self.ms(v, 1, layer.message_shift) for v in m]
        return m, [self.sat(v, layer.message.bits, f"{place}/message") for v in sent]

    def series(self, i, layer, m, messages, x, h):
        place = f"layer{i}/series"
        limit = lambda values, bits, name: [self.sat(v, bits, name) for v in values]  # noqa: E731
        c = add(self.drive(layer.input, x, f"{place}/input"), layer.bias)
        if layer.hidden is not None:
            c = add(c, self.drive(layer.hidden, h, f"{place}/hidden"))
        if layer.feedback is not None:
            c = add(c, self.drive(layer.feedback, messages, f"{place}/feedback"))
        c, bits, sent = limit(c, layer.state.bits, f"{place}/drive"), layer.state.bits, 0
        for _ in range(layer.substeps):
            v, first = messages, c
            for k in range(layer.terms):
                self.synops += layer.order * sum(x != 0 for x in v)
                sent += sum(x != 0 for x in v)
                w = limit(add(first, self.signs(layer, k, v, place)), bits, f"{place}/term")
                m = limit(add(m, w), bits, f"layer{i}/memory/state")
                first = [0] * layer.size
                if k + 1 < layer.terms:
                    v = [self.ms(x, 1, int(layer.term_shift[k])) for x in w]
                    v = limit(v, layer.message.bits, f"{place}/message")
            messages = [self.ms(x, 1, layer.message_shift) for x in m]
            messages = limit(messages, layer.message.bits, f"layer{i}/memory/message")
        self.events[-1].setdefault(place, []).append(sent)
        return m, messages

    def signs(self, layer, k, v, place):
        """G_k(v), from the matrix S and not from running sums."""
        driven = []
        for channel in range(layer.channels):
            part = v[channel * layer.order : (channel + 1) * layer.order]
            for i in range(layer.order):
                row = (-1 if i < j else (-1) ** (i - j + 1) for j in range(layer.order))
                a = sum(s * x for s, x in zip(row, part, strict=True))
                a = self.sat(a, layer.accumulator_bits, f"{place}/recurrent/slice0")
                driven.append(self.ms(a, int(layer.multiplier[k, i]), int(layer.shift[k, i])))
        return driven

    def hidden(self, i, layer, messages, x, h):
        place = f"layer{i}/hidden"
        z = add(self.drive(layer.memory, messages, f"{place}/memory"), layer.bias)
        if layer.input is not None:
            z = add(z, self.drive(layer.input, x, f"{place}/input"))
        if layer.recurrent is not None:
            z = add(z, self.drive(layer.recurrent, h, f"{place}/recurrent"))
        z = [self.sat(v, layer.drive.bits, f"{place}/drive") for v in z]
        bits = layer.message.bits
        return [self.activate(layer.activation, v, bits, f"{place}/message") for v in z]


class RoundsDown(Naive):
    def ms(self, v: int, g: int, s: int) -> int:
        return (v * g) >> s


class Wraps(Naive):
    def sat(self, v: int, bits: int, place: str) -> int:
        return (v + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)


def add(*terms):
    """Sum lists of integers; what is None is left out."""
    lists = [[int(v) for v in term] for term in terms if term is not None]
    return [sum(column) for column in zip(*lists, strict=True)]


@st.composite
def integer_networks(draw):
    """Small networks whose widths are so narrow that every place saturates now and then."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pick = lambda low, high: draw(st.integers(low, high))  # noqa: E731

    def link(n_out, n_in):
        weight_bits, n = pick(2, 8), pick(1, 3)
        w = rng.integers(-(2 ** (weight_bits - 1)) + 1, 2 ** (weight_bits - 1), (n, n_out, n_in))
        w[rng.random(w.shape) < 0.3] = 0
        g = 2 ** rng.integers(0, 4, (n, n_out)) if pick(0, 1) else rng.integers(1, 99, (n, n_out))
        threshold = draw(st.sampled_from([0, 0, 1, 2, 9]))
        return Connection(w, g, rng.integers(0, 9, (n, n_out)), weight_bits, pick(8, 24), threshold)

    def fmt(low, high):
        return Format(pick(low, high), float(rng.uniform(0.01, 0.1)))

    def bias(size):
        return rng.integers(-500, 500, size) if pick(0, 1) else None

    n_in = width = pick(1, 3)
    layers = []
    for _ in range(pick(1, 3)):
        size, units = pick(1, 5), pick(0, 4)
        hidden = None
        if units:
            kind = draw(st.sampled_from(["odd", "positive", "linear"]))
            pieces = 1 if kind == "linear" else pick(1, 5)
            activation = PiecewiseLinear(
                -np.sort(-rng.integers(0, 3000, pieces)),
                np.concatenate([[0], np.sort(rng.integers(0, 90, pieces - 1))]).astype(np.int64),
                pick(0, 12),
                kind,
            )
            links = (
                link(units, size),
                *(link(units, n) if pick(0, 1) else None for n in (width, units)),
            )
            drive, message = fmt(8, 24), fmt(2, 12)
            hidden = IntegerHidden(drive, message, *links, bias(units), activation)
        back = link(size, units) if units and pick(0, 1) else None
        state, message, shift = fmt(8, 24), fmt(2, 14), pick(0, 10)
        recurrent, entering = link(size, size), link(size, width)
        memory = IntegerMemory(state, message, shift, recurrent, entering, back, bias(size))
        if pick(0, 1):
            terms, channels = pick(1, 4), pick(1, 2) if size % 2 == 0 else 1
            rows = (terms, size // channels)
            memory = SeriesMemory(
                channels,
                size // channels,
                pick(1, 3),
                state,
                message,
                shift,
                rng.integers(0, 8, terms - 1),
                rng.integers(1, 99, rows),
                rng.integers(0, 9, rows),
                entering,
                recurrent if pick(0, 1) else None,
                back,
                bias(size),
                pick(8, 24),
            )
        layers.append(IntegerLayer(memory, hidden))
        width = layers[-1].n_out
    n_out = pick(1, 3)
    readout = IntegerReadout(link(n_out, width), bias(n_out), fmt(10, 24))
    sequences = draw(st.booleans())
    return LayeredNetwork(Format(pick(2, 9), 0.05), tuple(layers), readout, sequences).graph(), n_in


def differences(network, inputs, naive, engine) -> list[str]:
    """Return the states and counts that differ from those of a naive execution."""
    run = IntegerTarget(engine).run(network, inputs, record=True)
    assert run.settings["engine"] == engine
    for sample in inputs:
        naive.run(sample)
    scale = layered(network).readout.output.scale
    y = np.array(naive.y, dtype=np.int64)
    found = [
        name
        for name, mine, theirs in (
            ("m", run.states.m, naive.m),
            ("h", run.states.h, naive.h),
            ("y", run.states.y, naive.y),
            ("outputs", run.outputs, y * scale if network.return_sequences else y[:, -1] * scale),
        )
        if not np.array_equal(mine, np.array(theirs).reshape(mine.shape))
    ]
    found += ["synops"] if run.synops != naive.synops else []
    found += [p for p, n in run.saturations.items() if n != naive.saturations[p]]
    found += sorted(set(naive.saturations) - set(run.saturations))
    for name, counts in run.events.items():
        theirs = [sample[name] for sample in naive.events]
        found += [name] if not np.array_equal(counts, theirs) else []
    return found


@settings(max_examples=40)
@given(given_network=integer_networks(), seed=st.integers(0, 1000))
@pytest.mark.parametrize("engine", ENGINES)
def test_simulator_equals_naive_execution(engine, given_network, seed):
    network, n_in = given_network
    inputs = np.random.default_rng(seed).normal(size=(2, 6, n_in))
    inputs[:, 3:] *= 10.0
    inputs[0, 0] = 0.0
    assert differences(network, inputs, Naive(network), engine) == []


def saturating_network() -> tuple[IntegerNetwork, np.ndarray]:
    """A network of one layer that saturates in its accumulators, states and messages."""
    rng = np.random.default_rng(5)

    def link(n_out, n_in, bits=24):
        gain = np.ones((2, n_out), int)
        shift = np.full((2, n_out), 3)
        return Connection(rng.integers(-127, 128, (2, n_out, n_in)), gain, shift, 8, bits)

    activation = PiecewiseLinear(np.array([900, 300, 0]), np.array([0, 40, 120]), 10, "odd")
    hidden = IntegerHidden(
        Format(12, 0.01), Format(8, 0.01), link(3, 4), link(3, 2), link(3, 3), None, activation
    )
    memory = IntegerMemory(
        Format(14, 0.01), Format(9, 0.04), 3, link(4, 4, 14), link(4, 2), link(4, 3), None
    )
    readout = IntegerReadout(link(2, 3), None, Format(12, 0.01))
    network = LayeredNetwork(
        Format(8, 0.05), (IntegerLayer(memory, hidden),), readout, True
    ).graph()
    return network, rng.normal(size=(3, 20, 2))


def series_network() -> tuple[IntegerNetwork, np.ndarray]:
    """The same with a series, narrow enough that each of its places saturates."""
    network, inputs = saturating_network()
    layer, old = layered(network).layers[0], layered(network).layers[0].memory
    memory = SeriesMemory(
        2,
        2,
        3,
        Format(14, 0.01),
        Format(9, 0.04),
        3,
        np.array([2, 1]),
        np.array([[90, 60], [50, 55], [40, 77]]),
        np.full((3, 2), 4),
        old.input,
        dataclasses.replace(old.recurrent, accumulator_bits=24),
        old.hidden,
        np.array([9, -9, 5, 0]),
        9,
    )
    return relayered(network, layers=(IntegerLayer(memory, layer.hidden),)), inputs


MEMORY_PLACES = {
    saturating_network: ("memory/recurrent/slice0", "memory/state", "memory/message"),
    series_network: (
        "series/recurrent/slice0",
        "series/drive",
        "series/term",
        "series/message",
        "memory/state",
        "memory/message",
    ),
}
BOTH_FORMS = pytest.mark.parametrize("make", MEMORY_PLACES)


@BOTH_FORMS
@pytest.mark.parametrize("engine", ENGINES)
def test_saturation_is_reached_everywhere_and_counted_alike(engine, make):
    network, inputs = make()
    run = IntegerTarget(engine).run(network, inputs)
    for place in (*MEMORY_PLACES[make], "hidden/drive"):
        assert run.saturations[f"layer0/{place}"] > 0
    assert run.saturations["readout/output"] > 0
    assert differences(network, inputs, Naive(network), engine) == []


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("fault", [RoundsDown, Wraps])
@BOTH_FORMS
def test_another_rule_is_caught(make, fault, engine):
    network, inputs = make()
    assert {"m", "h", "y"} <= set(differences(network, inputs, fault(network), engine))


@pytest.mark.parametrize("engine", ENGINES)
def test_one_changed_weight_is_caught(engine):
    network, inputs = saturating_network()
    layer = layered(network).layers[0]
    slices = layer.memory.recurrent.slices.copy()
    slices[1, 2, 3] += 1 if slices[1, 2, 3] < 127 else -1
    recurrent = dataclasses.replace(layer.memory.recurrent, slices=slices, accumulator_bits=24)
    original = dataclasses.replace(layer.memory.recurrent, accumulator_bits=24)

    def with_recurrent(connection):
        memory = dataclasses.replace(layer.memory, recurrent=connection, state=Format(24, 0.01))
        return relayered(network, layers=(IntegerLayer(memory, layer.hidden),))

    sound, faulty = with_recurrent(original), with_recurrent(recurrent)
    assert differences(sound, inputs, Naive(sound), engine) == []
    assert "m" in differences(faulty, inputs, Naive(sound), engine)


class OneSignWrong(Naive):
    def signs(self, layer, k, v, place):
        return super().signs(layer, k, [-v[0], *v[1:]], place)


class LastTermForgotten(Naive):
    def series(self, i, layer, *rest):
        terms = {"multiplier": layer.multiplier[:-1], "shift": layer.shift[:-1]}
        shorter = dataclasses.replace(layer, term_shift=layer.term_shift[:-1], **terms)
        return super().series(i, shorter, *rest)


class HeldOnlyOnce(Naive):
    def series(self, i, layer, *rest):
        return super().series(i, dataclasses.replace(layer, substeps=1), *rest)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("fault", [OneSignWrong, LastTermForgotten, HeldOnlyOnce])
def test_another_series_is_caught(fault, engine):
    network, inputs = series_network()
    assert {"m", "h", "y", "synops"} <= set(differences(network, inputs, fault(network), engine))


@BOTH_FORMS
@pytest.mark.parametrize("engine", ENGINES)
def test_batches_do_not_change_anything(engine, make, monkeypatch):
    network, inputs = make()
    whole = IntegerTarget(engine).run(network, inputs, record=True)
    monkeypatch.setattr("targets.integer.run._BATCH", 2)
    parts = IntegerTarget(engine).run(network, inputs, record=True)
    assert np.array_equal(whole.states.m, parts.states.m)
    assert np.array_equal(whole.outputs, parts.outputs)
    assert whole.saturations == parts.saturations
    assert whole.synops == parts.synops


@BOTH_FORMS
@pytest.mark.parametrize("engine", ENGINES)
def test_stream_equals_batch_and_does_not_change_earlier_states(engine, make):
    network, inputs = make()
    run = IntegerTarget(engine).run(network, inputs, record=True)
    stream = None
    for t in range(inputs.shape[1]):
        before = stream
        y, stream = step(network, inputs[:, t], before, engine)
        again, _ = step(network, inputs[:, t], before, engine)
        assert np.array_equal(y, run.states.y[:, t])
        assert np.array_equal(again, y)
        assert np.array_equal(stream.memories[0], run.states.m[:, t])


def delay_line(rng, width, taps, bits) -> tuple[IntegerNetwork, np.ndarray]:
    """Lines that are read by hidden units; what comes in is narrow enough to saturate."""
    network, inputs = saturating_network()
    states = width * taps
    shift = np.eye(states, k=-width, dtype=int) - np.eye(states, dtype=int)

    def link(weights):
        rows = np.ones((1, len(weights)), int)
        return Connection(weights[None], rows, 0 * rows)

    entering = np.zeros((states, 2), int)
    entering[:width] = rng.integers(-3, 4, (width, 2)) | 1
    message = Format(bits, 0.05)
    memory = IntegerMemory(message, message, 0, link(shift), link(entering), None, None, "fir")
    reading = link(rng.integers(-127, 128, (3, states)))
    hidden = dataclasses.replace(layered(network).layers[0].hidden, memory=reading)
    return relayered(network, layers=(IntegerLayer(memory, hidden),)), inputs


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("width", "taps"), [(1, 2), (1, 7), (2, 4), (3, 3)])
def test_delay_lines_are_moved_and_not_multiplied(rng, engine, width, taps):
    network, inputs = delay_line(rng, width, taps, 8)
    assert memory_line(network, network.memories[0]) == width
    assert differences(network, inputs, Naive(network), engine) == []
    run = IntegerTarget(engine).run(network, inputs)
    assert run.saturations["layer0/memory/state"] > 0


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_nearly_a_delay_line_is_multiplied(rng, engine):
    network, inputs = delay_line(rng, 2, 4, 8)
    memory, hidden = layered(network).layers[0].memory, layered(network).layers[0].hidden
    slices = memory.recurrent.slices.copy()
    slices[0, 5, 3] = 0
    changes = (
        {"recurrent": dataclasses.replace(memory.recurrent, slices=slices)},
        {"recurrent": dataclasses.replace(memory.recurrent, accumulator_bits=8)},
        {"bias": np.arange(8)},
        {"message": Format(6, 0.05)},
        {"message_shift": 1},
        {"hidden": Connection(np.ones((1, 8, 3), int), np.ones((1, 8), int), np.ones((1, 8), int))},
    )
    for change in changes:
        other = dataclasses.replace(memory, **change)
        changed = relayered(network, layers=(IntegerLayer(other, hidden),))
        assert memory_line(changed, changed.memories[0]) is None
        assert differences(changed, inputs, Naive(changed), engine) == []


@BOTH_FORMS
def test_raster_shows_the_events_of_the_first_sample(make):
    network, inputs = make()
    run = IntegerTarget().run(network, inputs)
    for name, raster in run.rasters.items():
        assert raster.shape == (inputs.shape[1], run.neurons[name])
        assert np.array_equal(raster.sum(axis=1), run.events[name][0])
    assert math.isfinite(run.wall_seconds)
