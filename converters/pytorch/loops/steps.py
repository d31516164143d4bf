"""The tape of a trace, and the body of a loop over steps as a function.

A :class:`Tape` keeps every call of a function while a module runs, with the place in the code that
it came from. Calls of one place, as many as there are steps, belong to a loop; what one step takes
from the step before are its states. What is found out about a call, a :class:`Reading`, takes its
place in the next trace.

A step of a loop is a function of frames and of states, a :class:`Body`, which is evaluated again on
other numbers. Where it is affine, its matrices are read off, so that ``F.linear``, ``@``,
``einsum`` and ``m + (A m + B u) / theta`` are the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from converters.pytorch.registry import canonical, numbers
from converters.pytorch.signals import Draft, Signal, Sketch, UnreadableError

CLOSE = 1e-9
"""Largest difference of what is equal, relative to the largest value."""
LATER = 2
"""The step whose calls are evaluated again; the first has states that do not depend on inputs."""
_MOST_INPUTS = 8192
_SELECTING = ("getitem", "select")


@dataclass(frozen=True)
class Ref:
    """A tensor on the tape: the number of the call, and which of its results."""

    entry: int
    out: int


@dataclass(frozen=True)
class Spot:
    """A value in the body of a loop, or one of the results, one for every step, of a call before.

    Attributes
    ----------
    place : tuple
        Place of the call in the code.
    inner : int
        Which of several calls of one place in a step; -1 for a call outside the loop.
    out : int
    """

    place: Any
    inner: int
    out: int


@dataclass
class Entry:
    """One call on the tape."""

    place: Any
    occurrence: int
    where: str
    name: str
    func: Callable
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    live: bool
    results: list[Any] = field(default_factory=list)
    signals: list[Signal | None] = field(default_factory=list)

    @property
    def in_place(self) -> bool:
        """Whether it changes its first argument."""
        raw = getattr(self.func, "__name__", "")
        bare = raw.strip("_")
        return (
            self.name == "setitem"
            or (raw[:3] == "__i" and canonical(raw) != bare and bare[0] == "i")
            or (raw.endswith("_") and not raw.endswith("__"))
        )

    def refs(self) -> Iterator[Ref]:
        """Yield the tensors of the tape among the arguments."""
        return _refs((self.args, self.kwargs))

    def again(self, value: Callable[[Ref], Any]) -> list[Any]:
        """Return the results for other arguments."""
        args, kwargs = mapped(self.args, value), mapped(self.kwargs, value)
        if self.in_place:
            args = (args[0].clone(), *args[1:])
        result = self.func(*args, **kwargs)
        return [args[0]] if self.name == "setitem" else _flat(result)


class Tape:
    """All calls of functions in one run of a module, in their order."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.places: dict[Any, list[int]] = {}
        self._made: dict[int, Ref] = {}

    def begin(self, given: Tensor, signal: Signal) -> None:
        """Keep the input."""
        entry = Entry("input", 0, "", "input", torch.clone, (), {}, True, [given], [signal])
        self.places["input"] = [0]
        self._made[id(given)] = Ref(0, 0)
        self.entries.append(entry)

    def open(self, name: str, func: Callable, given: Any, where: str, live: bool) -> Entry:
        """Return the entry of a call that is about to be made."""
        args, kwargs = mapped(given, lambda t: self._made.get(id(t), t), Tensor)
        place = _place(where)
        entry = Entry(place, len(self.places.get(place, ())), where, name, func, args, kwargs, live)
        target: Any = given[0][0] if given[0] else None
        if entry.in_place and id(target) in self._made:
            ref = self._made[id(target)]
            self.entries[ref.entry].results[ref.out] = target.clone()
        return entry

    def close(
        self, entry: Entry, result: Any, given: Any, signal: Callable[[Any], Signal | None]
    ) -> None:
        """Keep a call that was made."""
        number = len(self.entries)
        entry.results = [given[0][0]] if entry.name == "setitem" else _flat(result)
        entry.signals = [signal(each) for each in entry.results]
        self.entries.append(entry)
        self.places.setdefault(entry.place, []).append(number)
        for out, each in enumerate(entry.results):
            if isinstance(each, Tensor):
                self._made[id(each)] = Ref(number, out)

    def backward(self) -> set[Any]:
        """Return the places where loops take a sequence from its last step to its first."""
        found = set()
        for place, calls in self.places.items():
            signal = next(iter(self.entries[calls[0]].signals), None)
            if self.entries[calls[0]].name in _SELECTING and signal is not None:
                order = list(range(signal.draft.steps))[::-1]
                signals = [self.entries[call].signals[0] for call in calls[: len(order)]]
                if len(order) > 1 and [each and each.step for each in signals] == order:
                    found.add(place)
        return found

    def signal(self, spot: Spot, step: int, each: int) -> Signal:
        """Return the signal of a value of a loop at one step."""
        if spot.inner < 0:
            entry, out = self.entries[self.places[spot.place][0]], step
        else:
            entry, out = self.entries[self.places[spot.place][step * each + spot.inner]], spot.out
        signal = entry.signals[out]
        if signal is None or signal.step != step:
            raise UnreadableError("the body of its loop over steps depends on the step")
        return signal


