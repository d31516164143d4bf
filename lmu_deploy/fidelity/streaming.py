"""Streamed runs: a target runs the test set in parts, with memory independent of its size.

States, rasters and counts of spikes are recorded for the first samples, which plots and comparisons
of states use; for the others only outputs and sums of events are kept. The result equals that of
one run. A target that draws random numbers (noise, initial membranes) generates its parts itself
(`InParts`); for any other target samples are independent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

import numpy as np

from lmu_deploy.core.progress import Progress
from lmu_deploy.core.validation import check_integer
from lmu_deploy.fidelity.measures.events import Counted
from targets.base import InParts, Run, Slow, States, Target, samples_counted

PART_SAMPLES = 1000
"""Samples of each part after the first; a multiple of the batch size of the reference."""
PART_SECONDS = 20.0
"""Estimated seconds of each part of a slow target, which is what a stopped validation loses."""
KEPT_BYTES, KEPT_SAMPLES = 2**28, 400
_RECORDED = ("m", "h", "y")
_SEEDS = 2**31


@dataclass(frozen=True, eq=False, repr=False)
class StreamedRun(Run):
    """A run with summed events; `events` is empty.

    Attributes
    ----------
    counted : mapping of population to Counted
        Events of all samples.
    """

    counted: Mapping[str, Counted] = field(default_factory=dict)


Keep = Callable[[Callable[[], StreamedRun], int, int], StreamedRun]
"""Callable with a function that runs a part, and the numbers of its first sample and of the one
after its last; it returns what the function returns, or what an earlier call did."""


def counted_of(run: Run) -> Mapping[str, Counted]:
    """Return the summed events of a run by population."""
    if isinstance(run, StreamedRun):
        return run.counted
    return {name: Counted.of(counts) for name, counts in run.events.items()}


def affordable(target: Target, network: Any, samples: int, steps: int, seconds: float) -> int:
    """Return how many samples a target runs in about so many seconds, at least two.

    Parameters
    ----------
    target : Target
        All samples are affordable for one that is not :class:`Slow`.
    network : object
    samples, steps : int
        Samples that there are, and steps of each.
    seconds : float
    """
    if not isinstance(target, Slow):
        return samples
    low, high = min(2, samples), samples
    while low < high:
        middle = (low + high + 1) // 2
        fits = target.estimated_seconds(network, middle, steps) <= seconds
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def samples_kept(samples: int, steps: int, values: int) -> int:
    """Return how many first samples are recorded: at most 400, and at most 256 MB of float64.

    Parameters
    ----------
    samples, steps : int
        Size of the test set.
    values : int
        Numbers recorded for one step of one sample.
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
    keep: Keep | None = None,
) -> StreamedRun:
    """Run a target on all inputs in parts, with the result of one run.

    The result differs from that of one run only for a target that draws random numbers and does not
    implement :class:`targets.base.InParts`.

    Parameters
    ----------
    runner : Target
    network : object
        Of a type that the target accepts.
    inputs : ndarray, shape (samples, steps, n_in)
    kept : int
        Number of first samples to record.
    part : int
        Samples of each further part, for a target that is not :class:`targets.base.InParts`.
    seed : int
        Seed of the run. For a target that is not InParts it is the seed of the first part, from
        which the seeds of further parts are derived.
    progress : callable, optional
        Called with (samples done, total).
    keep : callable, optional
        See :data:`Keep`. Of a target that is InParts it gets all samples as one part.

    Raises
    ------
    InputError, RunError
        As `run` of the target.
    """
    kept = check_integer("samples kept", kept, 1, 2**53)
    part = check_integer("samples of a part", part, 1, 2**53)
    if isinstance(runner, InParts):
        in_parts = runner

        def whole() -> StreamedRun:
            runs = in_parts.parts(network, inputs, record=kept, seed=seed, progress=progress)
            done, left = [], kept
            for run in runs:
                done.append(_summed_run(run, left))
                left = max(0, left - len(run.outputs))
            return _joined(done)

        return whole() if keep is None else keep(whole, 0, len(inputs))
    done = []
    for number, (start, stop) in enumerate(_bounds(runner, network, inputs.shape, kept, part)):
        own = _seed(seed, number) if number else seed
        shifted = _shifted(progress, start, len(inputs))
        left = max(0, kept - start)
        make = partial(_run_part, runner, network, inputs[start:stop], left, own, shifted)
        done.append(make() if keep is None else keep(make, start, stop))
        if keep is not None and shifted is not None:
            shifted(stop - start, stop - start)
    return _joined(done)


