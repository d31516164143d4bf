"""An integer network in integer operators; what it sends and limits is counted by the graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from lmu_deploy.integer_network import Format, IntegerNetwork
from lmu_deploy.wiring import memory_basis, outlets, populations
from targets.base import States


def messages_of(inputs: np.ndarray, message: Format) -> tuple[np.ndarray, int]:
    """Give the input messages ``sat(rint(real / scale))``, int32, and how many were limited."""
    exact = np.rint(inputs / message.scale)
    limited = int(np.count_nonzero(np.abs(exact) > message.limit))
    return np.clip(exact, -message.limit, message.limit).astype(np.int32), limited


def collect_integers(
    network: IntegerNetwork, limited: int, batches: Iterable[dict[str, np.ndarray]], record: bool
) -> dict[str, Any]:
    """Give what a Run says of an integer network.

    Parameters
    ----------
    network : IntegerNetwork
    limited : int
        Inputs that were limited.
    batches : iterable of mapping
        Outputs of the sequence model with its tally; see :mod:`converters.onnx.quantised.tally`.
    record : bool
        Whether they hold the states.
    """
    neurons = {name: population.neurons for name, population in populations(network).items()}
    wires_of = {
        f"events/{outlet.source}/{outlet.threshold}": outlet.wires for outlet in outlets(network)
    }
    wanted = ["output", *wires_of] + (["m", "h", "y"] * record)
    kept: dict[str, list[np.ndarray]] = {name: [] for name in wanted}
    saturations = Counter({"input": limited})
    # A series of one term sends no V_k, so its graph has no such place to count at.
    saturations.update({f"{name}/message": 0 for name in neurons if name.endswith("/series")})
    rasters: dict[str, np.ndarray] = {}
    for batch in batches:
        for name in set(wanted) & set(batch):
            kept[name].append(batch[name])
        for name, value in batch.items():
            kind, _, where = name.partition("/")
            if kind == "saturations":
                saturations[where] += int(value)
            elif kind == "first":
                rasters.setdefault(where, value.clip(max=255).astype(np.uint8))
    results = {name: np.concatenate(parts) for name, parts in kept.items() if parts}
    counts = {name: results[name].astype(np.int64) for name in wires_of}
    return {
        "outputs": results["output"] * network.chip_readout.output.scale,
        "neurons": neurons,
        "events": {name: _events(counts, name) for name in neurons},
        "synops": sum(int(counted[..., 1].sum()) for counted in counts.values()),
        "carried": {
            wire.place: int(counts[name][..., 0].sum())
            for name, served in wires_of.items()
            for wire in served
        },
        "saturations": dict(saturations),
        "states": _states(network, results) if record else None,
        "rasters": rasters,
    }


def _events(counts: dict[str, np.ndarray], population: str) -> np.ndarray:
    """Add up what a population sent under all thresholds; shape (samples, steps)."""
    own = [c[..., 0] for name, c in counts.items() if name.startswith(f"events/{population}/")]
    return np.asarray(np.sum(own, axis=0, dtype=np.int64))


def _states(network: IntegerNetwork, results: dict[str, np.ndarray]) -> States:
    """Give the recorded states; a network without hidden units has no ``h``."""
    m, y = results["m"], results["y"]
    h = results.get("h", np.empty((*m.shape[:2], 0), dtype=np.int32))
    m_scale = [np.full(layer.memory.size, layer.memory.state.scale) for _, layer in network.on_chip]
    h_scale = [
        np.full(layer.hidden.units, layer.hidden.message.scale)
        for _, layer in network.on_chip
        if layer.hidden is not None
    ]
    return States(
        m,
        h,
        y,
        np.concatenate(m_scale),
        np.concatenate([*h_scale, np.empty(0)]),
        network.chip_readout.output.scale,
        memory_basis(network),
    )
