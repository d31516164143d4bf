"""The target: from a network and real inputs to the Run, by way of a folder and a worker."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from lmu_deploy.checks import check_inputs, check_number
from lmu_deploy.errors import InputError
from lmu_deploy.integer_network import Format, IntegerNetwork, SeriesMemory
from lmu_deploy.wiring import memory_basis, populations, wires
from targets.base import Progress, Run, States, check_supported
from targets.lava import records, supervisor
from targets.lava.compat import lava_version
from targets.lava.plan import Plan, make_plan
from targets.lava.records import Record

_INT32_MAX = 2**31 - 1
_NOTE = "simulated by Lava in fixed point, not run on a chip"


class LavaTarget:
    """Runs every IntegerNetwork whose sums fit the 32-bit integers of Lava's Dense.

    Parameters
    ----------
    time_limit : float, optional
        Seconds after which a run is given up; by default two minutes and a tenth of a second a
        chip step, some forty times what it takes.
    """

    name = "lava"
    accepts: tuple[type, ...] = (IntegerNetwork,)

    def __init__(self, time_limit: float | None = None) -> None:
        if time_limit is not None:
            time_limit = check_number("time limit", time_limit, 1.0, 1e7)
        self.time_limit = time_limit

    def unsupported(self, network: IntegerNetwork) -> list[str]:
        """Name empty populations, memories without a process, and sums that could leave 32 bits."""
        senders = populations(network)
        sizes = {name: sender.neurons for name, sender in senders.items()}
        sizes["readout"] = network.n_out
        reasons = [f"{name} has no neurons" for name, size in sizes.items() if size == 0]
        reasons += [
            f"layer {number} is a sign-taylor memory, for which there is no Lava process yet"
            for number, layer in enumerate(network.layers)
            if isinstance(layer.memory, SeriesMemory)
        ]
        for wire in wires(network):
            weights = np.abs(wire.connection.slices.astype(np.int64)).sum(axis=2).max(initial=0)
            # Twice, because Dense holds twice each weight (see assembly.py).
            largest = 2 * int(weights) * senders[wire.source].message.limit
            if largest > _INT32_MAX:
                reasons.append(
                    f"sums of {wire.place} can reach {largest}, and Dense adds in 32 bits "
                    f"(at most {_INT32_MAX}), so use narrower messages from {wire.source}"
                )
        return reasons

    def run(
        self,
        network: IntegerNetwork,
        inputs: np.ndarray,
        *,
        record: bool = False,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Run:
        """Run all samples one after the other, from zero states each.

        Parameters
        ----------
        network : IntegerNetwork
        inputs : ndarray, shape (samples, steps, n_in)
            Real numbers.
        record : bool
            Keep m, h and y of every step.
        seed : int
            Not used: nothing is random.
        progress : callable, optional
            Called with (samples done, samples in all).

        Raises
        ------
        InputError
            On inputs of another shape or with NaN, or a network that cannot run here.
        MissingDependencyError
            When Lava is absent.
        RunError
            When Lava failed, died, or passed the time limit.
        """
        check_supported(self, network)
        inputs = check_inputs(inputs, network.n_in)
        samples, steps, _ = inputs.shape
        if not samples or not steps:
            raise InputError(f"input has {samples} samples of {steps} steps; give at least one.")
        version = lava_version()
        start = time.perf_counter()
        plan = make_plan(network, samples, steps)
        messages, limited = _to_messages(inputs, network.input)

        def show(done: int) -> None:
            if progress:
                progress(done // steps, samples)

        with supervisor.temporary_folder() as folder:
            supervisor.prepare(folder, network, messages, plan, record)
            supervisor.supervise(folder, self._seconds(plan), show)
            found = {group.name: records.read(folder, group) for group in plan.groups}
        show(samples * steps)
        y = found["readout"].states
        assert y is not None  # the readout's are always recorded
        outputs = y * network.readout.output.scale
        senders = {group.name: found[group.name] for group in plan.senders}
        return Run(
            target=self.name,
            outputs=outputs if network.return_sequences else outputs[:, -1],
            neurons={group.name: group.neurons for group in plan.senders},
            events={name: part.events for name, part in senders.items()},
            synops=sum(part.synops for part in senders.values()),
            saturations={"input": limited} | _saturations(found.values()),
            steps=steps,
            chip_steps=plan.timetable.chip_steps,
            wall_seconds=time.perf_counter() - start,
            seed=seed,
            states=_states(network, found, y) if record else None,
            rasters={name: part.raster for name, part in senders.items()},
            notes=(_NOTE,),
            settings=_settings(plan, version),
        )

    def _seconds(self, plan: Plan) -> float:
        generous = 120.0 + 0.1 * plan.timetable.total
        return generous if self.time_limit is None else self.time_limit


def _to_messages(inputs: np.ndarray, form: Format) -> tuple[np.ndarray, int]:
    """Give input messages ``sat(rint(real / scale))``, and how many were limited."""
    exact = np.rint(inputs / form.scale)
    limited = np.clip(exact, -form.limit, form.limit)
    return limited.astype(np.int64), int(np.count_nonzero(limited != exact))


def _saturations(found: Iterable[Record]) -> dict[str, int]:
    return {place: count for part in found for place, count in part.saturations.items()}


def _states(network: IntegerNetwork, found: dict[str, Record], y: np.ndarray) -> States:
    memories, hiddens = [], []
    for number, layer in enumerate(network.layers):
        memories.append((found[f"layer{number}/memory"].states, layer.memory.state.scale))
        if layer.hidden is not None:
            hiddens.append((found[f"layer{number}/hidden"].states, layer.hidden.message.scale))
    m, m_scale = _side_by_side(memories, y.shape[:2])
    h, h_scale = _side_by_side(hiddens, y.shape[:2])
    basis = memory_basis(network)
    return States(m, h, y, m_scale, h_scale, network.readout.output.scale, basis)


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
    dense = sum(len(link.wire.connection.slices) for group in plan.groups for link in group.links)
    return {
        "versions": {
            "lava-nc": version,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "run_config": "Loihi2SimCfg(select_tag='fixed_pt')",
        "chip_steps_per_step": plan.timetable.period,
        "processes": 1 + dense + len(plan.groups),
    }
