"""Runs of sequences of different lengths, on any target: those of one length run together.

A target reads the answer after the last step of its inputs. Sequences are therefore cut to their
own lengths, and what has a value for each step is padded with zeros afterwards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from lmu_deploy.core.progress import Progress
from targets.base import Run, States, Target

_PART_SAMPLES = 1000
_BY_STEP = ("m", "h", "y")


class ByLength:
    """A target for sequences of different lengths.

    Parameters
    ----------
    target : Target
    lengths : ndarray of int, shape (samples,)
        Steps of each sequence that count, of all samples that a run is given.
    """

    def __init__(self, target: Target, lengths: np.ndarray) -> None:
        self.target, self.lengths = target, lengths
        self.name, self.accepts = target.name, target.accepts

    def unsupported(self, network: Any) -> list[str]:
        """Return all reasons why the target cannot run `network`."""
        return self.target.unsupported(network)

    def run(
        self,
        network: Any,
        inputs: np.ndarray,
        *,
        record: bool = False,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Run:
        """Run all samples; parameters and result as of :meth:`targets.base.Target.run`."""
        return self._merged(network, inputs, np.arange(len(inputs)), record, seed, progress)

    def parts(
        self,
        network: Any,
        inputs: np.ndarray,
        *,
        record: int = 0,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Iterator[Run]:
        """Yield the runs of consecutive samples; see :class:`targets.base.InParts`."""
        starts = [0, *range(record or _PART_SAMPLES, len(inputs), _PART_SAMPLES)]
        for start, stop in zip(starts, [*starts[1:], len(inputs)], strict=True):
            rows = np.arange(start, min(stop, len(inputs)))
            yield self._merged(network, inputs, rows, start < record, seed, progress)

    def _merged(
        self,
        network: Any,
        inputs: np.ndarray,
        rows: np.ndarray,
        record: bool,
        seed: int,
        progress: Progress | None,
    ) -> Run:
        """Run samples of each length by themselves, and join the runs in the order of `rows`."""
        places, runs, done = [], [], int(rows[0])
        for length in np.unique(self.lengths[rows]):
            own = np.flatnonzero(self.lengths[rows] == length)
            before = done

            def shifted(now: int, _: int, before: int = before) -> None:
                if progress:
                    progress(before + now, len(inputs))

            runs.append(
                self.target.run(
                    network,
                    inputs[rows[own], :length],
                    record=record,
                    seed=int(np.random.SeedSequence((seed, done)).generate_state(1)[0]),
                    progress=shifted,
                )
            )
            places.append(own)
            done += len(own)
        return _joined(runs, places, inputs.shape[1], seed)


def _joined(runs: Sequence[Run], places: Sequence[np.ndarray], steps: int, seed: int) -> Run:
    """Return runs as one; values of each step are padded to `steps`."""
    first = next(run for run, own in zip(runs, places, strict=True) if 0 in own)
    every_step = first.outputs.ndim == 3
    given = {each.name: getattr(first, each.name) for each in fields(Run)}

    def scattered(values: Sequence[np.ndarray], by_step: bool) -> np.ndarray:
        frame = values[0].shape[1:]
        whole = np.zeros((sum(map(len, places)), *frame), values[0].dtype)
        if by_step:
            whole = np.zeros((len(whole), steps, *frame[1:]), values[0].dtype)
        for own, value in zip(places, values, strict=True):
            whole[(own, slice(value.shape[1])) if by_step else own] = value
        return whole

    recorded = [run.states for run in runs if run.states is not None]
    states: States | None = None
    if len(recorded) == len(runs):
        named: dict[str, Any] = {
            n: scattered([getattr(s, n) for s in recorded], True) for n in _BY_STEP
        }
        states = replace(recorded[0], **named)
    joined = {
        "outputs": scattered([run.outputs for run in runs], every_step),
        "events": {n: scattered([run.events[n] for run in runs], True) for n in first.events},
        "synops": sum(run.synops for run in runs),
        "saturations": _summed([run.saturations for run in runs]),
        "carried": _summed([run.carried for run in runs]),
        "steps": steps,
        "chip_steps": max(run.chip_steps for run in runs),
        "wall_seconds": sum(run.wall_seconds for run in runs),
        "seed": seed,
        "states": states,
        "notes": tuple(dict.fromkeys(note for run in runs for note in run.notes)),
    }
    return Run(**{**given, **joined})


def _summed(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(total)
