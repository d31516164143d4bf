"""Hybrid simulation of spiking networks in NumPy, and calibrated chips with fewer imperfections.

In a hybrid simulation each memory either spikes or is ideal. A spiking memory uses the synapses of
the Brian2 target and the same random numbers, so its states equal those of that target with ``==``
(for a batch with all samples). An ideal memory uses :math:`S^{-1} A' S x` instead of W s / dt; with
all memories ideal, the network is the float network. Units on neurons spike when the memory of
their layer does.

The weights of a spiking network are fitted to all imperfections together, so the contribution of
one imperfection cannot be removed from them. Instead the float network is converted for other chips
with the same settings and tuning curves: first without mismatch, noise and weight rounding, then
with one more imperfection at a time. Each chip is calibrated dynamically, so the error of an
imperfection is the part that calibration cannot compensate.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.spiking import spike
from converters.spiking.calibration import Health, examine
from converters.spiking.device import Block, Driven, NeuronDevice, block_of
from converters.spiking.neurons import ABSENT, Chip, VirtualDevice
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import fingerprint
from lmu_deploy.core.network import LSTMLayer
from lmu_deploy.core.spiking.chip import Populations
from lmu_deploy.core.spiking.graph import AnalogNetwork, SpikingGraph
from lmu_deploy.core.spiking.network import SpikingMemory, SpikingNetwork
from targets.brian2.synapses import Boundary, Synapses, Units
from targets.host import HostLayer, run_lstm

if TYPE_CHECKING:
    from lmu_deploy.fidelity.store import Parts

Observer = Callable[[int, np.ndarray, np.ndarray], None]
"""Callable with the layer number, the states x before a simulation step, (samples, states), and the
spikes of the step, (samples, states, neurons)."""


@dataclass(frozen=True)
class HybridRun:
    """Result of a hybrid simulation.

    Attributes
    ----------
    m : list of ndarray, shape (samples, steps, states)
        States of each memory.
    y : ndarray, shape (samples, steps, n_out)
    """

    m: list[np.ndarray]
    y: np.ndarray


class Brian2Random:
    """Random numbers in the order of the Brian2 target: initial membranes first, then noise.

    The class implements the methods of a NumPy generator that neurons use. The noise comes from the
    legacy generator of NumPy, as in Brian2; a memory and the units that read it share it.

    Parameters
    ----------
    initial : Generator
    noise : RandomState
    """

    def __init__(self, initial: np.random.Generator, noise: np.random.RandomState) -> None:
        self._initial, self._noise, self._started = initial, noise, False

    def random(self, shape: tuple[int, ...], dtype: Any = np.float64) -> np.ndarray:
        """Draw initial membranes in the first call, then uniform numbers of Poisson spikes."""
        if self._started:
            return np.asarray(self._noise.random_sample(shape))
        self._started = True
        return self._initial.random(shape)

    def standard_normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """Draw the membrane noise."""
        return np.asarray(self._noise.standard_normal(shape))


def run_hybrid(
    network: SpikingNetwork,
    inputs: np.ndarray,
    spiking: Collection[int],
    seed: int = 0,
    observe: Observer | None = None,
    device: NeuronDevice | None = None,
) -> HybridRun:
    """Run a network in which only some memories spike, on the device that it belongs to.

    Parameters
    ----------
    network : SpikingNetwork
        A network whose synapses are linear filters.
    inputs : ndarray, shape (samples, steps, n_in)
    spiking : collection of int
        Numbers of the layers with a spiking memory.
    seed : int
        Seed of initial membranes and noise, as in the Brian2 target.
    observe : callable, optional
        Called at every step of the spiking memories.
    device : NeuronDevice, optional
        A live device whose neurons spike; by default the virtual chip of the network, with the
        random numbers of the Brian2 target.

    Raises
    ------
    InputError
        When the network was calibrated for a device, and none is given.
    """
    if device is None:
        check_virtual(network)
        device = VirtualDevice(network.device, dtype=np.float64)
    signal, states, memories = inputs, list[np.ndarray](), 0
    units: Units | None = None
    for number, layer in enumerate(network.host.layers):
        if isinstance(layer, LSTMLayer):
            signal = run_lstm(layer, signal)
            continue
        memory = network.memories[number]
        assert memory is not None
        host = HostLayer(layer, signal)
        if number in spiking:
            seen = None if observe is None else _seen(observe, number)
            if network.units is not None and layer is network.host.layers[-1]:
                starts = np.random.default_rng([seed, memories + 1, 2])
                units = Units(network, [network.units], layer, signal, starts)
            _run_spiking(network, number, host, (seed, memories), seen, units, device)
        else:
            _run_ideal(network, memory, host)
        states.append(host.m)
        signal, memories = host.output, memories + 1
    readout = network.host.readout
    y = signal @ readout.kernel.astype(np.float64) if units is None else units.y
    return HybridRun(states, y if readout.bias is None else y + readout.bias)


def check_virtual(network: SpikingNetwork) -> None:
    """Raise InputError when the network's neurons are those of a device."""
    if board := network.device.board:
        raise InputError(
            f"the network was calibrated for device {board}, and its file does not hold that "
            "device's neurons; pass the device."
        )


