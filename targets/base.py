"""What every target is: a name, what it can run, and `run`, which gives a Run.

Targets register by the entry-point group ``lmu_deploy.targets``; a name leads to a class whose
module is imported only when the target is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.plugins import make_plugin, plugin_names
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.representation import Part

GROUP = "lmu_deploy.targets"


@dataclass(frozen=True, eq=False, repr=False)
class States(Part):
    """States of every step, as the target holds them: integers for integer targets.

    Attributes
    ----------
    m : ndarray, shape (samples, steps, states)
        Memory of all layers, one layer after the other; for spiking targets the decoded state.
    h : ndarray, shape (samples, steps, units)
        Hidden units of all layers, likewise.
    y : ndarray, shape (samples, steps, n_out)
    m_scale, h_scale : ndarray, shape (states,) and (units,)
        Real value of one unit; see `real_m` for what is comparable with the reference.
    y_scale : float
    m_basis : ndarray, shape (the reference's states, states), or None
        Real coordinates in which a target holds its memory; None when they are the reference's.
    h_on_host : ndarray, shape (units,), bool, or None
        Of a network in integers with layers on the host, the columns of h that are theirs and so
        hold real numbers, whole numbers being in the others; None where all are alike.
    """

    m: np.ndarray
    h: np.ndarray
    y: np.ndarray
    m_scale: np.ndarray
    h_scale: np.ndarray
    y_scale: float = 1.0
    m_basis: np.ndarray | None = None
    h_on_host: np.ndarray | None = None

    def real_m(self, samples: slice = slice(None)) -> np.ndarray:
        """Memory of some samples in the reference's coordinates and in real numbers."""
        values = self.m[samples] * self.m_scale
        return values if self.m_basis is None else values @ self.m_basis.T


@dataclass(frozen=True, eq=False, repr=False)
class Run(Part):
    """What a target did with a set of inputs.

    Attributes
    ----------
    target : str
    outputs : ndarray, shape (samples, n_out), or (samples, steps, n_out) for sequence networks
        Real numbers (integers times their scale).
    neurons : mapping of population to its number of neurons
    events : mapping of population to ndarray, shape (samples, steps), int64
        Messages or spikes sent, counted where they are sent. A graded message of zero is not sent.
    synops : int
        Synaptic operations of all samples: each event times the synapses it meets.
    saturations : mapping of place to int
        How often a value was limited there; all samples. On analog chips nothing is limited: how
        often a state was beyond what calibration covers.
    steps : int
        Steps of one sample, as the task counts them.
    chip_steps : int
        Time steps that the target took for one sample.
    wall_seconds : float
    seed : int
    states : States or None
        Given when recording was asked for.
    rasters : mapping of population to ndarray, shape (chip_steps, neurons), uint8
        Events of sample 0, for plots; may be empty.
    carried : mapping of connection to int
        Events that each connection carried, all samples; empty where that is not counted.
    notes : tuple of str
        What a reader of the results has to know, such as which part ran on the host.
    settings : mapping of str to JSON values
        How the target was set up: mismatch, calibration, provider, versions.
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
    carried: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Target(Protocol):
    """Something that runs one of the representations."""

    name: str
    accepts: tuple[type, ...]

    def unsupported(self, network: Any) -> list[str]:
        """Say why `network` cannot run here, all reasons at once; empty when it can."""

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
            On inputs of another shape or with NaN, no samples or no steps, or a network that it
            cannot run.
        RunError
            When the run itself failed.
        """


@runtime_checkable
class InParts(Protocol):
    """A target that can give a run part by part, as one that draws random numbers should.

    Which numbers a sample meets depends on all that were drawn before it. Whoever does not want to
    hold a whole run at once, and calls `run` with some samples at a time, gets others.
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
        """Give the runs of consecutive samples, which together are what `run` gives.

        Parameters
        ----------
        network, inputs, seed, progress
            As for :meth:`Target.run`; progress counts all samples.
        record : int
            States are needed of so many of the first samples; parts that begin before have them.
        """


def target_names() -> list[str]:
    """Names of all targets that are installed, sorted; nothing is imported."""
    return plugin_names(GROUP)


def get_target(name: str) -> Target:
    """Import and make the target called `name`.

    Raises
    ------
    InputError
        When there is none of that name (the valid names are listed).
    MissingDependencyError
        When its library is absent.
    """
    target: Target = make_plugin(GROUP, name, "target")
    return target


def check_supported(target: Target, network: Any) -> None:
    """Raise one InputError with every reason why `target` cannot run `network`."""
    if not isinstance(network, target.accepts):
        wanted = " or ".join(cls.__name__ for cls in target.accepts)
        raise InputError(
            f"target {target.name} runs {wanted}, and the file holds {type(network).__name__}; "
            f"{_CONVERT.get(wanted, 'convert it first')}."
        )
    if reasons := target.unsupported(network):
        raise InputError(f"target {target.name} cannot run this network: {'; '.join(reasons)}.")


_CONVERT = {
    "IntegerNetwork": "make one with lmu-deploy quantize",
    "SpikingNetwork": "make one with lmu-deploy spike",
    "LoihiNetwork": "make one with lmu-deploy spike --profile loihi1",
    "LMUNetwork": "give the float network that it was made from",
    "LMUNetwork or IntegerNetwork": "give the float network, or make one with lmu-deploy quantize",
}