@dataclass
class Reading:
    """What the result of a call in a loop is.

    Attributes
    ----------
    steps : int
    each : int
        Calls of its place in every step.
    make : callable
        Returns the signal, from the tape, the sketch and the step.
    """

    steps: int
    each: int
    make: Callable[[Tape, Sketch, int], Signal]
    draft: Draft | None = None

    def found(self, tape: Tape, sketch: Sketch, occurrence: int) -> Signal:
        """Return the signal of one call, which is the same node at every step.

        Raises
        ------
        UnreadableError
            When it is another one.
        """
        step = occurrence // self.each
        signal = self.make(tape, sketch, step)
        if step == 0:
            self.draft = signal.draft
        if signal.draft is not self.draft:
            raise UnreadableError("the body of its loop over steps depends on the step")
        return signal


Readings = dict[tuple[Any, int, int], Reading]
"""By the place of a call, which of the calls of a step it is, and of their number in a step."""


def reading_of(readings: Readings, entry: Entry) -> Reading | None:
    """Return what a call is known to be."""
    for (place, inner, each), reading in readings.items():
        if place == entry.place and entry.occurrence % each == inner:
            return reading
    return None


@dataclass
class Affine:
    """An affine map of several values, each as rows (samples, size)."""

    matrices: dict[Spot, np.ndarray]
    bias: np.ndarray

    def of(self, spots: Sequence[Spot], sizes: Mapping[Spot, int]) -> np.ndarray:
        """Return the weights of some of the values, one below the other."""
        width = len(self.bias)
        rows = [self.matrices.get(spot, np.zeros((sizes[spot], width))) for spot in spots]
        return np.concatenate([np.zeros((0, width)), *rows])


