"""`run`: one network on one target, with the figures of the run; and the list of targets."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from functools import cached_property
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmu_deploy.core.errors import InputError, MissingDependencyError
from lmu_deploy.core.files import atomic_write, write_text
from lmu_deploy.core.graph.executor import check_lengths
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.populations import Input, Output
from lmu_deploy.core.loading import AnyNetwork, as_network, check_network_inputs, float_source
from lmu_deploy.core.progress import progress_bar
from lmu_deploy.core.representation import Summary, counted, shortened
from lmu_deploy.core.spiking.graph import AnalogNetwork, OnLoihi
from lmu_deploy.core.validation import check_integer
from lmu_deploy.fidelity import deploy_summary
from lmu_deploy.fidelity.judge import judge
from lmu_deploy.fidelity.measures.sizes import network_sizes
from lmu_deploy.fidelity.schema import AgainstReference, Metric, TargetFidelity
from lmu_deploy.tasks.base import Split, Task
from lmu_deploy.tasks.dataset import Dataset, TaskLike, part_as_task
from lmu_deploy.tasks.selection import first_of, limited, task_for
from targets.base import (
    ByLength,
    Run,
    Slow,
    States,
    Target,
    check_supported,
    get_target,
    taken_by,
    target_names,
)
from targets.recorded import COUNTS, EVENTS, SPIKES, STATES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LOG = logging.getLogger(__name__)


def announce(label: str, runner: Target, network: AnyNetwork, inputs: np.ndarray) -> None:
    """Log the size of a simulation of neurons before it starts.

    The running time grows with the number of neurons, synapses, samples and steps. Slow targets
    estimate it from these sizes; a better estimate follows with the progress as soon as the first
    samples are done. Float targets and the bit-exact simulator are quick, and nothing is logged for
    them.

    Parameters
    ----------
    label : str
        What the progress is called.
    runner : Target
    network : AnyNetwork
    inputs : ndarray, shape (samples, steps, n_in)
    """
    neurons, sizes = neurons_of(network), network_sizes(network)
    simulated = not isinstance(network, IntegerNetwork) or isinstance(runner, Slow)
    if not neurons or sizes is None or not simulated:
        return
    samples, steps = inputs.shape[:2]
    hold = getattr(network, "steps_per_presentation", 1)
    shown = f" of {hold:,} chip steps" if hold > 1 else ""
    if isinstance(runner, Slow):
        shown += f"; about {runner.estimated_seconds(network, samples, steps):,.0f} s on one core"
    _LOG.info(
        "%s: %s, %s; %s of %s%s",
        label,
        counted(neurons, "neuron"),
        counted(sizes.synapses, "synapse"),
        counted(samples, "sample"),
        counted(steps, "step"),
        shown,
    )


def neurons_of(network: AnyNetwork) -> int:
    """Return the number of neurons that a network has on its chip; 0 for a float network."""
    if isinstance(network, AnalogNetwork | OnLoihi):
        return network.neurons
    if not isinstance(network, IntegerNetwork):
        return 0
    return sum(p.size for p in network.on_chip if not isinstance(p, Input | Output))


@dataclass(frozen=True, eq=False, repr=False)
class RunResult(Run):
    """A run on a target, with the right answers and the float reference beside it.

    All attributes of :class:`targets.base.Run` are there, such as `outputs`, `states`, `events`
    and `saturations`.

    Attributes
    ----------
    network : AnyNetwork
        The network that ran.
    task : Task or None
        The task, when the answers are known.
    answers : ndarray or None
        The right answers; see :class:`lmu_deploy.tasks.base.Split`.
    reference : Run or None
        The same inputs in the float network, when it is known and was asked for.
    samples : ndarray of int or None
        Which samples of the data ran; None for all.
    """

    network: AnyNetwork | None = None
    task: Task | None = None
    answers: np.ndarray | None = None
    reference: Run | None = None
    samples: np.ndarray | None = None

    @cached_property
    def fidelity(self) -> TargetFidelity | None:
        """All figures of the run, as in fidelity.json; None when the answers are not known."""
        if self.task is None or self.answers is None:
            return None
        return judge(
            self, self.reference, self.task, self.answers, network=self.network, seed=self.seed
        )

    @property
    def metric(self) -> Metric | None:
        """The task's metric with `name`, `value` and `ci95`; None without answers."""
        return None if self.fidelity is None else self.fidelity.metric

    @property
    def against_reference(self) -> AgainstReference | None:
        """Agreement with the float reference; None without answers or without a reference."""
        return None if self.fidelity is None else self.fidelity.reference

    @property
    def deviation(self) -> float | None:
        """Distance of the outputs from the reference's, relative to the latter's rms."""
        if self.reference is None:
            return None
        expected = np.asarray(self.reference.outputs, np.float64)
        rms = float(np.sqrt(np.mean(expected**2)))
        return float(np.sqrt(np.mean((self.outputs - expected) ** 2))) / rms if rms else None

    def summary(self) -> dict[str, Any]:
        """Return what ``lmu-deploy deploy --json`` writes.

        Raises
        ------
        InputError
            When the right answers are not known.
        """
        if self.task is None or self.answers is None:
            raise InputError("a summary needs the right answers; give y or a dataset to run.")
        return deploy_summary(
            self, self.reference, self.task, self.answers, network=self.network, seed=self.seed
        )

    def save_states(self, path: Path | str) -> Path:
        """Write the recorded states as an .npz file; see :func:`write_states`.

        Raises
        ------
        InputError
            When the run recorded nothing, or the file cannot be written.
        """
        self._recorded()
        write_states(self, path)
        return Path(path)

    def plot_states(self, sample: int = 0) -> Figure:
        """Return a figure of the memory of one sample, beside the reference's if it is known.

        Raises
        ------
        InputError
            When the run recorded no states, or there is no such sample.
        """
        from lmu_deploy.report.figures import states_figure

        states = self._recorded()
        sample = check_integer("sample", sample, 0, len(states.m) - 1)
        shown = {self.target: states.real_m(slice(sample, sample + 1))[0]}
        if self.reference is not None and self.reference.states is not None:
            shown["float reference"] = self.reference.states.m[sample]
        return states_figure(shown)

    def plot_events(self) -> Figure:
        """Return a figure of the mean events of a sample at each step, by population."""
        from lmu_deploy.report.figures import events_figure

        return events_figure({name: found.mean(axis=0) for name, found in self.events.items()})

    def _recorded(self) -> States:
        if self.states is None:
            raise InputError("the run recorded no states; run it with record=True.")
        return self.states

    def _facts(self) -> list[str]:
        samples, steps = counted(len(self.outputs), "sample"), counted(self.steps, "step")
        facts = [f"{self.target}", f"{samples} of {steps}"]
        if self.metric is not None:
            facts.append(f"{self.metric.name} {self.metric.value:.4f}")
        if self.deviation is not None:
            facts.append(f"deviation {self.deviation:.4f}")
        return facts

    def __repr__(self) -> str:
        """Return one line of at most 100 characters."""
        return shortened(f"RunResult({', '.join(self._facts())})")

    def _repr_html_(self) -> str:
        """Return the figures of the run as a small table, for notebooks."""
        target, *facts = self._facts()
        rows = [
            *(
                [
                    ("events of a sample", name, f"{n.sum(axis=1).mean():,.1f}")
                    for name, n in self.events.items()
                ]
            ),
            *([("saturations", place, f"{n:,}") for place, n in self.saturations.items() if n]),
        ]
        return Summary(facts, ("figure", "place", "value"), rows).html(target)


