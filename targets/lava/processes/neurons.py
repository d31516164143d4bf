"""The processes: populations of neurons with one in-port for each slice of each connection."""

# mypy: allow-subclassing-any

from __future__ import annotations

from pathlib import Path

from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.process.variable import Var

from targets.lava.plan import Group, Timetable

MOST_LINKS = 3
MOST_SLICES = 4


def port_name(link: int, part: int) -> str:
    """Name of the in-port for slice number `part` of connection number `link`."""
    return f"a_in_{link}_{part}"


PORT_NAMES = [port_name(link, part) for link in range(MOST_LINKS) for part in range(MOST_SLICES)]


class Neurons(AbstractProcess):
    """A population that receives. Lava wants the same ports of every instance; some stay unused.

    Parameters
    ----------
    group : Group
    timetable : Timetable
    folder : Path
        Where its records are.
    """

    def __init__(self, group: Group, timetable: Timetable, folder: Path) -> None:
        super().__init__(group=group, timetable=timetable, folder=folder, name=group.name)
        for name in PORT_NAMES:
            setattr(self, name, InPort(shape=(group.neurons,)))


class MemoryNeurons(Neurons):
    """Leak-free integrators that send graded messages; `m` is their state."""

    def __init__(self, group: Group, timetable: Timetable, folder: Path) -> None:
        super().__init__(group, timetable, folder)
        self.m = Var(shape=(group.neurons,), init=0)
        self.s_out = OutPort(shape=(group.neurons,))


class HiddenNeurons(Neurons):
    """Stateless units with a piecewise-linear activation."""

    def __init__(self, group: Group, timetable: Timetable, folder: Path) -> None:
        super().__init__(group, timetable, folder)
        self.s_out = OutPort(shape=(group.neurons,))


class ReadoutNeurons(Neurons):
    """The end of the network; what it adds up is the output."""


class InputCounter(AbstractProcess):
    """Counts the messages that the source of the inputs sends."""

    def __init__(self, group: Group, timetable: Timetable, folder: Path) -> None:
        super().__init__(group=group, timetable=timetable, folder=folder, name=group.name)
        self.s_in = InPort(shape=(group.neurons,))
