"""Lava processes of populations of neurons, with a port for each link and outlet.

Lava requires the same ports of every instance of a model; some are unused.
"""

# mypy: allow-subclassing-any

from __future__ import annotations

from pathlib import Path

from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.process.variable import Var

from targets.lava.plan import Group, edge_rows
from targets.lava.schedule import Timetable

IN_PORTS: list[str] = []
OUT_PORTS: list[str] = []
"""Names of the ports that every process has; see `offer_ports` in models.py."""


class Neurons(AbstractProcess):
    """A group of neurons.

    Parameters
    ----------
    group : Group
    timetable : Timetable
    folder : Path
        Folder of its records.
    reports : bool
        Whether it reports progress.
    """

    def __init__(self, group: Group, timetable: Timetable, folder: Path, reports: bool) -> None:
        super().__init__(
            group=group,
            timetable=timetable,
            folder=folder,
            reports=reports,
            name=str(group.place),
        )
        widths = [sum(map(edge_rows, link.exit.edges)) for link in group.links]
        for name, width in zip(IN_PORTS, widths + [1] * len(IN_PORTS), strict=False):
            setattr(self, name, InPort(shape=(width,)))
        for name in OUT_PORTS:
            setattr(self, name, OutPort(shape=(group.neurons,)))


class StatefulNeurons(Neurons):
    """A group of neurons with one state each."""

    def __init__(self, group: Group, timetable: Timetable, folder: Path, reports: bool) -> None:
        super().__init__(group, timetable, folder, reports)
        self.state = Var(shape=(group.neurons,), init=0)


class PlayerNeurons(Neurons):
    """Sends messages in the folder: of the input, of the host, or of an earlier stage."""


class IntegratorNeurons(StatefulNeurons):
    """Leak-free integrators; the state is m."""


class SeriesNeurons(StatefulNeurons):
    """A series; the state is m. Its first out-port sends to itself."""


class PointwiseNeurons(Neurons):
    """Stateless units with a function."""


class ProductNeurons(Neurons):
    """Products of two drives."""


class LSTMNeurons(StatefulNeurons):
    """Long short-term memory; the state is c."""


class GRUNeurons(StatefulNeurons):
    """Gated recurrent units; the state is h."""


class MaximumNeurons(Neurons):
    """The greatest of several drives."""


class ReductionNeurons(StatefulNeurons):
    """The sum, mean, maximum or last of all frames; the state is s."""


class OutputNeurons(Neurons):
    """Outputs of the network."""
