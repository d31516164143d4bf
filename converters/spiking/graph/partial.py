"""A chip that is calibrated in part: what it sends, and regressions from that to float values."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from converters.spiking.calibration import (
    LEVELS,
    STATIC_RIDGE,
    independent_products,
    rates_of,
)
from converters.spiking.device import Block, Driven, Played
from converters.spiking.graph.plan import Plan, Spot
from converters.spiking.graph.simulator import Circuit, GraphSimulator, HostValues, simulated
from converters.spiking.neurons import Chip, Fit
from converters.spiking.recipe import Recipe
from converters.spiking.ridge import (
    Products,
    Regression,
    best_ridge,
    blocks_of,
    fit_few_rows,
    round_and_refit,
    round_sparse,
    round_weights,
)
from lmu_deploy.core.graph.executor import record_states
from lmu_deploy.core.graph.network import INPUT
from lmu_deploy.core.graph.pointwise import Activation
from lmu_deploy.core.graph.time import Reduce
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.spiking.chip import Populations
from lmu_deploy.core.spiking.ensembles import ONE
from lmu_deploy.core.spiking.graph import Ensemble

_LOG = logging.getLogger(f"lmu_deploy.{__name__}")

_RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_LATE = 3
"""Part of the steps, the last third, on which what only the last answer needs is fitted."""
MEASURING = 8
"""Stream of random numbers."""


@dataclass(frozen=True)
class Sent:
    """What a calibrated ensemble does on the calibration inputs.

    Attributes
    ----------
    spikes : Played
        Of every step and sample; of none where only drives are read.
    drives : ndarray, shape (steps of the simulation, samples, size), float32
        Scaled drives after every step.
    """

    spikes: Played
    drives: np.ndarray

    def ends(self, parts: int) -> np.ndarray:
        """Return the drives at the ends of presentations, shape (samples, steps, size)."""
        return self.drives[parts - 1 :: parts].swapaxes(0, 1).astype(np.float64)


class PartialChip:
    """The ensembles so far, and what the chip sends for the calibration inputs.

    An uncalibrated chip is built as an ideal one, and gets its own populations at the end.

    Parameters
    ----------
    plan : Plan
    recipe : Recipe
    inputs : ndarray, shape (samples, steps, n_in)
    """

    def __init__(self, plan: Plan, recipe: Recipe, inputs: np.ndarray) -> None:
        self.plan, self.recipe = plan, recipe
        self.dynamic = recipe.calibration == "dynamic"
        self.device = recipe.device.ideal() if recipe.calibration == "none" else recipe.device
        self.board = None if recipe.calibration == "none" else recipe.board
        self.played: dict[str, Played] = {}
        names = [node.name for node in plan.host.nodes]
        frames = inputs.reshape(*inputs.shape[:2], *plan.host.frame)
        self.truth = dict(record_states(plan.host, frames, nodes=names).nodes)
        self.truth[INPUT] = np.asarray(inputs, np.float64)
        self.host = HostValues(plan.host, inputs)
        self.samples, self.steps = self.truth[plan.spots[0].node.name].shape[:2]
        self.truth[ONE] = np.ones((self.samples, self.steps, 1))
        self.memories = {spot.node.name: spot for spot in plan.spots if spot.memory}
        self.late = _only_last(plan)
        self.done: dict[str, Ensemble] = {}
        self.own: dict[str, Populations] = {}
        self.linear = not recipe.device.weight_bits and not recipe.fan_in
        """Whether drives behind memories follow their states, whose map is not rounded there."""
        self.states: dict[tuple[str, bool], dict[str, np.ndarray]] = {}
        """Of drives for which that holds, from the scaled states of each memory."""
        self.pushes: dict[str, dict[str, np.ndarray]] = {}
        """Of each memory, from the values of what drives it to the push on its scaled states."""
        self._sent: dict[str, Sent] = {}
        self.probes: list[Ensemble] = []
        self.fits: list[Fit] = []
        self.dead: list[str] = []

    def argument(self, spot: Spot) -> np.ndarray:
        """Return the float network's values of a drive, shape (samples, steps, size)."""
        terms = {**spot.drive.host}
        found = sum(self.truth[name] @ kernel for name, kernel in terms.items())
        found = found + sum(self.truth[name] @ k for name, k in spot.drive.spikes.items())
        return np.asarray(found)

    def value(self, source: str) -> np.ndarray:
        """Return what the host sends of a node, shape (samples, steps, features)."""
        if source == ONE:
            return self.truth[ONE]
        value = self.host[source]
        return value.reshape(*value.shape[:2], -1)

    def fitted(
        self,
        rows: Iterator[tuple[np.ndarray, np.ndarray]],
        bits: int | None = None,
        whole: np.ndarray | None = None,
        most: int = 0,
        name: str = "",
    ) -> np.ndarray:
        """Fit features to aims; the last fifth of the samples selects the regularization.

        Parameters
        ----------
        rows : iterable of (features, aims)
            Both begin with an axis of samples.
        bits : int, optional
            Of the weights; the chip's if absent.
        whole : ndarray, optional
            What the error is relative to, if the aims are only what is missing in it.
        most : int
            Largest number of features of an aim; 0 for all.
        name : str
            Of the ensemble, for the message on what that limit costs.

        Returns
        -------
        ndarray, shape (aims, features)
        """
        bits = self.recipe.device.weight_bits if bits is None else bits
        share = max(self.samples - max(self.samples // 5, 1), 1)
        learned = held_out = Products(0, 0)
        for phi, aim in blocks_of(rows):
            if not learned.rows:
                learned, held_out = (Products(phi.shape[-1], aim.shape[-1]) for _ in range(2))
            for products, some in ((learned, slice(share)), (held_out, slice(share, None))):
                products.add(
                    phi[some].reshape(-1, phi.shape[-1]), aim[some].reshape(-1, aim.shape[-1])
                )
        most = most if most < len(learned.ff) else 0
        ridge, (found,) = best_ridge([learned], [held_out], _RIDGES, most=most)
        if most:
            _, (whole_map,) = best_ridge([learned], [held_out], _RIDGES)
            _LOG.info(
                "%s: a neuron has synapses from %d of %d neurons: held-out error %.4f, and %.4f "
                "with all.",
                name,
                most,
                len(learned.ff),
                held_out.relative_error(found),
                held_out.relative_error(whole_map),
            )
        weights = found.T
        if bits:
            rounded = round_sparse if most else round_and_refit
            weights = rounded(weights, bits, learned.penalized(ridge))
        error = held_out.relative_error(weights.T)
        if whole is not None:
            error *= float(np.sqrt(held_out.tt.sum() / np.square(whole[share:]).sum()))
        self.fits.append(Fit(weights, ridge, error))
        return np.asarray(weights)

    def first(self, name: str) -> int:
        """Return the first step on which an ensemble is fitted."""
        return self.steps - max(self.steps // _LATE, 1) if name in self.late else 0

    def rounded(self, weights: np.ndarray) -> np.ndarray:
        """Return weights as the chip stores them."""
        return round_weights(weights, self.recipe.device.weight_bits)

    def few_synapses(self, spot: Spot) -> bool:
        """Return whether more neurons drive each neuron of an ensemble than it has synapses."""
        reading = self._neurons(spot)
        if spot.memory is not None:
            reading += self._own(spot)
        return bool(self.recipe.fan_in) and reading > self.recipe.fan_in

    def entering(self, spot: Spot) -> int:
        """Return how many synapses of a memory's neuron others may take; 0 for no limit."""
        if not self.few_synapses(spot):
            return 0
        fan_in = self.recipe.fan_in
        return min(self._neurons(spot), max(fan_in - self._own(spot), fan_in // 2))

    def own_synapses(self, spot: Spot) -> int:
        """Return how many synapses of a memory's neuron its own spikes may take; 0: no limit."""
        return self.recipe.fan_in - self.entering(spot) if self.few_synapses(spot) else 0

    def _own(self, spot: Spot) -> int:
        assert spot.memory is not None
        return spot.memory.memory.order * self.recipe.neurons_per_state

    def _neurons(self, spot: Spot) -> int:
        """Return the neurons of other ensembles that drive an ensemble if all of them are read."""
        names: set[str] = set()
        for name in spot.drive.spikes:
            through = spot.memory is None and name in self.memories
            names.update(self.done[name].sources if through else (name,))
        return sum(self.done[name].neurons for name in names)

    def chip(self, name: str, populations: Populations) -> Chip:
        """Return populations as calibration measures them by themselves."""
        recipe = self.recipe
        return Chip(
            populations,
            recipe.model,
            self.device,
            recipe.dt_ms,
            recipe.tau_ms,
            1,
            self.board,
            place=name,
        )

    def static(self, kernels: Mapping[str, np.ndarray], most: int = 0) -> dict[str, np.ndarray]:
        """Decode populations from their rate curves, and multiply by kernels.

        Parameters
        ----------
        kernels : mapping of ensemble to ndarray, shape (values, size)
        most : int
            Largest number of neurons that one value reads, of all these ensembles; 0 for all.
            They are chosen for drives that are independent of each other, each uniform over its
            range.

        Returns
        -------
        mapping of ensemble to ndarray, shape (size, neurons)
        """
        curves = {name: self._curves(name) for name in kernels}
        columns = sum(self.done[name].neurons for name in kernels)
        if not most or most >= columns:
            return {
                name: self.rounded(_whole_map(*curves[name], kernel))
                for name, kernel in kernels.items()
            }
        kernel = np.concatenate(list(kernels.values()))
        products = independent_products(list(curves.values()), kernel)
        found = Regression(products, most).fit(STATIC_RIDGE).T
        ends = np.cumsum([self.done[name].neurons for name in kernels])[:-1]
        return dict(zip(kernels, np.split(self.rounded(found), ends, axis=1), strict=True))

    def _curves(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return rates (levels, values, neurons), and what they represent (levels, values)."""
        ensemble = self.done[name]
        assert ensemble.populations is not None
        chip = self.chip(name, ensemble.populations)
        rates = rates_of(chip, [self.recipe.seed, MEASURING])
        aims, operator = LEVELS[:, None] * ensemble.scales, self.plan.host[name].operator
        return rates, operator.apply(aims) if isinstance(operator, Activation) else aims

    def sent(self, name: str, progress: Progress | None = None) -> Sent:
        """Return what an ensemble sends for the calibration inputs; it runs freely, once."""
        if name not in self._sent:
            self._sent[name] = self._free(self.done[name], progress)
        return self._sent[name]

    def _free(self, ensemble: Ensemble, progress: Progress | None) -> Sent:
        name, parts = ensemble.name, self.recipe.parts
        bytes_each = -(-ensemble.neurons // 8) if self._spikes_are_read(name) else 0
        packed = np.zeros((self.steps * parts, self.samples, bytes_each), np.uint8)
        drives = np.zeros((self.steps * parts, self.samples, ensemble.size), np.float32)
        own = {name: self._started(ensemble)}
        for step, now, spikes, simulator in self._run([], ensemble, own, progress):
            at = step * parts + now
            if bytes_each:
                packed[at] = np.packbits(spikes[name].reshape(self.samples, -1), axis=1)
            drives[at] = simulator.drives[0]
        return Sent(Played(packed, self._block(ensemble).gains.shape), drives)

    def _spikes_are_read(self, name: str) -> bool:
        """Return whether the spikes of an ensemble are read, and not its drives alone."""
        if name not in self.memories or not self.linear:
            return True
        return any(
            spot.memory is not None and name in spot.drive.spikes for spot in self.plan.spots
        )

    def follow(self, ensemble: Ensemble, kernels: Mapping[str, np.ndarray]) -> None:
        """Let the drive of an ensemble be computed from the states of memories.

        Parameters
        ----------
        ensemble : Ensemble
        kernels : mapping of memory to ndarray, shape (states, size)
        """
        self.states[key_of(ensemble)] = {
            name: kernel * self.done[name].scales[:, None] for name, kernel in kernels.items()
        }

    def forget(self, later: Sequence[Spot]) -> None:
        """Drop the spikes that none of the ensembles to come reads."""
        read: set[str] = set()
        for spot in later:
            for name in spot.drive.spikes:
                read.add(name)
                if name in self.memories and spot.memory is None:
                    read.update(self.memories[name].drive.spikes)
        for name in reversed(self.done):
            if name in read and name not in self._sent:
                read.update(self.done[name].sources)
        self._sent = {name: each for name, each in self._sent.items() if name in read}

    def run(
        self, names: Sequence[str], extra: Ensemble | None, progress: Progress | None = None
    ) -> Iterator[tuple[int, int, dict[str, np.ndarray], GraphSimulator]]:
        """Go through what some ensembles send for the calibration inputs.

        Parameters
        ----------
        names : sequence of str
        extra : Ensemble, optional
            Without neurons, which these and others drive.

        Yields
        ------
        step, now : int
            Step of the task, and step of the simulation in its presentation.
        spikes : mapping of ensemble to ndarray
        simulator : GraphSimulator
            After that step; its drives are those of the extra ensemble.
        """
        return self._run(names, extra, {}, progress)

    def _run(
        self,
        names: Sequence[str],
        ensemble: Ensemble | None,
        own: Mapping[str, Driven],
        progress: Progress | None,
    ) -> Iterator[tuple[int, int, dict[str, np.ndarray], GraphSimulator]]:
        simulator, values = self._simulator(names, ensemble, own)
        for step in range(self.steps):
            simulator.present({name: value[:, step] for name, value in values.items()})
            for now in range(self.recipe.parts):
                yield step, now, simulator.step(), simulator
            if progress:
                progress(step + 1, self.steps)

    def play(self, ensemble: Ensemble, number: int, trajectory: np.ndarray | None = None) -> None:
        """Record the spikes of an ensemble, if the device only plays drives known beforehand.

        They stand for the ensemble when what it sends is measured. The drives of units are those
        that the recorded spikes of the ensembles before cause.

        Parameters
        ----------
        ensemble : Ensemble
        number : int
        trajectory : ndarray, shape (steps of the simulation, samples, channels, order), optional
            Scaled states of a memory after each step.
        """
        if self.board is None or self.board.live:
            return
        parts = self.recipe.parts
        drive = np.zeros((self.steps * parts, self.samples, ensemble.size), np.float32)
        if trajectory is not None:
            drive[1:] = trajectory[:-1].reshape(len(drive) - 1, self.samples, -1)
        else:
            simulator, values = self._simulator((), ensemble, {})
            for step in range(self.steps):
                simulator.present({name: value[:, step] for name, value in values.items()})
                for now in range(parts):
                    drive[step * parts + now] = simulator.drives[0]
                    simulator.step()
        seed = [self.recipe.seed, number, MEASURING]
        self.played[ensemble.name] = Played.by(self.board, self._block(ensemble), drive, seed)

    def _block(self, ensemble: Ensemble) -> Block:
        assert ensemble.populations is not None
        recipe = self.recipe
        return Block(ensemble.name, ensemble.populations, recipe.model, recipe.dt_ms)

    @property
    def _circuit(self) -> Circuit:
        recipe = self.recipe
        return Circuit(
            recipe.model, self.device, recipe.dt_ms, recipe.tau_ms, recipe.readout_tau_ms
        )

    def _started(self, ensemble: Ensemble) -> Driven:
        """Start the neurons of an ensemble; those of a device, or simulated ones."""
        name, block = ensemble.name, self._block(ensemble)
        rng = np.random.default_rng([self.recipe.seed, list(self.done).index(name), MEASURING])
        if self.board is not None:
            return self.played.get(name, self.board).start(block, self.samples, rng)
        return simulated(self._circuit, [ensemble], self.samples, {name: rng}, {name: rng})[name]

    def _simulator(
        self, names: Sequence[str], ensemble: Ensemble | None, own: Mapping[str, Driven]
    ) -> tuple[GraphSimulator, dict[str, np.ndarray]]:
        """Return a simulator of an ensemble and what drives it, and what the host sends to it.

        Parameters
        ----------
        names : sequence of str
            Ensembles whose spikes it returns too.
        ensemble : Ensemble, optional
        own : mapping of ensemble to Driven
            The neurons of that ensemble, if its spikes are of interest.
        """
        ensembles, sources = [], list(names)
        slow: dict[str, np.ndarray] = {}
        if ensemble is not None:
            states = self.states.get(key_of(ensemble), {})
            for memory, kernel in states.items():
                seen = self.sent(memory).drives @ kernel.astype(np.float32)
                slow[ensemble.name] = slow.get(ensemble.name, 0.0) + seen
            sources += [each.source for each in ensemble.connections if each.fast or not states]
            ensembles = [ensemble if own else replace(ensemble, populations=None)]
        neurons = {
            name: self.sent(name).spikes.start(self._block(self.done[name]), self.samples, _RNG)
            for name in dict.fromkeys(sources)
            if name not in own
        }
        simulator = GraphSimulator(
            self._circuit, ensembles, {**neurons, **own}, self.samples, slow=slow
        )
        return simulator, self.host.currents(ensembles, self.steps)


_RNG = np.random.default_rng(0)
"""What spikes that are known take no numbers from."""


def key_of(ensemble: Ensemble) -> tuple[str, bool]:
    """Return what tells an ensemble from a probe of the same node."""
    return ensemble.name, ensemble.populations is None


def _whole_map(rates: np.ndarray, aims: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Decode each value from its own population; return a map, shape (size, neurons)."""
    decoders = np.stack(
        [
            fit_few_rows(rates[:, value], aims[:, value, None], STATIC_RIDGE)[:, 0]
            for value in range(aims.shape[1])
        ]
    )
    return np.asarray((kernel.T[:, :, None] * decoders).reshape(kernel.shape[1], -1))


def _only_last(plan: Plan) -> set[str]:
    """Return the ensembles and probes of which only the last step is used."""
    found: set[str] = set()
    for spot in reversed(plan.spots):
        name = spot.node.name
        users = [node for node in plan.host.nodes if name in node.inputs]
        if spot.probe:
            at_end = all(
                isinstance(node.operator, Reduce) and node.operator.kind == "last" for node in users
            )
            late = at_end and name != plan.host.output
        else:
            behind = [other for other in plan.spots if name in other.drive.spikes]
            late = all(other.node.name in found for other in behind)
        if late and spot.memory is None:
            found.add(name)
    return found
