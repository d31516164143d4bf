"""Test vectors: a network, inputs, and every state of every frame, in one JSON file.

The file needs no library of this project to be read: it names every population with the fields of
its rule, every edge with its weights, and for some sequences what each population computed. The
states come from the definitions of docs/reference/integer-semantics.md, evaluated one frame and one
edge at a time, in the plainest way (:func:`frames_of`).
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import write_text
from lmu_deploy.core.integer.graph import check_frames, components, frame_counts
from lmu_deploy.core.integer.memories import Series
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.parts import Edge, Format, Place
from lmu_deploy.core.integer.populations import Input, Population
from lmu_deploy.core.integer.reductions import Reduction

SPECIFICATION = 2
"""Version of integer-semantics.md that the states follow."""
FORMAT = 1


def frames_of(network: IntegerNetwork, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Return what every population computes for one sequence, straight from the definitions.

    Parameters
    ----------
    network : IntegerNetwork
    inputs : ndarray, shape (steps, features)
        Real inputs, or tokens.

    Returns
    -------
    dict of str to ndarray, shape (frames, neurons), int64
        By the text of the place: states of memories, messages of the input and of all others.

    Raises
    ------
    InputError
        When nodes run on the host.
    """
    if network.on_host:
        raise InputError("test vectors are of integers, and some nodes run on the host.")
    return _Definition(network, np.asarray(inputs)).run()


class _Definition:
    """All frames so far of every population."""

    def __init__(self, network: IntegerNetwork, inputs: np.ndarray) -> None:
        self.network, self.counts = network, frame_counts(network, len(inputs))
        entry = network.input
        if entry.tokens:
            messages = entry.one_hot(inputs)
        else:
            limit = entry.message.limit
            messages = np.rint(entry.scaled(inputs) / entry.message.scale).clip(-limit, limit)
        self.sent: dict[Place, list[np.ndarray]] = {p.place: [] for p in network.populations}
        self.sent[entry.place] = [row.astype(np.int64) for row in messages]
        self.recorded: dict[Place, list[np.ndarray]] = {p: [] for p in self.sent}
        self.recorded[entry.place] = self.sent[entry.place]
        self.states: dict[Place, Any] = {}

    def run(self) -> dict[str, np.ndarray]:
        """Compute frame n of every population that has one, for n = 0, 1, ...

        A population that reads later frames of another waits for all of them: populations that
        feed back into each other advance together, all others whole sequences at a time.
        """
        for component in components(self.network):
            members = [p for p in component.populations if isinstance(p, Population)]
            if isinstance(members[0], Input):
                continue
            for p in members:
                self.states[p.place] = p.start(1)
            first = members[0]
            frames = self.counts[first.place]
            if isinstance(first, Reduction):
                (*_, edge) = self.network.entering(first.entrance)
                frames = edge.frames(len(self.sent[edge.source]))
            for n in range(frames):
                for p in members:
                    self._frame(p, n)
            if isinstance(first, Reduction):
                messages, _ = first.finish(self.states[first.place])
                self.sent[first.place] = self.recorded[first.place] = [messages[0]]
        return {str(place): np.stack(rows) for place, rows in self.recorded.items()}

    def _frame(self, p: Population, n: int) -> None:
        drive = np.zeros((1, p.drive_size), np.int64)
        for edge in self.network.entering(p.entrance):
            drive[0, edge.row : edge.row + edge.connection.n_out] += self._drive(edge, n)
        state, messages, _ = p.update(self.states[p.place], drive)
        self.states[p.place] = state
        self.sent[p.place].append(messages[0])
        self.recorded[p.place].append(np.asarray(p.recorded(state, messages))[0])

    def _drive(self, edge: Edge, n: int) -> np.ndarray:
        """Return D of one edge: the gains and shifts of the limited sums of each slice."""
        connection = edge.connection
        frames = self._held(edge)
        taps = []
        for offset in edge.offsets:
            at = edge.stride * n + offset
            if 0 <= at < len(frames):
                taps.append(frames[at])
            else:
                taps.append(
                    self._before(edge) if at == -1 and edge.recurrent else 0 * taps_like(edge)
                )
        x = np.concatenate(taps)
        limit = 2 ** (connection.accumulator_bits - 1) - 1
        total = np.zeros(connection.n_out, np.int64)
        for k, weights in enumerate(connection.slices.astype(np.int64)):
            sums = np.clip(weights @ x, -limit, limit)
            shift = connection.shift[k].astype(np.int64)
            half = (np.int64(1) << shift) >> 1
            total += (sums * connection.multiplier[k] + half) >> shift
        return total

    def _before(self, edge: Edge) -> np.ndarray:
        """Return the messages before the first frame."""
        source = self.network[edge.source]
        first = source.first_message if isinstance(source, Population) else None
        return taps_like(edge) if first is None else first.astype(np.int64)

    def _held(self, edge: Edge) -> list[np.ndarray]:
        """Return the value of each frame of its source at the edge's receivers."""
        threshold, frames = edge.connection.threshold, self.sent[edge.source]
        if not threshold:
            return frames
        held, known = [], self._before(edge)
        for messages in frames:
            change = messages - known
            known = known + np.where(np.abs(change) >= threshold, change, 0)
            held.append(known)
        return held