class Body:
    """The calls of one step of the loops of one length."""

    def __init__(self, tape: Tape, sketch: Sketch, steps: int) -> None:
        self.tape, self.sketch, self.steps = tape, sketch, steps
        self.each = {
            place: len(numbers) // steps
            for place, numbers in tape.places.items()
            if len(numbers) % steps == 0
        }
        self._frames: dict[Any, Spot] = {}

    # Places

    def entry(self, ref: Ref) -> Entry:
        """Return the call that made a value."""
        return self.tape.entries[ref.entry]

    def step_of(self, ref: Ref) -> int | None:
        """Return the step in which a value is computed; None outside loops."""
        entry = self.entry(ref)
        each = self.each.get(entry.place)
        return entry.occurrence // each if each else None

    def spot(self, ref: Ref) -> Spot:
        """Return what is the same for a value at every step."""
        entry = self.entry(ref)
        each = self.each.get(entry.place)
        return Spot(entry.place, entry.occurrence % each if each else -1, ref.out if each else 0)

    def at(self, spot: Spot, step: int) -> Tensor:
        """Return the recorded value of one step."""
        numbers = self.tape.places[spot.place]
        if spot.inner < 0:
            return self.tape.entries[numbers[0]].results[step]
        number = numbers[step * self.each[spot.place] + spot.inner]
        results = self.tape.entries[number].results
        return results[spot.out]

    def kind(self, ref: Ref) -> str:
        """Return "constant", "frame" (read already), "inside", or "old" for a step before."""
        entry = self.entry(ref)
        signal = entry.signals[ref.out]
        if not entry.live or signal is None:
            return "constant"
        step = self.step_of(ref)
        alone = step is None and len(entry.results) != self.steps
        if signal.step == LATER and not alone and good(signal.draft):
            return "frame"
        if step is None:
            raise UnreadableError(
                "its loop over steps reads a whole sequence, or the steps of one in another order"
            )
        if step == LATER - 1:
            return "old"
        if step != LATER:
            raise UnreadableError("its loop reads what was computed more than one step before")
        return "inside"

    def states(self) -> list[Ref]:
        """Return the values of this step that the next one takes, those without a reading."""
        found: dict[Ref, None] = {}
        for place, each in self.each.items():
            for number in self.tape.places[place][LATER * each : (LATER + 1) * each]:
                for ref in self.tape.entries[number].refs():
                    if self.entry(ref).live and self.step_of(ref) == LATER - 1:
                        found[self._now(ref)] = None
        return [ref for ref in sorted(found, key=lambda r: r.entry) if self.kind(ref) == "inside"]

    def _now(self, ref: Ref) -> Ref:
        """Return the value one step later."""
        entry = self.entry(ref)
        numbers = self.tape.places[entry.place]
        return Ref(numbers[entry.occurrence + self.each[entry.place]], ref.out)

    # A step as a function

    def leaves(self, ref: Ref, cut: Sequence[Spot] = (), deep: bool = True) -> dict[Spot, str]:
        """Return what a value is computed of: frames, and states of the step before.

        Parameters
        ----------
        ref : Ref
        cut : sequence of Spot
            Values that are not looked into.
        deep : bool
            Whether to go back from frames to those that they are computed of.
        """
        found: dict[Spot, str] = {}
        seen: set[Ref] = set()
        waiting = [ref]
        while waiting:
            ref = waiting.pop(0)
            kind = self.kind(ref)
            if ref in seen or kind == "constant":
                continue
            seen.add(ref)
            if kind != "old" and self.spot(ref) in cut:
                found[self.spot(ref)] = "cut"
            elif kind == "old":
                found[before(self.spot(ref))] = "old"
            elif kind == "inside" or (deep and self._framewise(ref)):
                waiting += self.entry(ref).refs()
            else:
                found[self._frame(ref)] = "frame"
        return found

    def _frame(self, ref: Ref) -> Spot:
        """Return the first place in which the same frame is taken."""
        signal = self.entry(ref).signals[ref.out]
        assert signal is not None
        key = (id(signal.draft), signal.axes, signal.before, signal.behind, signal.parts)
        return self._frames.setdefault(key, self.spot(ref))

    def _framewise(self, ref: Ref) -> bool:
        """Return whether a frame is computed of frames of the same step alone."""
        if self.step_of(ref) != LATER:
            return False
        for each in self.entry(ref).refs():
            signal = self.entry(each).signals[each.out]
            if self.entry(each).live and (
                signal is None or signal.step != LATER or not good(signal.draft)
            ):
                return False
        return True

    def value(self, ref: Ref, given: Mapping[Spot, Tensor], made: dict[Ref, Any]) -> Any:
        """Return a value for other frames and states."""
        kind = self.kind(ref)
        spot = before(self.spot(ref)) if kind == "old" else self.spot(ref)
        if kind == "constant":
            return self.entry(ref).results[ref.out]
        if kind == "frame" and spot not in given:
            spot = self._frame(ref)
        if spot in given:
            return given[spot]
        if kind == "old":
            raise UnreadableError("its loop over steps has a state that is not understood")
        if ref not in made:
            results = self.entry(ref).again(lambda each: self.value(each, given, made))
            made.update({Ref(ref.entry, out): each for out, each in enumerate(results)})
        return made[ref]

    def recorded(self, spot: Spot, step: int) -> Tensor:
        """Return the value of a frame, or of a state, which is zero before the first step."""
        if not isinstance(spot.place, Old):
            return self.at(spot, step)
        now = replace(spot, place=spot.place.place)
        return self.at(now, step - 1) if step else torch.zeros_like(self.at(now, 1))

    def affine(self, ref: Ref, leaves: Sequence[Spot]) -> Affine | None:
        """Return a value as an affine map of others; None where it is none."""
        likes = {spot: self.recorded(spot, LATER) for spot in leaves}
        batch = self.sketch.batch
        if any(like.shape[:1] != (batch,) for like in likes.values()):
            raise UnreadableError(
                "its loop over steps has a state without an axis of samples first"
            )
        sizes = [like[0].numel() for like in likes.values()]
        total = sum(sizes)
        if total > _MOST_INPUTS:
            raise UnreadableError(f"its loop over steps has {total} states and inputs")
        rows = np.concatenate([np.zeros((1, total)), np.eye(total), np.zeros((batch, total))])
        rows[-batch:] = np.random.default_rng(0).normal(size=(batch, total))
        rows = np.concatenate([rows, np.zeros((-len(rows) % batch, total))])
        outputs = []
        for first in range(0, len(rows), batch):
            parts = np.split(rows[first : first + batch], np.cumsum(sizes)[:-1], axis=1)
            given = {
                spot: torch.tensor(part).reshape(like.shape)
                for (spot, like), part in zip(likes.items(), parts, strict=True)
            }
            outputs.append(numbers(self.value(ref, given, {}), False).reshape(batch, -1))
        found = np.concatenate(outputs)
        bias, matrix = found[0], found[1 : total + 1] - found[0]
        expected = rows @ matrix + bias
        if np.abs(expected - found).max() > CLOSE * (np.abs(found).max() + 1e-30):
            return None
        return Affine(dict(zip(leaves, np.split(matrix, np.cumsum(sizes)[:-1]), strict=True)), bias)

    def check(self, ref: Ref, leaves: Sequence[Spot]) -> None:
        """Raise an error unless every step is the same function, and states start from zero."""
        for step in [*range(1, self.steps), 0]:
            given = {spot: self.recorded(spot, step) for spot in leaves}
            found = numbers(self.value(ref, given, {}), False)
            expected = numbers(self.at(self.spot(ref), step), False)
            if np.abs(found - expected).max() > CLOSE * (np.abs(expected).max() + 1e-30):
                raise UnreadableError(
                    "the body of its loop over steps depends on the step"
                    if step
                    else "the states of its loop over steps do not start from zero"
                )