def run(
    network: AnyNetwork | Path | str,
    data: np.ndarray | TaskLike | Split | None = None,
    *,
    target: str | None = None,
    y: np.ndarray | None = None,
    limit: int | None = None,
    first: int | None = None,
    record: bool | Path | str = False,
    json: Path | str | None = None,
    seed: int = 0,
    reference: bool = True,
    lengths: np.ndarray | None = None,
) -> RunResult:
    """Run a network on a target, and compare it with its own float reference.

    Parameters
    ----------
    network : Network, IntegerNetwork, SpikingNetwork, LoihiNetwork or path
    data : ndarray, Split, Dataset, Task, str or path, optional
        Inputs of shape (samples, steps, n_in), one part of a dataset, or what has a test part: a
        dataset, the name of a task, or an ``.npz`` file. By default the task that the network was
        trained for.
    target : str, optional
        Such as ``lava``; :func:`lmu_deploy.targets` lists them. By default ``reference`` for a
        float network, ``integer`` for an integer one, ``brian2`` for a spiking one and
        ``spiking`` for one on Loihi's neurons.
    y : ndarray, optional
        The right answers to inputs that are given as an array: integer classes of shape (samples,),
        or signals of shape (samples, steps, n_out).
    limit : int, optional
        Only so many samples: the first, or of the user's data a stratified random choice.
    first : int, optional
        Only so many of the first samples, in the order of the file.
    record : bool or path
        Whether to keep the states of every step; a path also writes them there (``.npz``).
    json : path, optional
        Where to write :meth:`RunResult.summary`.
    seed : int
    reference : bool
        Whether the float network runs the same inputs, where it is known.
    lengths : ndarray of int, shape (samples,), optional
        Of inputs that are given as an array: steps of each sequence that count, from its first;
        what follows is padding.

    Returns
    -------
    RunResult

    Raises
    ------
    InputError
        When a file, name or value is wrong, or the target cannot run the network.
    RunError
        When the run failed.

    Examples
    --------
    >>> import lmu_deploy as ld
    >>> ld.run("examples/models/digits.safetensors", limit=8)
    RunResult(reference, 8 samples of 8 steps, accuracy 1.0000, deviation 0.0000)
    """
    network = as_network(network)
    name = _natural_target(network) if target is None else target
    runner = get_target(name)
    taken = taken_by(runner, network)
    check_supported(runner, taken)
    split, task = _inputs(network, data, y, limit, first)
    if lengths is not None:
        if not isinstance(data, np.ndarray) or limit is not None or first is not None:
            raise InputError("lengths are for all samples of an array; leave them out.")
        split = split.changed(lengths=check_lengths(lengths, *split.inputs.shape[:2]))
    inputs = check_network_inputs(network, split.inputs)
    if json is not None and task is None:
        raise InputError("a summary needs the right answers; give y or a dataset to run.")
    announce(name, runner, network, inputs)
    with progress_bar(name) as progress:
        found = for_lengths(runner, split).run(
            taken, inputs, record=bool(record), seed=seed, progress=progress
        )
    expected = None
    if reference and name == "reference":
        expected = found
    elif reference and (source := float_source(network)) is not None:
        with progress_bar("reference") as progress:
            expected = for_lengths(get_target("reference"), split).run(
                source, inputs, record=bool(record), progress=progress
            )
    result = RunResult(
        **{each.name: getattr(found, each.name) for each in fields(Run)},
        network=network,
        task=task,
        answers=None if task is None else split.targets,
        reference=expected,
        samples=split.rows,
    )
    if isinstance(record, str | Path):
        result.save_states(record)
    if json is not None:
        write_text(json, dumps(result.summary(), indent=1, allow_nan=False) + "\n")
    return result


