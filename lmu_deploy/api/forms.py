"""What a validation makes: representations of one float network, and runs of targets on them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

import numpy as np

from converters.options import SpikeOptions
from lmu_deploy.api.quantize import quantize
from lmu_deploy.api.run import announce, for_lengths
from lmu_deploy.api.spike import spike, spike_for_task
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import fingerprint, save
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.graph.transforms import as_layers
from lmu_deploy.core.loading import FORMS, AnyNetwork, as_network, float_source
from lmu_deploy.core.progress import Progress, progress_bar
from lmu_deploy.core.spiking.graph import AnalogNetwork, OnLoihi
from lmu_deploy.fidelity.store import Parts
from lmu_deploy.fidelity.streaming import StreamedRun, affordable, run_streamed, samples_kept
from lmu_deploy.tasks.base import Split
from lmu_deploy.tasks.dataset import TaskLike, find_task
from lmu_deploy.tasks.selection import first_of, limited
from targets.base import InOwnProcess, Target, forms_of, taken_by
from targets.recorded import RecordedTarget

_LOG = logging.getLogger(__name__)
T = TypeVar("T")

UNCALIBRATED = "uncalibrated"
LOIHI = "loihi1"
"""The profile of the networks of form loihi."""


PRESENTATIONS, FEWEST_SAMPLES = 4_000, 40
"""Presentations on which a graph of neurons is calibrated, three for each neuron of 64 units; and
samples in any case."""


@dataclass
class Forms:
    """The representations of one network, each made once, and written to a folder if one is given.

    Attributes
    ----------
    source : Network
    task : str, path, Task, Dataset or None
        Whose training inputs calibrate.
    seed : int
    folder : path or None
    files : dict of str to path
        What has been written, by name.
    made : dict of str to Network
        What has been made or used, by name.
    parts : Parts
        Where networks are kept until the validation is complete.
    given : dict of str to Network
        Those that :meth:`use` took, by form; a spiking one without calibration as uncalibrated.
    """

    source: Network
    task: TaskLike | None
    seed: int
    folder: Path | None
    files: dict[str, Path] = field(default_factory=dict)
    given: dict[str, AnyNetwork] = field(default_factory=dict)
    made: dict[str, AnyNetwork] = field(default_factory=dict)
    parts: Parts = field(default_factory=lambda: Parts(None))

    def __post_init__(self) -> None:
        self._keep("float", lambda: self.source)

    def needed_by(self, runner: Target, form: str = "") -> AnyNetwork:
        """Return the representation that a target runs.

        Parameters
        ----------
        runner : Target
        form : {"", "float", "integer", "spiking", "loihi"}
            Which one, of a target that runs several; by default the first of these that it runs.

        Raises
        ------
        InputError
            When the target does not run that form.
        """
        runs = self._run_by(runner)
        if not runs:
            raise InputError(
                f"target {runner.name} runs none of the forms {', '.join(FORMS)}; run it by "
                "lmu-deploy deploy with a file of its own."
            )
        if form and form not in runs:
            raise InputError(
                f"target {runner.name} does not run the form {form!r}; choose one of "
                f"{', '.join(f'{runner.name}/{name}' for name in runs)}."
            )
        return taken_by(runner, self._make(form or runs[0]))

    def _run_by(self, runner: Target) -> list[str]:
        """Return the forms that a target runs, a given graph of neurons first."""
        runs = forms_of(runner)
        graph = self.given.get("spiking")
        if "spiking" not in runs and graph is not None and isinstance(graph, runner.accepts):
            return ["spiking", *runs]
        return runs

    def form_of(self, recorded: RecordedTarget) -> str:
        """Return the form of the network that was recorded.

        Unless the recording says it, that is the one that was given. With several, it is the only
        one whose parts the arrays name; with none, the default.

        Raises
        ------
        InputError
            When the recording may be of several networks.
        """
        recording = recorded.recording
        given = [form for form in forms_of(recorded) if form in self.given]
        if recording.form or not given:
            return recording.form or ("spiking" if recording.of_neurons else "integer")
        fits = [form for form in given if not recorded.unsupported(self.given[form])]
        if len(fits) > 1 or (len(given) > 1 and not fits):
            raise InputError(
                f"the recording {recording.name} may be of the {' or the '.join(given)} network; "
                f"say which, as in {given[0]}={recording.name}.npz."
            )
        return (fits or given)[0]

    def asked(self, name: str, runner: Target, limit: int | None, whole: bool) -> Asked:
        """Return a target of the validation with the form of the network that it runs."""
        form = name.partition("/")[2]
        if isinstance(runner, RecordedTarget):
            form = self.form_of(runner)
        return Asked(name, runner, limit, whole, form)

    def check_used(self, asked: Iterable[Asked]) -> None:
        """Raise InputError when no target runs a network that was given."""
        asked = list(asked)
        used = {
            one.form or self._run_by(one.runner)[0] for one in asked if self._run_by(one.runner)
        }
        for form, network in self.given.items():
            if (needed := "spiking" if form == UNCALIBRATED else form) not in used:
                names = ", ".join(one.name for one in asked)
                raise InputError(
                    f"no target of {names} runs the {form} network that was given, a "
                    f"{type(network).__name__}; add a target with the form {needed}, such as "
                    f"{_EXAMPLE_TARGETS[needed]}, or leave the network out."
                )

    def _make(self, form: str) -> AnyNetwork:
        if form == "float":
            return self.source
        if form == "integer":
            return self._keep("integer", lambda: quantize(self.source, self.task))
        if form == "loihi":
            return self._keep("loihi", self._spike_on_loihi)
        return self._keep("spiking", lambda: self._spike("dynamic"))

    def uncalibrated(self) -> AnyNetwork | None:
        """Return the spiking network whose decoders ignore the chip's mismatch.

        The result is None beside a spiking network that was given without an uncalibrated one.
        """
        if "spiking" in self.given and UNCALIBRATED not in self.given:
            return None
        return self._keep(UNCALIBRATED, lambda: self._spike("none"))

    def use(self, networks: Iterable[AnyNetwork | Path | str]) -> None:
        """Take networks in place of those that defaults would make.

        Raises
        ------
        InputError
            When one is not a network made from this float one, or two hold the same form.
        """
        for given in networks:
            network = as_network(given)
            name = given if isinstance(given, str | Path) else repr(given)
            form = _form_of(network)
            if form in self.given:
                raise InputError(f"{name} is the second {form} network given; give one of each.")
            source = float_source(network)
            if form == "float" or source is None or not self._is_source(source):
                raise InputError(
                    f"{name} was not made from the float network that is validated; give a file "
                    "that lmu-deploy quantize or spike made of it."
                )
            self.given[form] = network

    def _is_source(self, network: Network) -> bool:
        """Return whether a network computes what the source does, whatever its nodes are called."""
        given = (network, self.source)
        try:
            marks = [fingerprint(as_layers(each, "use")) for each in given]
        except InputError:  # a graph
            from converters.spiking.graph.plan import plan_graph

            marks = [fingerprint(plan_graph(each).host) for each in given]
        return marks[0] == marks[1]

    def _spike_on_loihi(self) -> AnyNetwork:
        samples = self._calibration_samples()
        return spike(
            self.source, self.task, profile=LOIHI, seed=self.seed, calibration_samples=samples
        )

    def _spike(self, calibration: str) -> AnyNetwork:
        options = SpikeOptions(
            calibration=calibration,
            seed=self.seed,
            calibration_samples=self._calibration_samples(),
        )
        keep = self.parts.ensemble
        return spike_for_task(self.source, options, task=self.task, keep=keep)

    def _calibration_samples(self) -> int:
        """Return how many samples calibrate; fewer for a graph of neurons with long sequences.

        Each of its ensembles runs on the presentations of all samples, which takes a minute for
        30,000 neurons and the 4,000 presentations of 64 spoken digits. With a quarter of these the
        error of the outputs was four times as large.
        """
        usual = SpikeOptions().calibration_samples
        try:
            as_layers(self.source, "spike")
        except InputError:
            steps = 1 if self.task is None else find_task(self.task).steps
            return min(usual, max(PRESENTATIONS // steps, FEWEST_SAMPLES))
        return usual

    def _made(self, name: str, make: Callable[[], AnyNetwork]) -> AnyNetwork:
        if name == "float" or self.task is None:
            return make()
        data = find_task(self.task).identity
        return self.parts.network(make, name, fingerprint(self.source), data, self.seed)

    def _keep(self, name: str, make: Callable[[], AnyNetwork]) -> AnyNetwork:
        if name not in self.made:
            self.made[name] = self.given[name] if name in self.given else self._made(name, make)
            if self.folder is not None:
                self.files[name] = self.folder / f"{name}.safetensors"
                save(self.made[name], self.files[name])
        return self.made[name]


def _form_of(network: AnyNetwork) -> str:
    if isinstance(network, AnalogNetwork) and network.calibration.method == "none":
        return UNCALIBRATED
    if isinstance(network, AnalogNetwork):
        return "spiking"
    if isinstance(network, OnLoihi):
        return "loihi"
    return next(name for name, kind in FORMS.items() if isinstance(network, kind))


_EXAMPLE_TARGETS = {"integer": "integer", "spiking": "brian2", "loihi": "spiking"}
SLOW_SECONDS = 20.0
"""Estimated seconds of a run on a slow target for which no number of samples was given."""
_SECONDS_BETWEEN_LOOKS = 0.1
_SECONDS_TO_STOP = 20.0


@dataclass(frozen=True)
class Asked:
    """A target of a validation.

    Attributes
    ----------
    name : str
        As typed, with the form of the network if one was given: ``onnxruntime/integer``.
    runner : Target
    limit : int or None
        Number of samples that was given for this target.
    whole : bool
        Whether no number of samples was given for all targets.
    form : str
        The form of the network to run; empty for the target's own choice.
    """

    name: str
    runner: Target
    limit: int | None
    whole: bool = False
    form: str = ""

    @property
    def recorded(self) -> bool:
        """Whether this is a recording, which has samples of its own."""
        return isinstance(self.runner, RecordedTarget)

    def varies(self, network: AnyNetwork) -> bool:
        """Return whether the target runs the network of a chip without calibration, too."""
        return isinstance(network, AnalogNetwork) and not self.recorded

    def part(self, split: Split, network: AnyNetwork) -> Split:
        """Return the samples to run; by default a slow target runs some of them.

        Raises
        ------
        InputError
            When a recording is of sequences of different lengths.
        """
        if self.recorded and split.lengths is not None:
            raise InputError(
                f"{self.name}: recordings are of sequences of one length; cut the data."
            )
        if self.recorded and self.limit is not None:
            return first_of(split, min(self.limit, len(split)))
        if self.limit is not None or not self.whole:
            return limited(split, self.limit)
        samples, steps = split.inputs.shape[:2]
        count = affordable(self.runner, network, samples, steps, SLOW_SECONDS)
        if count < samples:
            _LOG.info(
                "%s is slow and runs %d of %d samples; %s:%d runs all of them.",
                self.name,
                count,
                samples,
                self.name,
                samples,
            )
        return limited(split, count if count < samples else None)


def runs_apart(runner: Target) -> bool:
    """Return whether a target computes in processes of its own, beside this one."""
    return isinstance(runner, InOwnProcess)


class Runs:
    """Runs of targets on the samples of a validation, each once, unless an earlier start has.

    As a context it stops at an exception what has begun.

    Parameters
    ----------
    parts : Parts
        Where runs are kept until the validation is complete.
    split : Split
    seed : int
    """

    def __init__(self, parts: Parts, split: Split, seed: int) -> None:
        self._parts, self._split, self._seed = parts, split, seed
        self._begun: dict[str, Beside[StreamedRun]] = {}
        self._others: list[Beside[Any]] = []

    def __enter__(self) -> Runs:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop what has begun, after an exception."""
        for each in [*self._begun.values(), *self._others] if kind is not None else ():
            each.stop()

    def begin(self, asked: Asked, network: AnyNetwork) -> None:
        """Start a run beside this thread; :meth:`run` waits for its end."""
        part = asked.part(self._split, network)
        announce(asked.name, asked.runner, network, part.inputs)
        make = partial(self._made, asked.runner, network, part, asked.name)
        self._begun[asked.name] = Beside(make)

    def beside(self, make: Callable[[Progress], T]) -> Beside[T]:
        """Start any other work beside this thread."""
        self._others.append(work := Beside(make))
        return work

    def has_begun(self, asked: Asked) -> bool:
        """Return whether a target runs beside this thread."""
        return asked.name in self._begun

    def raise_failures(self) -> None:
        """Raise the exception that has ended a run beside this thread."""
        for each in self._begun.values():
            each.raise_failure()

    def run(self, asked: Asked, network: AnyNetwork, variant: str = "") -> StreamedRun:
        """Return the run of a target; `variant` names what is unusual in the network."""
        label = f"{asked.name}, {variant}" if variant else asked.name
        if self.has_begun(asked):
            begun = self._begun.pop(asked.name)
            if begun.ended:
                run = begun.result()
                _LOG.info("%s: %d samples in %.1f s", label, len(run.outputs), run.wall_seconds)
                return run
            with progress_bar(label) as progress:
                return begun.result(progress)
        part = asked.part(self._split, network)
        announce(label, asked.runner, network, part.inputs)
        with progress_bar(label) as progress:
            return self._made(asked.runner, network, part, label, progress)

    def _made(
        self, runner: Target, network: AnyNetwork, part: Split, label: str, progress: Progress
    ) -> StreamedRun:
        """Run all samples, a part at a time, with the states of the first ones."""
        settings = {name: repr(value) for name, value in sorted(vars(runner).items())}
        lengths = np.zeros(0, np.int64) if part.lengths is None else part.lengths
        what = (label, settings, network.fingerprint(), part.inputs, lengths, self._seed)

        def keep(make: Callable[[], StreamedRun], start: int, stop: int) -> StreamedRun:
            return self._parts.run(make, *what, start, stop)

        samples, steps = part.inputs.shape[:2]
        return run_streamed(
            for_lengths(runner, part),
            network,
            part.inputs,
            samples_kept(samples, steps, _states(network)),
            seed=self._seed,
            progress=progress,
            keep=None if isinstance(runner, RecordedTarget) else keep,
        )