def taps_like(edge: Edge) -> np.ndarray:
    """Return messages of zero of the edge's source."""
    return np.zeros(edge.n_source, np.int64)


def write_vectors(
    network: IntegerNetwork,
    path: Path | str,
    *,
    inputs: np.ndarray | None = None,
    samples: int = 2,
    steps: int = 32,
    seed: int = 0,
) -> Path:
    """Write a network with test vectors as one JSON file.

    Parameters
    ----------
    network : IntegerNetwork
    path : path
    inputs : ndarray, shape (samples, steps, features), optional
        Real inputs, or tokens; by default drawn over the whole range of a message.
    samples, steps, seed : int
        Of inputs that are drawn.

    Returns
    -------
    path
        The file that was written.

    Raises
    ------
    InputError
        When nodes run on the host, inputs do not fit, or the file cannot be written.
    """
    entry = network.input
    if inputs is None:
        rng = np.random.default_rng(seed)
        if entry.tokens:
            inputs = rng.integers(0, entry.size, (samples, steps, 1))
        else:
            limit = entry.message.limit
            drawn = rng.integers(-limit, limit + 1, (samples, steps, entry.size))
            inputs = entry.unscaled(drawn)
    inputs = np.asarray(inputs)
    if inputs.ndim != 3 or inputs.shape[2] != entry.features or 0 in inputs.shape:
        raise InputError(
            f"inputs have the shape {inputs.shape}; give (samples, steps, {entry.features})."
        )
    check_frames(network, inputs.shape[1])
    tree = {
        "format": FORMAT,
        "specification": SPECIFICATION,
        "fingerprint": network.fingerprint(),
        "output": str(network.output),
        "populations": [_population(p) for p in network.populations if isinstance(p, Population)],
        "edges": [_edge(edge) for edge in network.edges],
        "samples": [
            {place: rows.tolist() for place, rows in frames_of(network, sample).items()}
            for sample in inputs
        ],
    }
    write_text(path, json.dumps(tree, separators=(",", ":")) + "\n")
    return Path(path)


def _population(p: Population) -> dict[str, Any]:
    assert dataclasses.is_dataclass(p)
    names = [f.name for f in dataclasses.fields(p) if f.name != "basis"]
    fields = {name: _plain(getattr(p, name)) for name in names}
    if "kind" in fields:
        fields["reduction_kind"] = fields.pop("kind")
    entrance = {"entrance": str(p.entrance)} if isinstance(p, Series) else {}
    return {"kind": type(p).__name__, **fields, "size": p.size, **entrance}


def _edge(edge: Edge) -> dict[str, Any]:
    connection = edge.connection
    return {
        "source": str(edge.source),
        "target": str(edge.target),
        "name": edge.name,
        "offsets": list(edge.offsets),
        "stride": edge.stride,
        "after": edge.after,
        "row": edge.row,
        "threshold": connection.threshold,
        "accumulator_bits": connection.accumulator_bits,
        "weights": connection.slices.tolist(),
        "gains": connection.multiplier.tolist(),
        "shifts": connection.shift.tolist(),
    }


def _plain(value: Any) -> Any:
    """Return a field as numbers, texts and lists."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Place):
        return str(value)
    if isinstance(value, Format):
        return {"bits": value.bits, "scale": value.scale}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if "kind" in fields:
            fields["function_kind"] = fields.pop("kind")
        return {"kind": type(value).__name__, **fields}
    return value
