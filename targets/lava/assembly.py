"""Build the Lava processes of a plan: synapses of Lava, and the neurons of this package.

Only the worker imports this module, because it imports Lava.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from lmu_deploy.core.files import load
from lmu_deploy.core.integer.gated import GRUUnits, LSTMUnits
from lmu_deploy.core.integer.memories import Integrators, Series
from lmu_deploy.core.integer.network import INTEGER_CLASSES
from lmu_deploy.core.integer.populations import Output, Pointwise, Product
from lmu_deploy.core.integer.reductions import Maximum, Reduction
from targets.lava import records
from targets.lava.plan import Exit, Group, Plan, make_plan
from targets.lava.processes import models, neurons  # first, because it patches the import of Lava

from lava.proc.dense.process import Dense  # isort: skip
from lava.proc.sparse.process import Sparse  # isort: skip
from lava.utils.weightutils import SignMode  # isort: skip

_SPARSE = 0.25
"""Share of nonzero weights below which synapses are stored as Sparse."""

_PROCESSES: dict[type, Any] = {
    Integrators: neurons.IntegratorNeurons,
    Series: neurons.SeriesNeurons,
    Pointwise: neurons.PointwiseNeurons,
    Product: neurons.ProductNeurons,
    LSTMUnits: neurons.LSTMNeurons,
    GRUUnits: neurons.GRUNeurons,
    Maximum: neurons.MaximumNeurons,
    Reduction: neurons.ReductionNeurons,
    Output: neurons.OutputNeurons,
}


def runs(folder: Path) -> Iterator[tuple[Any, int]]:
    """Yield one process of each connected part of a stage of every network, and its chip steps."""
    for case in records.cases(folder):
        network = load(case / records.NETWORK, INTEGER_CLASSES)
        stage, samples, steps = records.planned(case)
        plan = make_plan(network, samples, steps, stage)
        for process in build(plan, case):
            yield process, plan.timetable.total


def build(plan: Plan, folder: Path) -> list[Any]:
    """Build and connect all processes.

    Parameters
    ----------
    plan : Plan
    folder : Path
        Folder of the messages from outside and of the records.

    Returns
    -------
    processes : list of Process
        One of each connected part of the plan; running it runs the part.
    """
    models.offer_ports(
        max(len(group.links) for group in plan.groups),
        max(len(group.exits) for group in plan.groups),
    )
    processes = [_process(group, plan, folder) for group in plan.groups]
    synapses = {}
    for group, process in zip(plan.groups, processes, strict=True):
        for name, way in zip(neurons.OUT_PORTS, group.exits, strict=False):
            if way.edges:
                synapses[way.outlet] = made = _synapses(way)
                getattr(process, name).connect(made.s_in)
    for group, process in zip(plan.groups, processes, strict=True):
        for name, link in zip(neurons.IN_PORTS, group.links, strict=False):
            synapses[link.exit.outlet].a_out.connect(getattr(process, name))
    return [processes[part[0].number] for part in plan.connected()]


def _process(group: Group, plan: Plan, folder: Path) -> Any:
    kind = neurons.PlayerNeurons if group.replays else _PROCESSES[type(group.population)]
    return kind(group, plan.timetable, folder, group is plan.latest)


def _synapses(way: Exit) -> Any:
    """Build synapses of graded messages with exact sums, one row per offset, slice and target.

    Loihi stores weights of mixed sign as even numbers in [-256, 254]. Twice an 8-bit weight is such
    a number, and the exponent of -1 halves the sum, which is even, without a remainder.
    """
    rows = np.concatenate([_rows(edge.connection.slices, len(edge.offsets)) for edge in way.edges])
    weights = 2 * rows.astype(np.int32)
    sparse = np.count_nonzero(weights) < _SPARSE * weights.size
    kind: Any = Sparse if sparse else Dense
    return kind(
        weights=csr_matrix(weights) if sparse else weights,
        weight_exp=-1,
        num_weight_bits=8,
        sign_mode=SignMode.MIXED,
        num_message_bits=24,
    )


def _rows(slices: np.ndarray, offsets: int) -> np.ndarray:
    """Return the rows of each offset one after the other; shape (rows, neurons of the source)."""
    n_slices, n_out, columns = slices.shape
    by_offset = slices.reshape(n_slices, n_out, offsets, columns // offsets).transpose(2, 0, 1, 3)
    return by_offset.reshape(-1, columns // offsets)
