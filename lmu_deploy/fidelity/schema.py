"""fidelity.json as types: schema ``lmu_deploy/fidelity``, version 1.

Every number is finite; what cannot be said is null. `targets` and `variants` keep their order.
:func:`json_schema` gives the JSON schema that other tools can check a file with.

What all types of fidelity.json have in common.

What a run would cost on a chip, and whether it fits there, as types of fidelity.json.

Parts of fidelity.json that say what was lost: by which source, when, and in which layer.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """No field that is unknown, nothing changed later, every number finite."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True
    )


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
    """What NeuroBench defines, under its names; see :mod:`lmu_deploy.fidelity.measures.sizes`."""

    footprint: int
    connection_sparsity: float
    activation_sparsity: float | None
    synaptic_operations: SynapticOperations | None


Range = tuple[float, float]


class Errors(Strict):
    """The task's metric, the outputs' NRMSE to the reference's, the memory's relative rms error."""

    metric: float
    output: float
    memory: float


class AttributionStep(Strict):
    """One source of error: with all before it, and alone; shares are of squared output errors."""

    source: str
    places: list[str]
    after: Errors
    alone: Errors
    share_in_turn: float | None
    share_alone: float | None


class Cause(Strict):
    """One place where error enters; see :class:`lmu_deploy.fidelity.attribution.Cause`."""

    source: str
    place: str
    row: int | None
    output: float
    share: float
    row_share: float | None
    saturations: int | None


class Attribution(Strict):
    """What each source of error costs, in the order in which they were switched on.

    `interaction` is what the shares alone leave of 1; `causes` come largest first.
    """

    samples: int
    reference: Errors
    steps: list[AttributionStep]
    interaction: float | None
    causes: list[Cause]


class Parting(Strict):
    """First step and variable at which a sample leaves the reference by more than the bound.

    With `step` null it never does, and the variable is the one with the largest error.
    """

    sample: int
    step: int | None
    variable: str
    target: float
    reference: float
    error: float


class ErrorMap(Strict):
    """One layer's relative error by Legendre order (rows) and step (columns), in groups of both.

    `growth` is the exponent of the error over time, of all orders and of each row.
    """

    layer: str
    orders: list[int]
    times: list[int]
    values: list[list[float]]
    growth: float | None
    growth_by_order: list[float | None]


class Divergence(Strict):
    """When a target leaves the reference; `bound` is a share of the rms of a variable's kind."""

    samples: int
    bound: float
    partings: list[Parting]
    maps: list[ErrorMap]


class Histogram(Strict):
    """Counts in equal bins from `low` to `high`, of the float network and of the integer one."""

    low: float
    high: float
    before: list[int]
    after: list[int]


class SignalRange(Strict):
    """One population's values in real numbers; `used` is a share of `limit`, before limiting."""

    place: str
    bits: int
    limit: float
    before: Range
    after: Range
    used: float
    saturations: int
    histogram: Histogram


class Accumulator(Strict):
    """Bits that the sums of one slice have, need at most, and were seen to need."""

    available: int
    proved: float
    measured: float
    saturations: int


class ConnectionRange(Strict):
    """One connection's weights before and after rounding, and an accumulator for each slice."""

    place: str
    rows: int
    columns: int
    weight_bits: int
    largest: float
    error: float
    worst_row: int
    worst_error: float
    histogram: Histogram | None
    accumulators: list[Accumulator]


class LayerRanges(Strict):
    """Signals and connections in the order in which a step computes them."""

    samples: int
    accumulator_samples: int
    signals: list[SignalRange]
    connections: list[ConnectionRange]


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
    """What the representation takes to hold; see `fidelity.measures.sizes.Sizes`."""

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
    discretizer: str | None
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
