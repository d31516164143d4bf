r"""Attribution of the errors of an integer network: a waterfall of sources, and the largest causes.

Sources are enabled one after another, in a fixed order, from the float network to the integer
network; the changes of a figure add up to its total change. Each source is also enabled alone.
Independent errors add as squares, so the shares are

.. math:: \frac{E_k^2 - E_{k-1}^2}{E_K^2} \text{ in turn}, \qquad
          \frac{E_{\{k\}}^2}{E_K^2} \text{ alone},

with E the output error. The interaction of the sources is 1 minus the sum of the shares alone.

The causes are found by enabling each place of the largest sources alone. For the weights of the
connection with the largest error, the row with the largest local error on its actual messages,
:math:`\overline{(\sum_j (W - \hat W)_{ij} X_j)^2}`, is tested in a run with the integers of that
row only. For saturations the counts determine the row.

Fixes that are suggested, other options of `quantize`, are tried against the largest causes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.graph import biases, edges
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.validation import check_inputs, check_integer
from lmu_deploy.fidelity.attribution.counterpart import float_counterpart
from lmu_deploy.fidelity.attribution.measure import AblationRunner, Errors
from lmu_deploy.fidelity.attribution.shapley import Parts, Subset, shapley
from lmu_deploy.fidelity.attribution.simulator import HybridSimulator
from lmu_deploy.fidelity.attribution.switches import Switch, Switches, Tally, sources
from lmu_deploy.tasks.base import Task
from targets.base import flat_frames

_RELEVANT = 0.05
_MOST_SOURCES = 3
_DOMINANT = 0.5
_ROW_SAMPLES = 16


@dataclass(frozen=True)
class Cause:
    """One place that causes an error.

    Attributes
    ----------
    source : str
    place : str
    row : int or None
        The row that causes at least half of the squared error, or of the saturations, of the
        place; None if there is no such row.
    output : float
        Output error with this place enabled alone.
    share : float
        Share of the squared output error of the network.
    row_share : float or None
        Share of the row in the squared output error, or in the saturations, of the place.
    saturations : int or None
        Number of saturated values at this place in the integer network.
    """

    source: str
    place: str
    row: int | None
    output: float
    share: float
    row_share: float | None
    saturations: int | None


def find_causes(
    runner: AblationRunner,
    groups: Mapping[str, Sequence[Switch]],
    alone: Mapping[str, float],
    whole: float,
    tally: Tally,
) -> list[Cause]:
    """Find the places that cause the output error, the largest first.

    Parameters
    ----------
    runner : AblationRunner
    groups : mapping of source to its switches
    alone : mapping of source to its output error alone
    whole : float
        Output error of the integer network.
    tally : Tally
        Sums and saturations of the integer network.
    """
    total = sum(error**2 for error in alone.values())
    ranked = sorted((n for n in alone if groups[n]), key=lambda name: -alone[name])
    relevant = [name for name in ranked if alone[name] ** 2 > _RELEVANT * total][:_MOST_SOURCES]
    switches = {name: [s for s in groups[name] if _acts(s, tally)] for name in relevant}
    variants = {
        f"{name} {switch.place}": Switches.of([switch])
        for name in relevant
        if len(switches[name]) > 1
        for switch in switches[name]
    }
    errors = {name: found.output for name, found in runner.errors(variants).items()}
    causes = []
    for name in relevant:
        for switch in switches[name]:
            output = errors.get(f"{name} {switch.place}", alone[name])
            if output**2 > _RELEVANT * total:
                causes.append((output, name, switch))
    causes.sort(key=lambda cause: -cause[0])
    return [
        _cause(runner, name, switch, output, whole, tally, first=number == 0)
        for number, (output, name, switch) in enumerate(causes)
    ]


def _acts(switch: Switch, tally: Tally) -> bool:
    """Return whether a switch has an effect; a limit that no value exceeds has none."""
    if switch.kind != "saturation":
        return True
    counts = tally.saturations.get(switch.place)
    return counts is not None and bool(counts.any())


def _cause(
    runner: AblationRunner,
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
        named = int(counts.argmax()) if part >= _DOMINANT and len(counts) > 1 else None
        return Cause(source, switch.place, named, output, share, part, int(counts.sum()))
    suspect = first and switch.kind == "weights" and output > 0
    row, row_share = _row(runner, switch, output) if suspect else (None, None)
    return Cause(source, switch.place, row, output, share, row_share, None)


def _row(runner: AblationRunner, switch: Switch, output: float) -> tuple[int | None, float | None]:
    """Return the row with the largest local error if it dominates, else None, and its share."""
    local = row_errors(runner, switch.place)
    if local is None or not local.any():
        return None, None
    row = int(local.argmax())
    only = Switches.of([Switch("weights", switch.place, row)])
    part = runner.errors({"row": only})["row"].output ** 2 / output**2
    return (row, part) if part >= _DOMINANT else (None, part)


def row_errors(runner: AblationRunner, place: str) -> np.ndarray | None:
    """Compute the mean square error that rounded weights cause in each row, on float messages.

    Returns
    -------
    errors : ndarray, shape (n_out,), in squared units of the target
        None for the sign matrix of a series.
    """
    for target, integers in biases(runner.network).items():
        if place == f"{target}/bias":
            return np.asarray((runner.counterpart.biases[place] - integers) ** 2)
    edge = next((e for e in runner.network.edges if e.place == place), None)
    if edge is None:
        return None
    wrong = (runner.counterpart.matrices[place] - edge.connection.dequantized).T
    total, rows = np.zeros(wrong.shape[1]), 0
    hybrid = HybridSimulator(runner.network, Switches.of(), runner.counterpart)
    record = hybrid.run(runner.inputs[:_ROW_SAMPLES])
    now = replace(edge, offsets=(0,)) if edge.recurrent else edge
    for n in range(now.frames(len(record.messages[edge.source]))):
        messages = record.delivered(now, n)
        total += ((messages @ wrong) ** 2).sum(axis=0)
        rows += len(messages)
    return total / max(rows, 1)


MOST_SAMPLES, FEWEST_SAMPLES = 200, 16
_RUNS = 32
_PRODUCTS_PER_SECOND, _PRODUCTS_PER_UPDATE = 3e9, 3e5
"""Speed of a core in a simulation, and what the update of a population costs besides."""
_SHAPLEY_SAMPLES = 32
_PRODUCTS = 3e11
"""Products of weights and messages in an attribution: one to two minutes on one core."""


def affordable_samples(network: IntegerNetwork, steps: int) -> int:
    """Return the number of samples, 16 to 200, for an attribution of one to two minutes."""
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
        Places of the source; empty when the network does not have it.
    after : Errors
        Errors with this source and all earlier ones.
    alone : Errors
        Errors with this source alone.
    kind : str
        Name of the source among the causes, where it is not `source`.
    """

    source: str
    places: tuple[str, ...]
    after: Errors
    alone: Errors
    kind: str = ""


