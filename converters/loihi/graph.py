"""Put a graph on LIF neurons in Loihi's fixed point, calibrated block by block as on analog chips.

The neurons of the chip are a device like any other to calibration
(:class:`converters.loihi.neurons.FixedPointDevice`). What it fits are synapses with rows of 8 bits;
here they become integers with a gain for each row, and the currents of the host become messages.
"""

from __future__ import annotations

import numpy as np

from converters.loihi.neurons import MESSAGE_ONE, FixedPointDevice, RowsOfWeights, round_rows
from converters.options import SpikeOptions
from converters.spiking.graph.build import GraphBuilder
from converters.spiking.graph.plan import Plan, check_maps
from converters.spiking.recipe import READOUT_SHARE, Recipe, draw_samples
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.spiking.chip import Device, NeuronModel, check_multiple
from lmu_deploy.core.spiking.graph import Ensemble, LoihiEnsemble, LoihiGraph, LoihiInput
from lmu_deploy.core.spiking.loihi import (
    DECAY_ONE,
    MESSAGE_LIMIT,
    ONE,
    LoihiConnection,
    LoihiCurrent,
)
from lmu_deploy.core.validation import check_inputs
from lmu_deploy.hardware.profile import DigitalProfile, LifFigures

WEIGHT_BITS = 8
INPUT_MARGIN = 1.25
"""Largest message before saturation, relative to the largest of the calibration."""
_RANGE_PERCENTILE = 99.9
_SMALLEST_SHARE = 1e-3


def decay_of(tau_ms: float, dt_ms: float) -> int:
    """Return the decay per step of a register of a relay, in 4096ths."""
    return max(round(DECAY_ONE * -np.expm1(-dt_ms / tau_ms)), 1)


def graph_on_loihi(
    plan: Plan,
    inputs: np.ndarray,
    chip: DigitalProfile,
    figures: LifFigures,
    options: SpikeOptions,
    progress: Progress | None,
) -> LoihiGraph:
    """Put a plan on the LIF neurons of a chip.

    Parameters
    ----------
    plan : Plan
    inputs : ndarray, shape (samples, steps, *frame)
        To calibrate on.
    chip : DigitalProfile
    figures : LifFigures
    options : SpikeOptions
    progress : callable, optional
        Called with (calibration steps done, steps in total).

    Raises
    ------
    InputError
        When a time is not a whole multiple of the step, the chip has too few neurons, or a value
        does not fit its width.
    """
    recipe, times = _recipe(plan, chip, figures, options)
    frames = np.asarray(inputs)
    flat = check_inputs(frames.reshape(*frames.shape[:2], -1), plan.host.n_in)
    if options.calibration_steps is not None:
        flat = flat[:, : options.calibration_steps]
    largest = max(spot.values(recipe) for spot in plan.spots)
    chosen = draw_samples(flat, options.calibration_samples, largest, recipe.seed)
    builder = _Builder(plan, recipe, chosen)
    builder.build(progress)
    return builder.on_loihi(chip.name, *times)


def _recipe(
    plan: Plan, chip: DigitalProfile, figures: LifFigures, options: SpikeOptions
) -> tuple[Recipe, tuple[float, float]]:
    """Return the recipe, with the time constants that decays of 12 bits have, and those asked."""
    dt_ms = figures.step.value * 1e3
    tau_ms = figures.synapse_tau.value * 1e3 if options.tau_ms is None else options.tau_ms
    presentation_ms = check_multiple("presentation_ms", options.presentation_ms, dt_ms)
    fast_ms = options.readout_tau_ms
    if fast_ms is None:
        fast_ms = max(round(min(tau_ms, READOUT_SHARE * presentation_ms) / dt_ms), 1) * dt_ms
    asked = (
        check_multiple("tau_ms", tau_ms, dt_ms),
        check_multiple("readout_tau_ms", fast_ms, dt_ms),
    )
    board = FixedPointDevice(figures)
    recipe = Recipe(
        model=NeuronModel("lif", _time_constant(int(figures.membrane_decay), dt_ms), 0.0),
        device=Device(chip.name, options.seed, 0.0, 0.0, WEIGHT_BITS, board=board.name),
        dt_ms=dt_ms,
        tau_ms=_time_constant(decay_of(asked[0], dt_ms), dt_ms),
        presentation_ms=presentation_ms,
        neurons_per_state=options.neurons_per_state,
        maximum_rates=(figures.lowest_rate.value, figures.highest_rate.value),
        calibration="dynamic",
        seed=options.seed,
        neurons_per_unit=options.neurons_per_unit if plan.units else 0,
        readout_tau_ms=_time_constant(decay_of(asked[1], dt_ms), dt_ms),
        board=board,
        intercepts=(figures.lowest_intercept.value, figures.highest_intercept.value),
    )
    _check_room(plan, recipe, chip)
    check_maps(plan, recipe)
    return recipe, asked


