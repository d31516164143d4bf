"""LoihiNetwork: the memories of an LMUNetwork on Loihi's LIF neurons in fixed point.

Running it has one right answer, spike for spike; docs/spiking-semantics.md says which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lmu_deploy.checks import check_number, check_text, set_fields
from lmu_deploy.errors import InputError
from lmu_deploy.loihi_memory import LoihiMemory, LoihiNeurons
from lmu_deploy.network import FLOAT_CLASSES, LMULayer, LMUNetwork
from lmu_deploy.spiking_chip import Calibration, check_multiple


@dataclass(frozen=True)
class LoihiNetwork:
    """A network whose memories spike on Loihi and whose other parts run on the host in float.

    Attributes
    ----------
    memories : tuple of LoihiMemory or None
        One entry for each layer of `host`; None for layers without a memory (LSTM).
    host : LMUNetwork
        The float network: its encoders, hidden units, LSTM layers and readout run on the host,
        and its own memory is the truth that the spiking one is judged by.
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
        if not isinstance(self.host, LMUNetwork) or not isinstance(self.calibration, Calibration):
            raise InputError(
                "a Loihi network needs an LMUNetwork and a Calibration; mend the file."
            )
        memories = tuple(self.memories)
        if len(memories) != len(self.host.layers):
            raise InputError(
                f"{len(memories)} memories for {len(self.host.layers)} layers; give one for each, "
                "None for a layer without a memory."
            )
        for number, (memory, layer) in enumerate(zip(memories, self.host.layers, strict=True)):
            wanted = None
            if isinstance(layer, LMULayer):
                wanted = (layer.memory.channels, layer.memory.order)
            found = memory.scales.shape if isinstance(memory, LoihiMemory) else memory
            if found != wanted:
                raise InputError(
                    f"layer {number} has a memory of channels and order {wanted}, and its Loihi "
                    f"memory {found}; the two must be equal."
                )
        dt = check_number("dt_ms", self.dt_ms, 1e-3, 1e3)
        if not isinstance(self.provenance, Mapping):
            raise InputError("provenance must map names to texts.")
        for key, value in self.provenance.items():
            check_text("provenance key", key, 200)
            check_text(f"provenance {key}", value)
        set_fields(
            self,
            memories=memories,
            profile=check_text("profile", self.profile, 200),
            dt_ms=dt,
            tau_ms=check_number("tau_ms", self.tau_ms, dt, 1e9),
            hold_ms=check_multiple("hold_ms", self.hold_ms, dt),
            provenance=dict(self.provenance),
        )

    @property
    def n_in(self) -> int:
        """Number of input features."""
        return self.host.n_in

    @property
    def n_out(self) -> int:
        """Number of outputs."""
        return self.host.n_out

    @property
    def return_sequences(self) -> bool:
        """Whether the answer is y at every step, or y at the last one."""
        return self.host.return_sequences

    @property
    def task(self) -> str | None:
        """Name of the task that it was trained for."""
        return self.host.task

    @property
    def steps_per_hold(self) -> int:
        """Chip steps for one step of the task."""
        return round(self.hold_ms / self.dt_ms)


LOIHI_CLASSES: tuple[type, ...] = (
    LoihiNetwork,
    LoihiMemory,
    LoihiNeurons,
    Calibration,
    *FLOAT_CLASSES,
)
"""Every class that a file of this representation may hold; for :func:`lmu_deploy.files.load`."""
