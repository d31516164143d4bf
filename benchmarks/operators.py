"""Widths and errors of every operator in integers: each alone, with random weights and inputs.

Inputs are filtered noise of 100 steps; 256 samples calibrate and 32 others are measured. The error
is the root mean square of the difference from float64 divided by that of float64, with the defaults
of quantize and with wide messages (14 bits, two slices for every matrix).

    python benchmarks/operators.py --save digital/operators
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

import numpy as np
import results
from scipy.signal import lfilter

from converters.quantize import quantize
from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.graph.frames import LayerNorm, RMSNorm
from lmu_deploy.core.graph.linear import Affine, Conv1d, Dense, Embedding
from lmu_deploy.core.graph.lmu import LMU
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.operator import Operator
from lmu_deploy.core.graph.pointwise import Activation, Add, Concat, Multiply
from lmu_deploy.core.graph.recurrent import GRU, LSTM, SimpleRNN
from lmu_deploy.core.graph.time import Delay, Pool, Reduce, Reverse
from lmu_deploy.core.integer.network import HostNodes, IntegerNetwork
from lmu_deploy.core.integer.populations import Input
from lmu_deploy.core.network import Memory
from targets.integer import IntegerTarget

WIDE: dict[str, int] = {"message_bits": 14, "hidden_bits": 14, "kernel_slices": 2}
UNITS, ORDER, THETA, STEPS, TOKENS = 16, 8, 20.0, 100, 32
ACTIVATIONS = (
    "relu",
    "tanh",
    "sigmoid",
    "leaky-relu",
    "elu",
    "gelu",
    "silu",
    "softplus",
    "hard-sigmoid",
)
COLUMNS = [
    ("operator", "{}"),
    ("populations", "{}"),
    ("message bits", "{}"),
    ("synapses", ">{:,d}"),
    ("error, defaults", ">{:.2f} %"),
    ("error, wide", ">{:.3f} %"),
]


def operators(rng: np.random.Generator) -> Mapping[str, Callable[[], list[Operator]]]:
    """Return what is measured: names and operators that follow each other."""

    def w(*shape: int) -> np.ndarray:
        return rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))

    n, memory = UNITS, Memory.legendre(ORDER, THETA, 2)
    found: dict[str, Callable[[], list[Operator]]] = {
        "Dense": lambda: [Dense(w(n, n), w(n))],
        "Affine (BatchNorm)": lambda: [Affine(1 + 0.3 * w(n), w(n))],
        "Conv1d, 3 steps": lambda: [Conv1d(w(3, n, n), w(n), left=2)],
        "Embedding": lambda: [Embedding(w(TOKENS, n)), Dense(w(n, n))],
        "LinearMemory": lambda: [LinearMemory(memory, w(n, 2))],
        "LinearMemory, relu encoder": lambda: [
            LinearMemory(memory, w(n, 2), w(2), Activation("relu"))
        ],
        "LMU, dense units": lambda: [
            LMU(memory, w(n, 2), SimpleRNN(w(2 * ORDER, n), None, w(n), Activation("tanh")))
        ],
        "LMU, recurrent units": lambda: [
            LMU(memory, w(n, 2), SimpleRNN(w(2 * ORDER, n), w(n, n), w(n), Activation("tanh")))
        ],
        "LSTM": lambda: [LSTM(w(n, 4 * n), w(n, 4 * n), w(4 * n))],
        "GRU": lambda: [GRU(w(n, 3 * n), w(n, 3 * n), w(3 * n))],
        "SimpleRNN": lambda: [SimpleRNN(w(n, n), 0.5 * w(n, n), w(n), Activation("tanh"))],
        "Pool, average of 4": lambda: [Pool("average", 4, 4)],
        "Pool, maximum of 4": lambda: [Pool("max", 4, 4)],
        "Delay": lambda: [Delay(5)],
        "Reduce, mean": lambda: [Activation("relu"), Reduce("mean")],
        "Reduce, maximum": lambda: [Activation("relu"), Reduce("max")],
        "LayerNorm": lambda: [LayerNorm(np.ones(n), np.zeros(n))],
        "RMSNorm": lambda: [RMSNorm(np.ones(n))],
        "Reverse": lambda: [Reverse()],
    }
    for name in ACTIVATIONS:
        found[f"Activation, {name}"] = lambda name=name: [Dense(w(n, n)), Activation(name)]
    return found


def chain(parts: list[Operator], width: int = UNITS) -> Network:
    """Return the operators one behind the other, the first of which has `width` inputs."""
    tokens = isinstance(parts[0], Embedding)
    nodes = [
        Node(f"node_{i}", part, (f"node_{i - 1}" if i else INPUT,)) for i, part in enumerate(parts)
    ]
    return Network(tuple(nodes), (1 if tokens else width,), nodes[-1].name)


def branches(rng: np.random.Generator) -> dict[str, Network]:
    """Return the operators of several inputs, behind two dense branches."""
    found = {}
    for name, operator in {"Add": Add(), "Concat": Concat(), "Multiply": Multiply()}.items():
        nodes = []
        for branch in ("a", "b"):
            kernel = rng.normal(size=(UNITS, UNITS)) / np.sqrt(UNITS)
            nodes.append(Node(branch, Dense(kernel), (INPUT,)))
            nodes.append(Node(f"{branch}_tanh", Activation("tanh"), (branch,)))
        nodes.append(Node("end", operator, ("a_tanh", "b_tanh")))
        found[name] = Network(tuple(nodes), (UNITS,), "end")
    return found


def inputs(network: Network, samples: int, rng: np.random.Generator) -> np.ndarray:
    """Return filtered noise, or tokens where the network embeds its input."""
    if isinstance(network.nodes[0].operator, Embedding):
        return rng.integers(0, TOKENS, size=(samples, STEPS, 1)).astype(np.float64)
    noise = rng.normal(size=(samples, STEPS + 50, UNITS))
    return np.asarray(lfilter([0.3], [1.0, -0.95], noise, axis=1)[:, 50:])


def described(network: IntegerNetwork) -> tuple[str, str]:
    """Return the kinds of populations and the widths of their messages, without the input."""
    kinds, bits = [], []
    for population in network.populations:
        if isinstance(population, Input):
            continue
        kind = "host" if isinstance(population, HostNodes) else type(population).__name__
        kinds.append(kind)
        message = getattr(population, "message", None)
        bits.append("" if message is None else str(message.bits))
    return ", ".join(dict.fromkeys(kinds)), ", ".join(dict.fromkeys(b for b in bits if b))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    results.add_options(parser)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    networks = {name: chain(make()) for name, make in operators(rng).items()} | branches(rng)
    rows: list[list[results.Cell]] = []
    for name, network in networks.items():
        some, x = inputs(network, 256, rng), inputs(network, 32, rng)
        truth = run(network, x)
        errors: list[float] = []
        for options in ({}, WIDE):
            integer = quantize(network, some, **options)
            found = IntegerTarget().run(integer, x).outputs.reshape(truth.shape)
            errors.append(100.0 * float(np.sqrt(np.mean((found - truth) ** 2) / np.mean(truth**2))))
            if not options:
                made, bits = described(integer)
                synapses = int(
                    sum(np.count_nonzero(edge.connection.slices) for edge in integer.edges)
                )
        rows.append([name, made, bits, synapses, *errors])
        print(*rows[-1], flush=True)
    results.publish(COLUMNS, rows, arguments, seed=arguments.seed)


if __name__ == "__main__":
    main()
