"""Lava equals an oracle in plain Python integers, written from integer-semantics.md."""

from __future__ import annotations

import numpy as np
import pytest
from needs import needs

from lmu_deploy.core.integer.functions import PiecewiseLinear
from lmu_deploy.core.integer.layered import (
    IntegerHidden,
    IntegerLayer,
    IntegerMemory,
    IntegerReadout,
    LayeredNetwork,
)
from lmu_deploy.core.integer.parts import Connection, Format
from targets.base import Run
from targets.integer import IntegerTarget
from targets.lava import LavaTarget

pytestmark = needs("lava")

Vector = list[int]


class Oracle:
    """One right answer, one entry at a time."""

    def __init__(self, network: LayeredNetwork) -> None:
        self.network = network
        self.saturations: dict[str, int] = {}
        self.events: dict[str, list[list[int]]] = {}
        self.synops = 0

    def sat(self, value: int, bits: int, place: str) -> int:
        top = 2 ** (bits - 1) - 1
        limited = max(-top, min(top, value))
        self.saturations[place] = self.saturations.get(place, 0) + (limited != value)
        return limited

    @staticmethod
    def ms(value: int, gain: int, shift: int) -> int:
        return (value * gain + (2 ** (shift - 1) if shift else 0)) // 2**shift

    def drive(self, link: Connection | None, message: Vector, place: str, rows: int) -> Vector:
        total = [0] * rows
        if link is None:
            return total
        for k, weights in enumerate(link.slices.tolist()):
            for i, row in enumerate(weights):
                exact = sum(w * x for w, x in zip(row, message, strict=True))
                a = self.sat(exact, link.accumulator_bits, f"{place}/slice{k}")
                total[i] += self.ms(a, int(link.multiplier[k, i]), int(link.shift[k, i]))
        return total

    def send(self, name: str, message: Vector, sample: int, links: list[Connection | None]) -> None:
        rows = self.events.setdefault(name, [])
        while len(rows) <= sample:
            rows.append([])
        rows[sample].append(sum(value != 0 for value in message))
        for link in links:
            if link is not None:
                slices = link.slices.tolist()
                for j, value in enumerate(message):
                    if value:
                        self.synops += sum(row[j] != 0 for slice_ in slices for row in slice_)

    def activate(self, f: PiecewiseLinear, z: int, bits: int, place: str) -> int:
        lines = list(zip(f.slope.tolist(), f.intercept.tolist(), strict=True))
        if f.kind == "linear":
            return self.sat(self.ms(z, lines[0][0], f.shift), bits, place)
        p = abs(z) if f.kind == "odd" else max(z, 0)
        value = self.sat(min(self.ms(p, s, f.shift) + c for s, c in lines), bits, place)
        return -value if f.kind == "odd" and z < 0 else value

    def total(self, rows, bias, *parts) -> Vector:
        """Sum of all parts, each (connection, messages, place) or a vector, and the bias."""
        vectors = [[0] * rows if bias is None else bias.tolist()]
        for part in parts:
            vectors.append(part if isinstance(part, list) else self.drive(*part, rows))
        return [sum(entries) for entries in zip(*vectors, strict=True)]

    def run(self, messages: np.ndarray) -> dict[str, list]:
        found = {"m": [], "h": [], "y": []}
        for sample, sequence in enumerate(messages.tolist()):
            sizes = [(layer.memory.size, width(layer)) for layer in self.network.layers]
            # For each layer m, its messages, and H.
            states = [([0] * size, [0] * size, [0] * units) for size, units in sizes]
            steps = [self.step(states, x, sample) for x in sequence]
            for name, values in zip(found, zip(*steps, strict=True), strict=True):
                found[name].append(list(values))
        return found

    def step(self, states: list, x: Vector, sample: int) -> tuple[Vector, Vector, Vector]:
        layers, readout, m_all, h_all = self.network.layers, self.network.readout, [], []
        self.send("input", x, sample, into(layers[0]))
        for number, layer in enumerate(layers):
            m, sent, H = states[number]
            memory, hidden, at = layer.memory, layer.hidden, f"layer{number}/memory"
            last = layer is layers[-1]
            onward = [readout.connection] if last else into(layers[number + 1])
            drives = (
                (memory.recurrent, sent, f"{at}/recurrent"),
                (memory.input, x, f"{at}/input"),
                (memory.hidden, H, f"{at}/hidden"),
            )
            m = self.total(memory.size, memory.bias, m, *drives)
            m = [self.sat(v, memory.state.bits, f"{at}/state") for v in m]
            rounded = [self.ms(v, 1, memory.message_shift) for v in m]
            sent = [self.sat(v, memory.message.bits, f"{at}/message") for v in rounded]
            self.send(
                at, sent, sample, [memory.recurrent, *([hidden.memory] if hidden else onward)]
            )
            m_all += m
            if hidden is None:
                states[number], x = (m, sent, H), sent
                continue
            at = f"layer{number}/hidden"
            drives = (
                (hidden.memory, sent, f"{at}/memory"),
                (hidden.input, x, f"{at}/input"),
                (hidden.recurrent, H, f"{at}/recurrent"),
            )
            z = self.total(len(H), hidden.bias, *drives)
            z = [self.sat(v, hidden.drive.bits, f"{at}/drive") for v in z]
            bits = hidden.message.bits
            H = [self.activate(hidden.activation, v, bits, f"{at}/message") for v in z]
            self.send(at, H, sample, [memory.hidden, hidden.recurrent, *onward])
            h_all += H
            states[number], x = (m, sent, H), H
        y = self.total(readout.connection.n_out, readout.bias, (readout.connection, x, "readout"))
        return m_all, h_all, [self.sat(v, readout.output.bits, "readout/output") for v in y]


