"""Target `brian2-cpp`: memories of spiking networks as compiled programs, the rest on the host."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.network import LMULayer, LSTMLayer
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.spiking.chip import CALIBRATION_MARGIN
from lmu_deploy.core.spiking.network import SpikingNetwork
from targets.base import LARGEST_RASTER, InOnePart, Run, check_run
from targets.brian2.standalone.process import Job, Outcome, run_job
from targets.brian2.target import make_run
from targets.host import HostLayer, apply_readout, observed, run_lstm
from targets.spiking.graph import foreign


@dataclass(frozen=True)
class Answers:
    """Results of all layers.

    Attributes
    ----------
    m, h, y : ndarray, shape (samples, steps, states | units | n_out)
        As :class:`targets.base.States` orders them.
    outcomes : mapping of population to Outcome
    beyond : mapping of memory to int
        Number of states at the ends of presentations outside the range of the calibration.
    """

    m: np.ndarray
    h: np.ndarray
    y: np.ndarray
    outcomes: Mapping[str, Outcome]
    beyond: Mapping[str, int]


def run_layers(
    network: SpikingNetwork, inputs: np.ndarray, seed: int, progress: Progress | None
) -> Answers:
    """Run all layers in order on inputs of shape (samples, steps, n_in).

    Initial membranes are those of target brian2 with the same seed.
    """
    signal = inputs
    m, h = [signal[:, :, :0]], [signal[:, :, :0]]
    outcomes: dict[str, Outcome] = {}
    beyond: dict[str, int] = {}
    reported = _Reported(
        sum(memory is not None for memory in network.memories), len(inputs), progress
    )
    for number, layer in enumerate(network.host.layers):
        if isinstance(layer, LSTMLayer):
            signal = run_lstm(layer, signal)
            h.append(signal)
            continue
        job = _job(network, number, layer, signal, [seed, len(outcomes)], progress is not None)
        outcome = run_job(job, reported.share)
        reported.finish_memory()
        host = observed(layer, signal, outcome.m)
        place = str(network.place(number, "memory"))
        outcomes[place] = outcome
        reached = CALIBRATION_MARGIN * job.memory.scales.reshape(-1)
        beyond[f"{place}/state"] = int(np.count_nonzero(np.abs(host.m) > reached))
        m.append(host.m)
        h.append(host.h)
        signal = host.output
    y = apply_readout(network.host.readout, signal)
    return Answers(np.concatenate(m, axis=2), np.concatenate(h, axis=2), y, outcomes, beyond)


def _job(
    network: SpikingNetwork,
    number: int,
    layer: LMULayer,
    signal: np.ndarray,
    seeds: list[int],
    report_progress: bool,
) -> Job:
    memory = network.memories[number]
    assert memory is not None  # a SpikingNetwork has one for every LMU layer
    samples, steps, _ = signal.shape
    host = HostLayer(layer, signal)
    return Job(
        network=network,
        layer=number,
        channels=np.stack([host.channels(step) for step in range(steps)], axis=1),
        membranes=np.random.default_rng(seeds).random((samples, memory.neurons)),
        noise_seed=int(np.random.default_rng([*seeds, 1]).integers(2**31)),
        raster=memory.neurons * steps * network.steps_per_presentation <= LARGEST_RASTER,
        report_progress=report_progress,
    )


class _Reported:
    """Progress of several programs, reported as whole samples, each number once."""

    def __init__(self, memories: int, samples: int, progress: Progress | None) -> None:
        self.memories, self.samples, self.progress = memories, samples, progress
        self.done, self.last = 0, 0

    def share(self, share: float) -> None:
        """Report the share of the current program that is done."""
        samples = int((self.done + min(share, 1.0)) / self.memories * self.samples)
        if self.progress and samples > self.last:
            self.last = samples
            self.progress(samples, self.samples)

    def finish_memory(self) -> None:
        """Report that the current program is done."""
        self.done += 1
        self.share(0.0)


_MOST_NEURONS = 5_000_000
_EXAMPLES = (
    "the suite's example feeds its hidden units and memory back into the memory, which needs the "
    "host once per presentation, and its kind dpi has synapses that are not linear; separate tests "
    "compare the spikes of this target with those of target brian2"
)


class Brian2CppTarget(InOnePart):
    """Run each memory of a spiking network as a compiled program, all samples at once."""

    name = "brian2-cpp"
    accepts: tuple[type, ...] = (SpikingNetwork,)
    conformance_exceptions: Mapping[str, str] = dict.fromkeys(
        (
            "answers_are_real_numbers_of_the_right_shape",
            "answers_agree_with_the_reference",
            "silence_is_answered_with_silence",
            "one_step_is_the_first_of_many",
            "the_run_says_what_it_was",
            "states_are_recorded_at_every_step",
            "states_agree_with_the_reference",
            "nothing_is_recorded_unasked",
            "events_add_up",
            "the_same_seed_gives_the_same_run",
            "inputs_are_left_alone",
            "progress_reaches_its_end",
            "unsupported_networks_are_refused_with_every_reason",
        ),
        _EXAMPLES,
    )

    def unsupported(self, network: SpikingNetwork) -> list[str]:
        """Return feedback that needs the host, nonlinear synapses, and units on neurons."""
        reasons = foreign(network)
        layers = [each for each in network.host.layers if isinstance(each, LMULayer)]
        for what, name in (("hidden units", "hidden_encoders"), ("the memory", "memory_encoders")):
            if any(getattr(layer, name) is not None for layer in layers):
                reasons.append(
                    f"{what} fed back into a memory must pass the host once per presentation, and "
                    "a compiled program does not stop for it"
                )
        if network.synapse is not None:
            reasons.append("its synapses are pairs of DPIs, and the compiled ones are linear")
        if network.units is not None:
            reasons.append(
                "its hidden units are on neurons, and only memories are compiled: create it with "
                "spike --units host"
            )
        return reasons

    def run(
        self,
        network: SpikingNetwork,
        inputs: np.ndarray,
        *,
        record: bool = False,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Run:
        """Compile and run; see :class:`targets.base.Target`.

        `seed` is that of initial membranes, as on target brian2, and of noise.

        Raises
        ------
        MissingDependencyError
            When a C++ compiler, make, or Brian2 is not installed.
        """
        inputs, seed = check_run(self, network, inputs, seed)
        _check_size(network, len(inputs))
        start = time.perf_counter()
        answers = run_layers(network, inputs, seed, progress)
        seconds = time.perf_counter() - start
        return self._run_of(network, answers, record=record, seed=seed, wall_seconds=seconds)

    def _run_of(
        self,
        network: SpikingNetwork,
        answers: Answers,
        *,
        record: bool,
        seed: int,
        wall_seconds: float,
    ) -> Run:
        outcomes = answers.outcomes
        return make_run(
            self.name,
            network,
            answers.m,
            answers.h,
            answers.y,
            events={name: outcome.counts for name, outcome in outcomes.items()},
            synops=sum(outcome.synops for outcome in outcomes.values()),
            saturations=dict(answers.beyond),
            rasters={n: o.raster for n, o in outcomes.items() if len(o.raster)},
            counts={},
            record=record,
            seed=seed,
            wall_seconds=wall_seconds,
            version=next((outcome.version for outcome in outcomes.values()), ""),
            codegen="cpp_standalone",
        )


def _check_size(network: SpikingNetwork, samples: int) -> None:
    """Raise InputError for too many neurons for one program."""
    largest = max((m.neurons for m in network.memories if m is not None), default=0)
    if samples * largest > _MOST_NEURONS:
        raise InputError(
            f"{samples} samples of {largest:,} neurons are more than the {_MOST_NEURONS:,} that "
            f"target brian2-cpp simulates at once; give at most {_MOST_NEURONS // largest} "
            "samples, or use target brian2."
        )