def ideal_drive(memory: SpikingMemory) -> Callable[[np.ndarray], np.ndarray]:
    """Return the map from scaled states, shape (samples, states), to the ideal W s / dt."""
    order, matrix = memory.order, np.zeros((memory.states, memory.states))
    for channel, scales in enumerate(memory.scales):
        block = slice(channel * order, (channel + 1) * order)
        matrix[block, block] = (memory.recurrent * scales[None, :] / scales[:, None]).T
    return lambda x: x @ matrix


def effects(memory: SpikingMemory, dt_ms: float) -> np.ndarray:
    """Return the change of the drive per spike, shape (channels, order, neurons, order)."""
    shape = (memory.channels, memory.order, memory.order, memory.populations.neurons)
    return np.asarray(memory.weights.reshape(shape).transpose(0, 2, 3, 1) / (dt_ms * 1e-3))


def _seen(observe: Observer, number: int) -> Callable[[np.ndarray, np.ndarray], None]:
    return lambda x, spikes: observe(number, x, spikes)


def _run_spiking(
    network: SpikingNetwork,
    number: int,
    host: HostLayer,
    seeds: tuple[int, int],
    observe: Callable[[np.ndarray, np.ndarray], None] | None,
    units: Units | None,
    device: NeuronDevice,
) -> None:
    memory = network.memories[number]
    assert memory is not None
    samples, steps, _ = host.m.shape
    noise = np.random.RandomState(int(np.random.default_rng([*seeds, 1]).integers(2**31)))

    def started(part: str, populations: Populations, initial: np.random.Generator) -> Driven:
        block = block_of(network, number, part, populations)
        random: Any = Brian2Random(initial, noise)  # neurons use two of its methods
        return device.start(block, samples, random)

    neurons = started("memory", memory.populations, np.random.default_rng(seeds))
    firing: Driven | None = None
    if units is not None:
        firing = started("hidden", units.units[0].populations, units.starts)
    boundary = Boundary(host.channels, host.observe)
    synapses = Synapses(network, [memory], boundary, samples, steps, rasters=False)
    x = np.zeros((samples, memory.states))
    for _ in range(steps * network.steps_per_presentation):
        spikes = neurons.step(x)
        own = None if units is None or firing is None else firing.step(units.shown)
        if observe is not None:
            observe(x, spikes)
        synapses.advance(x.reshape(-1), np.flatnonzero(spikes))
        if units is not None and own is not None:
            units.advance(synapses.u, synapses.fired(), np.flatnonzero(own))


def _run_ideal(network: SpikingNetwork, memory: SpikingMemory, host: HostLayer) -> None:
    decay, drive = network.decay, ideal_drive(memory)
    x = np.zeros((len(host.m), memory.states))
    for step in range(host.m.shape[1]):
        entering = (host.channels(step)[:, :, None] * memory.scaled_input).reshape(x.shape)
        for _ in range(network.steps_per_presentation):
            x = decay * x + (1.0 - decay) * (drive(x) + entering)
        host.observe(step, x * memory.scales.reshape(-1))