def width(layer: IntegerLayer) -> int:
    """The number of messages that a layer sends on."""
    return layer.memory.size if layer.hidden is None else layer.hidden.memory.n_out


def into(layer: IntegerLayer) -> list[Connection | None]:
    """The connections that carry a layer's inputs."""
    return [layer.memory.input, layer.hidden.input if layer.hidden else None]


def draw_connection(rng, n_out, n_in, gain, slices=2, accumulator_bits=24):
    """Weights whose drive is about `gain` times the messages, a later slice a tenth of that."""
    sparse = rng.random((slices, n_out, n_in)) < 0.7
    per_slice = 0.1 ** np.arange(slices)[:, None] * gain / (60.0 * np.sqrt(n_in))
    shift = rng.integers(8, 16, (slices, n_out))
    multiplier = np.rint(per_slice * rng.uniform(0.5, 1.5, (slices, n_out)) * 2.0**shift)
    return Connection(
        (rng.integers(-127, 128, sparse.shape) * sparse).astype(np.int8),
        np.clip(multiplier, 1, 32767).astype(np.int32),
        shift.astype(np.int32),
        accumulator_bits=accumulator_bits,
    )


def draw_activation(rng, kind):
    """Concave lines that bend below the limit of an 8-bit message; z has 16 bits."""
    pieces = 1 if kind == "linear" else 4
    slope = np.sort(rng.integers(40, 1200, pieces))[::-1].astype(np.int32)
    intercept = np.concatenate([[0], np.sort(rng.integers(1, 110, pieces - 1))]).astype(np.int32)
    return PiecewiseLinear(slope, intercept, 16, kind)


def draw_layer(
    rng, n_in, size, units, *, kind="odd", e_h=False, recurrent=True, x_h=True, bias=False, acc=24
):
    memory = IntegerMemory(
        Format(20, 2.0**-16),
        Format(10, 2.0**-6),
        10,
        draw_connection(rng, size, size, 300.0, 2, acc),
        draw_connection(rng, size, n_in, 400.0, 1, acc),
        draw_connection(rng, size, units, 400.0, 2, acc) if e_h else None,
        rng.integers(-500, 500, size).astype(np.int32) if bias else None,
    )
    if not units:
        return IntegerLayer(memory, None)
    hidden = IntegerHidden(
        Format(16, 2.0**-12),
        Format(8, 2.0**-7),
        draw_connection(rng, units, size, 60.0, 3, acc),
        draw_connection(rng, units, n_in, 30.0, 2, acc) if x_h else None,
        draw_connection(rng, units, units, 40.0, 1, acc) if recurrent else None,
        rng.integers(-900, 900, units).astype(np.int32) if bias else None,
        draw_activation(rng, kind),
    )
    return IntegerLayer(memory, hidden)


