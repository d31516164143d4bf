"""Interface of targets: a name, the representations it runs, and `run`, which returns a Run.

Targets register in the entry-point group ``lmu_deploy.targets``. A name leads to a class whose
module is imported only when the target is requested. :class:`ByLength` runs sequences of different
lengths on any target.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.plugins import make_plugin, plugin_names
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.representation import Part
from lmu_deploy.core.validation import check_inputs, check_integer

if TYPE_CHECKING:
    from lmu_deploy.core.integer.network import IntegerNetwork
    from lmu_deploy.core.integer.parts import Place


GROUP = "lmu_deploy.targets"
LARGEST_RASTER = 50_000_000
"""Bytes of a population's raster above which it is not recorded."""
_MOST_COUNTED = 16


@dataclass(frozen=True, eq=False, repr=False)
class States(Part):
    """States of every step in the target's own numbers: integers for integer targets.

    Attributes
    ----------
    m : ndarray, shape (samples, steps, states)
        Memories of all layers in order; for spiking targets the decoded states.
    h : ndarray, shape (samples, steps, units)
        Hidden units of all layers in order.
    y : ndarray, shape (samples, steps, n_out)
    m_scale, h_scale : ndarray, shape (states,) and (units,)
        Real value of one unit; `real_m` is comparable with the reference.
    y_scale : float
    m_basis : ndarray, shape (the reference's states, states), or None
        Coordinates of the target's memory states; None when they are the reference's.
    h_on_host : ndarray, shape (units,), bool, or None
        For an integer network with nodes on the host, the columns of h that belong to these
        nodes and are real numbers; None for all other networks.
    parts : mapping of population to ndarray, shape (samples, frames, neurons)
        Of an integer network, the states of every population, which may have fewer frames than
        the input has steps. m and h join those with the most common number of frames.
    """

    m: np.ndarray
    h: np.ndarray
    y: np.ndarray
    m_scale: np.ndarray
    h_scale: np.ndarray
    y_scale: float = 1.0
    m_basis: np.ndarray | None = None
    h_on_host: np.ndarray | None = None
    parts: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of_reals(cls, m: np.ndarray, h: np.ndarray, y: np.ndarray) -> States:
        """Build states that are real numbers, with scales of one."""
        return cls(m, h, y, np.ones(m.shape[2]), np.ones(h.shape[2]))

    @classmethod
    def of_integers(cls, network: IntegerNetwork, parts: Mapping[Place, np.ndarray]) -> States:
        """Build the states of an integer network, with the scales of its formats.

        Parameters
        ----------
        network : IntegerNetwork
        parts : mapping of Place to ndarray, shape (samples, frames, neurons)
            Integers, or real numbers for nodes on the host.
        """
        from lmu_deploy.core.integer.graph import memory_basis  # which imports SciPy
        from lmu_deploy.core.integer.network import HostNodes

        frames = Counter(parts[p.place].shape[1] for p in (*network.memories, *network.units))
        common = frames.most_common(1)[0][0] if frames else 0
        memories = [p for p in network.memories if parts[p.place].shape[1] == common]
        units = [p for p in network.units if parts[p.place].shape[1] == common]
        y = parts[network.output]
        none = np.zeros((len(y), common, 0), np.int32)
        on_host = np.concatenate(
            [np.zeros(0, bool), *(np.full(p.size, isinstance(p, HostNodes)) for p in units)]
        )
        return cls(
            np.concatenate([none, *(parts[p.place] for p in memories)], axis=2),
            np.concatenate([none, *(parts[p.place] for p in units)], axis=2),
            y,
            np.concatenate([np.zeros(0), *(np.full(p.size, p.scale) for p in memories)]),
            np.concatenate([np.zeros(0), *(np.full(p.size, p.scale) for p in units)]),
            network.y_scale,
            memory_basis(network) if len(memories) == len(network.memories) else None,
            on_host if on_host.any() else None,
            {str(place): values for place, values in parts.items()},
        )

    def real_m(self, samples: slice = slice(None)) -> np.ndarray:
        """Return memory states as real numbers in the reference's coordinates."""
        values = self.m[samples] * self.m_scale
        return values if self.m_basis is None else values @ self.m_basis.T


