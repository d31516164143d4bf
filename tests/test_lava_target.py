"""Lava equals an oracle in plain Python integers, written from docs/integer-semantics.md."""

from __future__ import annotations

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
from targets.lava import LavaTarget

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


def draw_connection(rng, n_out, n_in, slices=2, accumulator_bits=24, gain=200):
    return Connection(
        rng.integers(-127, 128, (slices, n_out, n_in)).astype(np.int8)
        * (rng.random((slices, n_out, n_in)) < 0.7),
        rng.integers(1, gain, (slices, n_out)).astype(np.int32),
        rng.integers(5, 12, (slices, n_out)).astype(np.int32) + np.arange(slices)[:, None] * 3,
        accumulator_bits=accumulator_bits,
    )


def draw_activation(rng, kind):
    pieces = 1 if kind == "linear" else 4
    slope = np.sort(rng.integers(10, 2000, pieces))[::-1].astype(np.int32)
    intercept = np.concatenate([[0], np.sort(rng.integers(1, 120, pieces - 1))]).astype(np.int32)
    return PiecewiseLinear(slope, intercept, 16, kind)


def draw_layer(rng, n_in, size, units, *, kind="odd", e_h=False, recurrent=True, x_h=True, acc=24):
    memory = IntegerMemory(
        Format(20, 2.0**-16),
        Format(10, 2.0**-6),
        10,
        draw_connection(rng, size, size, 2, acc),
        draw_connection(rng, size, n_in, 1, acc, 3000),
        draw_connection(rng, size, units, 2, acc, 3000) if e_h else None,
        rng.integers(-500, 500, size).astype(np.int32) if e_h else None,
    )
    if not units:
        return IntegerLayer(memory, None)
    hidden = IntegerHidden(
        Format(16, 2.0**-12),
        Format(8, 2.0**-7),
        draw_connection(rng, units, size, 2, acc),
        draw_connection(rng, units, n_in, 2, acc) if x_h else None,
        draw_connection(rng, units, units, 1, acc) if recurrent else None,
        rng.integers(-3000, 3000, units).astype(np.int32) if x_h else None,
        draw_activation(rng, kind),
    )
    return IntegerLayer(memory, hidden)


def draw_network(rng, n_in, layers, sequences=False):
    readout = IntegerReadout(
        draw_connection(rng, 3, layers[-1].n_out, 1),
        rng.integers(-100, 100, 3).astype(np.int32) if sequences else None,
        Format(14, 2.0**-10),
    )
    return IntegerNetwork(Format(8, 2.0**-7), tuple(layers), readout, sequences)


def check_equal(network: IntegerNetwork, inputs: np.ndarray) -> Run:
    run = LavaTarget().run(network, inputs, record=True)
    exact = np.rint(inputs / network.input.scale)
    messages = np.clip(exact, -network.input.limit, network.input.limit).astype(np.int64)
    oracle = Oracle(network)
    m, h, y = oracle.run(messages)
    oracle.saturations["input"] = int((messages != exact).sum())
    assert run.states is not None
    np.testing.assert_array_equal(run.states.m, m)
    np.testing.assert_array_equal(run.states.h, h)
    np.testing.assert_array_equal(run.states.y, y)
    assert {name: events.tolist() for name, events in run.events.items()} == oracle.events
    assert run.synops == oracle.synops
    assert dict(run.saturations) == oracle.saturations
    return run


NETWORKS = {
    "hidden-recurrent": lambda rng: [draw_layer(rng, 2, 6, 5)],
    "no-hidden": lambda rng: [draw_layer(rng, 2, 6, 0)],
    "feedback": lambda rng: [draw_layer(rng, 2, 6, 5, e_h=True)],
    "two-layers-feedback-in-one": lambda rng: [
        draw_layer(rng, 2, 6, 5, kind="positive", recurrent=False),
        draw_layer(rng, 5, 4, 3, e_h=True, kind="linear", x_h=False),
    ],
    "three-layers": lambda rng: [
        draw_layer(rng, 2, 4, 0),
        draw_layer(rng, 4, 5, 4, acc=14),
        draw_layer(rng, 4, 3, 3, kind="linear"),
    ],
}


@pytest.mark.parametrize("name", NETWORKS)
def test_lava_equals_the_oracle_in_every_state(name):
    rng = np.random.default_rng(sorted(NETWORKS).index(name))
    network = draw_network(rng, 2, NETWORKS[name](rng), sequences=name == "feedback")
    inputs = rng.normal(0.0, 0.4, (3, 7, 2))
    inputs[:, 3] = 0.0
    run = check_equal(network, inputs)
    print(
        run.saturations,
        run.wall_seconds,
        run.settings,
        run.states.m[0],
        run.states.h[0],
        run.states.y[0],
    )
