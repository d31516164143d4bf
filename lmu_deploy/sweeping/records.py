"""What a trial gave, kept as ``trials/HASH.json`` from the moment it ends.

A record appears whole or not at all, so whatever is killed leaves only records of finished trials.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from lmu_deploy.atomic import write_text
from lmu_deploy.errors import InputError, RunError

TRIALS = "trials"
DONE, REFUSED, FAILED = "done", "refused", "failed"


@dataclass(frozen=True)
class Record:
    """The result of a trial.

    Attributes
    ----------
    key : str
        Hash of its inputs.
    status : {"done", "refused", "failed"}
        Refused: it cannot be done, and trying again would say the same. Failed: something broke;
        such a record is not kept, and the trial runs again with the next sweep.
    figures : dict
        Empty unless it is done.
    error : str
        One sentence unless it is done.
    seconds : float
    inputs : dict
        What the hash is of.
    versions : dict of str to str
        Of the libraries that computed it.
    """

    key: str
    status: str
    figures: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    seconds: float = 0.0
    inputs: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def path_of(folder: Path, key: str) -> Path:
    """Where the record of a hash is kept."""
    return folder / TRIALS / f"{key}.json"


def keep(folder: Path, record: Record) -> None:
    """Write a record unless it failed; nothing happens where the sweep's folder cannot be seen.

    A worker on another machine may not see it: the record then goes back to where the sweep was
    started and is kept there.
    """
    if record.status != FAILED and (folder / TRIALS).is_dir():
        text = json.dumps(asdict(record), indent=1, ensure_ascii=False, allow_nan=False)
        write_text(path_of(folder, record.key), text + "\n")


def kept(folder: Path, key: str) -> Record | None:
    """Read the record of a hash; None when there is none.

    Raises
    ------
    RunError
        When the file is damaged.
    """
    path = path_of(folder, key)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}); remove it to run it again.") from error
    if not isinstance(values, dict) or set(values) != {f.name for f in fields(Record)}:
        raise RunError(f"{path} is no record of a trial; remove it to run the trial again.")
    return Record(**values)


def make_folder(folder: Path, *others: str) -> None:
    """Make the folder of a sweep, and in it that of its records and those named.

    Raises
    ------
    InputError
        When they cannot be made.
    """
    try:
        for name in (TRIALS, *others):
            (folder / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make the folder {folder}: {error.strerror}; choose another name."
        ) from error
