"""Devices that calibration measures: drive these currents, return these spikes.

A calibration programs a block of neurons, plays drives to it and reads its spikes. It sees nothing
else of a device, so that a driver of a real board, a virtual chip, and a file of recordings are the
same to it. A driver is a class without constructor arguments that another package registers under
the entry point ``lmu_deploy.devices``.

A session file is an ``.npz`` file of what was driven and what came back. Run k of the session has

========================  ==========================================================================
``k.place``               text: place of the block in the network
``k.dt_ms``               number: duration of a step, milliseconds
``k.gains``, ``k.biases`` float64, (states, neurons): see :class:`Block`
``k.drive``               float32, (steps, trials, states)
``k.spikes``              uint8, (steps, trials, bytes): ``numpy.packbits`` of (states * neurons)
                          zeros and ones in the last axis
========================  ==========================================================================

so that neuron j of population i receives the current ``biases[i, j] + gains[i, j] * drive[.., i]``.
"""

from __future__ import annotations

import contextlib
import math
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import DAMAGED, atomic_write, check_file
from lmu_deploy.core.integer.parts import Place
from lmu_deploy.core.network import default_names
from lmu_deploy.core.spiking.chip import NeuronModel, Populations
from lmu_deploy.core.spiking.network import SpikingNetwork

GROUP = "lmu_deploy.devices"
VIRTUAL = "virtual"
"""Name of the device that simulates a chip whose mismatch only the device knows."""


@dataclass(frozen=True)
class Block:
    """Neurons that are programmed and driven together: the populations of a memory.

    Attributes
    ----------
    place : str
        Place in the network, such as ``lmu_1/memory``; a board keeps the neurons of a place.
    populations : Populations
    model : NeuronModel
        The intended neuron; its units are threshold and rheobase current.
    dt_ms : float
        Duration of a step, milliseconds.
    position : str
        In a chain of layers the place if no layer had a name, such as ``layer0/memory``: sessions
        of version 0.1 have it as their place, and virtual chips derive their mismatch from it.
    """

    place: str
    populations: Populations
    model: NeuronModel
    dt_ms: float
    position: str = ""

    @property
    def gains(self) -> np.ndarray:
        """Programmed current per unit of drive, shape (states, neurons); of either sign."""
        return np.asarray(self.populations.gains * self.populations.encoders)

    @property
    def biases(self) -> np.ndarray:
        """Programmed current without drive, shape (states, neurons)."""
        return self.populations.biases

    def currents(self, drive: np.ndarray) -> np.ndarray:
        """Return the intended currents for drives (..., states), shape (..., states, neurons)."""
        return np.asarray(self.biases + self.gains * drive[..., None])


def block_of(network: SpikingNetwork, number: int, part: str, populations: Populations) -> Block:
    """Return populations of a part of a layer, as they are programmed for a network."""
    position = Place(default_names(len(network.memories))[number], part)
    place = network.place(number, part)
    return Block(str(place), populations, network.neuron, network.dt_ms, str(position))


class Driven(Protocol):
    """Running neurons that are driven step by step."""

    def step(self, x: np.ndarray) -> np.ndarray:
        """Drive with (copies, states); return spikes (copies, states, neurons), bool."""


class NeuronDevice(ABC):
    """Neurons of one chip.

    Attributes
    ----------
    name : str
        Name in messages and in the network's file; by default that of the class.
    live : bool
        Whether :meth:`start` works, so that maps can be compared in a closed loop.
    """

    name = ""
    live = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" not in vars(cls):
            cls.name = cls.__name__

    @abstractmethod
    def run(self, block: Block, drive: np.ndarray, seed: Sequence[int]) -> np.ndarray:
        """Program a block, and play drives to it.

        Parameters
        ----------
        block : Block
        drive : ndarray, shape (steps, trials, states), float32
            A trial is played from a resting chip; one step lasts `block.dt_ms`.
        seed : sequence of int
            Seed of the randomness of a simulated chip; a board ignores it.

        Returns
        -------
        spikes : ndarray, shape (steps, trials, states, neurons), bool
        """

    def start(self, block: Block, copies: int, rng: np.random.Generator) -> Driven:
        """Start copies of the block whose drives may depend on their last spikes.

        Parameters
        ----------
        block : Block
        copies : int
        rng : Generator
            Randomness of a simulated chip; a board ignores it.

        Raises
        ------
        InputError
            When the device only plays drives that are known beforehand.
        """
        raise InputError(
            f"{self.name} plays drives that are known beforehand and cannot close a "
            "loop; use a device with a method start."
        )


