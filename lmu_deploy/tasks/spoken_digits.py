"""Task `spoken-digits`: spoken digits of six speakers, as log-mel frames of one second.

The data are Z. Jackson and contributors, "Free Spoken Digit Dataset" (CC BY-SA 4.0), 3,000
recordings ``{digit}_{speaker}_{index}.wav`` at 8 kHz: each digit 50 times by each speaker. They are
read from ``$LMU_DEPLOY_DATA/fsdd``, as they stand or as one ``recordings.tar``, and are verified by
the hashes of ``spoken_digits.sha256``.

- `spoken-digits`: index 0 to 4 is the test part, as the authors of the data propose; 5 to 9
  validates; the rest trains.
- ``spoken-digits-SPEAKER``: all of one speaker is the test part. Of the five others, index 5 to 9
  validates and the rest trains.

A recording begins at the first sample. It is cut or padded with silence to 62 frames, 1.008 s.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import wave
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.tasks.base import Split, Task, TaskData
from lmu_deploy.tasks.digits import VARIABLE
from lmu_deploy.tasks.log_mel import LogMel

DIGITS, TAKES, STEPS = 10, 50, 62
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
FRONT_END = LogMel()
TEST_TAKES, VALIDATION_TAKES = range(5), range(5, 10)

_SOURCE = "https://github.com/Jakobovski/free-spoken-digit-dataset"
_COMMIT = "26eb9aaf76e81b692f806f9140c2d2777410d7a1"
_LARGEST_BYTES = 100_000
"""Bytes of a recording; the longest has 36,568."""


def read_recordings() -> dict[tuple[int, str, int], np.ndarray]:
    """Return all recordings, by digit, speaker and index.

    Returns
    -------
    dict of (digit, speaker, index) to ndarray, shape (samples,), int16

    Raises
    ------
    InputError
        When the recordings are missing or are not the published ones.
    """
    folder = _folder()
    contents = _contents(folder)
    for group, digest in _manifest().items():
        own = hashlib.sha256()
        for take in range(TAKES):
            own.update(contents.get(f"{group}_{take}.wav", b""))
        if own.hexdigest() != digest:
            raise InputError(
                f"{folder}: the recordings {group}_0.wav to {group}_{TAKES - 1}.wav are not the "
                f"published ones; get them again: {_SOURCE}, commit {_COMMIT}."
            )
    found = {}
    for name, content in contents.items():
        digit, speaker, number = name.removesuffix(".wav").split("_")
        found[int(digit), speaker, int(number)] = _samples(content)
    return found


def _folder() -> Path:
    """Return the folder of the data; raise InputError if there is none."""
    root = os.environ.get(VARIABLE)
    folder = Path(root or "") / "fsdd"
    if root and ((folder / "recordings.tar").is_file() or any(folder.glob("**/0_george_0.wav"))):
        return folder
    where = f"{folder} holds no recordings" if root else f"{VARIABLE} is not set"
    raise InputError(
        f"the Free Spoken Digit Dataset is missing ({where}); get it ({_SOURCE}, commit "
        f"{_COMMIT[:12]}), put its folder recordings into a folder fsdd, and set {VARIABLE} to "
        "the folder above that."
    )


def _contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every recording by name, from a tar file or from files."""
    wanted = {f"{group}_{take}.wav" for group in _manifest() for take in range(TAKES)}
    archive = folder / "recordings.tar"
    found: dict[str, bytes] = {}
    try:
        if archive.is_file():
            with tarfile.open(archive) as tar:
                for member in tar:
                    name = member.name.rpartition("/")[2]
                    file = tar.extractfile(member) if name in wanted else None
                    if file is not None:
                        found[name] = file.read(_LARGEST_BYTES)
        else:
            for path in folder.glob("**/*.wav"):
                if path.name in wanted:
                    with path.open("rb") as file:
                        found[path.name] = file.read(_LARGEST_BYTES)
    except (OSError, EOFError, tarfile.TarError) as error:
        raise InputError(f"{folder} cannot be read ({error}); get the data again.") from error
    return found


@lru_cache(maxsize=1)
def _manifest() -> Mapping[str, str]:
    """Return the SHA-256 of the files of each digit and speaker, one behind the other."""
    text = (files("lmu_deploy.tasks") / "spoken_digits.sha256").read_text(encoding="utf-8")
    lines = (line.split() for line in text.splitlines() if not line.startswith("#"))
    return {group: digest for digest, group in lines}


def _samples(content: bytes) -> np.ndarray:
    with wave.open(io.BytesIO(content)) as sound:
        return np.frombuffer(sound.readframes(sound.getnframes()), "<i2").astype(np.int16)


@lru_cache(maxsize=1)
def _frames() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the frames of all recordings, and the digit, speaker and index of each.

    They stand in order of index, speaker and digit, so that any beginning has equally many of each.
    """
    recordings = read_recordings()
    keys = sorted(recordings, key=lambda key: (key[2], key[1], key[0]))
    samples = np.stack([padded(recordings[key]) for key in keys])
    inputs = np.concatenate([FRONT_END.apply(some) for some in np.array_split(samples, 20)]).astype(
        np.float32
    )
    digits, speakers, takes = zip(*keys, strict=True)
    return inputs, np.array(digits, np.int64), np.array(speakers), np.array(takes)


def padded(samples: np.ndarray) -> np.ndarray:
    """Return a recording cut or padded to as many samples as the frames of the task need."""
    length = FRONT_END.samples(STEPS)
    return np.pad(samples[:length], (0, max(0, length - len(samples))))


def _task(name: str, divide: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Task:
    """Return a task whose test part is where `divide` of speakers and indices is true."""

    @lru_cache(maxsize=1)
    def load() -> TaskData:
        inputs, digits, speakers, takes = _frames()
        test = divide(speakers, takes)
        validation = np.isin(takes, VALIDATION_TAKES) & ~test
        parts = (~test & ~validation, validation, test)
        return TaskData(*(Split(inputs[part], digits[part]) for part in parts))

    return Task(
        name,
        "classification",
        n_in=FRONT_END.bands,
        n_out=DIGITS,
        steps=STEPS,
        load=load,
        front_end=FRONT_END,
    )


TASK = _task("spoken-digits", lambda speakers, takes: np.isin(takes, TEST_TAKES))


def make_task(speaker: str) -> Task:
    """Return the task whose test part is all of one speaker.

    Raises
    ------
    InputError
        When there is no such speaker.
    """
    if speaker not in SPEAKERS:
        raise InputError(
            f"task spoken-digits has no speaker {speaker!r}; choose one of {', '.join(SPEAKERS)}."
        )
    return _task(f"spoken-digits-{speaker}", lambda speakers, takes: speakers == speaker)
