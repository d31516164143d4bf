"""File robustness.json of a report folder: copies of chip yields and sweeps that the report shows.

The results of `lmu-deploy yield` and `lmu-deploy sweep` are copied, so that the report can be
regenerated from its folder alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import write_text

ROBUSTNESS = "robustness.json"
SWEEP = "sweep.json"
UNCALIBRATED, CALIBRATED = "none", "dynamic"


class _Read(BaseModel):
    """Base of models of files that other commands write; unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class YieldStudy(_Read):
    """Result of `lmu-deploy yield`: the metric of every chip, by calibration method.

    `reference` is the metric of the float network, `ideal` that of a chip without imperfections.
    """

    task: str
    metric: Literal["accuracy", "nrmse"]
    profile: str
    samples: int = Field(ge=1)
    steps: int
    reference: float
    ideal: float
    values: dict[str, list[float]]
    spikes: dict[str, list[float]] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)

    @property
    def chips(self) -> int:
        """Number of chips that were evaluated."""
        return min((len(values) for values in self.values.values()), default=0)


class SweepTable(_Read):
    """Result of `lmu-deploy sweep`: its table by columns, and the rows on the Pareto front.

    `tasks` is empty in files of versions that did not record it.
    """

    name: str = ""
    tasks: list[str] = Field(default_factory=list)
    objectives: tuple[str, str]
    more_is_better: list[bool]
    varied: list[str]
    front: list[int]
    columns: dict[str, list[Any]]

    def values(self, name: str) -> list[Any]:
        """Return a column; a column that does not exist is None for every trial."""
        return self.columns.get(name, [None] * len(self.columns["status"]))

    @property
    def done(self) -> list[int]:
        """Rows of the trials that completed."""
        return [n for n, status in enumerate(self.values("status")) if status == "done"]


class Robustness(_Read):
    """The whole file."""

    schema_name: Literal["lmu_deploy/robustness"] = Field(
        default="lmu_deploy/robustness", alias="schema"
    )
    version: Literal[1] = 1
    yields: list[YieldStudy] = Field(default_factory=list)
    sweeps: list[SweepTable] = Field(default_factory=list)


_Model = TypeVar("_Model", bound=_Read)


def read_robustness(folder: Path | str) -> Robustness:
    """Read robustness.json from a report folder; return an empty one when there is no file.

    Raises
    ------
    InputError
        When the file has another format.
    """
    path = Path(folder) / ROBUSTNESS
    if not path.is_file():
        return Robustness()
    return _read(path, Robustness, "lmu-deploy report with --yield or --sweep")


def gather(
    folder: Path | str, task: str, yields: Sequence[Path | str], sweeps: Sequence[Path | str]
) -> None:
    """Copy yields and sweeps into a report folder; each kind replaces the earlier ones of its kind.

    Parameters
    ----------
    folder : path
    task : str
        Task of the report; yields and sweeps of another task are refused.
    yields : sequence of path
        Files written by `lmu-deploy yield`; when empty, the present ones are kept.
    sweeps : sequence of path
        Folders written by `lmu-deploy sweep`; when empty, the present ones are kept.

    Raises
    ------
    InputError
        When a file does not exist, has another format, or belongs to another task.
    """
    before = read_robustness(folder)
    found = Robustness(
        yields=[_yield(Path(path), task) for path in yields] or before.yields,
        sweeps=[_sweep(Path(path), task) for path in sweeps] or before.sweeps,
    )
    text = json.dumps(found.model_dump(mode="json", by_alias=True), allow_nan=False)
    write_text(Path(folder) / ROBUSTNESS, text + "\n")


def forget_robustness(folder: Path | str) -> None:
    """Delete robustness.json, which belongs to earlier figures."""
    (Path(folder) / ROBUSTNESS).unlink(missing_ok=True)


def _yield(path: Path, task: str) -> YieldStudy:
    found = _read(path, YieldStudy, "lmu-deploy yield --out")
    if not _same_task(found.task, task):
        raise InputError(
            f"{path} is a yield of task {found.task}, but the report is of task {task}; "
            f"pass a yield of {task}."
        )
    if set(found.values) != {UNCALIBRATED, CALIBRATED} or not found.chips:
        raise InputError(
            f"{path} has no chips before and after calibration; run lmu-deploy yield again."
        )
    return found


def _sweep(folder: Path, task: str) -> SweepTable:
    found = _read(folder / SWEEP, SweepTable, "lmu-deploy sweep --out")
    if not all(_same_task(name, task) for name in found.tasks):
        raise InputError(
            f"{folder} is a sweep of task {' and '.join(found.tasks)}, but the report is of task "
            f"{task}; pass a sweep of {task} only."
        )
    lengths = {len(column) for column in found.columns.values()}
    kept = {*found.varied, *found.objectives, "status", "metric", "metric_name", "reference"}
    (rows,) = lengths if len(lengths) == 1 else (0,)
    whole = kept - {"reference"} <= set(found.columns) and all(0 <= n < rows for n in found.front)
    if not whole or not found.done:
        raise InputError(f"{folder} has no completed trial; run lmu-deploy sweep again.")
    columns = {name: values for name, values in found.columns.items() if name in kept}
    return found.model_copy(update={"name": folder.name, "columns": columns})


def _same_task(one: str, other: str) -> bool:
    """Return whether two names denote one task; own data are compared by file name, not by path."""
    if one.endswith(".npz") and other.endswith(".npz"):
        return Path(one).name == Path(other).name
    return one == other


def _read(path: Path, model: type[_Model], maker: str) -> _Model:
    try:
        return model.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; create it with {maker}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(
            f"{path} does not have the format that {maker} writes ({place}: {first['msg']}); "
            "create it again."
        ) from error
