"""Drawn graphs on Loihi's neurons, and docs/reference/loihi-semantics.md number by number."""

from __future__ import annotations

import numpy as np

from lmu_deploy.core.graph.linear import Dense
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.pointwise import Activation, Add, Concat
from lmu_deploy.core.graph.time import Reduce
from lmu_deploy.core.network import Memory
from lmu_deploy.core.spiking.chip import Calibration
from lmu_deploy.core.spiking.graph import LoihiEnsemble, LoihiGraph, LoihiInput
from lmu_deploy.core.spiking.loihi import LoihiConnection, LoihiCurrent, LoihiNeurons

SIZES = {"m1": 4, "u1": 3, "m2": 2, "out": 2}


def int8(rng, *shape):
    return rng.integers(-127, 128, shape).astype(np.int8)


def drawn_neurons(rng, states: int) -> LoihiNeurons:
    """Draw neurons that are often near their threshold."""
    neurons, exponent = int(rng.integers(2, 5)), int(rng.integers(5, 8))
    return LoihiNeurons(
        encoders=int8(rng, states, neurons),
        encoder_exponent=exponent,
        bias_mantissas=rng.integers(-2000, 4096, (states, neurons)).astype(np.int16),
        bias_exponent=int(rng.integers(3, 8)),
        current_decay=int(rng.choice([4095, rng.integers(0, 4096)])),
        membrane_decay=int(rng.choice([400, rng.integers(1, 4096)])),
        threshold=int(rng.integers(1000, 2**16)),
    )


