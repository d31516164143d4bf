"""Build the Lava processes of a plan: a Dense for each outlet, and the neurons of this package.

Only the worker imports this module, because it imports Lava.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lmu_deploy.core.integer.graph import Outlet
from lmu_deploy.core.integer.layers import IntegerHidden, IntegerMemory, SeriesMemory
from targets.lava.plan import Group, Plan
from targets.lava.processes import neurons  # first, because it patches the import of Lava

from lava.proc.dense.process import Dense  # isort: skip
from lava.utils.weightutils import SignMode  # isort: skip


def build(plan: Plan, folder: Path) -> Any:
    """Build and connect all processes.

    Parameters
    ----------
    plan : Plan
    folder : Path
        Folder of the input messages and of the records.

    Returns
    -------
    readout : Process
        One of the connected processes; running it runs them all.
    """
    processes = {
        group.name: _process(group, plan, folder)
        for group in plan.groups
        if not _is_within_a_series(group)
    }
    synapses = {}
    for group in plan.groups:
        for number, outlet in enumerate(group.outlets):
            dense = _synapses(outlet)
            _out_port(group, number, processes).connect(dense.s_in)
            synapses[outlet.source, outlet.threshold] = dense
    for group in plan.groups:
        for name, link in zip(neurons.IN_PORTS, group.links, strict=False):
            dense = synapses[link.edge.source, link.edge.connection.threshold]
            dense.a_out.connect(getattr(processes[group.name], name))
    return processes["readout"]


def _is_within_a_series(group: Group) -> bool:
    return group.part is None and group.name != "input"


def _process(group: Group, plan: Plan, folder: Path) -> Any:
    if isinstance(group.part, SeriesMemory):
        memory = plan.groups[plan.groups.index(group) + 1]
        return neurons.SeriesNeurons(group, memory, plan.timetable, folder)
    if group.part is None:
        kind: Any = neurons.InputNeurons
    elif isinstance(group.part, IntegerMemory):
        kind = neurons.MemoryNeurons
    elif isinstance(group.part, IntegerHidden):
        kind = neurons.HiddenNeurons
    else:
        kind = neurons.ReadoutNeurons
    return kind(group, plan.timetable, folder)


def _out_port(group: Group, number: int, processes: dict[str, Any]) -> Any:
    if isinstance(group.part, SeriesMemory):
        return processes[group.name].v_out
    name = group.name
    if _is_within_a_series(group):
        name = name.replace("/memory", "/series")
    return getattr(processes[name], neurons.OUT_PORTS[number])


def _synapses(outlet: Outlet) -> Any:
    """Build a Dense of graded messages with exact sums, one row per slice and target.

    Loihi stores weights of mixed sign as even numbers in [-256, 254]. Twice an 8-bit weight is such
    a number, and the exponent of -1 halves the sum, which is even, without a remainder.
    """
    slices = [edge.connection.slices for edge in outlet.edges]
    rows = np.concatenate([part.reshape(-1, part.shape[2]) for part in slices])
    return Dense(
        weights=2 * rows.astype(np.int32),
        weight_exp=-1,
        num_weight_bits=8,
        sign_mode=SignMode.MIXED,
        num_message_bits=24,
    )
