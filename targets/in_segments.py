"""Networks that are partly on the host, on targets that run what is all on the chip.

The segments run one after the other on whole sequences: those of the chip on the target, those of
the host here. Counts are combined under the names of the whole network.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from lmu_deploy.core.integer.graph import HOST, memory_basis
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.segments import ChipSegment, HostSegment, host_sentence, segments
from lmu_deploy.core.progress import Progress
from targets.base import Run, States
from targets.host import HostSteps

RunChip = Callable[[IntegerNetwork, np.ndarray, bool, Progress | None], Run]
"""Runs a network that is all on the chip: network, inputs, record, progress."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class _HostRun:
    """Real outputs of a segment on the host, and the h of its layers if recorded."""

    outputs: np.ndarray
    h: np.ndarray | None


def run_in_segments(
    network: IntegerNetwork,
    inputs: np.ndarray,
    run_chip: RunChip,
    *,
    record: bool,
    progress: Progress | None,
) -> Run:
    """Run a network that is partly on the host.

    Parameters
    ----------
    network : IntegerNetwork
    inputs : ndarray, shape (samples, steps, n_in)
    run_chip : callable
    record : bool
        Record m, h and y of every step. Those of the chip are integers; h of the host's layers,
        and y after them, are real numbers of scale 1.
    progress : callable, optional
        Called with (samples done, in total), the segments on the chip one after another.

    Returns
    -------
    run : Run
        `chip_steps` are those of the longest segment, because all segments work in parallel, each
        on another step.
    """
    start, parts = time.perf_counter(), segments(network)
    on_chip = sum(isinstance(part, ChipSegment) for part in parts)
    runs: list[tuple[ChipSegment, Run]] = []
    hosts: list[tuple[HostSegment, _HostRun]] = []
    signal = inputs
    for part in parts:
        if isinstance(part, HostSegment):
            hosts.append((part, _run_host(part, signal, record)))
            signal = hosts[-1][1].outputs
            continue
        shown = _share(progress, len(runs), on_chip)
        runs.append((part, run_chip(part.network, signal, record, shown)))
        signal = runs[-1][1].outputs
    at_the_end = isinstance(parts[-1], HostSegment) and not network.return_sequences
    counted = [_renamed(part, run) for part, run in runs]
    longest = max(run.chip_steps for run in counted)
    notes = dict.fromkeys(note for run in counted for note in run.notes)
    return replace(
        counted[0],
        outputs=signal[:, -1] if at_the_end else signal,
        neurons=_joined([run.neurons for run in counted]),
        events=_joined([run.events for run in counted]),
        synops=sum(run.synops for run in counted),
        saturations=_joined([run.saturations for run in counted]),
        chip_steps=longest,
        wall_seconds=time.perf_counter() - start,
        states=_states(network, runs, hosts) if record else None,
        rasters={
            name: np.pad(raster, ((0, longest - len(raster)), (0, 0)))
            for name, raster in _joined([run.rasters for run in counted]).items()
        },
        carried=_joined([run.carried for run in counted]),
        notes=(*notes, host_sentence(network) or ""),
        settings={**counted[0].settings, "layers on the host": [n for n, _ in network.on_host]},
    )


def _run_host(segment: HostSegment, signal: np.ndarray, record: bool) -> _HostRun:
    samples, steps, _ = signal.shape
    host = HostSteps(segment, samples)
    outputs, kept = [], []
    for t in range(steps):
        outputs.append(host.advance(signal[:, t]))
        if record:
            kept.append(np.concatenate(host.h, axis=1))
    return _HostRun(np.stack(outputs, axis=1), np.stack(kept, axis=1) if record else None)


def _share(progress: Progress | None, done: int, total: int) -> Progress | None:
    """Return a callable that reports progress of one of several segments as that of all."""
    if progress is None:
        return None
    return lambda now, samples: progress((done * samples + now) // total, samples)


def _renamed(segment: ChipSegment, run: Run) -> Run:
    """Return the counts of a segment under the names of the whole network."""
    synops, carried, saturations = run.synops, dict(run.carried), dict(run.saturations)
    if segment.hands_over:  # through the identity, which is not on the chip
        synops -= carried.pop("readout")
        saturations = {p: n for p, n in saturations.items() if not p.startswith("readout/")}

    def named(values: Mapping[str, Value]) -> dict[str, Value]:
        return {_whole_name(name, segment.first): value for name, value in values.items()}

    return replace(
        run,
        neurons=named(run.neurons),
        events=named(run.events),
        synops=synops,
        saturations=named(saturations),
        rasters=named(run.rasters),
        carried=named(carried),
    )


def _whole_name(name: str, first: int) -> str:
    """Return the name in the whole network of a population or place of a segment."""
    if first == 0 or name.split("/")[0] == "readout":
        return name
    if name == "input":
        return f"layer{first - 1}/{HOST}"
    layer, _, rest = name.partition("/")
    return f"layer{int(layer.removeprefix('layer')) + first}/{rest}"


def _joined(parts: list[Mapping[str, Value]]) -> dict[str, Value]:
    return {name: value for part in parts for name, value in part.items()}


def _states(
    network: IntegerNetwork,
    runs: list[tuple[ChipSegment, Run]],
    hosts: list[tuple[HostSegment, _HostRun]],
) -> States:
    """Concatenate the states of all segments."""
    chip = [(part.first, run.states) for part, run in runs]
    pieces = {first: (s.h, s.h_scale, False) for first, s in chip if s is not None}
    for part, host in hosts:
        assert host.h is not None
        pieces[part.first] = host.h, np.ones(host.h.shape[2]), True
    h = [pieces[first] for first in sorted(pieces)]
    kept = [states for _, states in chip if states is not None]
    y, y_scale = kept[-1].y, kept[-1].y_scale
    if hosts and hosts[-1][0].readout is not None:
        y, y_scale = hosts[-1][1].outputs, 1.0
    return States(
        np.concatenate([states.m for states in kept], axis=2),
        np.concatenate([values for values, _, _ in h], axis=2),
        y,
        np.concatenate([states.m_scale for states in kept]),
        np.concatenate([scale for _, scale, _ in h]),
        y_scale,
        memory_basis(network),
        np.concatenate([np.full(len(scale), on_host) for _, scale, on_host in h]),
    )
