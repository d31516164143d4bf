"""Round trips of drawn networks: to a file, to ONNX, to PyTorch and to NIR, and back.

The networks are those of `tests/support/graphs.py`: any operators in any order, with branches that
meet again, weights in float32 or float64. A network comes back equal when its fingerprint, a hash
of its structure and of every bit of its weights, and the names of its nodes are the same. Answers
are compared with the float64 executor on three sequences of up to 40 steps more than the network
needs, relative to the largest answer where that exceeds one; ONNX Runtime computes in float32.

    python benchmarks/round_trips.py [--networks 200] [--save round-trips/drawn]

Exit code 1 when a network comes back changed, or an answer differs by more than 1e-5.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import results
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import load
from lmu_deploy.core.graph.executor import run
from lmu_deploy.core.graph.network import GRAPH_CLASSES, Network
from lmu_deploy.core.graph.transforms import as_layers
from lmu_deploy.core.network import LMUNetwork

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from graphs import fewest_steps, inputs_for, networks
from onnx_runs import error, run_model, step_error

TOLERANCE = 1e-5
COLUMNS = [
    ("to and back", "{}"),
    ("networks", ">{:d}"),
    ("come back equal", ">{:d}"),
    ("largest difference of an answer", ">{:.1e}"),
    ("refused", "{}"),
]


@dataclass
class Trip:
    """Results of one kind of round trip."""

    name: str
    done: int = 0
    equal: int = 0
    worst: float | None = None
    refused: list[str] = field(default_factory=list)

    def count(self, network: Network, again: Network, difference: float | None) -> None:
        """Count a network that came back."""
        same = again.fingerprint() == network.fingerprint()
        names = [node.name for node in again.nodes] == [node.name for node in network.nodes]
        self.done += 1
        self.equal += same and names
        if difference is not None:
            self.worst = max(self.worst or 0.0, difference)

    @property
    def holds(self) -> bool:
        """Whether every network came back equal and answered within the tolerance."""
        return self.done == self.equal and (self.worst or 0.0) <= TOLERANCE


def draw(number: int) -> list[tuple[Network, int]]:
    """Return networks that hypothesis draws, each with a seed for its inputs."""
    found: list[tuple[Network, int]] = []

    @seed(0)
    @settings(
        max_examples=number,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(networks(), st.integers(0, 2**32 - 1))
    def collect(network: Network, start: int) -> None:
        found.append((network, start))

    while len(found) < number:  # a strategy may be exhausted of new examples early
        collect()
    return found[:number]


def measure(drawn: list[tuple[Network, int]]) -> list[Trip]:
    """Take every network through every round trip."""
    from converters.nir import from_nir, to_nir
    from converters.onnx import from_onnx, to_onnx, to_onnx_step
    from lmu_deploy.nn.convert import to_torch

    trips = [Trip(name) for name in (
        "model file (.safetensors)", "ONNX, whole sequences", "ONNX, one step", "PyTorch", "NIR",
        "NIR, as a chain of LMU layers",
    )]  # fmt: skip
    file, whole, step, torch, nir, chain = trips
    for network, start in drawn:
        steps = fewest_steps(network) + start % 41
        inputs = inputs_for(network, 3, steps, start).astype(np.float32)
        expected = run(network, inputs)
        with tempfile.TemporaryDirectory() as folder:
            again = load(network.save(Path(folder) / "network.safetensors"), GRAPH_CLASSES)
        file.count(network, again, error(run(again, inputs), expected))
        model = to_onnx(network)
        found = run_model(model, inputs)["output"]
        whole.count(network, from_onnx(model), error(found, expected))
        if (model := _if_possible(to_onnx_step, network, step)) is not None:
            difference = step_error(model, inputs, expected, network.return_sequences)
            step.count(network, from_onnx(model), difference)
        torch.count(network, to_torch(network).to_network(), None)
        if (graph := _if_possible(to_nir, network, nir)) is not None:
            _count_nir(network, from_nir(graph), nir, chain)
    return [trip for trip in trips if trip.done]


def _count_nir(network: Network, again: Network | LMUNetwork, nir: Trip, chain: Trip) -> None:
    """Count a network that came back from NIR, which writes some as layers without names."""
    if isinstance(again, Network):
        nir.count(network, again, None)
        return
    chain.done += 1
    chain.equal += again.fingerprint() == as_layers(network, "NIR").fingerprint()


def _if_possible(make: Callable, network: Network, trip: Trip) -> object:
    """Return what is made of a network; note a refusal and return None otherwise."""
    try:
        return make(network)
    except InputError as refusal:
        trip.refused.append(str(refusal))
        return None


WHY = {
    "ONNX, one step": "{} need inputs of later steps",
    "NIR": "{} have operators that NIR has no node for",
}


def main() -> int:
    """Measure and print or save the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", type=int, default=200)
    parser.add_argument("--save")
    given_options = parser.parse_args()
    trips = measure(draw(given_options.networks))
    rows = [
        [t.name, t.done, t.equal, t.worst, WHY[t.name].format(len(t.refused)) if t.refused else ""]
        for t in trips
    ]
    results.publish(
        COLUMNS, rows, argparse.Namespace(save=given_options.save, append=False), seed=0
    )
    return 0 if all(trip.holds for trip in trips) else 1


if __name__ == "__main__":
    raise SystemExit(main())
