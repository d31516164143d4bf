"""The target: from networks and real inputs to Runs, by way of a folder and a worker."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from lmu_deploy.checks import check_inputs, check_number
from lmu_deploy.integer_network import IntegerNetwork
from lmu_deploy.wiring import populations, wires
from targets.base import Progress, Run, check_supported
from targets.in_segments import run_in_segments
from targets.lava import records, supervisor
from targets.lava.case import Case
from targets.lava.compat import lava_version

_INT32_MAX = 2**31 - 1


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
        """Name empty populations, and sums that could leave 32 bits."""
        senders = populations(network)
        sizes = {name: sender.neurons for name, sender in senders.items()}
        sizes["readout"] = network.n_out
        reasons = [f"{name} has no neurons" for name, size in sizes.items() if size == 0]
        for wire in wires(network):
            weights = np.abs(wire.connection.slices.astype(np.int64)).sum(axis=2).max(initial=0)
            # Twice, because Dense holds twice each weight (see assembly.py), and a change is up to
            # twice as large as a message.
            factor = 4 if wire.connection.threshold else 2
            largest = factor * int(weights) * senders[wire.source].message.limit
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
        case = network, inputs
        if not isinstance(network, IntegerNetwork) or not network.on_host:
            return self.run_each([case], record=record, seed=seed, progress=progress)[0]
        check_supported(self, network)
        return run_in_segments(
            network,
            check_inputs(inputs, network.n_in),
            lambda part, x, kept, told: self.run(part, x, record=kept, seed=seed, progress=told),
            record=record,
            progress=progress,
        )

    def run_each(
        self,
        cases: Sequence[tuple[IntegerNetwork, np.ndarray]],
        *,
        record: bool = False,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> list[Run]:
        """Run several networks in one interpreter, whose start is most of a short run's time.

        Parameters
        ----------
        cases : sequence of (IntegerNetwork, ndarray of shape (samples, steps, n_in))
        record, seed, progress
            As those of :meth:`run`; progress counts the samples of all networks together.

        Returns
        -------
        runs : list of Run
            The wall seconds of each are those of all together.

        Raises
        ------
        InputError, MissingDependencyError, RunError
            As :meth:`run`.
        """
        for network, _ in cases:
            check_supported(self, network)
        if any(network.on_host for network, _ in cases):
            return [self.run(*c, record=record, seed=seed, progress=progress) for c in cases]
        checked = [(network, check_inputs(given, network.n_in)) for network, given in cases]
        version, start = lava_version(), time.perf_counter()
        prepared = [Case(network, inputs) for network, inputs in checked]
        samples = sum(case.plan.timetable.samples for case in prepared)

        def show(steps_done: int) -> None:
            if progress:
                progress(_samples_done(prepared, steps_done), samples)

        with supervisor.temporary_folder() as folder:
            places = [records.case_folder(folder, number) for number in range(len(prepared))]
            for place, case in zip(places, prepared, strict=True):
                supervisor.prepare(place, case.network, case.messages, case.plan, record)
            supervisor.supervise(folder, self._seconds(prepared), show)
            found = [case.read(place) for place, case in zip(places, prepared, strict=True)]
        if progress:
            progress(samples, samples)
        seconds = time.perf_counter() - start
        return [
            case.make_run(part, record, seed, seconds, version)
            for case, part in zip(prepared, found, strict=True)
        ]

    def _seconds(self, cases: Sequence[Case]) -> float:
        generous = sum(120.0 + 0.1 * case.plan.timetable.total for case in cases)
        return generous if self.time_limit is None else self.time_limit


def _samples_done(cases: Sequence[Case], steps_done: int) -> int:
    """Count whole samples among the steps that are done, case by case."""
    samples = 0
    for case in cases:
        table = case.plan.timetable
        here = min(steps_done, table.samples * table.steps)
        samples, steps_done = samples + here // table.steps, steps_done - here
    return samples