@dataclass(frozen=True)
class Attribution:
    """Errors by source, and their causes.

    Attributes
    ----------
    samples : int
    reference : Errors
        Metric of the float network.
    steps : tuple of Step
        In the order in which sources are enabled; `after` of the last one is the total.
    causes : tuple of Cause
        Places that cause the largest parts of the output error, the largest first; of no source
        whose interval in `parts` contains zero.
    tally : Tally
        Sums and saturations of the integer network on these samples.
    parts : Parts or None
        Shapley values of the sources; None where they were not asked for.
    remedies : mapping of source to str, or None
        Changes that were tried and help, with what they gain and cost; None if none was tried.
    """

    samples: int
    reference: Errors
    steps: Sequence[Step]
    causes: Sequence[Cause]
    tally: Tally
    parts: Parts | None = None
    remedies: Mapping[str, str] | None = None

    @property
    def whole(self) -> Errors:
        """Errors with all sources, which are those of the integer network."""
        return self.steps[-1].after

    def shares_in_turn(self) -> list[float | None]:
        """Return the share of each step in the squared output error; the shares add up to 1."""
        total, before, shares = self.whole.output**2, 0.0, []
        for step in self.steps:
            shares.append((step.after.output**2 - before) / total if total else None)
            before = step.after.output**2
        return shares

    def shares_alone(self) -> list[float | None]:
        """Return the squared output error of each source alone, relative to the total."""
        total = self.whole.output**2
        return [step.alone.output**2 / total if total else None for step in self.steps]

    @property
    def interaction(self) -> float | None:
        """1 minus the sum of the shares alone; negative when sources compensate each other."""
        shares = [share for share in self.shares_alone() if share is not None]
        return 1.0 - sum(shares) if shares else None


