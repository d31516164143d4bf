"""Parts of fidelity.json that say what was lost: by which source, when, and in which layer."""

from __future__ import annotations

from lmu_deploy.fidelity.schema_base import Strict

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
