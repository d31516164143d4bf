r"""Shapley values of the sources of error, which do not depend on the order of enabling.

With :math:`v(S)` the squared output error of a simulation in which the sources S are enabled, the
part of source k is what it adds on average over all orders of the other sources (Shapley 1953):

.. math:: \phi_k = \frac{1}{K!} \sum_\pi \left[ v(\pi_{<k} \cup k) - v(\pi_{<k}) \right],
          \qquad \sum_k \phi_k = v(\text{all}).

Up to as many sources as the budget allows all subsets are run; otherwise some orders are drawn,
each together with its reverse. A part may be negative: the source then compensates others. The
interval is that of a ratio of means over samples.

On an analog chip, mismatch, noise and weight rounding need neurons, and the parts of one chip
depend on its mismatch and on its tuning curves. So the orders are those in which the sources come
stage by stage (Faigle and Kern 1992): neurons of all memories, imperfections of the chip, the
calibration, hidden units on neurons. The values are sums over samples, on several chips with
mismatch, tuning curves, initial membranes and noise of their own, and the interval is over chips.
Graphs of neurons (graphs.py) have parts in one order, and intervals over chips in the same way.

The order of two parts is uncertain where the interval of their difference contains zero.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from math import factorial

import numpy as np
from scipy.special import stdtrit

from lmu_deploy.core.files import LATER
from lmu_deploy.core.spiking.network import SpikingNetwork
from lmu_deploy.fidelity.attribution.chips import Chips, same_chip, same_populations
from lmu_deploy.fidelity.attribution.measure import SpikingAblationRunner
from lmu_deploy.fidelity.attribution.switches import (
    CALIBRATION,
    DAMAGE,
    MISMATCH,
    NEURONS,
    NOISE,
    UNITS,
    WEIGHT_BITS,
)

Subset = frozenset[str]
Value = Callable[[list[Subset]], dict[Subset, np.ndarray]]
"""Squared output errors of the samples, for several sets of sources."""

_MOST_ORDERS = 64


@dataclass(frozen=True)
class Part:
    """Part of a source in the squared output error.

    Attributes
    ----------
    source : str
    share : float
        The shares of all sources add up to 1; negative if the source compensates others.
    low, high : float
        90 % interval over samples, or over chips.
    """

    source: str
    share: float
    low: float
    high: float

    @property
    def certain(self) -> bool:
        """Whether the source adds to the error: its interval is above zero."""
        return self.low > 0.0


@dataclass(frozen=True)
class Parts:
    """Parts of all sources.

    Attributes
    ----------
    samples : int
    orders : int or None
        Orders of the sources that were drawn; None if all subsets were run, and 1 for the ensembles
        of a graph, which have one order.
    parts : tuple of Part
        The largest first.
    chips : int or None
        Analog chips, which the intervals are over if there are several; None for integers.
    tied : tuple of str
        Sources whose parts may be as large as the largest.
    note : str
        Sentence on why there is one chip, or fewer samples; else empty.
    """

    samples: int
    orders: int | None
    parts: tuple[Part, ...]
    chips: int | None = None
    tied: tuple[str, ...] = ()
    note: str = field(default="", metadata=LATER)

    def excluded(self, source: str) -> bool:
        """Return whether a source is not certain to add to the error."""
        return any(part.source == source and not part.certain for part in self.parts)


def shapley(value: Value, names: Sequence[str], runs: int, seed: int = 0) -> Parts | None:
    """Compute the parts of all sources.

    Parameters
    ----------
    value : callable
    names : sequence of str
        The sources.
    runs : int
        Largest number of simulations; at least two orders are run.
    seed : int
        Of the orders.

    Returns
    -------
    Parts, or None
        None without sources, or if there is no error.
    """
    count = len(names)
    if not count:
        return None
    if 2**count <= max(runs, 4):
        found = value(_subsets(names))
        gains = {name: _exact(name, names, found) for name in names}
        orders = None
    else:
        drawn = _orders(names, max(2, min(_MOST_ORDERS, runs // count)), seed)
        chains = [[frozenset(order[:n]) for n in range(count + 1)] for order in drawn]
        found = value(list(dict.fromkeys(s for chain in chains for s in chain)))
        gains = {name: np.zeros_like(found[frozenset()]) for name in names}
        for order, chain in zip(drawn, chains, strict=True):
            for name, before, after in zip(order, chain, chain[1:], strict=False):
                gains[name] = gains[name] + (found[after] - found[before]) / len(drawn)
        orders = len(drawn)
    whole = found[frozenset(names)]
    return parts_of(gains, whole, len(whole), orders)


def in_stages(value: Value, stages: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
    """Return what each source adds on average over all orders that keep to the stages.

    Parameters
    ----------
    value : callable
    stages : sequence of sequences of str
        The sources; those of a stage come after all sources of the stages before it.
    """
    gains, before = dict[str, np.ndarray](), Subset()
    for names in stages:
        found = value([before | s for s in _subsets(names)])
        inside = {s - before: values for s, values in found.items()}
        gains |= {name: _exact(name, names, inside) for name in names}
        before |= frozenset(names)
    return gains


def _subsets(names: Sequence[str]) -> list[Subset]:
    return [frozenset(s) for n in range(len(names) + 1) for s in combinations(names, n)]


def parts_of(
    gains: Mapping[str, np.ndarray],
    whole: np.ndarray,
    samples: int,
    orders: int | None = None,
    chips: int | None = None,
) -> Parts | None:
    """Return the parts of all sources, the largest first; None if there is no error.

    Parameters
    ----------
    gains : mapping of source to ndarray, shape (samples or chips,)
        What it adds to the squared output error.
    whole : ndarray, as many
        The squared output error.
    samples : int
    orders : int, optional
    chips : int, optional
    """
    if not whole.sum() > 0:
        return None
    found = {name: _part(name, each, whole) for name, each in gains.items()}
    ranked = tuple(sorted(found.values(), key=lambda part: -part.share))
    first = ranked[0].source
    tied = [
        part.source
        for part in ranked[1:]
        if not _part(first, gains[first] - gains[part.source], whole).certain
    ]
    return Parts(samples, orders, ranked, chips, tuple(tied))


def _exact(name: str, names: Sequence[str], found: dict[Subset, np.ndarray]) -> np.ndarray:
    """Return the mean of what a source adds to every subset of the others."""
    others, count = [n for n in names if n != name], len(names)
    total = np.zeros_like(found[frozenset()])
    for size in range(count):
        weight = factorial(size) * factorial(count - size - 1) / factorial(count)
        for subset in combinations(others, size):
            before = frozenset(subset)
            total = total + weight * (found[before | {name}] - found[before])
    return total


def _orders(names: Sequence[str], count: int, seed: int) -> list[tuple[str, ...]]:
    """Draw orders in pairs of opposites; the first is the order of the names."""
    rng, found = np.random.default_rng(seed), [tuple(names), tuple(reversed(names))]
    while len(found) < count - 1:
        order = tuple(names[i] for i in rng.permutation(len(names)))
        found += [order, order[::-1]]
    return found


def _part(name: str, gains: np.ndarray, whole: np.ndarray) -> Part:
    share, samples = float(gains.sum() / whole.sum()), len(whole)
    if samples < 2:
        return Part(name, share, -np.inf, np.inf)
    residual = gains - share * whole
    error = float(np.sqrt(samples / (samples - 1) * (residual**2).sum()) / whole.sum())
    half = float(stdtrit(samples - 1, 0.95)) * error
    return Part(name, share, share - half, share + half)


_MOST_CHIPS = 5
_SECONDS_PER_CALIBRATION, _SECONDS_PER_PAIR = 0.3, 3e-6
"""CPU time of a calibration: of any, and per channel and pair of neurons in it."""
_SECONDS_PER_UPDATE = 3e-8
"""CPU time of a neuron in a step of a simulation."""
_IMPERFECTIONS = {"mismatch": MISMATCH, "noise": NOISE, "bits": WEIGHT_BITS}


ALONE = "The intervals are over the samples of this chip alone, because"
"""Beginning of the note on one chip."""


class OneChip(ABC):
    """What the sources of one chip add to the squared output errors, and others like it.

    Attributes
    ----------
    orders : int or None
        See :class:`Parts`.
    """

    orders: int | None = None

    @property
    @abstractmethod
    def runs(self) -> int:
        """Number of simulations of each chip for its parts."""

    @abstractmethod
    def affordable(self, budget: float) -> tuple[int, str]:
        """Return how many chips to run, this one among them, and the note of the parts.

        Parameters
        ----------
        budget : float
            Seconds on one core.
        """

    @abstractmethod
    def another(self, number: int) -> OneChip:
        """Return a chip of the same settings, with this number added to all seeds."""

    @abstractmethod
    def gains(self) -> tuple[Mapping[str, np.ndarray], np.ndarray]:
        """Return what each source adds, and the whole, both of every sample."""


class OverChips:
    """Parts of the sources of a network on an analog chip, over its chip and others like it.

    A chip that was damaged or has drifted since it was calibrated stays alone; the interval is over
    samples then, and so it is where the budget allows for one chip only.

    Parameters
    ----------
    own : OneChip or None
        The chip of the report; None for neurons of a device, which has no other chips.
    budget : float
        Seconds on one core, by an estimate from sizes and not by a clock. It decides how many
        chips are calibrated.

    Attributes
    ----------
    chips : int
        Number of chips; 0 without a chip, and if the budget does not allow for one.
    runs : int
        Number of simulations.
    """

    def __init__(self, own: OneChip | None, budget: float) -> None:
        self._own, self.chips, self.runs = own, 0, 0
        if own is not None and budget > 0.0:
            self.chips, self._note = own.affordable(budget)
            self.runs = self.chips * own.runs

    def parts(self) -> Parts | None:
        """Calibrate and run the chips; return None without any, and if there is no error."""
        if not self.chips:
            return None
        assert self._own is not None
        gains, whole = dict[str, list[np.ndarray]](), list[np.ndarray]()
        for number in range(self.chips):
            chip = self._own.another(number) if number else self._own
            found, squares = chip.gains()
            for name, gain in found.items():
                gains.setdefault(name, []).append(gain)
            whole.append(squares)
        samples, orders = len(whole[0]), self._own.orders
        if self.chips == 1:
            alone = {name: each[0] for name, each in gains.items()}
            parts = parts_of(alone, whole[0], samples, orders, chips=1)
        else:
            sums = {name: np.array([one.sum() for one in each]) for name, each in gains.items()}
            totals = np.array([each.sum() for each in whole])
            parts = parts_of(sums, totals, samples, orders, self.chips)
        return None if parts is None else replace(parts, note=self._note)


class LayersOnChip(OneChip):
    """A chain of layers on one chip, with any of its sources.

    Up to five chips are run; a chip whose neurons are not as they were made is alone.

    Parameters
    ----------
    network : SpikingNetwork
    chips : Chips
        Of this network.
    runner : SpikingAblationRunner
    number : int
        0 for the chip of the report.
    """

    def __init__(
        self, network: SpikingNetwork, chips: Chips, runner: SpikingAblationRunner, number: int = 0
    ) -> None:
        self.network, self.chips, self.runner, self.number = network, chips, runner, number
        self.stages, self.alone = list[list[str]](), False
        self._found: dict[Subset, np.ndarray] = {}

    @property
    def runs(self) -> int:
        """See :class:`OneChip`; one for each set of sources."""
        return sum(2 ** len(names) for names in self.stages)

    def affordable(self, budget: float) -> tuple[int, str]:
        """See :class:`OneChip`; there may be none."""
        self._find_stages()
        chips = int(budget / self.seconds())
        if self.alone:
            why = (
                "it is not as spike makes it with its seeds and settings: it was damaged, has "
                "drifted, or was calibrated on other inputs"
            )
            return min(1, chips), f"{ALONE} {why}."
        note = f"{ALONE} --attribution-budget allows for no other." if chips == 1 else ""
        return min(_MOST_CHIPS, chips), note

    def gains(self) -> tuple[Mapping[str, np.ndarray], np.ndarray]:
        """See :class:`OneChip`."""
        found = in_stages(self.values, self.stages)
        everything = frozenset().union(*self.stages)
        return found, self.values([everything])[everything]

    def _find_stages(self) -> None:
        """List the sources; a chip whose neurons are not as they were made is alone."""
        plain, fresh = replace(self.network, units=None), self.chips.fresh()
        device = self.network.device
        sizes = (
            max(device.mismatch, device.tau_mismatch),
            max(device.membrane_noise, device.threshold_noise),
            device.weight_bits,
        )
        names = self.network.host.node_names
        self.neurons = {f"{NEURONS} of {names[number]}": number for number in self.runner.layers}
        present = [s for s, size in zip(_IMPERFECTIONS.values(), sizes, strict=True) if size > 0]
        self.stages = [list(self.neurons), present]
        damaged = not same_populations(plain, fresh)
        self.stages += [[DAMAGE]] if damaged else []
        other = damaged or not same_chip(plain, fresh)
        self.stages += [[CALIBRATION]] if other else []
        self.stages += [[UNITS]] if self.network.units is not None else []
        self.alone = damaged or (other and self.network.calibration.method == "dynamic")

    def another(self, number: int) -> LayersOnChip:
        """See :class:`OneChip`."""
        chips = self.chips.another(number)
        found = LayersOnChip(chips.like(self.network), chips, self.runner, number)
        found.neurons, found.stages = self.neurons, self.stages
        return found

    def seconds(self) -> float:
        """Return about how long the calibrations and runs of one chip take on one core."""
        memories = [memory for memory in self.network.memories if memory is not None]
        sizes = [(m.channels, m.order * m.populations.neurons) for m in memories]
        chips = 2 ** len(self.stages[1]) + (len(self.stages) > 2)
        samples, steps, _ = self.runner.inputs.shape
        updates = samples * steps * self.network.steps_per_presentation * self.network.neurons
        pairs = sum(channels * size**2 for channels, size in sizes)
        each = _SECONDS_PER_CALIBRATION + _SECONDS_PER_PAIR * pairs
        return chips * each + self.runs * updates * _SECONDS_PER_UPDATE

    def values(self, subsets: list[Subset]) -> dict[Subset, np.ndarray]:
        """Return the squared output errors of every sample for sets of sources."""
        for on in subsets:
            if on not in self._found:
                spiking = [number for name, number in self.neurons.items() if name in on]
                self._found[on] = self.runner.squares(self._with(on), spiking, self.number)
        return {on: self._found[on] for on in subsets}

    def _with(self, on: Subset) -> SpikingNetwork:
        """Return the network with these sources on this chip."""
        if UNITS in on:
            return self.network
        if CALIBRATION in on:
            return replace(self.network, units=None)
        if DAMAGE in on:
            return self.chips.recalibrated(replace(self.network, units=None))
        return self.chips.calibrated(**{n: source in on for n, source in _IMPERFECTIONS.items()})