@dataclass(frozen=True)
class Old:
    """Place of a value of the step before."""

    place: Any


def before(spot: Spot) -> Spot:
    """Return the name of a value in the step before."""
    return replace(spot, place=Old(spot.place))


def good(draft: Draft) -> bool:
    """Return whether nothing that a node depends on is a problem."""
    seen: set[int] = set()
    waiting = [draft]
    while waiting:
        each = waiting.pop()
        if id(each) not in seen:
            seen.add(id(each))
            if each.problem or each.shape is None:
                return False
            waiting += each.inputs
    return True


def _place(where: str) -> Any:
    """Return the place in the code from which a function is called, with all callers."""
    frame, found = sys._getframe(3), []
    while frame is not None and not frame.f_code.co_filename.endswith("convert.py"):
        found.append((id(frame.f_code), frame.f_lasti))
        frame = frame.f_back  # type: ignore[assignment]
    return where, tuple(found)


def _flat(value: Any) -> list[Any]:
    if isinstance(value, tuple | list):
        return [each for item in value for each in _flat(item)]
    return [value]


def mapped(value: Any, function: Callable[[Any], Any], kind: type = Ref) -> Any:
    """Return arguments with all values of a type replaced."""
    if isinstance(value, kind):
        return function(value)
    if isinstance(value, tuple | list):
        items = [mapped(each, function, kind) for each in value]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, dict):
        return {key: mapped(each, function, kind) for key, each in value.items()}
    return value


def _refs(value: Any) -> Iterator[Ref]:
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _refs(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _refs(item)