def _natural_target(network: AnyNetwork) -> str:
    """Return the target that runs a representation without any further library, or Brian2."""
    if isinstance(network, IntegerNetwork):
        return "integer"
    if isinstance(network, AnalogNetwork):
        return "brian2"
    return "spiking" if isinstance(network, OnLoihi) else "reference"


def for_lengths(runner: Target, split: Split) -> Target:
    """Return a target that runs the sequences of a split, which may differ in length."""
    return runner if split.lengths is None else ByLength(runner, split.lengths)


def _inputs(
    network: AnyNetwork,
    data: np.ndarray | TaskLike | Split | None,
    y: np.ndarray | None,
    limit: int | None,
    first: int | None,
) -> tuple[Split, Task | None]:
    """Return the samples to run, with their task if the right answers are known."""
    if not isinstance(data, np.ndarray):
        if y is not None:
            raise InputError("y belongs to inputs that are given as an array; leave it out.")
        task = task_for(network, part_as_task(data))
        return part_of(task.load().test, limit, first), task
    inputs = check_network_inputs(network, data)
    if y is None:
        return part_of(Split(inputs, inputs), limit, first), None
    task = task_for(network, Dataset(inputs, y, inputs, y))
    split = task.load().test
    return part_of(split.changed(inputs=inputs), limit, first), task


def part_of(split: Split, limit: int | None, first: int | None) -> Split:
    """Return the samples of a split that are wanted, in their order.

    Raises
    ------
    InputError
        When both numbers are given, or one is less than one.
    """
    if first is not None:
        if limit is not None:
            raise InputError("limit and first both choose samples; give one of them.")
        return first_of(split, first)
    found = split if limit is None else limited(split, limit)
    if split.order is None or found.rows is None:
        return found
    return split.taken(np.sort(found.rows))


def write_states(run: RunResult, path: Path | str) -> None:
    """Write a run's recorded states as an .npz file with m, h, y, m_scale, h_scale and y_scale.

    The file also has m_basis when the target holds its memory in other coordinates than the
    reference, h_on_host when some layers run on the host, the states of every part as
    ``states/PLACE``, its events as ``events/PLACE``, and of a network on neurons the spikes of
    sample 0 as ``spikes/PLACE`` and the counts of more samples as ``counts/PLACE``. It can be
    judged again as a recording.

    Raises
    ------
    InputError
        When the file cannot be written.
    """
    assert run.states is not None  # asked for above
    recorded = {n: v for n, v in vars(run.states).items() if n != "parts" and v is not None}
    states: dict[str, Any] = {name: np.asarray(value) for name, value in recorded.items()}
    states |= {f"{STATES}{place}": values for place, values in run.states.parts.items()}
    states |= {f"{EVENTS}{place}": counts for place, counts in run.events.items()}
    if isinstance(run.network, AnalogNetwork | OnLoihi):
        states |= {f"{SPIKES}{place}": raster for place, raster in run.rasters.items()}
        states |= {f"{COUNTS}{place}": counts for place, counts in run.counts.items()}
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **states)


@dataclass(frozen=True)
class TargetInfo:
    """A target's name, the representations that it runs, and what stops it here, if anything."""

    name: str
    runs: str
    missing: str


def targets() -> list[TargetInfo]:
    """List every installed target, those of plugins included."""
    found = []
    for name in target_names():
        try:
            target = get_target(name)
            runs = ", ".join(cls.__name__ for cls in target.accepts)
            found.append(TargetInfo(name, runs, ""))
        except (MissingDependencyError, ImportError) as error:
            found.append(TargetInfo(name, "", str(error)))
    return found