class VirtualChip(VirtualDevice):
    """The virtual chip in the file of a network, with all that happened to it.

    Parameters
    ----------
    network : SpikingNetwork or SpikingGraph
    """

    name = "the chip of the network"

    def __init__(self, network: AnalogNetwork) -> None:
        super().__init__(network.device)
        self._populations: dict[str, Populations]
        if isinstance(network, SpikingGraph):
            own = ((each.name, each.populations) for each in network.ensembles)
            self._populations = {name: found for name, found in own if found is not None}
            return
        self._populations = {
            str(network.place(number, "memory")): memory.populations
            for number, memory in enumerate(network.memories)
            if memory is not None
        }

    def populations(self, block: Block) -> Populations:
        """Return the populations that the file holds for a place."""
        return self._populations[block.place]


METHOD = "dynamic"
_DRIVES = (-1.0, -0.5, 0.0, 0.5, 1.0)
_IMPERFECTIONS = ("mismatch", "tau_mismatch", "membrane_noise", "threshold_noise", "weight_bits")


class Chips:
    """Converts a float network for chips with fewer imperfections, each once.

    Parameters
    ----------
    network : SpikingNetwork
        Network whose conversion settings are used.
    known : ndarray, shape (samples, steps, n_in)
        Calibration inputs. With those of `network`, its own calibration is reproduced.
    parts : Parts, optional
        Where calibrated chips and the errors of runs are kept.
    """

    def __init__(
        self, network: SpikingNetwork, known: np.ndarray, parts: Parts | None = None
    ) -> None:
        self.network, self._known, self.parts = network, known, parts
        self._made: dict[tuple[float, ...], SpikingNetwork] = {}

    def add(self, network: SpikingNetwork) -> None:
        """Add a network that was calibrated with the inputs of this one, so that it is not again.

        Parameters
        ----------
        network : SpikingNetwork
            One that :func:`converters.spiking.spike` made with the default method.
        """
        self._made[_imperfections(network)] = replace(network, units=None)

    def of(self, network: SpikingNetwork) -> Chips:
        """Return the chips of another network; equal settings share the converted chips.

        Parameters
        ----------
        network : SpikingNetwork
            For example the same network without calibration.
        """
        others = Chips(network, self._known, self.parts)
        same = fingerprint(network.host) == fingerprint(self.network.host)
        if same and others._settings() == self._settings():
            others._made = self._made
        return others

    def another(self, number: int) -> Chips:
        """Return the chips of the same settings with mismatch and tuning curves of their own.

        Parameters
        ----------
        number : int
            Added to the seeds.
        """
        network = self.network
        calibration = replace(network.calibration, seed=network.calibration.seed + number)
        device = replace(network.device, seed=network.device.seed + number)
        other = replace(network, calibration=calibration, device=device)
        return Chips(other, self._known, self.parts)

    def like(self, network: SpikingNetwork) -> SpikingNetwork:
        """Return what `spike` makes of a network, with its method and units, on these chips.

        Parameters
        ----------
        network : SpikingNetwork
        """
        units, options = network.units, dict[str, Any]()
        if units is None and network.calibration.method == METHOD:
            return self.fresh()
        if units is not None:
            options = {"units": "chip", "neurons_per_unit": units.populations.neurons}
            options["readout_tau_ms"] = units.tau_ms
        return self._spiked(self._settings() | options, network.calibration.method)

    def calibrated(
        self, *, mismatch: bool = False, noise: bool = False, bits: bool = False
    ) -> SpikingNetwork:
        """Return the network on a chip with selected imperfections of the device, calibrated."""
        device = self.network.device
        found = (
            device.mismatch if mismatch else 0.0,
            device.tau_mismatch if mismatch else 0.0,
            device.membrane_noise if noise else 0.0,
            device.threshold_noise if noise else 0.0,
            device.weight_bits if bits else 0,
        )
        if found not in self._made:
            imperfections = dict(zip(_IMPERFECTIONS, found, strict=True))
            self._made[found] = self._spiked(self._settings() | imperfections)
        return self._made[found]

    def _spiked(self, settings: dict[str, Any], method: str = METHOD) -> SpikingNetwork:
        """Calibrate a virtual chip, unless it has been kept."""
        host = self.network.host

        def make() -> SpikingNetwork:
            made = spike(host, self._known, calibration=method, **settings)
            assert isinstance(made, SpikingNetwork)  # of a chain of layers
            return made

        if self.parts is None:
            return make()
        what = ("chip", fingerprint(host), self._known, settings | {"calibration": method})
        found = self.parts.network(make, *what)
        assert isinstance(found, SpikingNetwork)
        return found

    def fresh(self) -> SpikingNetwork:
        """Return the network on its chip as it was made, with all imperfections, calibrated."""
        return self.calibrated(mismatch=True, noise=True, bits=True)

    def recalibrated(
        self, network: SpikingNetwork, device: NeuronDevice | None = None
    ) -> SpikingNetwork:
        """Return a network on the very chip that it ran on, calibrated again.

        Parameters
        ----------
        network : SpikingNetwork
            Its populations may be damaged, or have drifted.
        device : NeuronDevice, optional
            By default the virtual chip in the file of the network.
        """
        own = VirtualChip(network) if device is None else device
        settings = self._settings()
        made = spike(self.network.host, self._known, calibration=METHOD, device=own, **settings)
        assert isinstance(made, SpikingNetwork)  # of a chain of layers
        memories = tuple(
            None if found is None or old is None else replace(found, populations=old.populations)
            for found, old in zip(made.memories, network.memories, strict=True)
        )
        return replace(made, memories=memories, device=network.device)

    def examined(
        self, network: SpikingNetwork, device: NeuronDevice | None = None
    ) -> dict[int, Health]:
        """Return the health of the populations of each layer with a memory, by a short test."""
        board = VirtualChip(network) if device is None else device
        found = {}
        for number, memory in enumerate(network.memories):
            if memory is not None:
                block = block_of(network, number, "memory", memory.populations)
                chip = Chip(
                    memory.populations,
                    network.neuron,
                    network.device,
                    network.dt_ms,
                    network.tau_ms,
                    memory.order,
                    board,
                    block.place,
                    position=block.position,
                )
                seed = [network.calibration.seed, number]
                found[number] = examine(chip, seed, _DRIVES, repeats=6, windows=4)
        return found

    def _settings(self) -> dict[str, Any]:
        """Return the conversion settings, without the method of calibration."""
        network, device = self.network, self.network.device
        memory = next(memory for memory in network.memories if memory is not None)
        return {
            "profile": device.profile,
            "neurons_per_state": memory.populations.neurons,
            "presentation_ms": network.presentation_ms,
            "tau_ms": network.tau_ms,
            "dt_ms": network.dt_ms,
            "neuron": network.neuron.kind,
            "mismatch": device.mismatch,
            "membrane_noise": device.membrane_noise,
            "threshold_noise": device.threshold_noise,
            "tau_mismatch": device.tau_mismatch,
            "weight_bits": device.weight_bits,
            "maximum_rates": network.maximum_rates,
            "calibration_samples": max(1, network.calibration.samples),
            "seed": network.calibration.seed,
            "chip_seed": device.seed,
            "units": "host",  # units are added last, on the memory of the network itself
        }