class Beside(Generic[T]):
    """Work in a thread, which ends with this process.

    Parameters
    ----------
    make : callable
        Gets a callable that it calls now and then with (work done, total).
    """

    def __init__(self, make: Callable[[Progress], T]) -> None:
        self._make, self._seen, self._stopped = make, (0, 0), False
        self._made: T | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            self._made = self._make(self._show)
        except BaseException as error:
            self._error = error

    def _show(self, done: int, total: int) -> None:
        if self._stopped:
            raise KeyboardInterrupt
        self._seen = done, total

    @property
    def ended(self) -> bool:
        """Whether the work has come to its end."""
        return not self._thread.is_alive()

    def result(self, progress: Progress | None = None) -> T:
        """Wait for the end, and return or raise what the work did."""
        try:
            while self._thread.is_alive():
                self._thread.join(_SECONDS_BETWEEN_LOOKS)
                if progress and self._seen[1]:
                    progress(*self._seen)
        except BaseException:
            self.stop()
            raise
        self.raise_failure()
        return cast(T, self._made)

    def raise_failure(self) -> None:
        """Raise the exception that has ended the work."""
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Let the work end when it next reports its progress."""
        self._stopped = True
        self._thread.join(_SECONDS_TO_STOP)


def _states(network: AnyNetwork) -> int:
    """Return how many values recording one step of one sample takes."""
    source = float_source(network)
    if source is None:
        return 10_000
    layers = [node for node in source.nodes if node.operator.states]
    sizes = [source.shapes[node.name].size for node in layers]
    memories = [node.operator.states.get("memory", 0) for node in layers]
    return sum(sizes) + sum(memories) + source.n_out
