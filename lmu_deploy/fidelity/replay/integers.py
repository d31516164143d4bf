r"""Replay of a recording: what the specification computes from the target's own states.

An integer network has one right answer at every step. From the states and messages that a target
recorded up to frame t, :meth:`Population.update` gives those of frame t + 1; what the target
recorded there minus this prediction is the residual. A residual that is not zero is an error made
at this frame, in this population: errors of earlier frames, and of populations before it, are in
the states from which it was predicted and leave no residual. A recording therefore shows not only
that a target differs but where.

What was not recorded is filled in by the prediction. With nothing recorded, the replay is the
specification itself, one frame at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.graph import Component, components, frame_counts, taken_frames
from lmu_deploy.core.integer.network import HostNodes, IntegerNetwork
from lmu_deploy.core.integer.parts import Edge, Place
from lmu_deploy.core.integer.populations import Input, Population
from lmu_deploy.core.integer.reductions import Reduction
from lmu_deploy.core.validation import check_inputs
from targets.base import States, flat_frames
from targets.host import HostStreams, each

Touch = Callable[[Place, int, np.ndarray], np.ndarray]
"""Changes what a population recorded at a frame, (place, frame, values) to values."""


MOST_NEURONS = 3
"""Neurons of one population that are named one by one."""


@dataclass(frozen=True)
class Fault:
    """A statement that explains wrong integers.

    Attributes
    ----------
    kind : str
        Such as ``stuck`` or ``column lost``.
    place : str
        Of a population or an edge.
    index : tuple of int
        Neurons, rows or columns; empty where all are concerned.
    words : str
        One sentence.
    wrong : int
        Recorded integers that remain unexplained.
    """

    kind: str
    place: str
    index: tuple[int, ...]
    words: str
    wrong: int = 0


@dataclass(frozen=True)
class Residual:
    """One recorded integer that differs from its prediction.

    Attributes
    ----------
    sample, step : int
        `step` counts the frames of the population.
    place : Place
    neuron : int
    recorded, predicted : int
    """

    sample: int
    step: int
    place: Place
    neuron: int
    recorded: int
    predicted: int

    def __str__(self) -> str:
        """Return the residual in words."""
        return (
            f"neuron {self.neuron} of {self.place} at step {self.step} of sample {self.sample}: "
            f"{self.recorded:,} instead of {self.predicted:,}"
        )


def recorded_parts(
    network: IntegerNetwork, states: States, samples: int | None = None
) -> dict[Place, np.ndarray]:
    """Return what a target recorded of each population, where it did.

    Parameters
    ----------
    network : IntegerNetwork
    states : States
    samples : int, optional
        Only so many first samples.

    Returns
    -------
    dict of Place to ndarray, shape (samples, frames, neurons)
        int64; of nodes on the host float64.
    """
    found = {}
    for p in network.populations:
        if (values := states.parts.get(str(p.place))) is not None:
            values = values[:samples]
            found[p.place] = values if isinstance(p, HostNodes) else values.astype(np.int64)
    return found


class Replay:
    """All predictions for a recording, and its residuals.

    Parameters
    ----------
    network : IntegerNetwork
    inputs : ndarray, shape (samples, steps, n_in)
        Real inputs.
    recorded : mapping of Place to ndarray, shape (samples, frames, neurons)
        Of any of the populations; by default of none.
    touch : callable, optional
        Changes what is predicted of populations that were not recorded: a fault of a target.
    numbers : ndarray of int, shape (samples,), optional
        Numbers of the samples in statements.

    Attributes
    ----------
    predicted : dict of Place to ndarray, shape (samples, frames, neurons)
        As recorded, of all populations on the chip but the input.
    messages : dict of Place to ndarray, shape (samples, frames, neurons)
        What each population sends, according to the recording where there is one.

    Raises
    ------
    InputError
        When the shape of a recorded array does not fit the network and its inputs.
    """

    def __init__(
        self,
        network: IntegerNetwork,
        inputs: np.ndarray,
        recorded: Mapping[Place, np.ndarray] | None = None,
        touch: Touch | None = None,
        numbers: np.ndarray | None = None,
    ) -> None:
        inputs = check_inputs(flat_frames(inputs), network.n_in)
        self.network, self.inputs, self._touch = network, inputs, touch
        self.recorded = dict(recorded or {})
        self.samples = len(inputs)
        self.numbers = np.arange(self.samples) if numbers is None else numbers
        self._frames = frame_counts(network, inputs.shape[1])
        self._taken = taken_frames(network, inputs.shape[1])
        for place, values in self.recorded.items():
            shape = self.samples, self._frames[place], network[place].size
            if values.shape != shape:
                raise InputError(
                    f"the recording of {place} has shape {values.shape}, and the network and its "
                    f"inputs need {shape}."
                )
        self.predicted: dict[Place, np.ndarray] = {}
        self.messages: dict[Place, np.ndarray] = {}
        for component in components(network):
            first = component.populations[0]
            if isinstance(first, Input):
                self._enter(first)
            elif isinstance(first, HostNodes):
                self._compute(first)
            else:
                self._advance(component)

    def __getitem__(self, place: Place) -> np.ndarray:
        """Return what was recorded of a population, else what was predicted."""
        return self.recorded[place] if place in self.recorded else self.predicted[place]

    # Residuals

    @cached_property
    def residuals(self) -> dict[Place, np.ndarray]:
        """What was recorded minus what was predicted, of every recorded population on the chip."""
        return {
            place: values - self.predicted[place]
            for place, values in self.recorded.items()
            if place in self.predicted
        }

    @property
    def values(self) -> int:
        """Number of recorded integers that were predicted."""
        return sum(values.size for values in self.residuals.values())

    @property
    def different(self) -> int:
        """Number of recorded integers that differ from their prediction."""
        return sum(int(np.count_nonzero(values)) for values in self.residuals.values())

    @cached_property
    def first(self) -> Residual | None:
        """The first residual: by step of the input, then in the order of computation."""
        found: list[tuple[tuple[int, int, int, int, int], Place]] = []
        for place, values in self.residuals.items():
            at = np.argwhere(values)
            if len(at):
                sample, step, neuron = at[np.lexsort((at[:, 2], at[:, 0], at[:, 1]))[0]]
                period, late = self._clocks[place]
                time = int(step) * period + late
                key = time, self.network.order(place), int(sample), int(neuron), int(step)
                found.append((key, place))
        if not found:
            return None
        (_, _, sample, neuron, step), place = min(found)
        at_first = sample, step, neuron
        mine, theirs = self.recorded[place][at_first], self.predicted[place][at_first]
        return Residual(int(self.numbers[sample]), step, place, neuron, int(mine), int(theirs))

    @cached_property
    def _clocks(self) -> dict[Place, tuple[int, int]]:
        """Steps of the input between two frames of a population, and before its first."""
        network, found = self.network, dict[Place, tuple[int, int]]()
        for p in network.populations:
            read = [found[r.source] for r in network.readings if r.target == p.place]
            for edge in network.entering(p.entrance):
                if not network.leads_back(edge):
                    period, late = found[edge.source]
                    read.append((period * edge.stride, late + period * max(edge.offsets)))
            period = max((period for period, _ in read), default=1)
            late = max((late for _, late in read), default=0)
            if isinstance(p, Reduction):
                late += period * self._taken[p.place]
            found[p.place] = period, late
        return found

    # What is outside the chip

    def _enter(self, entry: Input) -> None:
        if entry.tokens:
            self.messages[entry.place] = entry.one_hot(self.inputs)
            return
        limit = entry.message.limit
        units = np.rint(entry.scaled(self.inputs) / entry.message.scale)
        self.messages[entry.place] = np.clip(units, -limit, limit).astype(np.int64)

    def _compute(self, host: HostNodes) -> None:
        """Take what the host recorded, or compute it."""
        values = self.recorded.get(host.place)
        if values is None:
            readings = [r for r in self.network.readings if r.target == host.place]
            streams, found = HostStreams(host.network, self.samples), []
            for n in range(min(self._frames[r.source] for r in readings)):
                signals = [self._read(r.source, r.matrix, n) for r in readings]
                found += streams.push(np.sum(signals, axis=0) if len(signals) > 1 else signals[0])
            found += streams.finish()
            values = np.stack(found, axis=1)
            self.recorded[host.place] = values
        self.messages[host.place] = host.sent(values)

    def _read(self, source: Place, matrix: np.ndarray | None, n: int) -> np.ndarray:
        population = self.network[source]
        if isinstance(population, Input) and not population.tokens:
            real: np.ndarray = population.scaled(self.inputs[:, n])
        else:
            scale = 1.0 if population.message is None else population.message.scale
            real = self.messages[source][:, n] * scale
        return real if matrix is None else each(real, matrix.T)

    # Populations on the chip

    def _advance(self, component: Component) -> None:
        members = [p for p in component.populations if isinstance(p, Population)]
        for p in members:
            if p.place in self.recorded:
                self.messages[p.place] = p.sent(self.recorded[p.place])
            else:
                room = self.samples, self._frames[p.place], p.size
                self.messages[p.place] = np.zeros(room, np.int64)
        known = all(p.place in self.recorded for p in members)
        if known or (component.stateless and self._touch is None):
            for p in members:
                self._at_once(p)
            return
        self._frame_by_frame(members)

    def _at_once(self, p: Population) -> None:
        """Predict all frames of a population whose inputs are known for all frames."""
        self._keep(p, self.updated(p, self.drive(p, slice(0, self._taken[p.place]))))

    def taken(self, p: Population) -> int:
        """Return how many frames a population takes; of a reduction, more than it records."""
        return self._taken[p.place]

    def updated(
        self,
        p: Population,
        drive: np.ndarray,
        before: np.ndarray | None = None,
        neuron: int | None = None,
    ) -> np.ndarray:
        """Return what a recorded population records of frames with given drives.

        Parameters
        ----------
        p : Population
        drive : ndarray, shape (rows, frames, drive_size), int64
        before : ndarray, shape (rows, frames, neurons), optional
            What :meth:`before` returns, of other rows; by default that of all samples. Populations
            that are not resumable begin at their first frame instead.
        neuron : int, optional
            Only this neuron: `drive` has its sums alone.
        """
        if before is None:
            before = self.before(p)
        if neuron is not None:
            p, before = p.only(neuron), None if before is None else before[..., [neuron]]
        if not p.resumable:
            return self._in_turn(p, drive)
        shape, rows = drive.shape[:2], drive.shape[0] * drive.shape[1]
        state = None if before is None else p.resumed(before.reshape(rows, p.size))
        state, messages, _ = p.update(state, drive.reshape(rows, p.drive_size))
        return np.asarray(p.recorded(state, messages)).reshape(*shape, p.size)

    def before(self, p: Population) -> np.ndarray | None:
        """Return the recording of each frame's predecessor; None if the update needs none."""
        if p.stateless or not p.resumable:
            return None
        recorded = self.recorded[p.place]
        start = np.asarray(p.recorded(p.start(self.samples), None))[:, None]
        return np.concatenate([start, recorded[:, :-1]], axis=1)

    @staticmethod
    def _in_turn(p: Population, drive: np.ndarray) -> np.ndarray:
        """Return all frames of a population whose state the replay keeps itself."""
        state, found = p.start(len(drive)), []
        for n in range(drive.shape[1]):
            state, messages, _ = p.update(state, drive[:, n])
            found.append(np.asarray(p.recorded(state, messages)))
        if isinstance(p, Reduction):
            found = [p.finish(state)[0]]
        return np.stack(found, axis=1)

    def _frame_by_frame(self, members: list[Population]) -> None:
        states: dict[Place, Any] = {p.place: p.start(self.samples) for p in members}
        rows: dict[Place, list[np.ndarray]] = {p.place: [] for p in members}
        for n in range(self._taken[members[0].place]):
            for p in members:
                drive = self.drive(p, slice(n, n + 1))[:, 0]
                state, messages, _ = p.update(states[p.place], drive)
                values = np.asarray(p.recorded(state, messages))
                if isinstance(p, Reduction):
                    states[p.place] = state
                    continue
                rows[p.place].append(values)
                actual = values
                if p.place in self.recorded:
                    actual = self.recorded[p.place][:, n]
                elif self._touch is not None:
                    actual = rows[p.place][-1] = self._touch(p.place, n, values)
                states[p.place] = p.resumed(actual) if p.resumable else state
                self.messages[p.place][:, n] = p.sent(actual)
        for p in members:
            if isinstance(p, Reduction):
                values = p.finish(states[p.place])[0]
                rows[p.place] = [values if self._touch is None else self._touch(p.place, 0, values)]
            self._keep(p, np.stack(rows[p.place], axis=1))

    def _keep(self, p: Population, found: np.ndarray) -> None:
        self.predicted[p.place] = found
        if p.place not in self.recorded:
            self.messages[p.place] = p.sent(found)

    # Synapses

    def drive(self, p: Population, frames: slice) -> np.ndarray:
        """Return the sum of all drives of some frames, shape (samples, frames, drive_size)."""
        count = frames.stop - frames.start
        total = np.zeros((self.samples, count, p.drive_size), np.int64)
        for edge in self.network.entering(p.entrance):
            x = self.delivered(edge, frames)
            part = edge.connection.drive(x.reshape(self.samples * count, -1))
            rows = slice(edge.row, edge.row + edge.connection.n_out)
            total[:, :, rows] += part.reshape(self.samples, count, -1)
        return total

    def delivered(self, edge: Edge, frames: slice, sender: Population | None = None) -> np.ndarray:
        """Return the messages that some frames of an edge's target read, taps side by side.

        Parameters
        ----------
        edge : Edge
        frames : slice
            Of the target, with start and stop.
        sender : Population, optional
            Sends its own messages of what the source recorded, in place of the source.
        """
        held = self._held(edge) if sender is None else sender.sent(self[edge.source])
        numbers = np.arange(frames.start, frames.stop) * edge.stride
        taps = []
        for offset in edge.offsets:
            at = numbers + offset
            inside = (at >= 0) & (at < held.shape[1])
            tap = np.where(inside[:, None], held[:, np.clip(at, 0, held.shape[1] - 1)], 0)
            if edge.recurrent:
                tap[:, at == -1] = self._first_message(edge)
            taps.append(tap)
        return taps[0] if len(taps) == 1 else np.concatenate(taps, axis=2)

    def _first_message(self, edge: Edge) -> np.ndarray:
        source = self.network[edge.source]
        first = source.first_message if isinstance(source, Population) else None
        return np.zeros(edge.n_source, np.int64) if first is None else first.astype(np.int64)

    def _held(self, edge: Edge) -> np.ndarray:
        """Return what the receivers of an edge know of each frame of its source."""
        threshold, messages = edge.connection.threshold, self.messages[edge.source]
        if not threshold:
            return messages
        held, known = np.empty_like(messages), self._first_message(edge)
        for n in range(messages.shape[1]):
            change = messages[:, n] - known
            known = known + np.where(np.abs(change) >= threshold, change, 0)
            held[:, n] = known
        return held