_Outcome = TypeVar("_Outcome")
_SPIKES_AT_ONCE = 2**28


def play(
    board: NeuronDevice,
    block: Block,
    steps: int,
    seed: Sequence[int],
    experiment: Callable[[NeuronDevice], _Outcome],
) -> _Outcome:
    """Run an experiment whose drives do not depend on spikes, on a board that plays drives.

    The experiment runs until its last step to learn the drives, and again with the spikes.

    Parameters
    ----------
    board : NeuronDevice
    block : Block
    steps : int
        Number of steps of the experiment.
    seed : sequence of int
        See :meth:`NeuronDevice.run`.
    experiment : callable
        Given a device, starts the block on it once and takes that many steps.
    """
    collector = _Collector(steps)
    with contextlib.suppress(_Collected):
        experiment(collector)
    return experiment(Played.by(board, block, np.stack(collector.drive).astype(np.float32), seed))


class _Collected(Exception):  # noqa: N818 - it ends a run and is no error
    """The last drive of an experiment is known."""


class _Stepped(NeuronDevice):
    """Neurons that an experiment here steps through, to which nothing is played."""

    def run(self, block: Block, drive: np.ndarray, seed: Sequence[int]) -> np.ndarray:
        raise NotImplementedError


class _Collector(_Stepped):
    """Keeps the drives of an experiment, and ends it before it needs the spikes of the last."""

    def __init__(self, steps: int) -> None:
        self.steps, self.drive = steps, list[np.ndarray]()

    def start(self, block: Block, copies: int, rng: np.random.Generator) -> Driven:
        self._silence = np.zeros((copies, *block.gains.shape), bool)
        return self

    def step(self, x: np.ndarray) -> np.ndarray:
        self.drive.append(x.copy())
        if len(self.drive) == self.steps:
            raise _Collected
        return self._silence


