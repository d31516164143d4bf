"""NumPy simulation of the ensembles of a spiking graph, and the values of its host, in batches.

The equations are those of :mod:`lmu_deploy.core.spiking.graph`. Calibration runs the part of a chip
that is calibrated already on it, in single precision; target `spiking` runs whole networks in
double precision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.spiking.device import Driven
from converters.spiking.neurons import NEURONS
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.network import INPUT, Network
from lmu_deploy.core.spiking.chip import Device, NeuronModel
from lmu_deploy.core.spiking.ensembles import ONE
from lmu_deploy.core.spiking.graph import Ensemble


@dataclass(frozen=True)
class Circuit:
    """What all ensembles of a chip share.

    Attributes
    ----------
    model : NeuronModel
    device : Device
        Noise; the mismatch is in the populations.
    dt_ms, tau_ms, fast_tau_ms : float
    """

    model: NeuronModel
    device: Device
    dt_ms: float
    tau_ms: float
    fast_tau_ms: float


def simulated(
    circuit: Circuit,
    ensembles: Sequence[Ensemble],
    samples: int,
    starts: Mapping[str, np.random.Generator],
    noise: Mapping[str, np.random.Generator],
    dtype: type[np.floating] = np.float32,
) -> dict[str, Driven]:
    """Return simulated neurons of all ensembles that have some.

    Parameters
    ----------
    circuit : Circuit
    ensembles : sequence of Ensemble
    samples : int
    starts, noise : mapping of ensemble to Generator
        Draw initial membranes, and noise and Poisson spikes.
    dtype : dtype
        Of membranes.
    """
    kind, found = NEURONS[circuit.model.kind], {}
    for each in ensembles:
        if each.populations is not None:
            rng = starts[each.name]
            neurons = kind(
                each.populations, circuit.model, circuit.device, circuit.dt_ms, samples, rng, dtype
            )
            neurons.rng = _generator(noise[each.name], dtype)
            found[each.name] = neurons
    return dict(found)


class GraphSimulator:
    """Ensembles and probes that run at the same time.

    Parameters
    ----------
    circuit : Circuit
    ensembles : sequence of Ensemble
        In the order of their connections; those without neurons are probes.
    neurons : mapping of ensemble to Driven
        Neurons of the others, which take scaled drives; and of ensembles that are not simulated,
        whose spikes are known and whose drives are not needed.
    samples : int
    dtype : dtype
        Of sums.
    slow : mapping of ensemble to ndarray, shape (steps, samples, size)
        The parts x of drives after every step, of those for which they are known.
    """

    def __init__(
        self,
        circuit: Circuit,
        ensembles: Sequence[Ensemble],
        neurons: Mapping[str, Driven],
        samples: int,
        dtype: type[np.floating] = np.float32,
        slow: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.ensembles, self._dtype = ensembles, dtype
        decays = [np.exp(-circuit.dt_ms / tau) for tau in (circuit.tau_ms, circuit.fast_tau_ms)]
        self._slow, self._fast = (dtype(decay) for decay in decays)
        self._neurons, hertz = neurons, 1.0 / (circuit.dt_ms * 1e-3)
        known = slow or {}
        self._parts = [
            _Drive(each, samples, hertz, dtype, known.get(each.name)) for each in ensembles
        ]
        own = [each.name for each in ensembles if each.populations is not None]
        self._known = [name for name in neurons if name not in own]

    def present(self, values: Mapping[str, np.ndarray]) -> None:
        """Set the currents of a presentation from values of shape (samples, features)."""
        for part in self._parts:
            part.present(values)

    def step(self) -> dict[str, np.ndarray]:
        """Advance by one step.

        Returns
        -------
        mapping of ensemble to ndarray, shape (samples, size, neurons), bool
            Spikes.
        """
        spikes = {name: self._neurons[name].step(_NOTHING) for name in self._known}
        for each, part in zip(self.ensembles, self._parts, strict=True):
            if each.populations is not None:
                spikes[each.name] = self._neurons[each.name].step(part.total)
        fired = {n: s.reshape(len(s), -1).astype(self._dtype) for n, s in spikes.items()}
        for part in self._parts:
            part.advance(fired, self._slow, self._fast)
        return spikes

    @property
    def drives(self) -> list[np.ndarray]:
        """Scaled drives x + r + i of all ensembles and probes, each of shape (samples, size)."""
        return [part.total for part in self._parts]


class _Single:
    """A generator of normal numbers in single precision, which takes half the time."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng, self.random = rng, rng.random

    def standard_normal(self, shape: tuple[int, ...]) -> np.ndarray:
        return self._rng.standard_normal(shape, dtype=np.float32)


def _generator(rng: np.random.Generator, dtype: type[np.floating]) -> Any:
    return _Single(rng) if dtype is np.float32 else rng


