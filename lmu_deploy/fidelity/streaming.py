"""A target's run in parts, so that what is held does not grow with the test set.

States and rasters are kept of the first samples, which plots and comparisons of states show; of the
others only outputs and sums of events. What comes out is what one run would give: a target that
draws numbers (noise, where membranes start) gives its parts itself, the samples of any other do not
depend on each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from lmu_deploy.core.progress import Progress
from lmu_deploy.core.validation import check_integer
from lmu_deploy.fidelity.measures.events import Counted
from targets.base import InParts, Run, States, Target

PART_SAMPLES = 1000
"""Samples run at once after the first part; a multiple of the reference's batches."""
KEPT_BYTES, KEPT_SAMPLES = 2**28, 400
_RECORDED = ("m", "h", "y")
_SEEDS = 2**31


@dataclass(frozen=True, eq=False, repr=False)
class StreamedRun(Run):
    """A run whose events have been added up as it went; `events` is empty.

    Attributes
    ----------
    counted : mapping of population to Counted
        Of all samples.
    """

    counted: Mapping[str, Counted] = field(default_factory=dict)


def counted_of(run: Run) -> Mapping[str, Counted]:
    """Give a run's events by population, added up."""
    if isinstance(run, StreamedRun):
        return run.counted
    return {name: Counted.of(counts) for name, counts in run.events.items()}


def samples_kept(samples: int, steps: int, values: int) -> int:
    """Count the first samples whose states are kept: at most 400, and 256 MB of float64.

    Parameters
    ----------
    samples, steps : int
        Of the test set.
    values : int
        Numbers recorded of one step of one sample.
    """
    fit = KEPT_BYTES // max(1, 8 * steps * values)
    return max(1, min(samples, KEPT_SAMPLES, fit))


def run_streamed(
    runner: Target,
    network: Any,
    inputs: np.ndarray,
    kept: int,
    *,
    part: int = PART_SAMPLES,
    seed: int = 0,
    progress: Progress | None = None,
) -> StreamedRun:
    """Run a target on all inputs, a part at a time; the same as one run of all.

    Only a target that draws numbers and is not :class:`targets.base.InParts` draws others here than
    it would in one run.

    Parameters
    ----------
    runner : Target
    network : what it accepts
    inputs : ndarray, shape (samples, steps, n_in)
    kept : int
        How many of the first samples are recorded.
    part : int
        Samples of each part after them, of a target that is not :class:`targets.base.InParts`.
    seed : int
        Of the run. Where a target is not InParts, of its first part; every other one has one of its
        own that follows from it.
    progress : callable, optional
        Called with (samples done, in all).

    Raises
    ------
    InputError, RunError
        As the target's own `run`.
    """
    kept = check_integer("samples kept", kept, 1, 2**53)
    part = check_integer("samples of a part", part, 1, 2**53)
    if isinstance(runner, InParts):
        runs = runner.parts(network, inputs, record=kept, seed=seed, progress=progress)
    else:
        runs = _parts(runner, network, inputs, kept, part, seed, progress)
    done: list[StreamedRun] = []
    for run in runs:
        done.append(_added_up(run, kept))
        kept = max(0, kept - len(run.outputs))
    return _joined(done)


def _parts(
    runner: Target,
    network: Any,
    inputs: np.ndarray,
    kept: int,
    part: int,
    seed: int,
    progress: Progress | None,
) -> Iterator[Run]:
    for number, (start, stop) in enumerate(_bounds(len(inputs), kept, part)):
        own = _seed(seed, number) if number else seed
        told = _told(progress, start, len(inputs))
        yield runner.run(network, inputs[start:stop], record=not number, seed=own, progress=told)


def _bounds(samples: int, kept: int, part: int) -> Iterator[tuple[int, int]]:
    """Where parts begin and end; no samples are one part, which the target refuses."""
    yield 0, min(kept, samples)
    for start in range(kept, samples, part):
        yield start, min(start + part, samples)


def _seed(seed: int, number: int) -> int:
    """Give each part a seed of its own: the same noise twice would count as two samples of it."""
    return int(np.random.default_rng([seed, number]).integers(_SEEDS))


def _told(progress: Progress | None, start: int, samples: int) -> Progress | None:
    if progress is None:
        return None
    return lambda done, _: progress(start + done, samples)


def _added_up(run: Run, kept: int) -> StreamedRun:
    """Leave of a run what stays: sums of its events, states of so many of its samples."""
    given = {each.name: getattr(run, each.name) for each in fields(Run)}
    changed: dict[str, Any] = {"events": {}, "states": _first(run.states, kept)}
    return StreamedRun(**{**given, **changed}, counted=counted_of(run))


def _first(states: States | None, kept: int) -> States | None:
    if states is None or not kept:
        return None
    if len(states.m) <= kept:
        return states
    # Copied, so that the rest is given back.
    return replace(states, **{name: getattr(states, name)[:kept].copy() for name in _RECORDED})


def _joined(parts: Sequence[StreamedRun]) -> StreamedRun:
    """Join parts; rasters and settings are those of the first."""
    first = parts[0]
    if len(parts) == 1:
        return first
    given = {each.name: getattr(first, each.name) for each in fields(first)}
    joined = {
        "outputs": np.concatenate([run.outputs for run in parts]),
        "synops": sum(run.synops for run in parts),
        "saturations": _summed([run.saturations for run in parts]),
        "carried": _summed([run.carried for run in parts]),
        "wall_seconds": sum(run.wall_seconds for run in parts),
        "states": _states([run.states for run in parts if run.states is not None]),
        "notes": tuple(dict.fromkeys(note for run in parts for note in run.notes)),
        "counted": {n: Counted.joined([r.counted[n] for r in parts]) for n in first.counted},
    }
    return StreamedRun(**{**given, **joined})


def _states(recorded: Sequence[States]) -> States | None:
    if len(recorded) < 2:
        return recorded[0] if recorded else None
    arrays = {name: [getattr(states, name) for states in recorded] for name in _RECORDED}
    return replace(recorded[0], **{n: np.concatenate(found) for n, found in arrays.items()})


def _summed(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(total)
