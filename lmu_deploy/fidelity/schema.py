"""fidelity.json as types: schema ``lmu_deploy/fidelity``, version 1.

Every number is finite; what cannot be said is null. `targets` and `variants` keep their order.
:func:`json_schema` gives the JSON schema that other tools can check a file with.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from lmu_deploy.fidelity.schema_base import Strict
from lmu_deploy.fidelity.schema_costs import Costs, Fit, NeuroBench
from lmu_deploy.fidelity.schema_losses import Attribution, Divergence, LayerRanges

Interval = tuple[float, float]


class Metric(Strict):
    """The task's own metric on the samples that were run; `ci95` null when one sample ran."""

    name: Literal["accuracy", "nrmse"]
    value: float
    ci95: Interval | None


class Answers(Strict):
    """What came of each sample, for a paired comparison with another run of the same ones.

    All are base64: `right` one bit an answer, the first one highest; `errors` and `norms` sums of
    squared errors and of squared targets of each sequence, little-endian 32-bit floats.
    """

    count: int
    right: str | None = None
    errors: str | None = None
    norms: str | None = None


class AgainstReference(Strict):
    """The same samples in the float reference, and how far the answers agree.

    `agreement` is the share of equal predicted classes, `flips` the number that differ, of which
    `lost` were right only in the reference and `gained` only here (all null for regression);
    `deviation` is the NRMSE of the outputs to the reference's; `difference` is target minus
    reference, with a paired interval; `p_value` is McNemar's exact test.
    """

    value: float
    agreement: float | None
    agreement_ci95: Interval | None
    flips: int | None
    lost: int | None
    gained: int | None
    deviation: float | None
    difference: float
    difference_ci95: Interval | None
    p_value: float | None


class Events(Strict):
    """Messages or spikes: in all, of a mean sample, of a mean step of a sample, by population."""

    total: int
    per_sample: float
    per_step: float
    by_population: dict[str, int]


class Population(Strict):
    """One population: events per neuron and step, mean events at each step and of each class.

    `intervals` counts the steps between a neuron's events in sample 0: entry k those of
    2^(k-1) + 1 to 2^k steps, the first those of one step.
    """

    neurons: int | None
    events: int
    per_sample: float
    rate: float | None
    silent: int | None
    by_step: list[float]
    by_class: dict[int, float] | None
    intervals: list[int] | None = None


class Sizes(Strict):
    """What the representation takes to hold; see :class:`lmu_deploy.fidelity.sizes.Sizes`."""

    representation: str
    parameters: int
    synapses: int
    weight_bits: int
    weight_bytes: int
    neuron_bytes: int
    state_bytes: int
    weights: int | None = None


class MemoryFidelity(Strict):
    """Relative rms error of each layer's memory: overall, by step and by Legendre order."""

    samples: int
    overall: dict[str, float | None]
    by_step: dict[str, list[float] | None]
    by_order: dict[str, list[float | None]]


class Equality(Strict):
    """Recorded integers compared with those of another target, with ``==``.

    `compared` says of which of m, h and y; `apart` which are real numbers of the host, and so not
    among them.
    """

    target: str
    samples: int
    steps: int
    values: int
    equal: bool
    different: int
    first: str
    compared: list[str] = Field(default_factory=list)
    apart: list[str] = Field(default_factory=list)


class Window(Strict):
    """One channel's window decoded from the memory after the last step of sample 0."""

    channel: int
    delays: list[float]
    decoded: list[float]


class TargetFidelity(Strict):
    """Everything about one target."""

    target: str
    samples: int
    steps: int
    chip_steps: int
    wall_seconds: float
    seed: int
    metric: Metric
    reference: AgainstReference | None
    events: Events
    populations: dict[str, Population]
    synops: int
    synops_per_sample: float
    saturations: dict[str, int]
    neurons: dict[str, int]
    sizes: Sizes | None
    memory_error: MemoryFidelity | None
    window: Window | None
    equal_to: Equality | None
    attribution: Attribution | None = None
    divergence: Divergence | None = None
    ranges: LayerRanges | None = None
    costs: Costs | None = None
    fit: Fit | None = None
    answers: Answers | None = None
    neurobench: NeuroBench | None = None
    notes: list[str]
    settings: dict[str, Any]
    variants: dict[str, TargetFidelity]


class Layer(Strict):
    """One layer of the float network."""

    kind: Literal["lmu", "lstm"]
    inputs: int
    order: int | None
    channels: int | None
    theta: float | None
    discretiser: str | None
    feedback: list[str]
    units: int
    activation: str | None


class NetworkSummary(Strict):
    """The float network's structure."""

    inputs: int
    outputs: int
    parameters: int
    return_sequences: bool
    layers: list[Layer]
    provenance: dict[str, str]


class TaskSummary(Strict):
    """What was asked of the network."""

    name: str
    kind: Literal["classification", "regression"]
    inputs: int
    outputs: int
    steps: int
    washout: int


class Reference(Strict):
    """The float reference on all samples that were asked for."""

    metric: Metric
    samples: int
    steps: int
    wall_seconds: float
    sizes: Sizes | None
    true_window: list[float] | None
    window: Window | None
    answers: Answers | None = None


class Fidelity(Strict):
    """The whole file."""

    schema_name: Literal["lmu_deploy/fidelity"] = Field(
        default="lmu_deploy/fidelity", alias="schema"
    )
    version: Literal[1] = 1
    command: str
    date: str
    seed: int
    versions: dict[str, str]
    hashes: dict[str, str]
    task: TaskSummary
    network: NetworkSummary
    reference: Reference
    targets: dict[str, TargetFidelity]


def json_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of fidelity.json."""
    schema = Fidelity.model_json_schema(by_alias=True, mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