class _Drive:
    """Sums of spikes and currents of one ensemble."""

    def __init__(
        self,
        ensemble: Ensemble,
        samples: int,
        hertz: float,
        dtype: type[np.floating],
        slow: np.ndarray | None,
    ) -> None:
        self._ensemble, self._dtype = ensemble, dtype
        self._known = None if slow is None else iter(slow)
        shape = (samples, ensemble.size)
        self.x, self.r = np.zeros(shape, dtype), np.zeros(shape, dtype)
        self.entering, self.injected = np.zeros(shape, dtype), np.zeros(shape, dtype)
        self._effects = [
            (each, np.ascontiguousarray(each.weights.swapaxes(1, 2) * hertz, dtype=dtype))
            for each in ensemble.connections
            if each.fast or slow is None
        ]
        self._has_fast = any(each.fast for each in ensemble.connections)

    def present(self, values: Mapping[str, np.ndarray]) -> None:
        self.entering, self.injected = np.zeros_like(self.x), np.zeros_like(self.x)
        for current in self._ensemble.currents:
            # Each sample by itself, so that its last bits do not depend on the batch.
            given = (values[current.source][:, None, :] @ current.weights.T)[:, 0]
            target = self.injected if current.direct else self.entering
            target += given.astype(self._dtype)

    @property
    def total(self) -> np.ndarray:
        return self.x + self.r + self.injected if self._has_fast else self.x + self.injected

    def advance(
        self, fired: Mapping[str, np.ndarray], slow: np.floating, fast: np.floating
    ) -> None:
        push, fast_push = self.entering, np.zeros_like(self.r)
        for connection, effects in self._effects:
            found = _decoded(fired[connection.source], effects)
            if connection.fast:
                fast_push = fast_push + found
            else:
                push = push + found
        one = self._dtype(1.0)
        if self._known is None:
            self.x = slow * self.x + (one - slow) * push
        else:
            self.x = next(self._known)
        if self._has_fast:
            self.r = fast * self.r + (one - fast) * fast_push


def _decoded(fired: np.ndarray, effects: np.ndarray) -> np.ndarray:
    """Return the sums of spikes (samples, neurons) behind effects (blocks, columns, rows)."""
    blocks = len(effects)
    if blocks == 1:
        return np.asarray(fired @ effects[0])
    rows = fired.reshape(len(fired), blocks, -1).swapaxes(0, 1)
    return np.asarray((rows @ effects).swapaxes(0, 1).reshape(len(fired), -1))


_NOTHING = np.zeros((0, 0))


class HostValues:
    """Values that the host has of a batch; each sample is computed by itself.

    A product of a whole batch is summed in another order than that of a single sample, and spiking
    memories amplify a difference in the last bit.

    Parameters
    ----------
    host : Network
    inputs : ndarray, shape (samples, steps, n_in)
    """

    def __init__(self, host: Network, inputs: np.ndarray) -> None:
        self._host, samples = host, len(inputs)
        frames = np.asarray(inputs, np.float64).reshape(*inputs.shape[:2], *host.frame)
        self._values, self._samples = {INPUT: frames}, samples
        self._states: dict[str, Mapping[str, np.ndarray]] = {}

    def read(self, name: str, values: np.ndarray) -> None:
        """Store what a probe reads, shape (samples, steps, size)."""
        shape = (*values.shape[:2], *self._host.shapes[name].frame)
        self._values[name] = np.asarray(values, np.float64).reshape(shape)

    def __getitem__(self, name: str) -> np.ndarray:
        """Return the value of a node at every step, computed if it is not there yet.

        What answers once has its answer to the steps so far.
        """
        missing, wanted = [], [name]
        while wanted:
            if (one := wanted.pop()) not in self._values:
                missing.append(self._host[one])
                wanted += self._host[one].inputs
        order = {node.name: number for number, node in enumerate(self._host.nodes)}
        for node in sorted({n.name: n for n in missing}.values(), key=lambda n: order[n.name]):
            given = [self._values[each] for each in node.inputs]
            trace, rows = node.operator.trace, range(len(given[0]))
            alone = [trace(*(each[row : row + 1] for each in given)) for row in rows]
            self._values[node.name] = np.concatenate([value for value, _ in alone])
            self._states[node.name] = {
                part: np.concatenate([states[part] for _, states in alone]) for part in alone[0][1]
            }
        return self._values[name]

    def currents(
        self, ensembles: Sequence[Ensemble], count: int | None = None
    ) -> dict[str, np.ndarray]:
        """Return what the host sends to some ensembles, each (samples, presentations, features).

        Parameters
        ----------
        ensembles : sequence of Ensemble
        count : int, optional
            Presentations; needed only if the host sends at most a constant.

        Raises
        ------
        InputError
            When sources have different numbers of steps.
        """
        sources = {current.source for each in ensembles for current in each.currents}
        values = {name: self[name] for name in sorted(sources - {ONE})}
        steps = {value.shape[1] for value in values.values()}
        steps |= set() if count is None else {count}
        if len(steps) != 1:
            raise InputError(
                f"the nodes {', '.join(values)} send {' and '.join(map(str, sorted(steps)))} "
                "frames to the same neurons; they must have equally many."
            )
        (presentations,) = steps
        found = {n: v.reshape(self._samples, presentations, -1) for n, v in values.items()}
        if ONE in sources:
            found[ONE] = np.ones((self._samples, presentations, 1))
        return found

    def states(self, name: str) -> Mapping[str, np.ndarray]:
        """Return what a node that the host computed holds at every step, by part."""
        return self._states.get(name, {})
