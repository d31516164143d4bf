"""The processes that are not stock: the relays, and the host at the chip's edge.

Samples run side by side, as copies of the network that do not meet; every port carries sample after
sample.
"""

# mypy: allow-subclassing-any

from __future__ import annotations

from pathlib import Path

from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.process.variable import Var

from targets.spiking.layers import Job


class Relays(AbstractProcess):
    """Leaky integrators that send their state, rounded for the chip and whole for the host.

    Parameters
    ----------
    job : Job
    folder : Path
        Where the records are.
    """

    def __init__(self, job: Job, folder: Path) -> None:
        super().__init__(job=job, folder=folder, name="relays")
        shape = (job.samples * job.memory.states,)
        self.x = Var(shape=shape, init=0)
        self.decoded_in = InPort(shape=shape)
        self.driven_in = InPort(shape=shape)
        self.message_out = OutPort(shape=shape)
        self.state_out = OutPort(shape=shape)


class Host(AbstractProcess):
    """Takes the states once in each hold, answers with the next input, and counts all events.

    Parameters
    ----------
    job : Job
    folder : Path
    """

    def __init__(self, job: Job, folder: Path) -> None:
        super().__init__(job=job, folder=folder, name="host")
        memory, samples = job.memory, job.samples
        self.state_in = InPort(shape=(samples * memory.states,))
        self.message_in = InPort(shape=(samples * memory.states,))
        self.spikes_in = InPort(shape=(samples * memory.size,))
        self.input_out = OutPort(shape=(samples * memory.channels,))
