"""What networks have in common whose memories are on neurons: the host that runs all other parts.

A SpikingNetwork and a LoihiNetwork differ in their memories alone. `host` is the float network:
its encoders, hidden units, LSTM layers and readout run on the host, and its own memory is the
truth that the one on neurons is judged by.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmu_deploy.checks import check_text
from lmu_deploy.errors import InputError
from lmu_deploy.network import LMULayer, LMUNetwork


class Hosted:
    """A network with a host, and inputs that are held for several steps of the chip."""

    host: LMUNetwork
    dt_ms: float
    hold_ms: float

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
        """Steps of the chip for one step of the task."""
        return round(self.hold_ms / self.dt_ms)


def check_type(value: object, expected: type) -> None:
    """Raise InputError when a part of a network is something else."""
    if not isinstance(value, expected):
        raise InputError(
            f"a spiking network needs a {expected.__name__}, not {type(value).__name__}; "
            "mend the file."
        )


def check_memories(memories: Any, host: LMUNetwork, kind: type) -> tuple[Any, ...]:
    """Return memories as a tuple if each layer of the host has the one that it needs.

    Parameters
    ----------
    memories : sequence
        A memory on neurons, with `scales` of shape (channels, order), or None for each layer.
    host : LMUNetwork
    kind : type
        Of a memory.

    Raises
    ------
    InputError
        When their number, kind or size does not fit.
    """
    found = tuple(memories)
    if len(found) != len(host.layers):
        raise InputError(
            f"{len(found)} memories for {len(host.layers)} layers; give one for each, None for a "
            "layer without a memory."
        )
    for number, (memory, layer) in enumerate(zip(found, host.layers, strict=True)):
        if not isinstance(layer, LMULayer):
            if memory is not None:
                raise InputError(f"layer {number} has no memory to run on neurons; give None.")
            continue
        if not isinstance(memory, kind):
            raise InputError(
                f"layer {number} has a memory and needs a {kind.__name__}; mend the file."
            )
        wanted, given = (layer.memory.channels, layer.memory.order), memory.scales.shape  # type: ignore[attr-defined]
        if given != wanted:
            raise InputError(
                f"layer {number} has {wanted[0]} channels of order {wanted[1]} and its memory on "
                f"neurons {given[0]} of order {given[1]}; the two must be equal."
            )
    return found


def check_provenance(value: Any) -> dict[str, str]:
    """Return where a network comes from, as texts by name; raises InputError otherwise."""
    if not isinstance(value, Mapping):
        raise InputError("provenance must map names to texts.")
    return {
        check_text("provenance key", key, 200): check_text(f"provenance {key}", text)
        for key, text in value.items()
    }