def draw_network(rng, n_in, layers, sequences=False):
    readout = IntegerReadout(
        draw_connection(rng, 3, width(layers[-1]), 25.0, 1),
        rng.integers(-100, 100, 3).astype(np.int32) if sequences else None,
        Format(14, 2.0**-10),
    )
    return LayeredNetwork(Format(8, 2.0**-7), tuple(layers), readout, sequences)


def draw_inputs(rng, samples, steps, n_in):
    """Normal inputs, of which 20 % are zero; one step all zero, a few values beyond the format."""
    inputs = rng.normal(0.0, 0.45, (samples, steps, n_in))
    inputs *= rng.random(inputs.shape) < 0.8
    inputs[:, steps // 2] = 0.0
    return inputs


def facts(run: Run) -> dict:
    """Everything that two exact targets must agree on, as plain numbers."""
    assert run.states is not None
    return {
        "m": run.states.m.tolist(),
        "h": run.states.h.tolist(),
        "y": run.states.y.tolist(),
        "events": {name: events.tolist() for name, events in run.events.items()},
        "synops": run.synops,
        "saturations": dict(run.saturations),
    }


def oracle_facts(network: LayeredNetwork, inputs: np.ndarray) -> dict:
    exact = np.rint(inputs / network.input.scale)
    messages = np.clip(exact, -network.input.limit, network.input.limit).astype(np.int64)
    oracle = Oracle(network)
    states = oracle.run(messages)
    oracle.saturations["input"] = int((messages != exact).sum())
    counts = {"events": oracle.events, "synops": oracle.synops, "saturations": oracle.saturations}
    return states | counts


NETWORKS = {
    "hidden-recurrent": lambda rng: [draw_layer(rng, 2, 6, 5, bias=True)],
    "no-hidden": lambda rng: [draw_layer(rng, 2, 6, 0)],
    "feedback": lambda rng: [draw_layer(rng, 2, 6, 5, e_h=True)],
    "two-layers-feedback-in-one": lambda rng: [
        draw_layer(rng, 2, 6, 5, kind="positive", recurrent=False),
        draw_layer(rng, 5, 4, 3, e_h=True, kind="linear", x_h=False, bias=True),
    ],
    "three-layers-saturating": lambda rng: [
        draw_layer(rng, 2, 4, 0, acc=15),
        draw_layer(rng, 4, 5, 4, acc=14),
        draw_layer(rng, 4, 3, 3, kind="linear", acc=13),
    ],
}


@pytest.fixture(scope="module")
def cases():
    """Each network with its inputs and the run of Lava, all of them in one interpreter."""
    found = {}
    for name, make_layers in NETWORKS.items():
        rng = np.random.default_rng(7)
        network = draw_network(rng, 2, make_layers(rng), sequences=name == "feedback")
        found[name] = network, draw_inputs(rng, 3, 9, 2)
    runs = LavaTarget().run_each([(n.graph(), inputs) for n, inputs in found.values()], record=True)
    return {name: (*found[name], run) for name, run in zip(found, runs, strict=True)}


@pytest.mark.parametrize("name", NETWORKS)
def test_lava_equals_the_oracle_and_the_simulator(name, cases):
    network, inputs, run = cases[name]
    found = facts(run)
    assert found == oracle_facts(network, inputs)
    simulator = IntegerTarget().run(network.graph(), inputs, record=True)
    assert found == facts(simulator)
    np.testing.assert_array_equal(run.outputs, simulator.outputs)
    np.testing.assert_array_equal(run.states.m_scale, simulator.states.m_scale)
    np.testing.assert_array_equal(run.states.h_scale, simulator.states.h_scale)
    for place in ("m", "h", "y"):
        states = getattr(run.states, place)
        assert states.size == 0 or len(np.unique(states)) > 20, "a network that says nothing"
    accumulators = [n for place, n in run.saturations.items() if "slice" in place]
    assert (max(accumulators) > 0) == (name == "three-layers-saturating")
