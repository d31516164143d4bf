"""Plan a trial: the conversion that its target needs, and the hash of its inputs.

Two trials with the same hash have the same result. The hash covers canonical JSON of the settings
with their defaults, the content of the network file (or all settings of its training), the data of
the task, and the versions of this package and of the one with the target. It does not cover paths.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from converters.loihi import loihi_spike_with
from converters.options import (
    PopulationOptions,
    SpikeOptions,
    TaskQuantizeOptions,
    default_slices,
)
from converters.quantize import quantize_with
from converters.spiking import spike_with
from lmu_deploy import __version__
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.loading import AnyNetwork, load_float
from lmu_deploy.core.options import Options, options_of
from lmu_deploy.core.plugins import plugin_version
from lmu_deploy.fidelity.assemble import hash_array, hash_file
from lmu_deploy.hardware.profile import Profile
from lmu_deploy.studies.settings import TrainSettings, TrialSettings, profile_with_figures
from lmu_deploy.studies.spec import merge
from lmu_deploy.tasks.dataset import find_task
from lmu_deploy.training.config import preset, read_settings
from targets.base import GROUP, forms_of, get_target


@dataclass(frozen=True)
class Converter:
    """Converter to one form of networks.

    Attributes
    ----------
    table : {"quantize", "spike"}
        Table of the settings that has its options.
    options : type of Options
        Options of the converter.
    kind : {"digital", "analog"}
    profile : str
        Default profile.
    method : str, optional
        Option that ``calibration.method`` sets; None if there is only one method.
    convert : callable
        Function of network, calibration inputs, profile and options.
    """

    table: str
    options: type[Options]
    kind: str
    profile: str
    method: str | None
    convert: Callable[..., AnyNetwork]


CONVERTERS: Mapping[str, Converter] = {
    "integer": Converter(
        "quantize", TaskQuantizeOptions, "digital", "loihi2", "calibration_method", quantize_with
    ),
    "spiking": Converter(
        "spike", SpikeOptions, "analog", "generic-analog", "calibration", spike_with
    ),
    "loihi": Converter("spike", PopulationOptions, "digital", "loihi1", None, loihi_spike_with),
}


@dataclass(frozen=True)
class Conversion:
    """Conversion of the network of a trial.

    Attributes
    ----------
    form : {"float", "integer", "spiking", "loihi"}
    given : dict
        Options that the settings set.
    profile : DigitalProfile or AnalogProfile, or None for the form float
    samples : int
        Number of training samples for calibration.
    """

    form: str
    given: dict[str, Any]
    profile: Profile | None
    samples: int

    @property
    def options(self) -> Options | None:
        """All options of the converter; None for the form float.

        Raises
        ------
        InputError
            If a value is out of range. This belongs to the result of the trial, so it is not
            checked when the trial is planned.
        """
        return CONVERTERS[self.form].options.build(self.given) if self.form in CONVERTERS else None

    def inputs(self) -> dict[str, Any]:
        """Return the part of a trial's hash: the settings that this form uses, and no others."""
        if self.profile is None:
            return {"form": self.form}
        known = options_of(CONVERTERS[self.form].options)
        values = {name: one.default for name, one in known.items() if one.sweep} | self.given
        if "slices" in values:
            values["slices"] = default_slices(values["slices"], values["method"])
        chip = self.profile.model_dump(mode="json", exclude={"title"})
        return {
            "form": self.form,
            "options": values,
            "chip": without_sources(chip),
            "samples": self.samples,
        }


def conversion_of(settings: TrialSettings) -> Conversion:
    """Determine the form that the target of a trial runs, and build the converter's options.

    Settings of other converters are ignored, so that one sweep can hold targets of all.

    Raises
    ------
    InputError
        If the target, profile, figure or an option is unknown or out of range, or the target runs
        another form.
    MissingDependencyError
        If the target's library is not installed.
    """
    name, _, form = settings.target.partition("/")
    form = _form(name, form)
    samples, method = settings.calibration.samples, settings.calibration.method
    if form == "float":
        return Conversion(form, {}, None, samples)
    converter = CONVERTERS[form]
    given = dict(getattr(settings, converter.table))
    if converter.table == "spike":
        given["seed"] = settings.seed
    if method is not None:
        if converter.method is None:
            raise InputError(
                f"calibration.method is {method!r}, and target {name} runs the form {form}, which "
                "is calibrated in one way alone; leave it out."
            )
        given[converter.method] = method
    if strange := [option for option in given if option not in options_of(converter.options)]:
        raise InputError(
            f"{converter.table}.{strange[0]} is no option for networks of form {form}; leave it "
            "out."
        )
    profile = profile_with_figures(settings.chip, converter.kind, converter.profile)
    return Conversion(form, given, profile, samples)


