"""Lava processes beyond LIF and Dense: the relays, and the host.

Samples run side by side, as separate copies of the network; every port carries sample after sample.
"""

# mypy: allow-subclassing-any

from __future__ import annotations

from pathlib import Path

from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.process.variable import Var

from targets.spiking.layers import Job


class Relays(AbstractProcess):
    """Leaky integrators that send their state, rounded to the chip and in full to the host.

    Parameters
    ----------
    job : Job
    folder : Path
        Folder of the records.
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
    """Receives the states once per presentation, sends the next input, and counts all events.

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