@dataclass(frozen=True, eq=False, repr=False)
class Run(Part):
    """Outputs and measurements of a target for a set of inputs.

    Attributes
    ----------
    target : str
    outputs : ndarray, shape (samples, n_out), or (samples, steps, n_out) for sequence networks
        Real numbers (integers times their scale).
    neurons : mapping of population to its number of neurons
    events : mapping of population to ndarray, shape (samples, steps), int64
        Messages or spikes sent. A graded message of zero is not sent.
    synops : int
        Synaptic operations of all samples: each event times the synapses that receive it.
    saturations : mapping of place to int
        Number of saturated values, all samples. On analog chips, where nothing saturates, the
        number of states outside the range that the calibration covers.
    steps : int
        Task steps of one sample.
    chip_steps : int
        Time steps of the target for one sample.
    wall_seconds : float
    seed : int
    states : States or None
        Present when `record` was true.
    rasters : mapping of population to ndarray, shape (chip_steps, neurons), uint8
        Events of sample 0, for plots; may be empty.
    counts : mapping of population to ndarray, shape (first samples, steps, neurons), uint16
        Spikes of every neuron in every presentation; empty where they are not recorded.
    carried : mapping of connection to int
        Events on each connection, all samples; empty where they are not counted.
    notes : tuple of str
        Remarks for readers of the results, such as which part ran on the host.
    settings : mapping of str to JSON values
        Configuration of the target: mismatch, calibration, provider, versions.
    """

    target: str
    outputs: np.ndarray
    neurons: Mapping[str, int]
    events: Mapping[str, np.ndarray]
    synops: int
    saturations: Mapping[str, int]
    steps: int
    chip_steps: int
    wall_seconds: float
    seed: int
    states: States | None = None
    rasters: Mapping[str, np.ndarray] = field(default_factory=dict)
    counts: Mapping[str, np.ndarray] = field(default_factory=dict)
    carried: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