def attribute(
    network: IntegerNetwork,
    inputs: np.ndarray,
    targets: np.ndarray,
    task: Task,
    samples: int | None = None,
    progress: Progress | None = None,
    budget: float = 0.0,
) -> Attribution:
    """Attribute the errors of an integer network to its sources and places.

    Parameters
    ----------
    network : IntegerNetwork
        With its float network as `source`.
    inputs : ndarray, shape (at least 1, steps, n_in)
    targets : ndarray, shape (as many, ...)
        The desired outputs.
    task : Task
    samples : int, optional
        Number of first samples to run; by default that of :func:`affordable_samples`.
    progress : callable, optional
        Called with (runs done, total) for the sources; the search for causes is not included.
    budget : float
        Seconds on one core for Shapley values, by a count of products and not by a clock, so that
        results do not depend on the machine; 0 for none. It decides how many samples and orders of
        the sources are run.

    Raises
    ------
    InputError
        When inputs or targets do not match, or the network does not contain its float network.
    """
    if samples is not None:
        samples = check_integer("samples of the attribution", samples, 1, 2**31)
    inputs = check_inputs(flat_frames(inputs[: samples or MOST_SAMPLES]), network.n_in)
    if samples is None:
        inputs = inputs[: affordable_samples(network, inputs.shape[1])]
    if not len(inputs) or len(targets) < len(inputs):
        raise InputError(
            f"attribution: {len(inputs)} samples and {len(targets)} desired outputs; pass at least "
            "one sample, and a desired output for each."
        )
    runner = AblationRunner(
        network, float_counterpart(network), inputs, targets[: len(inputs)], task
    )
    groups, tally = sources(network), Tally()
    variants, on, whole = {}, [], ""
    for name, switches in groups.items():
        on.append(switches)
        if switches:
            single, all_on = Switches.of(switches), Switches.of(*on)
            whole = f"after {name}"
            variants[whole] = all_on
            if single != all_on:
                variants[f"alone {name}"] = single
    found = runner.errors(variants, {whole: tally}, progress)
    reference = runner.reference()
    steps: list[Step] = []
    before = reference
    for name, switches in groups.items():
        after = found.get(f"after {name}", before)
        alone = found.get(f"alone {name}", after if switches and not _any_on(steps) else reference)
        steps.append(Step(name, tuple(s.place for s in switches), after, alone))
        before = after
    alone_errors = {step.source: step.alone.output for step in steps}
    causes = find_causes(runner, groups, alone_errors, before.output, tally)
    parts = _parts(runner, groups, budget) if budget > 0 else None
    if parts is not None:
        causes = [cause for cause in causes if not parts.excluded(cause.source)]
    return Attribution(len(inputs), reference, tuple(steps), tuple(causes), tally, parts)


def _parts(
    runner: AblationRunner, groups: Mapping[str, Sequence[Switch]], budget: float
) -> Parts | None:
    """Compute Shapley values on as many samples and orders as the budget allows."""
    present = [name for name, switches in groups.items() if switches]
    steps, most = runner.inputs.shape[1], budget * _PRODUCTS_PER_SECOND
    each = steps * sum(edge.connection.slices.size for edge in edges(runner.network))
    fixed = steps * _PRODUCTS_PER_UPDATE * len(runner.network.populations)
    samples = int(np.clip((most / (4 * len(present)) - fixed) / max(each, 1), 2, _SHAPLEY_SAMPLES))
    samples = min(samples, len(runner.inputs))
    runs = int(most / (samples * each + fixed))
    if runs < 2 * len(present):
        return None
    some = replace(runner, inputs=runner.inputs[:samples], targets=runner.targets[:samples])

    def value(subsets: list[Subset]) -> dict[Subset, np.ndarray]:
        named = {str(n): subset for n, subset in enumerate(subsets)}
        switches = {
            key: Switches.of(*(groups[name] for name in subset)) for key, subset in named.items()
        }
        found = some.squares(switches)
        return {subset: found[key] for key, subset in named.items()}

    return shapley(value, present, runs)


def _any_on(steps: Sequence[Step]) -> bool:
    """Return whether an earlier source exists; in turn, the first one is also alone."""
    return any(step.places for step in steps)
