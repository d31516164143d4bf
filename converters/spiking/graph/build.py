r"""Build the ensembles of a plan on one chip, each calibrated behind those before it.

What is linear in the states of a memory needs no fit of its own: a drive :math:`Z^{-1} K^T S x` has
the synapses :math:`Z^{-1} K^T S\, W` from whatever the memory has synapses W from. What comes from
units, or from one memory to another, is decoded from spikes. With dynamic calibration the chip runs
freely on the calibration inputs, up to the neurons that are decoded, and a ridge regression maps
their spikes to the float network's values. It thereby compensates for the errors of everything
before. Spikes that drive a memory are summed over each presentation, because a memory integrates
them; spikes behind fast synapses are filtered by these, and compared near the end of each
presentation, when the host reads.

Where a neuron has fewer synapses than neurons drive it, each value reads the few neurons that serve
it best. What is linear in the states of a memory is then fitted too, and a memory that spikes drive
keeps half of its synapses for itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial

import numpy as np
from scipy.linalg import block_diag

from converters.options import SpikeOptions
from converters.spiking.build import build_memory
from converters.spiking.calibration import examine
from converters.spiking.closed_loop import divide_step
from converters.spiking.graph.partial import PartialChip, key_of
from converters.spiking.graph.plan import SHARES, Plan, Spot, recipe_of_graph, whole_plan
from converters.spiking.neurons import part
from converters.spiking.populations import make_populations, with_mismatch
from converters.spiking.recipe import Calibrated, Keep, Recipe, draw_samples
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import fingerprint
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.graph.pointwise import Activation
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.spiking.chip import Calibration, Populations
from lmu_deploy.core.spiking.ensembles import ONE
from lmu_deploy.core.spiking.graph import (
    Ensemble,
    InputCurrent,
    SpikeConnection,
    SpikingGraph,
)
from lmu_deploy.core.validation import check_inputs
from lmu_deploy.hardware.profile import AnalogProfile

_RANGE_PERCENTILE = 99.9
_SMALLEST_SHARE = 1e-3
_TUNING, _MISMATCH = 6, 7
"""Streams of random numbers, beside those of memories."""


def build_graphs(
    plan: Plan,
    inputs: np.ndarray,
    recipes: Sequence[Recipe],
    options: SpikeOptions,
    progress: Progress | None,
    keep: Keep | None = None,
) -> list[SpikingGraph]:
    """Lower a plan on chips, one after the other; see :func:`spike`."""
    recipe = recipes[0]
    frames = np.asarray(inputs)
    flat = check_inputs(frames.reshape(*frames.shape[:2], -1), plan.host.n_in)
    if options.calibration_steps is not None:
        flat = flat[:, : options.calibration_steps]
    largest = max(spot.values(recipe) for spot in plan.spots)
    chosen = draw_samples(flat, options.calibration_samples, largest, recipe.seed)
    made = []
    for number, each in enumerate(recipes):
        shown = part(progress, number, len(recipes))
        made.append(build_graph(plan, each, chosen, shown, keep))
        each.warn_of(made[-1].calibration.dead)
    return made


def graphs_on_chips(
    network: Network,
    calibration_inputs: np.ndarray,
    profile: str | AnalogProfile,
    chip_seeds: Sequence[int],
    options: SpikeOptions,
) -> list[SpikingGraph]:
    """Map a network that becomes a graph onto several virtual chips, each as :func:`spike` does.

    Raises
    ------
    InputError
        As :func:`spike`, and when the network is a chain of layers.
    """
    plan = whole_plan(network, options)
    if plan is None:
        raise InputError("the network is a chain of layers and no graph; use spike_chips.")
    recipe = recipe_of_graph(plan, profile, options)
    recipes = [recipe.on_chip(seed) for seed in chip_seeds]
    return build_graphs(plan, calibration_inputs, recipes, options, None)


def build_graph(
    plan: Plan,
    recipe: Recipe,
    inputs: np.ndarray,
    progress: Progress | None = None,
    keep: Keep | None = None,
) -> SpikingGraph:
    """Put a plan on the chip of a recipe, and calibrate it.

    Parameters
    ----------
    plan : Plan
    recipe : Recipe
    inputs : ndarray, shape (samples, steps, n_in)
        To calibrate on.
    progress : callable, optional
        Called with (calibration steps done, steps in total).
    keep : callable, optional
        Keeps every ensemble of a simulated chip, so that a calibration that was stopped goes on.
    """
    builder = GraphBuilder(plan, recipe, inputs)
    builder.build(progress, keep)
    return builder.graph()


class GraphBuilder(PartialChip):
    """Builds one ensemble after the other."""

    def __init__(self, plan: Plan, recipe: Recipe, inputs: np.ndarray) -> None:
        super().__init__(plan, recipe, inputs)
        self.inputs, self.summary = inputs, list[Calibrated]()

    def build(self, progress: Progress | None, keep: Keep | None = None) -> None:
        """Build and calibrate all ensembles; see :func:`build_graph`."""
        spots, settings = self.plan.spots, asdict(replace(self.recipe, board=None))
        for number, spot in enumerate(spots):
            make = partial(self.made, number, spot, part(progress, number, len(spots)))
            if keep is None or self.recipe.board is not None:
                made = make()
            else:
                made = keep(make, fingerprint(self.plan.host), settings, self.inputs, number)
            self.take(spot, made)
            self.forget(spots[number + 1 :])

    def made(self, number: int, spot: Spot, progress: Progress | None) -> Calibrated:
        """Build and calibrate the next ensemble or probe."""
        fits, dead, name = len(self.fits), len(self.dead), spot.node.name
        if spot.memory is not None:
            found = self._memory(number, spot, progress)
        elif spot.probe:
            found = self._decoded(spot, np.ones(spot.drive.size), None, progress)
        else:
            found = self._units(number, spot, progress)
            self.play(found, number)
        return Calibrated(
            found,
            None if spot.probe else self.own[name],
            {} if spot.memory is None else self.pushes[name],
            self.states.get(key_of(found), {}),
            tuple((fit.ridge, fit.error) for fit in self.fits[fits:]),
            tuple(self.dead[dead:]),
        )

    def take(self, spot: Spot, made: Calibrated) -> None:
        """Add the next ensemble or probe, calibrated now or before."""
        self.summary.append(made)
        self.states[key_of(made.ensemble)] = dict(made.states)
        if spot.probe:
            self.probes.append(made.ensemble)
            if spot is not self.plan.spots[-1]:
                self._read(made.ensemble)
            return
        name = spot.node.name
        self.done[name], self.pushes[name] = made.ensemble, dict(made.pushes)
        assert made.own is not None
        self.own[name] = made.own

    def _read(self, probe: Ensemble) -> None:
        """Let the host read a probe, for what comes after."""
        read = np.zeros((self.samples, self.steps, probe.size))
        for step, now, _, simulator in self.run((), probe):
            if now == self.recipe.parts - 1:
                read[:, step] = simulator.drives[0]
        self.host.read(probe.name, read)

    @property
    def calibration(self) -> Calibration:
        """Method and quality of all fits."""
        return Calibration(
            method=self.recipe.calibration,
            seed=self.recipe.seed,
            samples=self.samples,
            ridge=max(ridge for each in self.summary for ridge, _ in each.fits),
            fit_error=max(error for each in self.summary for _, error in each.fits),
            dead=tuple(place for each in self.summary for place in each.dead),
        )

    def graph(self) -> SpikingGraph:
        """Return the whole network."""
        recipe = self.recipe
        ensembles = [replace(each, populations=self.own[n]) for n, each in self.done.items()]
        return SpikingGraph(
            tuple(ensembles),
            tuple(self.probes),
            self.plan.host,
            recipe.model,
            recipe.device,
            self.calibration,
            recipe.dt_ms,
            recipe.tau_ms,
            recipe.readout_tau_ms,
            recipe.presentation_ms,
            maximum_rates=recipe.maximum_rates,
        )

    def _memory(self, number: int, spot: Spot, progress: Progress | None) -> Ensemble:
        """Build a memory that integrates what the chip really sends."""
        operator, drive, name = spot.memory, spot.drive, spot.node.name
        assert operator is not None
        u = np.zeros((self.samples, self.steps, drive.size))
        for source, kernel in drive.host.items():
            u += self.value(source) @ kernel
        decoders: dict[str, np.ndarray] = {}
        shares = 1
        if drive.spikes and self.dynamic:
            shares = min(SHARES, self.recipe.parts)
            decoders, sent = self._channels(spot, shares, part(progress, 0, 2))
            u = np.repeat(u, shares, axis=1) + sent
        elif drive.spikes:
            decoders = self.static(drive.spikes, self.entering(spot))
            for source, kernel in drive.spikes.items():
                u += self.truth[source] @ kernel
        shown, recipe = part(progress, 1, 2), replace(self.recipe, fan_in=self.own_synapses(spot))
        built = build_memory([recipe], operator.memory, u, number, name, shown, shares)
        self.fits.append(built.fits[0])
        self.dead += built.dead[0]
        (made,) = built.memories()
        self.own[name] = made.populations
        # From channels, one value each, to all states of the channel, scaled.
        spread = np.eye(drive.size)[:, None] * made.scaled_input[:, :, None]
        spread = spread.reshape(-1, drive.size)
        connections = [SpikeConnection(name, made.weights, fast=False)]
        connections += [
            SpikeConnection(source, (spread @ weights)[None], fast=False)
            for source, weights in decoders.items()
        ]
        currents = tuple(
            InputCurrent(source, spread @ kernel.T, direct=False)
            for source, kernel in drive.host.items()
        )
        populations = made.populations
        if self.recipe.calibration == "none":
            populations = self._nominal(populations)
        scales = made.scales.reshape(-1)
        own = block_diag(*built.scaled.targets) / scales  # from states m to the push on x
        self.pushes[name] = {name: own.T} | {n: k @ spread.T for n, k in drive.spikes.items()}
        found = Ensemble(name, scales, tuple(connections), currents, populations)
        self.play(found, number, built.scaled.trajectory)
        return found

    def _channels(
        self, spot: Spot, shares: int, progress: Progress | None
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Fit decoders of a memory's channels, such that its states are those of the float network.

        The features are the states that the memory would have if one neuron alone drove a channel
        of it, so that it counts when in a presentation spikes come. The loss is relative to the
        size of each state.

        Returns
        -------
        decoders : mapping of source to ndarray, shape (channels, neurons)
        sent : ndarray, shape (samples, steps * shares, channels)
            The channels that the chip then sends, averaged over shares of presentations.
        """
        operator, names = spot.memory, tuple(spot.drive.spikes)
        assert operator is not None
        samples, steps, parts = self.samples, self.steps, self.recipe.parts
        ends = np.cumsum([0, *(self.done[name].neurons for name in names)])
        counts = np.zeros((samples, steps * shares, ends[-1]), np.float32)
        for step, now, spikes, _ in self.run(names, None, progress):
            share = step * shares + now * shares // parts
            for name, first, end in zip(names, ends[:-1], ends[1:], strict=True):
                counts[:, share, first:end] += spikes[name].reshape(samples, -1)
        a_bar, b_bar = divide_step(operator.memory, parts)
        powers = [b_bar]
        for _ in range(parts - 1):
            powers.append(a_bar @ powers[-1])
        hertz = 1.0 / (self.recipe.dt_ms * 1e-3)
        response = np.stack([np.mean(each, axis=0) for each in _shared(powers[::-1], shares)])
        whole = np.linalg.matrix_power(a_bar, parts)
        aim = self._ideal_states(spot)
        sizes = np.sqrt(np.mean(np.square(aim), axis=(0, 1, 2))) + 1e-12

        def rows() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            states = np.zeros((samples, ends[-1], len(b_bar)), np.float32)
            kept, gained = whole.T.astype(np.float32), (response * hertz).astype(np.float32)
            for step in range(steps):
                states = states @ kept
                for share in range(shares):
                    states += counts[:, step * shares + share, :, None] * gained[share]
                phi = (states / sizes).swapaxes(1, 2)  # a row for each state
                yield phi, (aim[:, step] / sizes).swapaxes(1, 2)

        weights = self.fitted(rows(), most=self.entering(spot), name=spot.node.name)
        seconds = self.recipe.presentation_ms * 1e-3 / shares
        sent = counts @ (weights.T / seconds)
        return dict(zip(names, np.split(weights, ends[1:-1], axis=1), strict=True)), sent

    def _ideal_states(self, spot: Spot) -> np.ndarray:
        """Return a memory's states by all but the host, shape (samples, steps, channels, order)."""
        operator = spot.memory
        assert operator is not None
        u = self.argument(spot)
        for source, kernel in spot.drive.host.items():
            u = u - self.value(source) @ kernel
        alone = LinearMemory(operator.memory, np.eye(u.shape[2]))
        return alone.forward(u).reshape(*u.shape, -1)

    def _nominal(self, populations: Populations) -> Populations:
        ones = np.ones(populations.gains.shape)
        return replace(
            populations, gain_factors=ones, bias_factors=ones, tau_factors=None, noise_factors=None
        )

    def _units(self, number: int, spot: Spot, progress: Progress | None) -> Ensemble:
        """Build the populations of an activation, and the synapses of its argument."""
        recipe, name = self.recipe, spot.node.name
        operator = spot.node.operator
        assert isinstance(operator, Activation)
        drawn = np.random.default_rng([recipe.seed, number, _TUNING])
        nominal = make_populations(
            spot.drive.size,
            recipe.neurons_per_unit,
            recipe.model,
            recipe.maximum_rates,
            drawn,
            rectified=operator.name == "relu",
            intercepts=recipe.intercepts,
        )
        made = np.random.default_rng([recipe.device.seed, number, _MISMATCH])
        of = recipe.device
        self.own[name] = with_mismatch(nominal, of.mismatch, made, of.tau_mismatch)
        populations = nominal if recipe.calibration == "none" else self.own[name]
        if recipe.calibration != "none":
            found = examine(self.chip(name, populations), [recipe.seed, number]).dead
            self.dead += [f"{name}/population{each}" for each in found]
        given = self.argument(spot)
        size = np.percentile(np.abs(given), _RANGE_PERCENTILE, axis=(0, 1))
        scales = np.maximum(size, max(_SMALLEST_SHARE * float(size.max()), 1e-12))
        return self._decoded(spot, scales, populations, progress)

    def _decoded(
        self,
        spot: Spot,
        scales: np.ndarray,
        populations: Populations | None,
        progress: Progress | None,
    ) -> Ensemble:
        """Build an ensemble whose drive follows states at once, and units behind fast synapses."""
        few = populations is not None and self.few_synapses(spot)
        of_memories: dict[str, np.ndarray] = {}
        of_units: dict[str, np.ndarray] = {}
        for name, kernel in spot.drive.spikes.items():
            (of_memories if name in self.memories else of_units)[name] = kernel
        currents = [
            InputCurrent(name, (kernel / scales).T, direct=True)
            for name, kernel in spot.drive.host.items()
        ]
        if of_memories and self.dynamic and not few:
            of_memories, offset = self._refitted(spot, scales, part(progress, 0, 2))
            currents.append(InputCurrent(ONE, (offset / scales)[:, None], direct=True))
        slow: dict[str, np.ndarray] = {}
        pushes: dict[str, np.ndarray] = {}
        entering: dict[str, np.ndarray] = {}
        for name, kernel in of_memories.items():
            memory = self.done[name]
            states = (kernel / scales).T * memory.scales
            for each in memory.connections:
                blocks = states.reshape(len(states), *each.weights.shape[:2])
                seen = np.einsum("kbr,brc->kbc", blocks, each.weights).reshape(len(states), -1)
                slow[each.source] = slow.get(each.source, 0.0) + seen
                pushed = self.pushes[name][each.source] @ states.T
                pushes[each.source] = pushes.get(each.source, 0.0) + pushed
            for current in memory.currents:
                seen = states @ current.weights
                entering[current.source] = entering.get(current.source, 0.0) + seen
        currents += [InputCurrent(n, weights, direct=False) for n, weights in entering.items()]
        found = Ensemble(spot.node.name, scales, (), tuple(currents), populations, spot.hidden)
        if self.linear:
            self.follow(found, {n: kernel / scales for n, kernel in of_memories.items()})
        most = self.recipe.fan_in if few else 0
        if few and of_memories:
            most = most // 2 if of_units else most
            aim = self.argument(spot)
            aim = aim - sum(self.truth[name] @ kernel for name, kernel in of_units.items())
            shown = part(progress, 0, 2)
            slow = self._behind(found, pushes, aim / scales, shown, most, fast=False)
        elif slow:
            slow = {source: self.rounded(weights) for source, weights in slow.items()}
        connections = [SpikeConnection(n, each[None], fast=False) for n, each in slow.items()]
        found = replace(found, connections=tuple(connections))
        if not of_units:
            return found
        of_units = {name: kernel / scales for name, kernel in of_units.items()}
        aim, shown = self.argument(spot) / scales, part(progress, 1, 2)
        decoders = self._behind(found, of_units, aim, shown, most, fast=True)
        connections += [SpikeConnection(n, each[None], fast=True) for n, each in decoders.items()]
        return replace(found, connections=tuple(connections))

    def _refitted(
        self, spot: Spot, scales: np.ndarray, progress: Progress | None
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Fit kernels of memories to the states that the chip has at the ends of presentations.

        A ridge regression, from the float network's kernels on, to what these would give with the
        float network's states.

        Returns
        -------
        kernels : mapping of memory to ndarray, shape (states, size)
        offset : ndarray, shape (size,)
        """
        kernels = {n: k for n, k in spot.drive.spikes.items() if n in self.memories}
        names = tuple(name for name in self.done if name in kernels)
        ends = np.cumsum([0, *(self.done[name].size for name in names)])
        ones = np.ones((self.samples, self.steps, 1))
        seen = np.concatenate(
            [*(self.sent(n, progress).ends(self.recipe.parts) for n in names), ones], axis=2
        )
        # Scaled states, the constant behind them; what is fitted is a change of the kernels.
        sized = [kernels[name] * self.done[name].scales[:, None] for name in names]
        given = np.concatenate([*sized, np.zeros((1, len(scales)))]) / scales
        aim = sum(self.truth[name] @ (kernel / scales) for name, kernel in kernels.items())
        missing = aim - seen @ given
        steps = range(self.first(spot.node.name), self.steps)
        rows = ((seen[:, step], missing[:, step]) for step in steps)
        change = self.fitted(rows, 0, aim[:, steps.start :]).T
        found = (given + change) * scales
        new = {
            name: found[first:end] / self.done[name].scales[:, None]
            for name, first, end in zip(names, ends[:-1], ends[1:], strict=True)
        }
        return new, found[-1]

    def _behind(
        self,
        undecoded: Ensemble,
        kernels: Mapping[str, np.ndarray],
        aim: np.ndarray,
        progress: Progress | None,
        most: int,
        fast: bool,
    ) -> dict[str, np.ndarray]:
        """Fit decoders, behind synapses of one kind, to what is missing in an ensemble's drive.

        Parameters
        ----------
        undecoded : Ensemble
            Without these synapses.
        kernels : mapping of ensemble to ndarray, shape (values, size)
            What is decoded, and what static decoders are multiplied with.
        aim : ndarray, shape (samples, steps, size)
            Scaled drives of the float network.
        most : int
            Largest number of synapses of a value; 0 for no limit.
        fast : bool
        """
        if not self.dynamic:
            return self.static(kernels, most)
        recipe, samples, names = self.recipe, self.samples, tuple(kernels)
        ends = np.cumsum([0, *(self.done[name].neurons for name in names)])
        first = self.first(undecoded.name)
        tau_ms = recipe.readout_tau_ms if fast else recipe.tau_ms
        kept = np.float32(np.exp(-recipe.dt_ms / tau_ms))
        gained = np.float32((1.0 - kept) / (recipe.dt_ms * 1e-3))

        def rows() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            filtered = np.zeros((samples, ends[-1]), np.float32)
            for step, now, spikes, simulator in self.run(names, undecoded, progress):
                fired = [spikes[name].reshape(samples, -1) for name in names]
                filtered *= kept
                filtered += gained * np.concatenate(fired, axis=1)
                if now == recipe.parts - 1 and step >= first:
                    yield filtered, aim[:, step] - simulator.drives[0]

        weights = self.fitted(rows(), most=most, name=undecoded.name)
        return dict(zip(names, np.split(weights, ends[1:-1], axis=1), strict=True))


def _shared(steps: Sequence[np.ndarray], shares: int) -> list[list[np.ndarray]]:
    """Return the steps of a presentation in parts of equal length, as nearly as possible."""
    found: list[list[np.ndarray]] = [[] for _ in range(shares)]
    for now, each in enumerate(steps):
        found[now * shares // len(steps)].append(each)
    return found
