"""A target's run in parts, so that what is held does not grow with the test set.

States and rasters are kept of the first samples, which plots and comparisons of states show; of the
others only outputs and sums of events. A target whose samples do not depend on each other answers
as in one run; one that draws numbers (noise, where membranes start) draws others in each part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from lmu_deploy.checks import check_integer
from lmu_deploy.fidelity.events import Counted
from targets.base import Progress, Run, Target

PART_SAMPLES = 1000
"""Samples run at once after the first part; a multiple of the reference's batches."""
KEPT_BYTES, KEPT_SAMPLES = 2**28, 400
_SEEDS = 2**31


@dataclass(frozen=True)
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
    """Run a target on all inputs, a part at a time.

    Parameters
    ----------
    runner : Target
    network : what it accepts
    inputs : ndarray, shape (samples, steps, n_in)
    kept : int
        How many of the first samples are recorded; they are the first part.
    part : int
        Samples of each part after it.
    seed : int
        Of the first part; every other one has one of its own that follows from it.
    progress : callable, optional
        Called with (samples done, in all).

    Raises
    ------
    InputError, RunError
        As the target's own `run`.
    """
    kept = check_integer("samples kept", kept, 1, 2**53)
    part = check_integer("samples of a part", part, 1, 2**53)
    done: list[StreamedRun] = []
    for number, (start, stop) in enumerate(_parts(len(inputs), kept, part)):
        own = seed if number == 0 else _seed(seed, number)
        told = _told(progress, start, len(inputs))
        run = runner.run(network, inputs[start:stop], record=not number, seed=own, progress=told)
        done.append(_added_up(run))
    return _joined(done)


def _parts(samples: int, kept: int, part: int) -> Iterator[tuple[int, int]]:
    """Where parts begin and end; no samples are one part, which the target refuses."""
    yield 0, min(kept, samples)
    for start in range(kept, samples, part):
        yield start, min(start + part, samples)


def _seed(seed: int, number: int) -> int:
    return int(np.random.default_rng([seed, number]).integers(_SEEDS))


def _told(progress: Progress | None, start: int, samples: int) -> Progress | None:
    if progress is None:
        return None
    return lambda done, _: progress(start + done, samples)


def _added_up(run: Run) -> StreamedRun:
    given = {each.name: getattr(run, each.name) for each in fields(Run)}
    return StreamedRun(**{**given, "events": {}}, counted=counted_of(run))


def _joined(parts: Sequence[StreamedRun]) -> StreamedRun:
    """Join parts; states, rasters and settings are those of the first."""
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
        "notes": tuple(dict.fromkeys(note for run in parts for note in run.notes)),
        "counted": {n: Counted.joined([r.counted[n] for r in parts]) for n in first.counted},
    }
    return StreamedRun(**{**given, **joined})


def _summed(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(total)