def _run_part(
    runner: Target,
    network: Any,
    inputs: np.ndarray,
    kept: int,
    seed: int,
    progress: Progress | None,
) -> StreamedRun:
    run = runner.run(network, inputs, record=kept > 0, seed=seed, progress=progress)
    return _summed_run(run, kept)


def _bounds(
    runner: Target, network: Any, shape: tuple[int, ...], kept: int, part: int
) -> Iterator[tuple[int, int]]:
    """Iterate over the bounds of parts; an empty test set is one part, which the target refuses."""
    samples, steps = shape[:2]
    if samples and isinstance(runner, Slow):
        part = min(part, affordable(runner, network, samples, steps, PART_SECONDS))
        kept = part
    yield 0, min(kept, samples)
    for start in range(kept, samples, part):
        yield start, min(start + part, samples)


def _seed(seed: int, number: int) -> int:
    """Derive a separate seed for each part, so that parts have independent noise."""
    return int(np.random.default_rng([seed, number]).integers(_SEEDS))


def _shifted(progress: Progress | None, start: int, samples: int) -> Progress | None:
    if progress is None:
        return None
    return lambda done, _: progress(start + done, samples)


def _summed_run(run: Run, kept: int) -> StreamedRun:
    """Return a run with summed events and the states of its first `kept` samples."""
    given = {each.name: getattr(run, each.name) for each in fields(Run)}
    counts = {name: values[:kept].copy() for name, values in run.counts.items() if kept}
    changed: dict[str, Any] = {
        "events": {},
        "states": _first(run.states, kept),
        "counts": counts,
    }
    return StreamedRun(**{**given, **changed}, counted=counted_of(run))


def _first(states: States | None, kept: int) -> States | None:
    if states is None or not kept:
        return None
    if len(states.m) <= kept:
        return states
    # Copy, so that the memory of the other samples can be released.
    found: dict[str, Any] = {name: getattr(states, name)[:kept].copy() for name in _RECORDED}
    parts = {place: values[:kept].copy() for place, values in states.parts.items()}
    return replace(states, parts=parts, **found)


def _joined(parts: Sequence[StreamedRun]) -> StreamedRun:
    """Concatenate parts; rasters and settings are those of the first."""
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
        "counts": {name: _counts(name, parts) for name in first.counts},
        "notes": tuple(dict.fromkeys(note for run in parts for note in run.notes)),
        "counted": {n: Counted.joined([r.counted[n] for r in parts]) for n in first.counted},
    }
    return StreamedRun(**{**given, **joined})


def _states(recorded: Sequence[States]) -> States | None:
    if len(recorded) < 2:
        return recorded[0] if recorded else None
    first = recorded[0]
    found: dict[str, Any] = {
        name: np.concatenate([getattr(states, name) for states in recorded]) for name in _RECORDED
    }
    parts = {place: np.concatenate([s.parts[place] for s in recorded]) for place in first.parts}
    return replace(first, parts=parts, **found)


def _counts(name: str, parts: Sequence[StreamedRun]) -> np.ndarray:
    """Return the spikes of every neuron in the first samples, as far as all were counted."""
    found = list[np.ndarray]()
    for run in parts:
        if name not in run.counts:
            break
        found.append(run.counts[name])
        if len(found[-1]) < len(run.outputs):
            break
    return np.concatenate(found)[: samples_counted(*found[0].shape[1:])]


def _summed(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(total)
