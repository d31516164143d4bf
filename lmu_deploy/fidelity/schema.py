"""Types of fidelity.json: schema ``lmu_deploy/fidelity``, version 2.

All numbers are finite; unknown values are null. `targets` and `variants` keep their order.
:func:`json_schema` returns the JSON schema, with which other tools can validate a file. Version 2
has other names than version 1; :mod:`lmu_deploy.fidelity.store` reads both.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """Base of all types: immutable, without unknown fields, all numbers finite."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True
    )


Interval = tuple[float, float]


class Estimate(Strict):
    """Energy or time of one inference according to one published source, as a range.

    `counted` lists the operations for which the source has figures, `sources` the references.
    """

    title: str
    inference: Interval
    step: Interval
    counted: list[str]
    sources: list[str]


class Costs(Strict):
    """Operations of a mean sample, and the estimated energy and time on a chip.

    `energy` (joules) and `latency` (seconds) are ranges over all estimates, null without figures.
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
    """Whether a network fits its chip; `violations` is empty when it does."""

    profile: str
    title: str
    violations: list[str]


class SynapticOperations(Strict):
    """Synaptic operations of a mean sample: effective ones (nonzero) and dense ones (all)."""

    effective_macs: float = Field(alias="Effective_MACs")
    effective_acs: float = Field(alias="Effective_ACs")
    dense: float = Field(alias="Dense")


class NeuroBench(Strict):
    """Metrics of NeuroBench, with its names; see :mod:`lmu_deploy.fidelity.measures.sizes`."""

    footprint: int
    connection_sparsity: float
    activation_sparsity: float | None
    synaptic_operations: SynapticOperations | None


class Errors(Strict):
    """Metric of the task, NRMSE of the outputs with respect to float, relative memory error."""

    metric: float
    output: float
    memory: float


class AttributionStep(Strict):
    """One source of error, after all earlier sources and alone; shares of squared output errors."""

    source: str
    places: list[str]
    after: Errors
    alone: Errors
    share_in_turn: float | None
    share_alone: float | None


class Cause(Strict):
    """One cause of the output error; see :class:`lmu_deploy.fidelity.attribution.Cause`."""

    source: str
    place: str
    row: int | None
    output: float
    share: float
    row_share: float | None
    saturations: int | None


class Attribution(Strict):
    """Contribution of each source of error, in the order in which they are enabled.

    `interaction` is 1 minus the sum of the shares alone, `measured` the target's output error, and
    `unexplained` what the simulation lacks of its square. `parts` are Shapley values with 90 %
    intervals, `parts_tied` may be as large as the largest; `parts_note` says what was left out.
    """

    samples: int
    reference: Errors
    steps: list[AttributionStep]
    interaction: float | None
    causes: list[Cause]
    measured: float | None = None
    unexplained: float | None = None
    parts: dict[str, tuple[float, float | None, float | None]] = {}
    parts_samples: int | None = None
    parts_orders: int | None = None
    parts_chips: int | None = None
    parts_tied: list[str] = []
    parts_note: str | None = None
    remedies: dict[str, str] | None = None


class DivergencePoint(Strict):
    """First step and variable beyond the bound; else `step` is null and the error the largest."""

    sample: int
    step: int | None
    variable: str
    target: float
    reference: float
    error: float


class ErrorMap(Strict):
    """Relative error of one layer by groups of Legendre orders (rows) and of steps (columns).

    `growth` is the exponent of the error over time, of all orders together and of each row.
    """

    layer: str
    orders: list[int]
    times: list[int]
    values: list[list[float]]
    growth: float | None
    growth_by_order: list[float | None]


class Divergence(Strict):
    """Divergence from the reference; `bound` is relative to the rms of a group."""

    samples: int
    bound: float
    points: list[DivergencePoint]
    maps: list[ErrorMap]


class Histogram(Strict):
    """Counts in equal bins from `low` to `high`: before (float) and after (integer)."""

    low: float
    high: float
    before: list[int]
    after: list[int]


class SignalRange(Strict):
    """Values of one population in real units; `used` is a share of `limit`, before saturation."""

    place: str
    bits: int
    limit: float
    before: Interval
    after: Interval
    used: float
    saturations: int
    histogram: Histogram


class Accumulator(Strict):
    """Bits of the sums of one slice: available, needed at most (proved), and measured."""

    available: int
    proved: float
    measured: float
    saturations: int


class ConnectionRange(Strict):
    """Weights of one connection before and after rounding, and one accumulator per slice."""

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
    """Signals and connections in the order of computation within a step."""

    samples: int
    accumulator_samples: int
    signals: list[SignalRange]
    connections: list[ConnectionRange]


class Metric(Strict):
    """Metric of the task on the samples that were run; `by_output` where several are regressed."""

    name: Literal["accuracy", "nrmse"]
    value: float
    ci95: Interval | None
    by_output: list[float | None] | None = None


class Answers(Strict):
    """Result of each sample, for a paired comparison with another run of the same samples.

    All but `count` are base64: `right` has one bit per prediction, most significant first; `errors`
    and `norms` are each sequence's sums of squares, as little-endian 32-bit floats.
    """

    count: int
    right: str | None = None
    errors: str | None = None
    norms: str | None = None


class AgainstReference(Strict):
    """Comparison with the float reference on the same samples.

    `agreement` is the share of equal predicted classes and `flips` the number that differ, of which
    `lost` are correct only in the reference and `gained` only on the target (null for regression).
    `deviation` is the NRMSE of the outputs with respect to the reference. `difference` is target
    minus reference, with a paired interval; `p_value` is that of McNemar's exact test.

    A target is equivalent if `difference_ci90` is within +-`margin`; `needed` samples would decide.
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
    difference_ci90: Interval | None = None
    margin: float | None = None
    needed: int | None = None


