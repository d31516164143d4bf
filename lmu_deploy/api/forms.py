"""The representations that a validation needs, made from one float network when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lmu_deploy.api.quantize import quantize
from lmu_deploy.api.spike import spike
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import fingerprint, save
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.graph.transforms import as_layers
from lmu_deploy.core.loading import FORMS, AnyNetwork, as_network, float_source
from lmu_deploy.core.spiking.graph import AnalogNetwork
from lmu_deploy.fidelity.store import Parts
from lmu_deploy.tasks.dataset import TaskLike, find_task
from targets.base import Target, forms_of, taken_by

UNCALIBRATED = "uncalibrated"
LOIHI = "loihi1"
"""The profile of the networks of form loihi."""


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
        runs = forms_of(runner)
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
        return spike(self.source, self.task, profile=LOIHI, seed=self.seed)

    def _spike(self, calibration: str) -> AnyNetwork:
        return spike(self.source, self.task, calibration=calibration, seed=self.seed)

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
    return next(name for name, kind in FORMS.items() if isinstance(network, kind))
