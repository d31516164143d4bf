r"""Which operation of an integer network costs what: a waterfall, each source alone, the causes.

Sources are switched on one after the other, in the stated order, from the float network to the
integer one; the changes of a figure from step to step add up to its change in all. Each is also
switched on alone. Errors that are independent of each other add up as squares, so shares are

.. math:: \frac{E_k^2 - E_{k-1}^2}{E_K^2} \text{ in turn}, \qquad
          \frac{E_{\{k\}}^2}{E_K^2} \text{ alone},

with E the output error; what the shares alone leave of 1 is the interaction of the sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmu_deploy.checks import check_inputs, check_integer
from lmu_deploy.errors import InputError
from lmu_deploy.fidelity.attribution.causes import Cause, find_causes
from lmu_deploy.fidelity.attribution.exact import exact_weights
from lmu_deploy.fidelity.attribution.measure import Bench, Errors, Progress
from lmu_deploy.fidelity.attribution.switches import Switches, sources
from lmu_deploy.fidelity.attribution.synapses import Tally
from lmu_deploy.integer_network import IntegerNetwork
from lmu_deploy.tasks.base import Task
from lmu_deploy.wiring import wires

MOST_SAMPLES, FEWEST_SAMPLES = 200, 16
_RUNS = 32
_PRODUCTS = 3e11
"""Of weights and messages, in a whole attribution: about a minute or two on one processor core."""


def affordable_samples(network: IntegerNetwork, steps: int) -> int:
    """Count the samples with which an attribution takes a minute or two; 16 to 200."""
    synapses = sum(wire.connection.slices.size for wire in wires(network))
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
