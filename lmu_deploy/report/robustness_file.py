"""robustness.json beside fidelity.json: yield over virtual chips, and sweeps, that a report shows.

What `lmu-deploy yield` and `lmu-deploy sweep` wrote is copied here, so that a report can be made
again from its folder alone.
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
    """A part of a file that another command wrote; what a report does not need is left out."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class YieldStudy(_Read):
    """What `lmu-deploy yield` found: the metric of every chip, by how it was calibrated.

    `reference` is the float network's metric and `ideal` that of a chip without imperfections.
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
        """How many chips were judged."""
        return min((len(values) for values in self.values.values()), default=0)


class SweepTable(_Read):
    """What `lmu-deploy sweep` found: its table by columns, and which rows are on the front.

    `tasks` is empty where the sweep was made before sweeps recorded it.
    """

    name: str = ""
    tasks: list[str] = Field(default_factory=list)
    objectives: tuple[str, str]
    more_is_better: list[bool]
    varied: list[str]
    front: list[int]
    columns: dict[str, list[Any]]

    def values(self, name: str) -> list[Any]:
        """Give a column; None for each trial where there is none of that name."""
        return self.columns.get(name, [None] * len(self.columns["status"]))

    @property
    def done(self) -> list[int]:
        """Rows of the trials that have figures."""
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
    """Read robustness.json from a report's folder; an empty one when it is not there.

    Raises
    ------
    InputError
        When the file holds something else.
    """
    path = Path(folder) / ROBUSTNESS
    if not path.is_file():
        return Robustness()
    return _read(path, Robustness, "lmu-deploy report with --yield or --sweep")


def gather(
    folder: Path | str, task: str, yields: Sequence[Path | str], sweeps: Sequence[Path | str]
) -> None:
    """Copy yields and sweeps into a report's folder, each kind in place of what was there of it.

    Parameters
    ----------
    folder : path
    task : str
        Whose yields and sweeps they must be.
    yields : sequence of path
        Files that `lmu-deploy yield` wrote; when empty, those that were there stay.
    sweeps : sequence of path
        Folders that `lmu-deploy sweep` wrote; likewise.

    Raises
    ------
    InputError
        When a file is not there, holds something else, or is of another task.
    """
    before = read_robustness(folder)
    found = Robustness(
        yields=[_yield(Path(path), task) for path in yields] or before.yields,
        sweeps=[_sweep(Path(path), task) for path in sweeps] or before.sweeps,
    )
    text = json.dumps(found.model_dump(mode="json", by_alias=True), allow_nan=False)
    write_text(Path(folder) / ROBUSTNESS, text + "\n")


def forget_robustness(folder: Path | str) -> None:
    """Take away what was gathered beside figures that are no longer there."""
    (Path(folder) / ROBUSTNESS).unlink(missing_ok=True)


def _yield(path: Path, task: str) -> YieldStudy:
    found = _read(path, YieldStudy, "lmu-deploy yield --out")
    if not _same_task(found.task, task):
        raise InputError(
            f"{path} is of task {found.task} and the report of {task}; give a yield of {task}."
        )
    if set(found.values) != {UNCALIBRATED, CALIBRATED} or not found.chips:
        raise InputError(f"{path} holds no chips before and after calibration; make it again.")
    return found


def _sweep(folder: Path, task: str) -> SweepTable:
    found = _read(folder / SWEEP, SweepTable, "lmu-deploy sweep --out")
    if not all(_same_task(name, task) for name in found.tasks):
        raise InputError(
            f"{folder} is a sweep of task {' and '.join(found.tasks)} and the report of {task}; "
            f"give a sweep of {task} alone."
        )
    lengths = {len(column) for column in found.columns.values()}
    kept = {*found.varied, *found.objectives, "status", "metric", "metric_name", "reference"}
    (rows,) = lengths if len(lengths) == 1 else (0,)
    whole = kept - {"reference"} <= set(found.columns) and all(0 <= n < rows for n in found.front)
    if not whole or not found.done:
        raise InputError(f"{folder} holds no trial with figures; run lmu-deploy sweep again.")
    columns = {name: values for name, values in found.columns.items() if name in kept}
    return found.model_copy(update={"name": folder.name, "columns": columns})


def _same_task(one: str, other: str) -> bool:
    """Whether two names are of one task; that of own data is a path, told from where it was run."""
    if one.endswith(".npz") and other.endswith(".npz"):
        return Path(one).name == Path(other).name
    return one == other


def _read(path: Path, model: type[_Model], maker: str) -> _Model:
    try:
        return model.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; make it with {maker}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(
            f"{path} is none that {maker} writes ({place}: {first['msg']}); make it again."
        ) from error
