r"""Which operation of an integer network costs what: a waterfall, each source alone, the causes.

Sources are switched on one after the other, in the stated order, from the float network to the
integer one; the changes of a figure from step to step add up to its change in all. Each is also
switched on alone. Errors that are independent of each other add up as squares, so shares are

.. math:: \frac{E_k^2 - E_{k-1}^2}{E_K^2} \text{ in turn}, \qquad
          \frac{E_{\{k\}}^2}{E_K^2} \text{ alone},

with E the output error; what the shares alone leave of 1 is the interaction of the sources.

Where a source of error sits: the place that costs most, and the row if one stands out.

The sources that cost most alone are taken apart: each of their places is switched on alone. Of a
connection whose weights cost most, the local error of its rows on the messages that they really
get, :math:`\overline{(\sum_j (W - \hat W)_{ij} X_j)^2}`, says which row to suspect; a last run with
the integers of that row alone says what it costs. Of saturations, counts say it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.graph import biases, edges
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.validation import check_inputs, check_integer
from lmu_deploy.fidelity.attribution.counterpart import exact_weights
from lmu_deploy.fidelity.attribution.measure import Bench, Errors
from lmu_deploy.fidelity.attribution.simulator import Hybrid
from lmu_deploy.fidelity.attribution.switches import Switch, Switches, sources
from lmu_deploy.fidelity.attribution.synapses import Tally
from lmu_deploy.tasks.base import Task

_WORTH = 0.05
_MOST_SOURCES = 3
_STANDS_OUT = 0.5
_ROW_SAMPLES = 16


@dataclass(frozen=True)
class Cause:
    """One place where error enters.

    Attributes
    ----------
    source : str
    place : str
    row : int or None
        Named when it alone makes at least half of the place's squared error, or of its
        saturations.
    output : float
        Output error with this place alone.
    share : float
        Of the squared output error of the whole network.
    row_share : float or None
        Of the squared output error of the place, or of its saturations.
    saturations : int or None
        Values limited in the whole network at this place.
    """

    source: str
    place: str
    row: int | None
    output: float
    share: float
    row_share: float | None
    saturations: int | None


def find_causes(
    bench: Bench,
    groups: Mapping[str, Sequence[Switch]],
    alone: Mapping[str, float],
    whole: float,
    tally: Tally,
) -> list[Cause]:
    """Name the places where the output error comes from, the largest first.

    Parameters
    ----------
    bench : Bench
    groups : mapping of source to its switches
    alone : mapping of source to its output error alone
    whole : float
        Output error of the integer network.
    tally : Tally
        What the integer network's run met.
    """
    total = sum(error**2 for error in alone.values())
    ranked = sorted((n for n in alone if groups[n]), key=lambda name: -alone[name])
    worth = [name for name in ranked if alone[name] ** 2 > _WORTH * total][:_MOST_SOURCES]
    switches = {name: [s for s in groups[name] if _acts(s, tally)] for name in worth}
    variants = {
        f"{name} {switch.place}": Switches.of([switch])
        for name in worth
        if len(switches[name]) > 1
        for switch in switches[name]
    }
    errors = {name: found.output for name, found in bench.errors(variants).items()}
    causes = []
    for name in worth:
        for switch in switches[name]:
            output = errors.get(f"{name} {switch.place}", alone[name])
            if output**2 > _WORTH * total:
                causes.append((output, name, switch))
    causes.sort(key=lambda cause: -cause[0])
    return [
        _cause(bench, name, switch, output, whole, tally, first=number == 0)
        for number, (output, name, switch) in enumerate(causes)
    ]


def _acts(switch: Switch, tally: Tally) -> bool:
    """Whether a switch can change anything: a limit that nothing reached cannot."""
    if switch.kind != "saturation":
        return True
    counts = tally.saturations.get(switch.place)
    return counts is not None and bool(counts.any())


def _cause(
    bench: Bench,
    source: str,
    switch: Switch,
    output: float,
    whole: float,
    tally: Tally,
    first: bool,
) -> Cause:
    share = output**2 / whole**2 if whole else 0.0
    if switch.kind == "saturation":
        counts = tally.saturations[switch.place]
        part = float(counts.max() / counts.sum())
        named = int(counts.argmax()) if part >= _STANDS_OUT and len(counts) > 1 else None
        return Cause(source, switch.place, named, output, share, part, int(counts.sum()))
    suspect = first and switch.kind == "weights" and output > 0
    row, row_share = _row(bench, switch, output) if suspect else (None, None)
    return Cause(source, switch.place, row, output, share, row_share, None)


def _row(bench: Bench, switch: Switch, output: float) -> tuple[int | None, float | None]:
    """Give the suspected row and its part of the place's squared error, if that is large."""
    local = row_errors(bench, switch.place)
    if local is None or not local.any():
        return None, None
    row = int(local.argmax())
    only = Switches.of([Switch("weights", switch.place, row)])
    part = bench.errors({"row": only})["row"].output ** 2 / output**2
    return (row, part) if part >= _STANDS_OUT else (None, part)