def constant(values: np.ndarray) -> int | None:
    """Return the value of an array whose elements are equal, else None."""
    return int(values[0]) if (values == values[0]).all() else None


def flipped_bit(recorded: np.ndarray, predicted: np.ndarray) -> int | None:
    """Return the bit in which the only two values that differ do so, if it is one bit."""
    at = int(np.flatnonzero(recorded != predicted)[0])
    differing = int(recorded[at]) ^ int(predicted[at])
    return differing.bit_length() - 1 if differing > 0 and not differing & (differing - 1) else None


def misrecorded(replay: Replay, truth: Mapping[Place, np.ndarray]) -> list[Fault]:
    """Return statements on neurons that a target computed rightly and recorded wrongly.

    Only few neurons differ from the truth, although others would have to if the target had gone on
    with what was recorded.

    Parameters
    ----------
    replay : Replay
    truth : mapping of Place to ndarray, shape (samples, frames, neurons)
        What the specification computes from the inputs alone.
    """
    wrong = {
        (place, int(i))
        for place in replay.residuals
        for i in np.flatnonzero((replay.recorded[place] != truth[place]).any(axis=(0, 1)))
    }
    elsewhere = any(
        (place, int(i)) not in wrong
        for place, residuals in replay.residuals.items()
        for i in np.flatnonzero(residuals.any(axis=(0, 1)))
    )
    if not elsewhere or len(wrong) > MOST_NEURONS:
        return []
    found = []
    for place, i in sorted(wrong):
        recorded, right = replay.recorded[place][..., i], truth[place][..., i]
        found.append(_misrecorded(replay, place, i, recorded, right))
    (place, i), *rest = sorted(wrong)
    if len(rest) == 1 and rest[0][0] == place:
        pair = [i, rest[0][1]]
        if (replay.recorded[place][..., pair] == truth[place][..., pair[::-1]]).all():
            words = f"Neurons {pair[0]} and {pair[1]} of {place} are exchanged in the recording."
            return [Fault("exchanged", str(place), tuple(pair), words)]
    return found


def _misrecorded(
    replay: Replay, at_place: Place, i: int, recorded: np.ndarray, right: np.ndarray
) -> Fault:
    place, at = str(at_place), np.argwhere(recorded != right)
    bit = flipped_bit(recorded.reshape(-1), right.reshape(-1)) if len(at) == 1 else None
    after = "the target went on with the right value"
    if bit is not None:
        sample = int(replay.numbers[at[0, 0]])
        words = (
            f"Bit {bit} of neuron {i} of {place} is flipped at step {at[0, 1]} of sample {sample}"
        )
        return Fault("flipped bit", place, (i,), f"{words}; {after}.")
    value = constant(recorded.reshape(-1))
    what = f"wrong {len(at):,} times" if value is None else f"always {value:,}"
    kind = "neuron" if value is None else "stuck" if value else "dead"
    return Fault(kind, place, (i,), f"Neuron {i} of {place} is recorded {what}; {after}.")