def drawn_graph(rng: np.random.Generator) -> LoihiGraph:
    """Draw a graph of two memories and units between them, all of whose integers are random."""

    def memory(n_in, channels, order):
        return LinearMemory(
            Memory.legendre(order, 4.0, channels), rng.normal(size=(n_in, channels))
        )

    host = Network(
        (
            Node("m1", memory(2, 2, 2), (INPUT,)),
            Node("d1", Dense(rng.normal(size=(4, 3)), None), ("m1",)),
            Node("u1", Activation("relu"), ("d1",)),
            Node("m2", memory(3, 1, 2), ("u1",)),
            Node("out", Dense(rng.normal(size=(2, 2)), None), ("m2",)),
        ),
        (2,),
        "out",
    )
    populations = {name: drawn_neurons(rng, SIZES[name]) for name in ("m1", "u1", "m2")}

    def gains(rows, low, high):
        shift = rng.integers(low, high, rows).astype(np.int32)
        return rng.integers(0, 2**15, rows).astype(np.int32), shift

    def connection(source, target, fast, blocks=1):
        columns = SIZES[source] * populations[source].neurons // blocks
        drawn = int8(rng, blocks, SIZES[target] // blocks, columns)
        drawn[rng.random(drawn.shape) < 0.2] = 0
        return LoihiConnection(source, drawn, *gains(SIZES[target], 0, 8), fast)

    def current(source, target, direct):
        features = 2 if source == INPUT else 1
        drawn = int8(rng, SIZES[target], features)
        return LoihiCurrent(source, drawn, *gains(SIZES[target], 12, 20), direct)

    def ensemble(name, connections, currents):
        return LoihiEnsemble(
            name,
            rng.uniform(0.1, 2.0, SIZES[name]),
            tuple(connections),
            tuple(currents),
            int(rng.integers(4, 9)),
            populations.get(name),
        )

    ensembles = (
        ensemble("m1", [connection("m1", "m1", False, 2)], [current(INPUT, "m1", False)]),
        ensemble(
            "u1",
            [connection("m1", "u1", False), connection("m1", "u1", True)],
            [current(INPUT, "u1", True), current("", "u1", True)],
        ),
        ensemble("m2", [connection("m2", "m2", False), connection("u1", "m2", False)], []),
    )
    read = [connection("m2", "out", False), connection("u1", "out", True)]
    probes = (ensemble("out", read, [current("", "out", True)]),)
    return LoihiGraph(
        ensembles,
        probes,
        (LoihiInput(INPUT, np.full(2, 5e-5)), LoihiInput("", np.full(1, 4e-5))),
        host,
        "loihi1",
        Calibration("dynamic", 0, 1, 1.0, 0.1),
        int(rng.integers(1, 400)),
        int(rng.integers(1, 1000)),
        1.0,
        30.0,
        10.0,
        float(rng.integers(2, 7)),
    )


def weights(rng, *shape):
    return rng.uniform(-1.0, 1.0, shape) / np.sqrt(shape[0])


def two_blocks(rng, activation="relu") -> Network:
    """Return memory, units, memory, units, with a residual sum, and a mean over time."""
    first, second = (Memory.legendre(2, 6.0, channels) for channels in (2, 2))
    return Network(
        (
            Node("block.0.memory", LinearMemory(first, 2.0 * weights(rng, 2, 2)), (INPUT,)),
            Node("d1", Dense(2.0 * weights(rng, 4, 3), weights(rng, 3)), ("block.0.memory",)),
            Node("u1", Activation(activation), ("d1",)),
            Node("block.1.memory", LinearMemory(second, weights(rng, 3, 2)), ("u1",)),
            Node("d2", Dense(2.0 * weights(rng, 4, 3), weights(rng, 3)), ("block.1.memory",)),
            Node("sum", Add(), ("d2", "u1")),
            Node("u2", Activation("tanh"), ("sum",)),
            Node("both", Concat(), ("u2", "block.0.memory")),
            Node("mean", Reduce("mean"), ("both",)),
            Node("out", Dense(weights(rng, 7, 2), weights(rng, 2)), ("mean",)),
        ),
        (2,),
        "out",
    )


def saturated(value: int, bits: int, counts: dict[str, int], place: str) -> int:
    limit = 2 ** (bits - 1) - 1
    found = min(max(value, -limit), limit)
    counts[place] += found != value
    return found


def toward_zero(value: int, divisor: int) -> int:
    return value // divisor if value >= 0 else -(-value // divisor)


def dot(weights: np.ndarray, values: list[int]) -> int:
    return sum(int(w) * value for w, value in zip(weights, values, strict=True))


def ms(value: int, gain: int, shift: int) -> int:
    return (value * gain + (1 << shift >> 1)) >> shift


class Neuron:
    """One LIF neuron."""

    def __init__(self, of: LoihiNeurons, state: int, number: int) -> None:
        self.of, self.u, self.v = of, 0, 0
        self.encoder = int(of.encoders[state, number])
        self.bias = int(of.bias_mantissas[state, number]) * 2**of.bias_exponent

    def step(self, message: int) -> int:
        arriving = self.encoder * message // 2**self.of.encoder_exponent
        u = toward_zero(self.u * (4095 - self.of.current_decay), 4096) + 64 * arriving
        self.u = u - 2**24 if u > 2**23 else u + 2**24 if u <= -(2**23) else u
        v = toward_zero(self.v * (4096 - self.of.membrane_decay), 4096) + self.u + self.bias
        self.v = min(max(v, 1 - 2**23), 2**23 - 1)
        if self.v > 64 * self.of.threshold:
            self.v = 0
            return 1
        return 0


def scalar_run(graph: LoihiGraph, inputs: np.ndarray):
    """Run one sample of a graph of one stage in Python's integers.

    Returns
    -------
    rasters : dict of sender to list of lists of 0 and 1
    reads : dict of probe to list of lists of float
    saturations : dict of place to int
    """
    parts = (*graph.ensembles, *graph.probes)
    hold, steps = graph.steps_per_presentation, len(inputs)
    x, r = ({part.name: [0] * part.size for part in parts} for _ in range(2))
    sent = {part.name: [0] * part.size for part in graph.ensembles}
    fired = {part.name: [0] * part.neurons for part in graph.ensembles}
    host = {each.source: [0] * len(each.scales) for each in graph.inputs}
    neurons = {
        part.name: [
            Neuron(part.populations, state, number)
            for state in range(part.size)
            for number in range(part.populations.neurons)
        ]
        for part in graph.ensembles
    }
    rasters = {name: [] for name in graph.senders()}
    reads = {probe.name: [] for probe in graph.probes}
    saturations = {each.place: 0 for each in graph.inputs}
    for part in parts:
        saturations[f"{part.name}/state"] = 0
        if part.populations is not None:
            saturations[f"{part.name}/message"] = 0
    for step in range(steps * hold + 1):
        before = {name: list(messages) for name, messages in sent.items()}
        for part in parts:
            for value in range(part.size):
                slow = toward_zero(x[part.name][value] * (4096 - graph.decay), 4096)
                fast = toward_zero(r[part.name][value] * (4096 - graph.fast_decay), 4096)
                direct = 0
                for each in part.connections:
                    _, rows, columns = each.weights.shape
                    block, row = divmod(value, rows)
                    spikes = fired[each.source][block * columns : (block + 1) * columns]
                    total = sum(
                        int(w) * s for w, s in zip(each.weights[block, row], spikes, strict=True)
                    )
                    change = ms(total, int(each.multiplier[value]), int(each.shift[value]))
                    slow, fast = (slow, fast + change) if each.fast else (slow + change, fast)
                for each in part.currents:
                    total = sum(
                        int(w) * i
                        for w, i in zip(each.weights[value], host[each.source], strict=True)
                    )
                    change = ms(total, int(each.multiplier[value]), int(each.shift[value]))
                    slow, direct = (
                        (slow, direct + change) if each.direct else (slow + change, direct)
                    )
                place = f"{part.name}/state"
                x[part.name][value] = saturated(slow, 24, saturations, place)
                r[part.name][value] = saturated(fast, 24, saturations, place)
                whole = x[part.name][value] + r[part.name][value] + direct
                drive = saturated(whole, 24, saturations, place)
                if part.populations is not None:
                    message = ms(drive, 1, part.message_shift)
                    place = f"{part.name}/message"
                    sent[part.name][value] = saturated(message, 16, saturations, place)
                elif step % hold == 0 and step:
                    reads[part.name] += [[]] if value == 0 else []
                    reads[part.name][-1].append(drive / 2**20 * part.scales[value])
        if step < steps * hold:
            if step % hold == 0:
                values = {INPUT: inputs[step // hold], "": [1.0]}
                new = {
                    each.source: [
                        saturated(round(v / s), 16, saturations, each.place)
                        for v, s in zip(values[each.source], each.scales, strict=True)
                    ]
                    for each in graph.inputs
                }
            fired = {
                name: [
                    neuron.step(before[name][number // graph[name].populations.neurons])
                    for number, neuron in enumerate(own)
                ]
                for name, own in neurons.items()
            }
            host = new
        for part in graph.ensembles:
            last = step == steps * hold
            rasters[part.name].append([0] * part.neurons if last else fired[part.name])
            relayed = [int(m != 0) for m in sent[part.name]]
            rasters[part.relays].append([0] * part.size if last else relayed)
        for each in graph.inputs:
            told = [int(m != 0) for m in host[each.source]]
            rasters[each.place].append([0] * len(told) if step == steps * hold else told)
    return rasters, reads, saturations