def row_errors(bench: Bench, place: str) -> np.ndarray | None:
    """Mean square of what wrong weights add to each row of a connection or bias, on float messages.

    Returns
    -------
    errors : ndarray, shape (n_out,), in squared units of the target
        None for the matrix of signs of a series.
    """
    target, _, part = place.rpartition("/")
    if part == "bias" and (integers := biases(bench.network).get(target)) is not None:
        return np.asarray((bench.exact.biases[place] - integers) ** 2)
    edge = next((w for w in edges(bench.network) if w.place == place), None)
    if edge is None or edge.source.endswith("/series"):
        return None
    wrong = (bench.exact.matrices[place] - edge.connection.dequantized).T
    total, rows = np.zeros(wrong.shape[1]), 0
    hybrid = Hybrid(bench.network, Switches.of(), bench.exact)
    for moment in hybrid.steps(bench.inputs[:_ROW_SAMPLES]):
        messages = moment.sent(edge.source)
        total += ((messages @ wrong) ** 2).sum(axis=0)
        rows += len(messages)
    return total / max(rows, 1)


MOST_SAMPLES, FEWEST_SAMPLES = 200, 16
_RUNS = 32
_PRODUCTS = 3e11
"""Of weights and messages, in a whole attribution: about a minute or two on one processor core."""


def affordable_samples(network: IntegerNetwork, steps: int) -> int:
    """Count the samples with which an attribution takes a minute or two; 16 to 200."""
    synapses = sum(edge.connection.slices.size for edge in edges(network))
    fit = int(_PRODUCTS / max(1, _RUNS * steps * synapses))
    return max(FEWEST_SAMPLES, min(MOST_SAMPLES, fit))


@dataclass(frozen=True)
class Step:
    """One source of error.

    Attributes
    ----------
    source : str
    places : tuple of str
        Where it has an operation; empty when the network does not have it.
    after : Errors
        With it and all sources before it.
    alone : Errors
        With it alone.
    """

    source: str
    places: tuple[str, ...]
    after: Errors
    alone: Errors


@dataclass(frozen=True)
class Attribution:
    """What each source costs.

    Attributes
    ----------
    samples : int
    reference : Errors
        Of the float network.
    steps : tuple of Step
        In the order in which sources were switched on; the last one's `after` is the whole.
    causes : tuple of Cause
        Where the largest part of the output error comes from, the largest first.
    tally : Tally
        Sums and saturations of the integer network on these samples.
    """

    samples: int
    reference: Errors
    steps: Sequence[Step]
    causes: Sequence[Cause]
    tally: Tally

    @property
    def whole(self) -> Errors:
        """With all sources: the integer network's own figures."""
        return self.steps[-1].after

    def shares_in_turn(self) -> list[float | None]:
        """Each step's part of the squared output error; they add up to 1."""
        total, before, shares = self.whole.output**2, 0.0, []
        for step in self.steps:
            shares.append((step.after.output**2 - before) / total if total else None)
            before = step.after.output**2
        return shares

    def shares_alone(self) -> list[float | None]:
        """Each source's squared output error alone, as a part of the whole's."""
        total = self.whole.output**2
        return [step.alone.output**2 / total if total else None for step in self.steps]

    @property
    def interaction(self) -> float | None:
        """What the shares alone leave of 1; negative where sources undo each other."""
        shares = [share for share in self.shares_alone() if share is not None]
        return 1.0 - sum(shares) if shares else None


def attribute(
    network: IntegerNetwork,
    inputs: np.ndarray,
    targets: np.ndarray,
    task: Task,
    samples: int | None = None,
    progress: Progress | None = None,
) -> Attribution:
    """Switch every source of error of `network` on in turn and alone.

    Parameters
    ----------
    network : IntegerNetwork
        With the float network that it was made from.
    inputs : ndarray, shape (at least 1, steps, n_in)
    targets : ndarray, shape (as many, ...)
        The right answers.
    task : Task
    samples : int, optional
        How many of the first samples are run; by default as many as `affordable_samples` says.
    progress : callable, optional
        Called with (runs done, in all) of the sources; the search for causes comes on top.

    Raises
    ------
    InputError
        When inputs or targets do not fit, or the network does not carry its float network.
    """
    if samples is not None:
        samples = check_integer("samples of the attribution", samples, 1, 2**31)
    inputs = check_inputs(inputs[: samples or MOST_SAMPLES], network.n_in)
    if samples is None:
        inputs = inputs[: affordable_samples(network, inputs.shape[1])]
    if not len(inputs) or len(targets) < len(inputs):
        raise InputError(
            f"attribution: {len(inputs)} samples and {len(targets)} answers; give at least one "
            "sample and an answer to each."
        )
    bench = Bench(network, exact_weights(network), inputs, targets[: len(inputs)], task)
    groups, tally = sources(network), Tally()
    variants, on = {}, []
    for name, switches in groups.items():
        on.append(switches)
        if switches:
            variants[f"after {name}"] = Switches.of(*on)
            variants[f"alone {name}"] = Switches.of(switches)
    whole = [name for name in variants if name.startswith("after")][-1]
    first = next(iter(variants.values()))
    variants = {n: s for n, s in variants.items() if n.startswith("after") or s != first}
    found = bench.errors(variants, {whole: tally}, progress)
    reference = bench.reference()
    steps: list[Step] = []
    before = reference
    for name, switches in groups.items():
        after = found.get(f"after {name}", before)
        alone = found.get(f"alone {name}", after if switches and not _any_on(steps) else reference)
        steps.append(Step(name, tuple(s.place for s in switches), after, alone))
        before = after
    alone_errors = {step.source: step.alone.output for step in steps}
    causes = find_causes(bench, groups, alone_errors, before.output, tally)
    return Attribution(len(inputs), reference, tuple(steps), tuple(causes), tally)


def _any_on(steps: Sequence[Step]) -> bool:
    """Whether any source so far had something to switch on; the first one is alone in turn too."""
    return any(step.places for step in steps)
