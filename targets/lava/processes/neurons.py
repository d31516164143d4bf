"""Lava processes of populations of neurons, with a port for each link and outlet.

Lava requires the same ports of every instance; some are unused.
"""

# mypy: allow-subclassing-any

from __future__ import annotations

from pathlib import Path

from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.process.variable import Var

from targets.lava.plan import Group, Timetable

MOST_LINKS = 4
MOST_OUTLETS = 4
IN_PORTS = [f"a_in_{number}" for number in range(MOST_LINKS)]
OUT_PORTS = [f"s_out_{number}" for number in range(MOST_OUTLETS)]


class Neurons(AbstractProcess):
    """A population that receives messages.

    Parameters
    ----------
    group : Group
    timetable : Timetable
    folder : Path
        Folder of its records.
    """

    def __init__(self, group: Group, timetable: Timetable, folder: Path, **more: object) -> None:
        super().__init__(group=group, timetable=timetable, folder=folder, name=group.name, **more)
        widths = [link.width for link in group.links]
        for name, width in zip(IN_PORTS, widths + [1] * MOST_LINKS, strict=False):
            setattr(self, name, InPort(shape=(width,)))


class SendingNeurons(Neurons):
    """A population that also sends graded messages."""

    def __init__(self, group: Group, timetable: Timetable, folder: Path, **more: object) -> None:
        super().__init__(group, timetable, folder, **more)
        for name in OUT_PORTS:
            setattr(self, name, OutPort(shape=(group.neurons,)))


class InputNeurons(SendingNeurons):
    """Sends the input messages in the folder."""


class MemoryNeurons(SendingNeurons):
    """Leak-free integrators; `m` is their state."""

    def __init__(self, group: Group, timetable: Timetable, folder: Path) -> None:
        super().__init__(group, timetable, folder)
        self.m = Var(shape=(group.neurons,), init=0)


class SeriesNeurons(SendingNeurons):
    """A series and its memory: `v_out` sends to the series itself, the other ports to all else.

    Parameters
    ----------
    group, memory : Group
        Group of the series, with the links, and of its memory, with the outlets.
    timetable : Timetable
    folder : Path
    """

    def __init__(self, group: Group, memory: Group, timetable: Timetable, folder: Path) -> None:
        super().__init__(group, timetable, folder, memory=memory)
        self.m = Var(shape=(group.neurons,), init=0)
        self.v_out = OutPort(shape=(group.neurons,))


class HiddenNeurons(SendingNeurons):
    """Stateless units with a piecewise-linear activation."""


class ReadoutNeurons(Neurons):
    """Computes the output of the network."""
