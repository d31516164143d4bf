"""One network on its inputs: messages for Lava's processes, and the Run of what they recorded."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmu_deploy.integer_network import Format, IntegerNetwork
from lmu_deploy.wiring import memory_basis
from targets.base import Run, States
from targets.lava import records
from targets.lava.plan import Plan, make_plan
from targets.lava.records import Record

_NOTE = "simulated by Lava in fixed point, not run on a chip"


class Case:
    """A network, its input messages, and the plan for them.

    Parameters
    ----------
    network : IntegerNetwork
    inputs : ndarray, shape (samples, steps, n_in)
        Real numbers.
    """

    def __init__(self, network: IntegerNetwork, inputs: np.ndarray) -> None:
        self.network = network
        self.messages, self.limited = _to_messages(inputs, network.input)
        self.plan = make_plan(network, inputs.shape[0], inputs.shape[1])

    def read(self, place: Path) -> dict[str, Record]:
        """Read the records of all groups."""
        return {group.name: records.read(place, group) for group in self.plan.groups}

    def make_run(
        self, found: dict[str, Record], record: bool, seed: int, seconds: float, version: str
    ) -> Run:
        """Make the Run of what was recorded.

        Parameters
        ----------
        found : dict of str to Record
            By group, from :meth:`read`.
        record : bool
            Whether states were asked for.
        seed : int
        seconds : float
            On the clock.
        version : str
            Of lava-nc.
        """
        network, plan = self.network, self.plan
        y = found["readout"].states
        assert y is not None  # the readout's are always recorded
        outputs = y * network.chip_readout.output.scale
        senders = {group.name: found[group.name] for group in plan.senders}
        return Run(
            target="lava",
            outputs=outputs if network.return_sequences else outputs[:, -1],
            neurons={group.name: group.neurons for group in plan.senders},
            events={name: part.events for name, part in senders.items()},
            synops=sum(part.synops for part in senders.values()),
            saturations={"input": self.limited} | _saturations(found.values()),
            steps=plan.timetable.steps,
            chip_steps=plan.timetable.chip_steps,
            wall_seconds=seconds,
            seed=seed,
            states=_states(network, found, y) if record else None,
            rasters={name: part.raster for name, part in senders.items()},
            carried={place: n for part in senders.values() for place, n in part.carried.items()},
            notes=(_NOTE,),
            settings=_settings(plan, version),
        )


def _to_messages(inputs: np.ndarray, form: Format) -> tuple[np.ndarray, int]:
    """Give input messages ``sat(rint(real / scale))``, and how many were limited."""
    exact = np.rint(inputs / form.scale)
    limited = np.clip(exact, -form.limit, form.limit)
    return limited.astype(np.int64), int(np.count_nonzero(limited != exact))


def _saturations(found: Iterable[Record]) -> dict[str, int]:
    return {place: count for part in found for place, count in part.saturations.items()}


def _states(network: IntegerNetwork, found: dict[str, Record], y: np.ndarray) -> States:
    memories, hiddens = [], []
    for number, layer in network.on_chip:
        memories.append((found[f"layer{number}/memory"].states, layer.memory.state.scale))
        if layer.hidden is not None:
            hiddens.append((found[f"layer{number}/hidden"].states, layer.hidden.message.scale))
    m, m_scale = _side_by_side(memories, y.shape[:2])
    h, h_scale = _side_by_side(hiddens, y.shape[:2])
    basis = memory_basis(network)
    return States(m, h, y, m_scale, h_scale, network.chip_readout.output.scale, basis)


def _side_by_side(
    parts: Sequence[tuple[np.ndarray | None, float]], shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Join states of several layers, and the scale of each of them."""
    arrays, scales = [np.zeros((*shape, 0), np.int32)], [np.zeros(0)]
    for array, scale in parts:
        assert array is not None  # it was asked for
        arrays.append(array)
        scales.append(np.full(array.shape[2], scale))
    return np.concatenate(arrays, axis=2), np.concatenate(scales)


def _settings(plan: Plan, version: str) -> dict[str, Any]:
    dense = sum(len(group.outlets) for group in plan.groups)
    neurons = sum(group.part is not None or group.name == "input" for group in plan.groups)
    return {
        "versions": {
            "lava-nc": version,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "run_config": "Loihi2SimCfg(select_tag='fixed_pt')",
        "chip_steps_per_step": plan.timetable.period,
        "processes": dense + neurons,
    }
