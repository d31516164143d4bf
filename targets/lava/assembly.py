"""Turn a plan into Lava processes: RingBuffer, Dense and the neurons of this package.

Only the worker imports this module, for it imports Lava.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lmu_deploy.integer_network import IntegerHidden, IntegerMemory
from targets.lava.plan import Group, Plan, Timetable
from targets.lava.processes import neurons  # before Lava's own modules: it mends their import

from lava.proc.dense.process import Dense  # isort: skip
from lava.proc.io.source import RingBuffer  # isort: skip
from lava.utils.weightutils import SignMode  # isort: skip


def build(plan: Plan, inputs: np.ndarray, folder: Path) -> Any:
    """Make and connect all processes.

    Parameters
    ----------
    plan : Plan
    inputs : ndarray, shape (samples, steps, n_in), int32
        Input messages.
    folder : Path
        Where the groups keep their records.

    Returns
    -------
    source : RingBuffer
        One of the connected processes; running it runs them all.
    """
    source = RingBuffer(data=_schedule(inputs, plan.timetable))
    processes = {group.name: _process(group, plan.timetable, folder) for group in plan.groups}
    source.s_out.connect(processes["input"].s_in)
    for group in plan.groups:
        target = processes[group.name]
        for number, link in enumerate(group.links):
            sender = source if link.wire.source == "input" else processes[link.wire.source]
            for part, weights in enumerate(link.wire.connection.slices):
                dense = _synapses(weights)
                sender.s_out.connect(dense.s_in)
                dense.a_out.connect(getattr(target, neurons.port_name(number, part)))
    return source


def _process(group: Group, timetable: Timetable, folder: Path) -> Any:
    if group.part is None:
        kind: Any = neurons.InputCounter
    elif isinstance(group.part, IntegerMemory):
        kind = neurons.MemoryNeurons
    elif isinstance(group.part, IntegerHidden):
        kind = neurons.HiddenNeurons
    else:
        kind = neurons.ReadoutNeurons
    return kind(group, timetable, folder)


def _synapses(weights: np.ndarray) -> Any:
    """Make a Dense of graded messages whose sums are exact.

    Loihi stores weights of mixed sign as even numbers in [-256, 254]. Twice an 8-bit weight is
    one of these, and the exponent of -1 halves the sum, which is even, without a remainder.
    """
    return Dense(
        weights=2 * weights.astype(np.int32),
        weight_exp=-1,
        num_weight_bits=8,
        sign_mode=SignMode.MIXED,
        num_message_bits=24,
    )


def _schedule(inputs: np.ndarray, timetable: Timetable) -> np.ndarray:
    """Messages at every chip step, zero in between; shape (n_in, chip steps in all)."""
    data = np.zeros((inputs.shape[2], timetable.total), dtype=np.int32)
    for sample, messages in enumerate(inputs):
        start = sample * timetable.span
        stop = start + timetable.steps * timetable.period
        data[:, start : stop : timetable.period] = messages.T
    return data