def samples_counted(steps: int, neurons: int) -> int:
    """Return of how many first samples the spikes of every neuron are counted."""
    return min(_MOST_COUNTED, LARGEST_RASTER // max(2 * steps * neurons, 1))


@runtime_checkable
class Target(Protocol):
    """A simulator or chip that runs one of the representations."""

    name: str
    accepts: tuple[type, ...]

    def unsupported(self, network: Any) -> list[str]:
        """Return all reasons why `network` cannot run here; empty when it can."""

    def run(
        self,
        network: Any,
        inputs: np.ndarray,
        *,
        record: bool = False,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Run:
        """Run `network` on inputs of shape (samples, steps, n_in).

        Raises
        ------
        InputError
            On inputs of another shape or with NaN, without samples or steps, or on a network that
            the target cannot run.
        RunError
            When the run failed.
        """


@runtime_checkable
class InParts(Protocol):
    """A target that can return a run in parts, for targets that draw random numbers.

    The random numbers of a sample depend on all samples before it. Calls of `run` with some of the
    samples at a time would therefore give other results.
    """

    def parts(
        self,
        network: Any,
        inputs: np.ndarray,
        *,
        record: int = 0,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Iterator[Run]:
        """Yield the runs of consecutive samples, which together equal the result of `run`.

        Parameters
        ----------
        network, inputs, seed, progress
            As for :meth:`Target.run`; progress counts all samples.
        record : int
            Number of first samples whose states are needed; parts that begin before have states.
        """


class InOnePart:
    """Base of targets that run all samples at once: the whole run is the only part."""

    def parts(
        self: Target,
        network: Any,
        inputs: np.ndarray,
        *,
        record: int = 0,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Iterator[Run]:
        """Yield the whole run; see :class:`InParts`."""
        yield self.run(network, inputs, record=record > 0, seed=seed, progress=progress)


@runtime_checkable
class Slow(Protocol):
    """A target that can take minutes for a test set, and estimates how long a run takes."""

    def estimated_seconds(self, network: Any, samples: int, steps: int) -> float:
        """Return about how many seconds a run takes on one core.

        The estimate is computed from sizes alone, with constants that were measured once, so that
        it is the same on every machine.
        """


@runtime_checkable
class InOwnProcess(Protocol):
    """A target whose work other processes do, so that this one can do something else meanwhile.

    Its `run` is called in a thread beside the runs of other targets. It calls `progress` now and
    then, and ends its processes when that raises an exception.
    """

    in_own_process: bool


def target_names() -> list[str]:
    """Return the names of all installed targets, sorted, without importing them."""
    return plugin_names(GROUP)


def get_target(name: str) -> Target:
    """Import and build the target called `name`.

    Raises
    ------
    InputError
        When there is no target of that name (the valid names are listed).
    MissingDependencyError
        When its library is absent.
    """
    target: Target = make_plugin(GROUP, name, "target")
    return target


def check_supported(target: Target, network: Any) -> None:
    """Raise an InputError with all reasons why `target` cannot run `network`."""
    if not isinstance(network, target.accepts):
        wanted = " or ".join(cls.__name__ for cls in target.accepts)
        raise InputError(
            f"target {target.name} runs {wanted}, and the file contains {type(network).__name__}; "
            f"{_CONVERT.get(wanted, 'convert it first')}."
        )
    if reasons := target.unsupported(network):
        raise InputError(f"target {target.name} cannot run this network: {'; '.join(reasons)}.")


def flat_frames(inputs: Any) -> np.ndarray:
    """Return inputs with the axes of every frame as one, shape (samples, steps, values)."""
    array = np.asarray(inputs)
    return array.reshape(*array.shape[:2], -1) if array.ndim > 3 else array


def checked_inputs(target: Target, network: Any, inputs: np.ndarray) -> np.ndarray:
    """Return inputs with flat frames, after checking them and that the target runs the network.

    Raises
    ------
    InputError
        See :meth:`Target.run`.
    """
    check_supported(target, network)
    return check_inputs(flat_frames(inputs), network.n_in)


def check_run(
    target: Target, network: Any, inputs: np.ndarray, seed: int
) -> tuple[np.ndarray, int]:
    """Return inputs as :func:`checked_inputs` does, and the seed, for a target that takes one."""
    inputs = checked_inputs(target, network, inputs)
    return inputs, check_integer("seed", seed, 0, 2**32 - 1)


def forms_of(target: Target) -> list[str]:
    """Return the forms of a network that a target runs, such as ``["float", "integer"]``.

    A target that was written for `LMUNetwork` runs float networks that are chains of layers.
    """
    from lmu_deploy.core.graph.network import Network  # which imports SciPy
    from lmu_deploy.core.loading import FORMS
    from lmu_deploy.core.network import LMUNetwork

    accepts = {Network if cls is LMUNetwork else cls for cls in target.accepts}
    return [name for name, cls in FORMS.items() if cls in accepts]


def taken_by(target: Target, network: Any) -> Any:
    """Return a network as a target takes it: a graph as layers, where it takes these alone.

    Raises
    ------
    InputError
        When the graph is no chain of layers.
    """
    from lmu_deploy.core.graph.network import Network  # which imports SciPy
    from lmu_deploy.core.graph.transforms import as_layers
    from lmu_deploy.core.network import LMUNetwork

    for_layers = LMUNetwork in target.accepts and Network not in target.accepts
    if for_layers and isinstance(network, Network):
        return as_layers(network, f"target {target.name}")
    return network


_CONVERT = {
    "IntegerNetwork": "make one with lmu-deploy quantize",
    "SpikingNetwork": "make one with lmu-deploy spike",
    "SpikingNetwork or SpikingGraph": "make one with lmu-deploy spike",
    "LoihiNetwork or LoihiGraph or SpikingGraph": "make one with lmu-deploy spike --profile "
    "loihi1, or a graph with lmu-deploy spike --units chip",
    "LoihiNetwork or LoihiGraph": "make one with lmu-deploy spike --profile loihi1",
    "Network": "give the float network that it was made from",
    "Network or IntegerNetwork": "give the float network, or make one with lmu-deploy quantize",
}


_PART_SAMPLES = 1000
_BY_STEP = ("m", "h", "y")


class ByLength:
    """A target for sequences of different lengths.

    Parameters
    ----------
    target : Target
    lengths : ndarray of int, shape (samples,)
        Steps of each sequence that count, of all samples that a run is given.
    """

    def __init__(self, target: Target, lengths: np.ndarray) -> None:
        self.target, self.lengths = target, lengths
        self.name, self.accepts = target.name, target.accepts

    def unsupported(self, network: Any) -> list[str]:
        """Return all reasons why the target cannot run `network`."""
        return self.target.unsupported(network)

    def run(
        self,
        network: Any,
        inputs: np.ndarray,
        *,
        record: bool = False,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Run:
        """Run all samples; parameters and result as of :meth:`targets.base.Target.run`."""
        return self._merged(network, inputs, np.arange(len(inputs)), record, seed, progress)

    def parts(
        self,
        network: Any,
        inputs: np.ndarray,
        *,
        record: int = 0,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Iterator[Run]:
        """Yield the runs of consecutive samples; see :class:`targets.base.InParts`."""
        starts = [0, *range(record or _PART_SAMPLES, len(inputs), _PART_SAMPLES)]
        for start, stop in zip(starts, [*starts[1:], len(inputs)], strict=True):
            rows = np.arange(start, min(stop, len(inputs)))
            yield self._merged(network, inputs, rows, start < record, seed, progress)

    def _merged(
        self,
        network: Any,
        inputs: np.ndarray,
        rows: np.ndarray,
        record: bool,
        seed: int,
        progress: Progress | None,
    ) -> Run:
        """Run samples of each length by themselves, and join the runs in the order of `rows`."""
        places, runs, done = [], [], int(rows[0])
        for length in np.unique(self.lengths[rows]):
            own = np.flatnonzero(self.lengths[rows] == length)
            before = done

            def shifted(now: int, _: int, before: int = before) -> None:
                if progress:
                    progress(before + now, len(inputs))

            runs.append(
                self.target.run(
                    network,
                    inputs[rows[own], :length],
                    record=record,
                    seed=int(np.random.SeedSequence((seed, done)).generate_state(1)[0]),
                    progress=shifted,
                )
            )
            places.append(own)
            done += len(own)
        return _joined(runs, places, inputs.shape[1], seed)


def _joined(runs: Sequence[Run], places: Sequence[np.ndarray], steps: int, seed: int) -> Run:
    """Return runs as one; values of each step are padded to `steps`."""
    first = next(run for run, own in zip(runs, places, strict=True) if 0 in own)
    every_step = first.outputs.ndim == 3
    given = {each.name: getattr(first, each.name) for each in fields(Run)}

    def scattered(values: Sequence[np.ndarray], by_step: bool) -> np.ndarray:
        frame = values[0].shape[1:]
        whole = np.zeros((sum(map(len, places)), *frame), values[0].dtype)
        if by_step:
            whole = np.zeros((len(whole), steps, *frame[1:]), values[0].dtype)
        for own, value in zip(places, values, strict=True):
            whole[(own, slice(value.shape[1])) if by_step else own] = value
        return whole

    recorded = [run.states for run in runs if run.states is not None]
    states: States | None = None
    if len(recorded) == len(runs):
        named: dict[str, Any] = {
            n: scattered([getattr(s, n) for s in recorded], True) for n in _BY_STEP
        }
        states = replace(recorded[0], **named)
    joined = {
        "outputs": scattered([run.outputs for run in runs], every_step),
        "events": {n: scattered([run.events[n] for run in runs], True) for n in first.events},
        "synops": sum(run.synops for run in runs),
        "saturations": _summed([run.saturations for run in runs]),
        "carried": _summed([run.carried for run in runs]),
        "counts": {},
        "steps": steps,
        "chip_steps": max(run.chip_steps for run in runs),
        "wall_seconds": sum(run.wall_seconds for run in runs),
        "seed": seed,
        "states": states,
        "notes": tuple(dict.fromkeys(note for run in runs for note in run.notes)),
    }
    return Run(**{**given, **joined})


def _summed(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(total)
