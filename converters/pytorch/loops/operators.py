r"""The operators of loops over steps: linear memories, LMUs and recurrent units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from converters.pytorch.foreign import named_memory, note_theta
from converters.pytorch.layers import cell_of
from converters.pytorch.leaves import memory_beside
from converters.pytorch.loops.steps import (
    CLOSE,
    LATER,
    Affine,
    Body,
    Entry,
    Reading,
    Readings,
    Ref,
    Spot,
    Tape,
    before,
    mapped,
    reading_of,
)
from converters.pytorch.registry import Call, numbers, reader
from converters.pytorch.signals import BATCH, ONE, Draft, Signal, Sketch, UnreadableError
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.frames import Reshape
from lmu_deploy.core.graph.lmu import LMU
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.operator import Operator, plus
from lmu_deploy.core.graph.pointwise import Activation, Concat
from lmu_deploy.core.graph.recurrent import GRU, LSTM, SimpleRNN
from lmu_deploy.core.graph.time import Reduce

_CELLS = ("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
_OTHERS = "a state of its loop over steps reads other states of the step before"
_ALONE = 10**9
"""Calls of a place in a step, for a call that is not in the loop."""


def learned(tape: Tape, sketch: Sketch, readings: Readings) -> tuple[Readings, list[str]]:
    """Return more readings of the calls on a tape, and why states of its loops have none.

    Parameters
    ----------
    tape : Tape
        Of a trace with the readings known so far.
    sketch : Sketch
    readings : dict
    """
    found: Readings = {}
    reasons: list[str] = []
    lengths = {
        signal.draft.steps
        for entry in tape.entries
        for signal in entry.signals
        if signal is not None and signal.step is not None
    }
    for steps in sorted(lengths):
        if steps > LATER:
            body = _Operators(tape, sketch, steps)
            for state in body.states():
                if body.spot(state) in body.done or reading_of(readings, body.entry(state)):
                    continue
                try:
                    found.update(body.read(state))
                except (RuntimeError, IndexError, UnreadableError, InputError) as error:
                    # The first two are of code of the user that takes no other numbers.
                    entry = body.entry(state)
                    where = f"{entry.where}: " if entry.where else ""
                    reasons.append(f"{where}{str(error).rstrip('.')}")
    own = [reason for reason in reasons if _OTHERS not in reason]
    return found, list(dict.fromkeys(own or reasons))


class _Operators(Body):
    """Reads the states of a loop as those of operators."""

    def __init__(self, tape: Tape, sketch: Sketch, steps: int) -> None:
        super().__init__(tape, sketch, steps)
        self.done: set[Spot] = set()

    def read(self, state: Ref) -> Readings:
        """Return the readings of a state, and of those that are in the same operator.

        Raises
        ------
        UnreadableError
            When no operator has such states.
        """
        old = before(self.spot(state))
        inner = self.entry(state).name in _CELLS and state.out > 0
        if (
            self.entry(state).name == "setitem"
            or inner
            or self.leaves(state, deep=False) == {old: "old"}
        ):
            return {}
        if (total := self._sum(state, old)) is not None:
            return total
        for cut in self._channels(state, old):
            update = self.affine(state, [old, self.spot(cut)])
            if update is not None:
                factors = _factored(update, old, self.spot(cut))
                if factors is not None:
                    return self._memory(state, old, cut, *factors)
        frames, cell = self._units(state, old, [])
        return self._reading(state, cell, frames, "rnn")

    def _sum(self, state: Ref, old: Spot) -> Readings | None:
        """Return the readings of a sum over steps, and of the mean that it is divided for."""
        entry = self.entry(state)
        refs = list(entry.refs())
        kinds = [self.kind(ref) for ref in refs]
        used = any(
            state in self.tape.entries[number].refs()
            for place, each in self.each.items()
            for number in self.tape.places[place][LATER * each : (LATER + 1) * each]
        )
        if used or entry.name != "add" or sorted(kinds) != ["frame", "old"] or entry.kwargs:
            return None
        if before(self.spot(refs[kinds.index("old")])) != old:
            return None
        frame = self.spot(refs[kinds.index("frame")])
        leaves = self.leaves(state, deep=False)
        self.check(state, list(leaves))
        each, steps = self.each.get(frame.place, 1), self.steps

        def reduced(kind: str) -> Callable[[Tape, Sketch, int], Signal]:
            def make(tape: Tape, sketch: Sketch, step: int) -> Signal:
                signal = sketch.settled(tape.signal(frame, step, each))
                draft = sketch.add(Reduce(kind), signal.draft, suffix=kind)
                return replace(signal, draft=draft, step=None)

            return make

        found = self._at(state, reduced("sum"))
        last = Ref(
            self.tape.places[entry.place][
                (steps - 1) * self.each[entry.place] + self.spot(state).inner
            ],
            state.out,
        )
        mean = reduced("mean")
        for other in self.tape.entries:
            if list(other.refs()) != [last] or len(other.args) != 2:
                continue
            factor = other.args[1]
            if isinstance(factor, int | float) and (
                (other.name == "div" and factor == steps)
                or (other.name == "mul" and abs(factor * steps - 1.0) < CLOSE)
            ):
                found[(other.place, other.occurrence, _ALONE)] = Reading(
                    steps, _ALONE, lambda tape, sketch, step: mean(tape, sketch, steps - 1)
                )
        return found

    def _channels(self, state: Ref, old: Spot) -> list[Ref]:
        """Return values through which all but the state itself reaches its update.

        The smallest is first: that which a memory integrates, not its product with B.
        """
        found: list[tuple[int, int, Ref]] = []
        inside: dict[Ref, None] = {}
        waiting = [state]
        while waiting:
            ref = waiting.pop(0)
            kind = self.kind(ref)
            if ref in inside or kind in ("constant", "old"):
                continue
            inside[ref] = None
            if kind == "inside" or self._framewise(ref):
                waiting += self.entry(ref).refs()
        for ref in inside:
            if self.leaves(state, [self.spot(ref)]) == {old: "old", self.spot(ref): "cut"}:
                size = self.entry(ref).results[ref.out].numel()
                found.append((size, -ref.entry, ref))
        return [ref for _, _, ref in sorted(found, key=lambda each: each[:2])]

    def _memory(
        self, state: Ref, old: Spot, cut: Ref, a: np.ndarray, b: np.ndarray,
        read: np.ndarray, bias: np.ndarray, turned: bool,
    ) -> Readings:  # fmt: skip
        """Return the readings of a memory, and of the hidden units that feed back to it."""
        channels = read.shape[1]
        memory = replace(named_memory(numbers(a), numbers(b), None), channels=channels)
        leaves = self.leaves(cut, deep=False)
        if "old" not in leaves.values():
            deep = list(self.leaves(cut))
            given = self.affine(cut, deep)
            if given is None:
                deep = [self.spot(cut)]
                given = Affine({deep[0]: np.eye(len(read))}, np.zeros(len(read)))
            self.check(state, [old, *deep])
            encoders, own = self._encoded(given, deep, read, bias)
            operator: Operator = LinearMemory(memory, encoders, own)
            return self._reading(state, operator, deep, "memory", memory, turned)
        olds = [spot for spot, kind in leaves.items() if kind == "old" and spot != old]
        if len(olds) > 1:
            raise UnreadableError("several states of its loop over steps feed back to a memory")
        hidden, cell = None, None
        frames: list[Spot] = []
        for deep_too in (True, False):
            frames = [s for s, k in self.leaves(cut, deep=deep_too).items() if k == "frame"]
            if olds:
                hidden = self._ref(olds[0])
                own_frames, cell = self._units(
                    hidden, olds[0], [self.spot(state)], old, frames, deep_too
                )
                frames = own_frames
            given = self.affine(cut, [*olds, old, *frames])
            if given is not None:
                break
        if given is None:
            raise UnreadableError(
                "what a memory of its loop over steps integrates is not affine in the hidden "
                "units and in the memory, such as with gates on the memory"
            )
        self.check(state, [*olds, old, *frames])
        sizes = {spot: self.recorded(spot, LATER)[0].numel() for spot in [*frames, *olds, old]}
        order = _permutation(memory.channels, memory.order, turned)
        feedback = given.matrices[old] @ read
        operator = LMU(
            memory,
            numbers(given.of(frames, sizes) @ read),
            cell if cell is None else _fed(cell, order, sizes[old]),
            cell is not None and cell.n_in > sizes[old],
            None if not olds else numbers(given.matrices[olds[0]] @ read),
            numbers(feedback[order]) if feedback.any() else None,
            _bias(given.bias @ read + bias),
        )
        if hidden is None:
            return self._reading(state, operator, frames, "lmu", memory, turned)
        found = self._reading(hidden, operator, frames, "lmu")
        return {**found, **self._reading(state, operator, frames, "lmu", memory, turned, True)}

    def _ref(self, old: Spot) -> Ref:
        place = old.place.place
        return Ref(self.tape.places[place][LATER * self.each[place] + old.inner], old.out)

    def _encoded(
        self, given: Affine, frames: list[Spot], read: np.ndarray, bias: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        sizes = {spot: len(matrix) for spot, matrix in given.matrices.items()}
        return numbers(given.of(frames, sizes) @ read), _bias(given.bias @ read + bias)

    def _units(
        self,
        state: Ref,
        old: Spot,
        memory: list[Spot],
        forbidden: Spot | None = None,
        more: Sequence[Spot] = (),
        deep: bool = True,
    ) -> tuple[list[Spot], SimpleRNN | LSTM | GRU]:
        """Return what hidden units read besides a memory, and their operator.

        Its kernel takes the memory first.
        """
        entry, own = self.entry(state), [old]
        if entry.name in _CELLS and state.out == 0:
            source, own = entry.args[0], []
        else:
            source = self._activated(entry)
        z = state if source is None else source
        frames: list[Spot] = []
        if not isinstance(z, Ref):
            raise UnreadableError("hidden units of its loop over steps read no signal")
        for each in (True, False) if deep else (False,):
            leaves = self.leaves(z, memory, each)
            if forbidden is not None and forbidden in leaves:
                raise UnreadableError("hidden units of its loop read the memory of the step before")
            if [s for s, kind in leaves.items() if kind == "old" and s != old]:
                raise UnreadableError(_OTHERS)
            frames = list(dict.fromkeys([*more, *(s for s, k in leaves.items() if k == "frame")]))
            found = self.affine(z, [*memory, *own, *frames])
            if found is not None:
                break
        if found is None:
            raise UnreadableError(
                f"what its loop over steps computes with {entry.name} is none of the operators "
                "(a linear memory, simple recurrent units, LSTM, GRU)"
            )
        sizes = {s: self.recorded(s, LATER)[0].numel() for s in [*memory, *own, *frames]}
        reads_frames = any(found.matrices[spot].any() for spot in frames)
        kernel = found.of([*memory, *(frames if reads_frames or not memory else [])], sizes)
        self.check(state, list(self.leaves(state, memory, deep)))
        if entry.name in _CELLS:
            states = entry.args[1] if isinstance(entry.args[1], tuple | list) else [entry.args[1]]
            if any(not isinstance(each, Ref) or self.kind(each) != "old" for each in states):
                raise UnreadableError("a cell does not continue from its own states")
            weights = [self._constant(each) for each in (*entry.args[2:6], None, None)[:4]]
            cell: Any = cell_of(entry.name, weights, [])
            bias = plus(cell.bias, found.bias @ cell.kernel)
            return frames, replace(cell, kernel=numbers(kernel @ cell.kernel), bias=numbers(bias))
        recurrent = found.matrices[old]
        activation = Activation("linear") if source is None else self._activation(entry)
        return frames, SimpleRNN(
            numbers(kernel), numbers(recurrent) if recurrent.any() else None,
            _bias(found.bias), activation,
        )  # fmt: skip

    def _constant(self, value: Any) -> Any:
        if isinstance(value, Ref):
            value = self.entry(value).results[value.out]
        return numbers(value)

    def _activated(self, entry: Entry) -> Ref | None:
        """Return what an activation is applied to; None where a call is none."""
        refs = [ref for ref in entry.refs() if self.kind(ref) != "constant"]
        return refs[0] if len(refs) == 1 and self._activation(entry, quiet=True) else None

    def _activation(self, entry: Entry, quiet: bool = False) -> Any:
        """Return the operator of an activation, as its reader does."""
        size = int(entry.results[0][0].numel())
        sketch = Sketch(self.sketch.batch, self.steps)
        signal = Signal(sketch.begin((size,)), (BATCH, 0), step=LATER)
        args = mapped(entry.args, lambda ref: signal if self.entry(ref).live else ref)
        found = reader(entry.name)
        try:
            made = found and found(Call(sketch, entry.name, entry.results[0]), args, entry.kwargs)
        except (UnreadableError, InputError):
            made = None
        operator = made.draft.operator if isinstance(made, Signal) else None
        return operator if isinstance(operator, Activation) else None

    def _at(self, state: Ref, make: Callable[[Tape, Sketch, int], Signal]) -> Readings:
        spot = self.spot(state)
        self.done.add(spot)
        each = self.each[spot.place]
        return {(spot.place, spot.inner, each): Reading(self.steps, each, make)}

    def _reading(
        self, state: Ref, operator: Operator, frames: list[Spot], suffix: str,
        memory: Any = None, turned: bool = False, beside: bool = False,
    ) -> Readings:  # fmt: skip
        """Return the reading of an operator on frames, or of the memory beside its outputs."""
        each = [self.each.get(frame.place, 1) for frame in frames]
        like = tuple(self.entry(state).results[state.out].shape[1:])
        if not frames:
            raise UnreadableError("a state of its loop over steps does not depend on the input")

        def make(tape: Tape, sketch: Sketch, step: int) -> Signal:
            drafts = [
                _vector(sketch, tape.signal(frame, step, count))
                for frame, count in zip(frames, each, strict=True)
            ]
            whole = drafts[0]
            if len(drafts) > 1:
                whole = sketch.add(Concat(), *drafts, suffix=f"{suffix}.in")
            draft = sketch.add(operator, whole, suffix=suffix)
            if beside and isinstance(operator, LMU):
                draft = memory_beside(sketch, draft, operator)
            elif memory is not None:
                note_theta(memory, [], sketch)
            return _shaped(sketch, Signal(draft, (BATCH, 0), step=step), like, memory, turned)

        return self._at(state, make)


def _factored(
    update: Affine, old: Spot, cut: Spot
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, bool] | None:
    """Return A, B, the weights and bias of the channels, and whether channels come last.

    The states are as many copies of one system as possible.
    """
    whole, given = update.matrices[old].T, update.matrices[cut]
    given = np.concatenate([given, update.bias[None]])
    size = len(whole)
    for channels in (c for c in range(size, 0, -1) if size % c == 0):
        order = size // channels
        for turned in (False, True) if 1 < channels < size else (False,):
            places = _permutation(channels, order, turned)
            blocks = whole[np.ix_(places, places)].reshape(channels, order, channels, order)
            a = blocks[0, :, 0]
            copies = np.einsum("ij,cd->cidj", a, np.eye(channels))
            if np.abs(blocks - copies).max() > CLOSE * (np.abs(a).max() + 1e-30):
                continue
            rows = given[:, places].reshape(-1, order)
            norms = np.abs(rows).max(axis=1)
            if not norms.any():
                return None
            b = rows[int(np.argmax(norms > CLOSE * norms.max()))]
            weights = rows @ b / (b @ b)
            if np.abs(np.outer(weights, b) - rows).max() > CLOSE * norms.max():
                continue
            whole_numbers = np.round(weights)
            weights = np.where(np.abs(weights - whole_numbers) < CLOSE, whole_numbers, weights)
            weights = weights.reshape(-1, channels)
            return a.copy(), b.copy(), weights[:-1], weights[-1], turned
    return None


def _permutation(channels: int, order: int, turned: bool) -> np.ndarray:
    """Return where the states of the channels, one channel behind the other, are in a tensor."""
    places = np.arange(channels * order)
    return places.reshape(order, channels).T.reshape(-1) if turned else places


def _fed(cell: Any, order: np.ndarray, size: int) -> Any:
    """Return a cell that takes the states of a memory in another order."""
    kernel = cell.kernel
    return replace(cell, kernel=np.concatenate([kernel[:size][order], kernel[size:]]))


def _bias(values: np.ndarray) -> np.ndarray | None:
    return numbers(values) if values.any() else None


def _vector(sketch: Sketch, signal: Signal) -> Draft:
    """Return the node of frames that are vectors, their axes in the order of the tensor."""
    if signal.axes[0] != BATCH:
        raise UnreadableError("its loop over steps has a state without an axis of samples first")
    signal = sketch.framed(signal, range(1, len(signal.axes)))
    frame = signal.shape.frame
    return sketch.reshaped(signal.draft, Reshape(frame, (int(np.prod(frame)),)))


def _shaped(
    sketch: Sketch, signal: Signal, like: tuple[int, ...], memory: Any, turned: bool
) -> Signal:
    """Return the states or units of one step with the axes that the module gives them."""
    size = int(np.prod(like))
    if turned:
        pair = (memory.channels, memory.order)
        draft = sketch.reshaped(signal.draft, Reshape((size,), pair))
        if like == pair[::-1]:
            return replace(signal, draft=draft, axes=(BATCH, 1, 0))
        signal = sketch.permuted(replace(signal, draft=draft, axes=(BATCH, 0, 1)), [1, 0])
        draft = sketch.reshaped(signal.draft, Reshape(pair[::-1], (size,)))
        signal = replace(signal, draft=draft, axes=(BATCH, 0))
    if like != (size,):
        frame = tuple(length for length in like if length > 1) or (1,)
        draft = sketch.reshaped(signal.draft, Reshape((size,), frame))
        longer = iter(range(len(frame)))
        axes = [next(longer) if length > 1 else ONE for length in like]
        signal = replace(signal, draft=draft, axes=(BATCH, *axes))
    return signal