class Events(Strict):
    """Messages or spikes: total, per sample, per step of a sample, and by population."""

    total: int
    per_sample: float
    per_step: float
    by_population: dict[str, int]


class Population(Strict):
    """Events of one population; `rate` is events per neuron and step.

    `by_step` and `by_class` are mean events of a sample, at each step and of each class. Entry k of
    `intervals` counts those between events of a neuron in sample 0 of 2^(k-1) + 1 to 2^k steps.
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
    """Size of a representation; see :class:`lmu_deploy.fidelity.measures.sizes.Sizes`."""

    representation: str
    parameters: int
    synapses: int
    weight_bits: int
    weight_bytes: int
    neuron_bytes: int
    state_bytes: int
    weights: int | None = None


class MemoryFidelity(Strict):
    """Relative rms error of the memory of each layer: overall, by step and by Legendre order."""

    samples: int
    overall: dict[str, float | None]
    by_step: dict[str, list[float] | None]
    by_order: dict[str, list[float | None]]


class Equality(Strict):
    """Comparison of recorded integers with those of another target, with ``==``.

    `compared` lists which of m, h and y were compared; `on_host` lists those that the host computes
    in floats, which are not compared.
    """

    target: str
    samples: int
    steps: int
    values: int
    equal: bool
    different: int
    first: str
    compared: list[str] = Field(default_factory=list)
    on_host: list[str] = Field(default_factory=list)


class Residual(Strict):
    """One recorded integer that the specification does not predict from the states before it."""

    sample: int
    step: int
    population: str
    neuron: int
    recorded: int
    predicted: int


class Specification(Strict):
    """Recorded values compared with those of the specification, and a replay of them.

    Of `values` integers of `samples` samples, `different` differ from a run of the specification.
    Of `replayed` samples, `residuals` of `predicted` values differ from what the states before
    them predict; `first` is the first of these, and `faults` explain them. Of an analog chip,
    residuals are statistics beyond the limit of this rate `false_alarms`; `blind` are not excluded.
    """

    samples: int
    values: int
    different: int
    replayed: int
    predicted: int
    residuals: int
    first: Residual | None = None
    faults: list[str] = Field(default_factory=list)
    false_alarms: float | None = None
    blind: list[str] = []

    @property
    def equal(self) -> bool:
        """Whether everything recorded is what the specification says."""
        return self.different + self.residuals == 0


class Window(Strict):
    """Window of one channel, decoded from the memory after the last step of sample 0."""

    channel: int
    delays: list[float]
    decoded: list[float]


class TargetFidelity(Strict):
    """All figures of one target."""

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
    specification: Specification | None = None
    damage: list[str] = Field(default_factory=list)
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
    """One node of the float network that carries states."""

    kind: Literal["lmu", "lstm", "gru", "rnn"]
    inputs: int
    order: int | None
    channels: int | None
    theta: float | None
    discretizer: str | None
    feedback: list[str]
    units: int
    activation: str | None
    name: str = ""


class Node(Strict):
    """One node of the float network."""

    name: str
    operator: str
    inputs: list[str]
    shape: str
    parameters: int


class NetworkSummary(Strict):
    """Structure of the float network."""

    inputs: int
    outputs: int
    parameters: int
    return_sequences: bool
    layers: list[Layer]
    provenance: dict[str, str]
    nodes: list[Node] = []


class TaskSummary(Strict):
    """Task that the network solves."""

    name: str
    kind: Literal["classification", "regression"]
    inputs: int
    outputs: int
    steps: int
    washout: int


class Reference(Strict):
    """Float reference on all samples of the validation."""

    metric: Metric
    samples: int
    steps: int
    wall_seconds: float
    sizes: Sizes | None
    true_window: list[float] | None
    window: Window | None
    answers: Answers | None = None


class Fidelity(Strict):
    """Content of fidelity.json."""

    schema_name: Literal["lmu_deploy/fidelity"] = Field(
        default="lmu_deploy/fidelity", alias="schema"
    )
    version: Literal[2] = 2
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
    """Return the JSON schema (draft 2020-12) of fidelity.json."""
    schema = Fidelity.model_json_schema(by_alias=True, mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
