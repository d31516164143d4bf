"""LoihiNetwork: the memories of an LMUNetwork on Loihi's LIF neurons in fixed point.

Running it has one right answer, spike for spike; docs/spiking-semantics.md says which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lmu_deploy.checks import check_number, check_text, set_fields
from lmu_deploy.loihi_memory import LoihiMemory, LoihiNeurons
from lmu_deploy.network import FLOAT_CLASSES, LMUNetwork
from lmu_deploy.spiking_chip import Calibration, check_multiple
from lmu_deploy.spiking_host import Hosted, check_memories, check_provenance, check_type


@dataclass(frozen=True)
class LoihiNetwork(Hosted):
    """A network whose memories spike on Loihi and whose other parts run on the host in float.

    Attributes
    ----------
    memories : tuple of LoihiMemory or None
        One entry for each layer of `host`; None for layers without a memory (LSTM).
    host : LMUNetwork
        See :mod:`lmu_deploy.spiking_host`.
    profile : str
        Name of the hardware profile.
    calibration : Calibration
    dt_ms, tau_ms, hold_ms : float
        What a chip step stands for, the time constant of the relays, how long an input is held;
        milliseconds, the last a whole multiple of the first.
    provenance : mapping of str to str

    Raises
    ------
    InputError
        At construction, when a shape, type or value does not fit.
    """

    memories: tuple[LoihiMemory | None, ...]
    host: LMUNetwork
    profile: str
    calibration: Calibration
    dt_ms: float
    tau_ms: float
    hold_ms: float
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_type(self.host, LMUNetwork)
        check_type(self.calibration, Calibration)
        dt = check_number("dt_ms", self.dt_ms, 1e-3, 1e3)
        set_fields(
            self,
            memories=check_memories(self.memories, self.host, LoihiMemory),
            profile=check_text("profile", self.profile, 200),
            dt_ms=dt,
            tau_ms=check_number("tau_ms", self.tau_ms, dt, 1e9),
            hold_ms=check_multiple("hold_ms", self.hold_ms, dt),
            provenance=check_provenance(self.provenance),
        )


LOIHI_CLASSES: tuple[type, ...] = (
    LoihiNetwork,
    LoihiMemory,
    LoihiNeurons,
    Calibration,
    *FLOAT_CLASSES,
)
"""Every class that a file of this representation may hold; for :func:`lmu_deploy.files.load`."""
