"""What a run would cost on a chip, and whether it fits there, as types of fidelity.json."""

from __future__ import annotations

from pydantic import Field

from lmu_deploy.fidelity.schema_base import Strict

Interval = tuple[float, float]


class Estimate(Strict):
    """One published source's energy or time of one inference, from the least to the most.

    `counted` names the operations that the source has figures for, `sources` says where they stand.
    """

    title: str
    inference: Interval
    step: Interval
    counted: list[str]
    sources: list[str]


class Costs(Strict):
    """Operations of a mean sample, and what the published figures make of them.

    `energy` is in joules and `latency` in seconds; each holds the least and the most of all its
    estimates, null where nothing is published.
    """

    synops: float
    messages: float
    updates: float
    chip_steps: int
    energy: Interval | None
    latency: Interval | None
    energies: dict[str, Estimate]
    latencies: dict[str, Estimate]


class Fit(Strict):
    """Whether a network fits the chip it was made for; `violations` says what does not."""

    profile: str
    title: str
    violations: list[str]


class SynapticOperations(Strict):
    """Of a mean sample: with weights and messages that are not zero, and with all of them."""

    effective_macs: float = Field(alias="Effective_MACs")
    effective_acs: float = Field(alias="Effective_ACs")
    dense: float = Field(alias="Dense")


class NeuroBench(Strict):
    """What NeuroBench defines, under its names; see :mod:`lmu_deploy.fidelity.neurobench`."""

    footprint: int
    connection_sparsity: float
    activation_sparsity: float | None
    synaptic_operations: SynapticOperations | None
