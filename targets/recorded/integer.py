"""Recordings of integer networks, in integers wherever the recorded numbers allow it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.network import HostNodes, IntegerNetwork
from lmu_deploy.core.integer.parts import Place
from lmu_deploy.core.integer.populations import Input
from targets.base import States
from targets.recorded.file import COUNTS, EVENTS, LIST, SCALES, SPIKES, STATES, WHOLE, Recording


def _senders(network: IntegerNetwork) -> dict[str, Place]:
    """Return what sends events, and the population that it is part of, such as a series."""
    found = {str(p.place): p.place for p in network.populations}
    return found | {str(p.entrance): p.place for p in network.populations}


def reasons(recording: Recording, network: IntegerNetwork) -> list[str]:
    """Return why a recording is none of a network: names that it lacks, and no outputs."""
    parts: dict[str, Collection[str]]
    parts = {STATES: [str(p.place) for p in network.populations], EVENTS: _senders(network)}
    found = [
        f"{name} names no population of the network ({', '.join(sorted(known))})"
        for beginning, known in parts.items()
        for name, place in recording.named(beginning)
        if place not in known
    ]
    found += [
        f"{name} is of spikes, which an integer network has not"
        for name, _ in recording.named(SPIKES, COUNTS, LIST)
    ]
    if "y" not in recording.arrays and f"{STATES}{network.output}" not in recording.arrays:
        found.append("the recording has no outputs y")
    return found


class IntegerRecording:
    """A recording of an integer network, cut into populations.

    Parameters
    ----------
    recording : Recording
    network : IntegerNetwork
    inputs : ndarray, shape (samples, steps, n_in)

    Attributes
    ----------
    notes : list of str
        What is not judged, and why.
    """

    def __init__(self, recording: Recording, network: IntegerNetwork, inputs: np.ndarray) -> None:
        from lmu_deploy.core.integer.graph import frame_counts  # which imports SciPy

        self.recording, self.network = recording, network
        self.samples, self.steps = inputs.shape[:2]
        self.frames = frame_counts(network, self.steps)
        self.notes: list[str] = []
        senders = _senders(network)
        self.named = {place: senders[place] for _, place in recording.named(EVENTS)}

    def run(self, record: bool) -> dict[str, Any]:
        """Return what a Run of the recording has, by the names of its attributes."""
        from lmu_deploy.core.integer.graph import sources  # which imports SciPy

        return {
            "outputs": self.outputs(),
            "events": self.events(),
            "states": self.states() if record else None,
            "neurons": {str(place): s.neurons for place, s in sources(self.network).items()},
            "notes": tuple(self.notes),
        }

    def _shape(self, place: Place) -> tuple[int, int, int]:
        return self.samples, self.frames[place], self.network[place].size

    def outputs(self) -> np.ndarray:
        """Return the outputs as real numbers, of the last frame for a network that answers once."""
        network, shape = self.network, self._shape(self.network.output)
        found = self.recording
        if "y" not in found.arrays:
            states = found.arrays[f"{STATES}{network.output}"]
            found = replace(found, arrays={**found.arrays, "y": states})
        y, whole = found.outputs(shape, network.y_scale, network.return_sequences)
        units = y.astype(np.float64) / network.y_scale
        on_chip = not isinstance(network[network.output], HostNodes)
        if on_chip and np.abs(units - np.rint(units)).max(initial=0.0) <= WHOLE:
            y = np.rint(units) * network.y_scale  # exact, although y may be in single precision
        return y if network.return_sequences or not whole else y[:, -1]

    def events(self) -> dict[str, np.ndarray]:
        """Return recorded events by population."""
        return {
            name: self.recording.array(
                f"{EVENTS}{name}", (self.samples, self.frames[place])
            ).astype(np.int64)
            for name, place in self.named.items()
        }

    def states(self) -> States:
        """Return what was recorded as states, in integers wherever it can be."""
        found: dict[Place, np.ndarray] = {}
        for array, populations in (("m", self.network.memories), ("h", self.network.units)):
            alone = all(f"{STATES}{p.place}" in self.recording.arrays for p in populations)
            if array in self.recording.arrays and not alone:
                found |= self._cut(array, list(populations))
        for p in self.network.populations:
            name = f"{STATES}{p.place}"
            if name in self.recording.arrays and not isinstance(p, Input):
                self._take(found, p, name, self.recording.array(name, self._shape(p.place)))
        output = self.network.output
        if output not in found and "y" in self.recording.arrays:
            y = self.recording.arrays["y"]
            if y.ndim == 3:
                self._take(found, self.network[output], "y", y[: self.samples])
        return self._joined(found)

    def _cut(self, array: str, populations: list[Any]) -> dict[Place, np.ndarray]:
        """Cut the columns of m or h into those of each population."""
        frames = {self.frames[p.place] for p in populations}
        if len(frames) > 1:
            raise InputError(
                f"{self.recording.name}: populations in {array} have different numbers of frames; "
                f"record each as {STATES}PLACE."
            )
        sizes = [p.size for p in populations]
        shape = self.samples, *frames, sum(sizes)
        values, found, start = self.recording.array(array, shape), dict[Place, np.ndarray](), 0
        for p, size in zip(populations, sizes, strict=True):
            self._take(found, p, array, values[..., start : start + size], start, shape[-1])
            start += size
        return found

    def _take(
        self,
        found: dict[Place, np.ndarray],
        p: Any,
        name: str,
        values: np.ndarray,
        start: int = 0,
        columns: int | None = None,
    ) -> None:
        """Keep an array of a population, as integers in its own units if it is one."""
        columns = p.size if columns is None else columns
        if isinstance(p, HostNodes):
            found[p.place] = values.astype(np.float64)
            return
        scale = f"{name}_scale" if f"{name}_scale" in SCALES else ""
        if values.dtype.kind in "biu" and scale not in self.recording.arrays:
            found[p.place] = values.astype(np.int64)
            return
        default = np.full(columns, p.scale if values.dtype.kind in "biu" else 1.0)
        unit = self.recording.number(scale, columns, default)[start : start + p.size]
        units = values * (unit / p.scale)
        whole = np.rint(units)
        if np.abs(units - whole).max(initial=0.0) <= WHOLE:
            found[p.place] = whole.astype(np.int64)
        else:
            self.notes.append(
                f"{name} holds real numbers of {p.place} that are no whole multiples of "
                f"{p.scale:.3g}, so they cannot equal the specification's integers and are not "
                "replayed."
            )

    def _joined(self, found: dict[Place, np.ndarray]) -> States:
        """Return States; arrays that were not recorded have no columns."""
        network = self.network
        whole = all(p.place in found for p in (*network.memories, *network.units))
        if whole and network.output in found:
            return States.of_integers(network, found)
        m = [found[p.place] for p in network.memories if p.place in found]
        same = len(m) == len(network.memories) and len({a.shape[1] for a in m}) == 1
        same = (
            same and network.output in found and not isinstance(network[network.output], HostNodes)
        )
        frames = max(self.frames.values())
        none = np.zeros((self.samples, frames, 0), np.int32)
        scales = [np.full(p.size, p.scale) for p in network.memories] if same and m else []
        parts = {str(place): values for place, values in found.items()}
        states = States(none, none, none, np.zeros(0), np.zeros(0), 1.0, parts=parts)
        if not same or not m:
            return states
        from lmu_deploy.core.integer.graph import memory_basis  # which imports SciPy

        return replace(
            states,
            m=np.concatenate(m, axis=2),
            y=found[network.output],
            y_scale=network.y_scale,
            m_scale=np.concatenate(scales),
            m_basis=memory_basis(network),
        )
