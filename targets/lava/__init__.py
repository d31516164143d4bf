"""Target `lava`: the integer network as processes of Intel's Lava, simulating Loihi 2.

Stock RingBuffer and Dense for inputs and synapses, own processes for the neurons, all written from
docs/integer-semantics.md: its states must equal those of every other integer target. Lava runs in
an interpreter of its own (:mod:`targets.lava.supervisor`); this module does not import it.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import numpy as np

from lmu_deploy.checks import check_inputs, check_number
from lmu_deploy.errors import InputError
from lmu_deploy.integer_network import Format, IntegerNetwork
from targets.base import Progress, Run, States, check_supported
from targets.lava import records, supervisor
from targets.lava.compat import lava_version
from targets.lava.plan import Plan, Population, make_plan

_INT32_MAX = 2**31 - 1


class LavaTarget:
    """Runs every IntegerNetwork whose sums fit the 32-bit integers of Lava's Dense.

    Parameters
    ----------
    time_limit : float, optional
        Seconds after which a run is given up; by default two minutes and a twentieth of a second
        a chip step, some ten to fifty times what it takes.
    """

    name = "lava"
    accepts: tuple[type, ...] = (IntegerNetwork,)

    def __init__(self, time_limit: float | None = None) -> None:
        if time_limit is not None:
            time_limit = check_number("time limit", time_limit, 1.0, 1e7)
        self.time_limit = time_limit

    def unsupported(self, network: IntegerNetwork) -> list[str]:
        """Name populations without neurons and connections whose sums could leave 32 bits."""
        plan = make_plan(network, 1, 1)
        reasons = [f"{p.name} has no neurons" for p in plan.populations if p.neurons == 0]
        limits = _message_limits(network, plan)
        for population in plan.populations:
            for link in population.links:
                weights = np.abs(link.connection.slices.astype(np.int64)).sum(axis=2)
                largest = 2 * int(weights.max(initial=0)) * limits[link.source]
                if largest > _INT32_MAX:
                    reasons.append(
                        f"sums of {link.place} can reach {largest}, and Dense adds in 32 bits "
                        f"(at most {_INT32_MAX}); use narrower messages from {link.source}"
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
        limit = self.time_limit or 120.0 + 0.05 * plan.timetable.total

        def show(done: int) -> None:
            if progress:
                progress(done // steps, samples)

        with supervisor.temporary_folder() as folder:
            supervisor.prepare(folder, network, messages, plan, record)
            supervisor.supervise(folder, limit, show)
            found = {p.name: records.read(folder, p) for p in plan.populations}
        show(samples * steps)
        y = found["readout"].states
        assert y is not None  # always recorded
        senders = [p for p in plan.populations if p.name != "readout"]
        saturations = {"input": limited}
        for part in found.values():
            saturations |= part.saturations
        return Run(
            target=self.name,
            outputs=(y if network.return_sequences else y[:, -1]) * network.readout.output.scale,
            neurons={p.name: p.neurons for p in senders},
            events={p.name: found[p.name].events for p in senders},
            synops=sum(part.synops for part in found.values()),
            saturations=saturations,
            steps=steps,
            chip_steps=plan.timetable.chip_steps,
            wall_seconds=time.perf_counter() - start,
            seed=seed,
            states=_states(network, plan, found, y) if record else None,
            rasters={p.name: found[p.name].raster for p in senders},
            notes=("simulated by Lava in fixed point (Loihi2SimCfg), not run on a chip",),
            settings=_settings(plan, version),
        )


def _to_messages(inputs: np.ndarray, form: Format) -> tuple[np.ndarray, int]:
    """Input messages ``sat(rint(real / scale))``, and how many were limited."""
    exact = np.rint(inputs / form.scale)
    limited = np.clip(exact, -form.limit, form.limit)
    return limited.astype(np.int64), int(np.count_nonzero(limited != exact))


def _message_limits(network: IntegerNetwork, plan: Plan) -> dict[str, int]:
    limits = {"input": network.input.limit}
    for population in plan.populations:
        message = getattr(population.part, "message", None)
        if isinstance(message, Format):
            limits[population.name] = message.limit
    return limits


def _states(
    network: IntegerNetwork, plan: Plan, found: dict[str, records.Record], y: np.ndarray
) -> States:
    def together(suffix: str) -> tuple[np.ndarray, np.ndarray]:
        parts = [p for p in plan.populations if p.name.endswith(suffix)]
        arrays = [found[p.name].states for p in parts]
        empty = np.zeros((*y.shape[:2], 0), np.int32), np.zeros(0)
        scales = [np.full(p.neurons, _scale(p)) for p in parts]
        return (
            np.concatenate([a for a in arrays if a is not None] or [empty[0]], axis=2),
            np.concatenate(scales or [empty[1]]),
        )

    (m, m_scale), (h, h_scale) = together("/memory"), together("/hidden")
    return States(m, h, y, m_scale, h_scale, network.readout.output.scale)


def _scale(population: Population) -> float:
    part: Any = population.part
    return part.state.scale if population.name.endswith("/memory") else part.message.scale


def _settings(plan: Plan, version: str) -> dict[str, Any]:
    dense = sum(len(link.connection.slices) for p in plan.populations for link in p.links)
    return {
        "versions": {
            "lava-nc": version,
            "numpy": np.__version__,
            "python": ".".join(map(str, sys.version_info[:3])),
        },
        "run_config": "Loihi2SimCfg(select_tag='fixed_pt')",
        "chip_steps_per_step": plan.timetable.period,
        "processes": dense + len(plan.populations) + 1,
        "cpus": os.cpu_count(),
    }