def _time_constant(decay: int, dt_ms: float) -> float:
    return float(-dt_ms / np.log1p(-decay / DECAY_ONE))


def _check_room(plan: Plan, recipe: Recipe, chip: DigitalProfile) -> None:
    states, units = sum(memory.size for memory in plan.memories), sum(plan.units.values())
    needed = states * (recipe.neurons_per_state + 1) + units * (recipe.neurons_per_unit + 1)
    if needed > (room := int(chip.neurons_per_core) * int(chip.cores)):
        raise InputError(
            f"{states} states and {units} units need {needed} neurons and relays, and profile "
            f"{chip.name} has {room}; use fewer neurons per state or unit, or --units host."
        )


class _Builder(GraphBuilder):
    """Builds ensembles of fixed-point neurons, and rounds what calibration fitted."""

    def on_loihi(self, profile: str, tau_ms: float, fast_tau_ms: float) -> LoihiGraph:
        """Return the whole network in integers; the times are those that were asked for."""
        recipe, found = self.recipe, [*self.done.values(), *self.probes]
        sources = dict.fromkeys(each.source for one in found for each in one.currents)
        sent = {source: self._input(source) for source in sources}
        ensembles = [self._rounded(each, each.scales, sent) for each in self.done.values()]
        probes = [self._rounded(each, self._range(each.name), sent) for each in self.probes]
        return LoihiGraph(
            tuple(ensembles),
            tuple(probes),
            tuple(sent.values()),
            self.plan.host,
            profile,
            self.calibration,
            decay_of(tau_ms, recipe.dt_ms),
            decay_of(fast_tau_ms, recipe.dt_ms),
            recipe.dt_ms,
            tau_ms,
            fast_tau_ms,
            recipe.presentation_ms,
        )

    def _input(self, source: str) -> LoihiInput:
        values = self.value(source)
        largest = np.abs(values).max(axis=(0, 1)) * INPUT_MARGIN
        return LoihiInput(source, np.maximum(largest, 1e-9) / MESSAGE_LIMIT)

    def _range(self, name: str) -> np.ndarray:
        """Return the scales of a probe, with which its registers hold all of its values."""
        (spot,) = (each for each in self.plan.spots if each.probe and each.node.name == name)
        size = np.percentile(np.abs(self.argument(spot)), _RANGE_PERCENTILE, axis=(0, 1))
        return np.asarray(np.maximum(size, max(_SMALLEST_SHARE * float(size.max()), 1e-12)))

    def _rounded(
        self, ensemble: Ensemble, scales: np.ndarray, sent: dict[str, LoihiInput]
    ) -> LoihiEnsemble:
        """Return an ensemble in integers, its drive in units of other scales."""
        recipe, board = self.recipe, self.board
        assert isinstance(board, FixedPointDevice)
        ones = (ensemble.scales / scales)[:, None] * ONE
        lost, fast_lost = (
            -np.expm1(-recipe.dt_ms / tau) for tau in (recipe.tau_ms, recipe.readout_tau_ms)
        )
        hertz = 1.0 / (recipe.dt_ms * 1e-3)
        connections = []
        for each in ensemble.connections:
            rows = each.weights.reshape(ensemble.size, -1)
            made = round_rows(rows * ones * hertz * (fast_lost if each.fast else lost))
            blocks = made.weights.reshape(each.weights.shape)
            connections.append(LoihiConnection(each.source, blocks, *_gains(made), each.fast))
        currents = []
        for current in ensemble.currents:
            per_message = current.weights * sent[current.source].scales * ones
            made = round_rows(per_message * (1.0 if current.direct else lost))
            currents.append(
                LoihiCurrent(current.source, made.weights, *_gains(made), current.direct)
            )
        own = self.own.get(ensemble.name) if ensemble.populations is not None else None
        return LoihiEnsemble(
            ensemble.name,
            scales,
            tuple(connections),
            tuple(currents),
            round(np.log2(ONE / MESSAGE_ONE)),
            None if own is None else board.rounded(own),
            ensemble.hidden,
        )


def _gains(rows: RowsOfWeights) -> tuple[np.ndarray, np.ndarray]:
    return rows.multiplier, rows.shift