def _imperfections(network: SpikingNetwork) -> tuple[float, ...]:
    return tuple(getattr(network.device, name) for name in _IMPERFECTIONS)


def same_populations(network: SpikingNetwork, other: SpikingNetwork) -> bool:
    """Return whether the neurons of all memories of two networks are the same."""
    return all(
        (one is None and two is None)
        or (
            one is not None
            and two is not None
            and fingerprint(one.populations) == fingerprint(two.populations)
        )
        for one, two in zip(network.memories, other.memories, strict=True)
    )


def with_populations(
    network: SpikingNetwork, other: SpikingNetwork, layer: int, state: int
) -> SpikingNetwork:
    """Return the network with one population of another chip in place of its own."""
    own, given = network.memories[layer], other.memories[layer]
    assert own is not None and given is not None
    changed = {}
    for name, default in ABSENT.items():
        mine, theirs = (getattr(m.populations, name) for m in (own, given))
        if mine is not None or theirs is not None:
            plain = np.full(own.populations.encoders.shape, default)
            changed[name] = (plain if mine is None else mine).copy()
            changed[name][state] = (plain if theirs is None else theirs)[state]
    memories = list(network.memories)
    memories[layer] = replace(own, populations=replace(own.populations, **changed))
    return replace(network, memories=tuple(memories))


def same_chip(network: SpikingNetwork, other: SpikingNetwork) -> bool:
    """Return whether two networks compute the same: neurons, weights, time constants and noise."""
    plain = [
        fingerprint(replace(each, calibration=network.calibration)) for each in (network, other)
    ]
    return plain[0] == plain[1]