def _form(name: str, form: str) -> str:
    """Return the form of network that a target runs, by default the first of this package."""
    runner = get_target(name)
    runs = forms_of(runner)
    if not runs or (form and form not in runs):
        raise InputError(
            f"target {name} does not run {form or 'any network of this package'}; it runs "
            f"{', '.join(runs) or 'its own'}."
        )
    return form or runs[0]


def without_sources(figures: Any) -> Any:
    """Return the figures without their sources, which change no result."""
    if not isinstance(figures, dict):
        return figures
    if set(figures) == {"value", "source"}:
        return figures["value"]
    return {name: without_sources(value) for name, value in figures.items()}


@dataclass(frozen=True)
class Training:
    """A training that is part of a sweep.

    Attributes
    ----------
    key : str
        Hash of everything that determines the weights.
    task : str
    config : dict
        All settings, as plain data.
    seed : int
    """

    key: str
    task: str
    config: dict[str, Any]
    seed: int


@dataclass(frozen=True)
class Job:
    """A trial with everything that a worker needs.

    Attributes
    ----------
    key : str
        Hash of `inputs`.
    inputs : dict
    conversion : Conversion
    target : str
        Name of the target without the form.
    seed : int
    task : str
        Name or path of the task.
    limit : int, optional
        Number of test samples.
    network : path or Training
    """

    key: str
    inputs: dict[str, Any]
    conversion: Conversion
    target: str
    seed: int
    task: str
    limit: int | None
    network: Path | Training

    @property
    def network_key(self) -> str:
        """Hash of the network's file or training."""
        return str(self.inputs["network"])


@dataclass
class Planner:
    """Planner of jobs, which hashes each file and data set once.

    Attributes
    ----------
    folder : path
        Folder that relative paths start from.
    """

    folder: Path
    _files: dict[Path, tuple[str, str | None]] = field(default_factory=dict)
    _data: dict[str, dict[str, str]] = field(default_factory=dict)

    def job(self, settings: TrialSettings) -> Job:
        """Return the job of a trial.

        Raises
        ------
        InputError
            If a file, task, target or chip does not exist.
        """
        conversion = conversion_of(settings)
        network: Path | Training
        if settings.network.file is not None:
            network = (self.folder / settings.network.file).absolute()
            network_key, recorded = self._file(network)
            task = self._task(settings.task.name or recorded)
        else:
            assert settings.network.train is not None  # because the settings are valid
            task = self._task(settings.task.name)
            network = self._training(task, settings.network.train)
            network_key = network.key
        target = settings.target.partition("/")[0]
        inputs = {
            "conversion": conversion.inputs(),
            "target": target,
            "seed": settings.seed,
            "task": {"data": self._data_of(task), "limit": settings.task.limit},
            "network": network_key,
            "versions": {"lmu-deploy": __version__, "target": plugin_version(GROUP, target)},
        }
        limit, seed = settings.task.limit, settings.seed
        return Job(digest(inputs), inputs, conversion, target, seed, task, limit, network)

    def _file(self, path: Path) -> tuple[str, str | None]:
        if path not in self._files:
            recorded = load_float(path, "sweep").task
            self._files[path] = hash_file(path), recorded
        return self._files[path]

    def _task(self, name: str | None) -> str:
        if name is None:
            raise InputError("the network records no task; name one as task.name.")
        return str((self.folder / name).absolute()) if name.endswith(".npz") else name

    def _training(self, task: str, train: TrainSettings) -> Training:
        chosen = find_task(task)
        builtin = preset(chosen, train.model).model_dump(mode="json")
        full = read_settings(merge(builtin, train.settings), "network.train.settings")
        config = full.model_dump(mode="json")
        parts = [config, train.seed, self._data_of(task), __version__]
        return Training(digest(parts), task, config, train.seed)

    def _data_of(self, name: str) -> dict[str, str]:
        if name not in self._data:
            data = find_task(name).load()
            self._data[name] = {
                f"{part}_{kind}": hash_array(getattr(getattr(data, part), kind))
                for part in ("train", "validation", "test")
                for kind in ("inputs", "targets")
            }
        return self._data[name]


def digest(value: Any) -> str:
    """Return the SHA-256 of the canonical JSON of a value, in hexadecimal."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