class Played(_Stepped):
    """Neurons whose spikes are known: those of a board to which their drives were played.

    Parameters
    ----------
    packed : ndarray, shape (steps, trials, bytes)
        ``numpy.packbits`` of the spikes of a step and trial.
    shape : (int, int)
        States and neurons.
    """

    def __init__(self, packed: np.ndarray, shape: tuple[int, ...]) -> None:
        self._packed, self._shape, self._step = packed, shape, 0

    @classmethod
    def by(
        cls, board: NeuronDevice, block: Block, drive: np.ndarray, seed: Sequence[int]
    ) -> Played:
        """Play drives (steps, trials, states) to a block of a board.

        Raises
        ------
        InputError
            When the board returns anything but spikes of these neurons.
        """
        steps, trials, _ = drive.shape
        at_once = max(1, _SPIKES_AT_ONCE // (steps * block.gains.size))
        packed = []
        for first in range(0, trials, at_once):
            given = drive[:, first : first + at_once]
            spikes = board.run(block, given, [*seed, first])
            wanted = (*given.shape, block.gains.shape[1])
            if spikes.shape != wanted or spikes.dtype != bool:
                raise InputError(
                    f"device {board.name} returned spikes of shape {spikes.shape} and type "
                    f"{spikes.dtype}; it must return Booleans of shape {wanted}."
                )
            packed.append(np.packbits(spikes.reshape(*given.shape[:2], -1), axis=2))
        return cls(np.concatenate(packed, axis=1), block.gains.shape)

    def start(self, block: Block, copies: int, rng: np.random.Generator) -> Driven:
        """Begin with the first step again."""
        self._step = 0
        return self

    def step(self, x: np.ndarray) -> np.ndarray:
        """Return the spikes of the next step, whatever the drives."""
        bits = np.unpackbits(self._packed[self._step], axis=1, count=math.prod(self._shape))
        self._step += 1
        return bits.reshape(-1, *self._shape).astype(bool)


LARGEST_BYTES = 2**31
"""Largest size of a session file after unpacking."""
_TOLERANCE = 1e-3
"""Largest difference between a drive and its recording, in units of a scaled state."""
_FIELDS = ("place", "dt_ms", "gains", "biases", "drive", "spikes")


@dataclass(frozen=True)
class Recording:
    """One run of a session; see the module's table."""

    place: str
    dt_ms: float
    gains: np.ndarray
    biases: np.ndarray
    drive: np.ndarray
    spikes: np.ndarray

    @classmethod
    def of_arrays(cls, name: str, arrays: Mapping[str, np.ndarray]) -> Recording:
        """Check the arrays of a run of a file.

        Parameters
        ----------
        name : str
            What the arrays are called in messages.
        arrays : mapping of field to ndarray

        Raises
        ------
        InputError
            When an array is missing, or its type or size is wrong.
        """
        if missing := [field for field in _FIELDS if field not in arrays]:
            raise InputError(f"{name} lacks the array {missing[0]}; record the session again.")
        place, dt_ms = arrays["place"], arrays["dt_ms"]
        if place.dtype.kind != "U" or place.ndim or place.dtype.itemsize > 800:
            raise InputError(f"{name}.place is no text of at most 200 characters; give its place.")
        if dt_ms.dtype.kind not in "fi" or dt_ms.ndim or not 0.0 < float(dt_ms) < 1e3:
            raise InputError(f"{name}.dt_ms is no duration of a step; give it in milliseconds.")
        gains, biases, drive = (
            _numbers(f"{name}.{field}", arrays[field], dimensions)
            for field, dimensions in (("gains", 2), ("biases", 2), ("drive", 3))
        )
        size, spikes = (*drive.shape[:2], -(-gains.size // 8)), arrays["spikes"]
        for field, found, wanted in (
            ("biases", biases.shape, gains.shape),
            ("drive", drive.shape[2:], gains.shape[:1]),
            ("spikes", spikes.shape, size),
        ):
            if found != wanted:
                raise InputError(
                    f"{name}.{field} has shape {found}, and {wanted} belongs to the other arrays; "
                    "record the session again."
                )
        if spikes.dtype != np.uint8:
            raise InputError(
                f"{name}.spikes has type {spikes.dtype}; pack the bits with numpy.packbits."
            )
        return cls(str(place), float(dt_ms), gains, biases, drive.astype(np.float32), spikes)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Arrays of the file by field."""
        return {name: np.asarray(getattr(self, name)) for name in _FIELDS}

    def unpacked(self) -> np.ndarray:
        """Return the spikes, shape (steps, trials, states, neurons), bool."""
        bits = np.unpackbits(self.spikes, axis=2, count=self.gains.size)
        return bits.reshape(*self.drive.shape[:2], *self.gains.shape).astype(bool)


def _read(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of a file, after their sizes have been checked."""
    check_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(_size(archive, item) for item in archive.infolist())
        if size > LARGEST_BYTES:
            raise InputError(
                f"{path} unpacks to {size} bytes; at most {LARGEST_BYTES} do. Record fewer trials "
                "(--calibration-samples)."
            )
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except DAMAGED as error:
        raise InputError(
            f"{path} is no readable .npz file of plain arrays ({str(error)[:200]}); record the "
            "session again."
        ) from error


def _size(archive: zipfile.ZipFile, item: zipfile.ZipInfo) -> int:
    """Return the larger of the size of a member and of the array that its header announces."""
    with archive.open(item) as file:
        header: Any = np.lib.format
        major, _ = header.read_magic(file)
        read = header.read_array_header_1_0 if major == 1 else header.read_array_header_2_0
        shape, _, kind = read(file)
    return max(item.file_size, math.prod(shape) * kind.itemsize)


def _numbers(name: str, array: np.ndarray, dimensions: int) -> np.ndarray:
    if array.dtype.kind != "f" or array.ndim != dimensions or not np.all(np.isfinite(array)):
        raise InputError(
            f"{name} must be {dimensions}-dimensional and of finite floating numbers; record the "
            "session again."
        )
    return array


class RecordedDevice(NeuronDevice):
    """A chip in recordings: its runs are replayed in their order.

    Parameters
    ----------
    runs : sequence of Recording
    name : str
        Of the file, for messages.

    then : NeuronDevice, optional
        What plays the runs behind the last of them.
    """

    then: NeuronDevice | None = None

    def __init__(self, runs: Sequence[Recording], name: str) -> None:
        self.runs, self.name, self._next = tuple(runs), name, 0

    @classmethod
    def load(cls, path: Path | str) -> RecordedDevice:
        """Read a session file.

        Raises
        ------
        InputError
            When there is no such file, it is too large, or it is not a session.
        """
        path = Path(path)
        arrays = _read(path)
        runs: dict[str, dict[str, np.ndarray]] = {}
        for name, array in arrays.items():
            number, _, field = name.partition(".")
            if not number.isdecimal() or field not in _FIELDS:
                raise InputError(f"{path}: {name[:100]!r} is no array of a session; remove it.")
            runs.setdefault(number, {})[field] = array
        if sorted(map(int, runs)) != list(range(len(runs))) or not runs:
            raise InputError(f"{path} has no runs that are numbered from 0; record it again.")
        ordered = [runs[number] for number in sorted(runs, key=int)]
        return cls(
            [Recording.of_arrays(f"{path}: {n}", one) for n, one in enumerate(ordered)], path.name
        )

    def run(self, block: Block, drive: np.ndarray, seed: Sequence[int]) -> np.ndarray:
        """Return the recorded spikes of the next run; see :meth:`NeuronDevice.run`.

        Raises
        ------
        InputError
            When that run had other currents; the message names the first difference.
        """
        if self._next == len(self.runs):
            if self.then is not None:
                return self.then.run(block, drive, seed)
            raise InputError(
                f"{self.name} holds {len(self.runs)} runs, and calibration needs more; record the "
                "session with the same network and options, or go on with it (--record-session)."
            )
        number, found = self._next, self.runs[self._next]
        self._next += 1
        of_position = found.place == block.position
        for what, theirs, ours in (
            ("place", found.place, block.position if of_position else block.place),
            ("step in milliseconds", found.dt_ms, block.dt_ms),
            ("populations and neurons", found.gains.shape, block.gains.shape),
            ("steps, trials and states", found.drive.shape, drive.shape),
        ):
            if theirs != ours:
                raise self._differs(number, f"{what} {theirs}", ours)
        for what, recorded, wanted in (
            ("gains", found.gains, block.gains),
            ("biases", found.biases, block.biases),
            ("drives", found.drive, drive),
        ):
            if not np.allclose(recorded, wanted, rtol=_TOLERANCE, atol=_TOLERANCE):
                worst = float(np.abs(recorded - wanted).max())
                raise self._differs(number, f"{what} that differ by {worst:.3g}", "none")
        return found.unpacked()

    def _differs(self, number: int, theirs: str, ours: Any) -> InputError:
        return InputError(
            f"run {number} of {self.name} has {theirs}, and calibration needs {ours}; record the "
            "session with the same network and options."
        )


class SessionRecorder(NeuronDevice):
    """Plays drives to another device, and keeps them and its spikes.

    Parameters
    ----------
    device : NeuronDevice
    """

    def __init__(self, device: NeuronDevice) -> None:
        self.device, self.runs, self.name = device, list[Recording](), device.name

    def run(self, block: Block, drive: np.ndarray, seed: Sequence[int]) -> np.ndarray:
        """See :meth:`NeuronDevice.run`."""
        spikes = self.device.run(block, drive, seed)
        packed = np.packbits(spikes.reshape(*drive.shape[:2], -1), axis=2)
        block_of = (block.place, block.dt_ms, block.gains, block.biases)
        self.runs.append(Recording(*block_of, np.asarray(drive, np.float32), packed))
        return spikes

    def save(self, path: Path | str) -> None:
        """Write the session; see the module's table."""
        arrays = {
            f"{number}.{name}": array
            for number, run in enumerate(self.runs)
            for name, array in run.arrays.items()
        }
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
