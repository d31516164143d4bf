"""Lava equals an oracle in plain Python integers, written from docs/integer-semantics.md."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from lmu_deploy.integer_network import (
    Connection,
    Format,
    IntegerHidden,
    IntegerLayer,
    IntegerMemory,
    IntegerNetwork,
    IntegerReadout,
    PiecewiseLinear,
)
from targets.base import Run
from targets.integer import IntegerTarget
from targets.lava import LavaTarget

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("lava") is None,
    reason="lava-nc is not installed; run lmu-deploy doctor --fix",
)

Vector = list[int]


class Oracle:
    """One right answer, one entry at a time."""

    def __init__(self, network: IntegerNetwork) -> None:
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

    def run(self, messages: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        ms, hs, ys = [], [], []
        for sample, sequence in enumerate(messages.tolist()):
            state = [
                ([0] * la.memory.size, [0] * la.memory.size, [0] * (la.hidden or la.memory).size)
                if la.hidden is None
                else ([0] * la.memory.size, [0] * la.memory.size, [0] * la.hidden.units)
                for la in self.network.layers
            ]
            for x in sequence:
                m_all, h_all, y = self.step(state, x, sample)
                ms.append(m_all)
                hs.append(h_all)
                ys.append(y)
        shape = messages.shape[:2]
        return tuple(np.array(v, dtype=np.int64).reshape(*shape, -1) for v in (ms, hs, ys))

    def step(self, state: list, x: Vector, sample: int) -> tuple[Vector, Vector, Vector]:
        layers, m_all, h_all = self.network.layers, [], []
        out = self.network.readout
        name = "input"
        for number, layer in enumerate(layers):
            m, M, H = state[number]
            after = layers[number + 1] if number + 1 < len(layers) else None
            onward = (
                [out.connection]
                if after is None
                else [after.memory.input, after.hidden.input if after.hidden else None]
            )
            memory, hidden = layer.memory, layer.hidden
            at = f"layer{number}/memory"
            if number == 0:
                links = [memory.input, hidden.input if hidden else None]
                self.send(name, x, sample, links)
            bias = [0] * memory.size if memory.bias is None else memory.bias.tolist()
            parts = [
                m,
                self.drive(memory.recurrent, M, f"{at}/recurrent", memory.size),
                self.drive(memory.input, x, f"{at}/input", memory.size),
                self.drive(memory.hidden, H, f"{at}/hidden", memory.size),
                bias,
            ]
            m = [
                self.sat(sum(p), memory.state.bits, f"{at}/state") for p in zip(*parts, strict=True)
            ]
            M = [
                self.sat(self.ms(v, 1, memory.message_shift), memory.message.bits, f"{at}/message")
                for v in m
            ]
            self.send(at, M, sample, [memory.recurrent, *([hidden.memory] if hidden else onward)])
            m_all += m
            if hidden is None:
                state[number], x = (m, M, H), M
                continue
            at = f"layer{number}/hidden"
            bias = [0] * hidden.units if hidden.bias is None else hidden.bias.tolist()
            parts = [
                self.drive(hidden.memory, M, f"{at}/memory", hidden.units),
                self.drive(hidden.input, x, f"{at}/input", hidden.units),
                self.drive(hidden.recurrent, H, f"{at}/recurrent", hidden.units),
                bias,
            ]
            z = [
                self.sat(sum(p), hidden.drive.bits, f"{at}/drive") for p in zip(*parts, strict=True)
            ]
            H = [
                self.activate(hidden.activation, v, hidden.message.bits, f"{at}/message") for v in z
            ]
            self.send(at, H, sample, [memory.hidden, hidden.recurrent, *onward])
            h_all += H
            state[number], x = (m, M, H), H
        bias = [0] * self.network.n_out if out.bias is None else out.bias.tolist()
        driven = self.drive(out.connection, x, "readout", self.network.n_out)
        y = [
            self.sat(a + b, out.output.bits, "readout/output")
            for a, b in zip(driven, bias, strict=True)
        ]
        return m_all, h_all, y


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
        draw_connection(rng, 3, layers[-1].n_out, 25.0, 1),
        rng.integers(-100, 100, 3).astype(np.int32) if sequences else None,
        Format(14, 2.0**-10),
    )
    return IntegerNetwork(Format(8, 2.0**-7), tuple(layers), readout, sequences)


def draw_inputs(rng, samples, steps, n_in):
    """Normal inputs, a fifth of them zero, one step all zero, a few beyond the format."""
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


def oracle_facts(network: IntegerNetwork, inputs: np.ndarray) -> dict:
    exact = np.rint(inputs / network.input.scale)
    messages = np.clip(exact, -network.input.limit, network.input.limit).astype(np.int64)
    oracle = Oracle(network)
    m, h, y = oracle.run(messages)
    oracle.saturations["input"] = int((messages != exact).sum())
    return {
        "m": m.tolist(),
        "h": h.tolist(),
        "y": y.tolist(),
        "events": oracle.events,
        "synops": oracle.synops,
        "saturations": oracle.saturations,
    }


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


@pytest.mark.parametrize("name", NETWORKS)
def test_lava_equals_the_oracle_and_the_twin(name):
    rng = np.random.default_rng(7)
    network = draw_network(rng, 2, NETWORKS[name](rng), sequences=name == "feedback")
    inputs = draw_inputs(rng, 3, 9, 2)
    run = LavaTarget().run(network, inputs, record=True)
    found = facts(run)
    assert found == oracle_facts(network, inputs)
    twin = IntegerTarget().run(network, inputs, record=True)
    assert found == facts(twin)
    np.testing.assert_array_equal(run.outputs, twin.outputs)
    np.testing.assert_array_equal(run.states.m_scale, twin.states.m_scale)
    np.testing.assert_array_equal(run.states.h_scale, twin.states.h_scale)
    for place in ("m", "h", "y"):
        states = getattr(run.states, place)
        assert states.size == 0 or len(np.unique(states)) > 20, "a network that says nothing"
    accumulators = [n for place, n in run.saturations.items() if "slice" in place]
    assert (max(accumulators) > 0) == (name == "three-layers-saturating")


def test_lava_equals_the_twin_on_random_networks():
    rng = np.random.default_rng(11)
    for _ in range(4):
        width, layers = 2, []
        for _ in range(rng.integers(1, 4)):
            units = int(rng.integers(0, 6))
            kind = rng.choice(["odd", "positive", "linear"])
            e_h, recurrent, x_h, bias = rng.random(4) < 0.5
            layer = draw_layer(
                rng,
                width,
                int(rng.integers(1, 8)),
                units,
                kind=str(kind),
                e_h=e_h and units > 0,
                recurrent=recurrent,
                x_h=x_h,
                bias=bias,
                acc=int(rng.integers(12, 25)),
            )
            layers.append(layer)
            width = layer.n_out
        network = draw_network(rng, 2, layers)
        inputs = draw_inputs(rng, 2, 12, 2)
        twin = IntegerTarget().run(network, inputs, record=True)
        assert facts(LavaTarget().run(network, inputs, record=True)) == facts(twin)


def test_a_run_says_what_it_did():
    rng = np.random.default_rng(3)
    network = draw_network(rng, 2, [draw_layer(rng, 2, 4, 3, e_h=True)])
    inputs, seen = draw_inputs(rng, 4, 5, 2), []
    run = LavaTarget().run(network, inputs, progress=lambda *done: seen.append(done))
    assert run.states is None
    assert seen[-1] == (4, 4)
    assert run.outputs.shape == (4, 3)
    assert run.steps == 5
    assert run.chip_steps == 4 * 2 + 3 + 1
    assert run.settings["chip_steps_per_step"] == 2
    assert run.settings["versions"]["lava-nc"] == "0.10.0"
    assert set(run.neurons) == set(run.events) == set(run.rasters)
    for name, raster in run.rasters.items():
        assert raster.shape == (run.chip_steps, run.neurons[name])
        assert raster.sum() == run.events[name][0].sum()
        phases = np.flatnonzero(raster.any(axis=1)) % 2
        assert set(phases) <= {list(run.rasters).index(name) % 2}, "memory and hidden take turns"
