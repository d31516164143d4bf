"""Engines of the integer simulator: their interface, and the choice of one for a network.

An engine stores integers in its arrays and implements the few operations of the
specification. There are three: NumPy in float64, for every network; PyTorch with exact products of
int8 or float32 and sums of int32, several times faster; and Numba, which compiles everything
between these products. All produce the same integers.

The bounds prove from weights and widths that an engine represents every value of a network exactly.
The sum of a slice is at most its row's weights in magnitude times the largest message. In float64,
each sum times its multiplier must be below 2^52 (a half is added before the floor). In int32, so
must the total drive of a population with its bias and state, and differences of messages where
changes are sent. A series is computed in int64, which holds the sum of 4,096 messages of 32 bits
times 15 bits.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np

from lmu_deploy.core.errors import InputError, MissingDependencyError
from lmu_deploy.core.integer.graph import edges, sources
from lmu_deploy.core.integer.memories import Integrators, Series
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.parts import Connection, Edge, Format, Place, largest
from lmu_deploy.core.integer.populations import Pointwise
from lmu_deploy.core.validation import check_choice
from targets.integer.numpy_engine import NumpyEngine, SeriesStep
from targets.integer.operands import Drive

FLOAT64_LIMIT = 2**52
INT32_LIMIT = 2**31 - 1
_ROUNDING_OF_DIGITS = 2**11
"""Most that is added to a message before it is split into digits."""


def worst_sums(edge: Edge, limit: int) -> np.ndarray:
    """Return the largest magnitude of each sum before saturation, shape (slices, n_out), int64."""
    weights = np.abs(edge.connection.slices.astype(np.int64)).sum(axis=2)
    return np.asarray(weights * limit)


def float64_objections(network: IntegerNetwork) -> list[str]:
    """Return the sums that float64 cannot represent exactly, as sentences."""
    found = []
    for edge, sums in _sums(network):
        worst = int((sums * edge.connection.multiplier).max(initial=0))
        if worst >= FLOAT64_LIMIT:
            found.append(f"sums of {edge.place} need {worst.bit_length()} bits, float64 holds 53")
    return found


def int32_objections(network: IntegerNetwork) -> list[str]:
    """Return the values that int32 cannot represent, as sentences."""
    found = []
    limits = {place: source.message.limit for place, source in sources(network).items()}
    inflow: dict[Place, int] = defaultdict(int)
    for edge, sums in _sums(network):
        connection = edge.connection
        limited = np.minimum(sums, largest(connection.accumulator_bits))
        half = (np.int64(1) << connection.shift.astype(np.int64)) >> 1
        products = limited * connection.multiplier + half
        worst = int(max(sums.max(initial=0), products.max(initial=0)))
        if worst > INT32_LIMIT:
            found.append(f"sums of {edge.place} need {worst.bit_length() + 1} bits, int32 has 32")
        if limits[edge.source] > INT32_LIMIT - _ROUNDING_OF_DIGITS:
            found.append(
                f"messages on {edge.place} of 32 bits cannot be split into digits in int32"
            )
        change = 2 * limits[edge.source]
        if connection.threshold and change > INT32_LIMIT:
            found.append(
                f"changes on {edge.place} need {change.bit_length() + 1} bits, int32 has 32"
            )
        inflow[edge.target] += int((products >> connection.shift).sum(axis=0).max(initial=0)) + 1
    own: dict[Place, int] = {}
    for population in network.on_chip:
        own[population.entrance] = largest(24)
        if isinstance(population, Integrators):
            rounding = (1 << population.message_shift) >> 1
            own[population.place] += population.state.limit + rounding
    for target, worst in inflow.items():
        if worst + own[target] > INT32_LIMIT:
            bits = (worst + own[target]).bit_length() + 1
            found.append(f"values of {target} need {bits} bits, int32 has 32")
    return found


def _sums(network: IntegerNetwork) -> list[tuple[Edge, np.ndarray]]:
    """Return the largest sums of every edge, except those inside the update of a series."""
    limits = {place: source.message.limit for place, source in sources(network).items()}
    return [(edge, worst_sums(edge, limits[edge.source])) for edge in network.edges]


ENGINES = ("auto", "numpy", "torch", "numba")

_NEEDS = {"torch": [("torch", "train")], "numba": [("torch", "fast"), ("numba", "fast")]}
"""Libraries of each engine, and the extras that install them."""

_WORTH_IMPORTING_TORCH = 5e10
"""Products of weights and messages above which torch saves more time than its import takes."""

_WORTH_COMPILING = 3e11
"""Products above which Numba saves more time than its import and loading take."""

_PRODUCTS_OF_A_TERM = 1000
"""Products that take as long as one entry of a term of a series in NumPy."""


class Sender(Protocol):
    """Event counter of an outlet."""

    def tally(self, sent: Any) -> tuple[np.ndarray, int]:
        """Count nonzero entries of each sample, and the synapses that all of them meet."""


class Fan(Protocol):
    """Synapses of an outlet."""

    def deliver(self, messages: Any) -> Mapping[str, Drive]:
        """Return each connection's drive, by place; the next call may overwrite them."""


class Activation(Protocol):
    """H = f(z)."""

    def __call__(self, z: Any) -> tuple[Any, int]:
        """Return H, shape (batch, units), and the number of saturated entries."""


class Engine(Protocol):
    """Arrays of integers and the operations on them."""

    name: str

    @property
    def threads(self) -> int:
        """Number of parts of a test set that run in parallel."""

    def pool(self, threads: int) -> AbstractContextManager[Executor]:
        """Return an executor for these parts."""

    def zeros(self, batch: int, width: int) -> Any:
        """Build an array of zeros."""

    def array(self, values: np.ndarray) -> Any:
        """Convert integers of NumPy."""

    def numpy(self, values: Any) -> np.ndarray:
        """Return integers as NumPy."""

    def copy(self, values: Any) -> Any:
        """Copy an array."""

    def encode(self, x: np.ndarray, message: Format) -> tuple[Any, int]:
        """Encode real inputs as messages; return them and the number of saturations."""

    def saturate(self, values: Any, limit: int) -> int:
        """Limit values to +-limit in place; return the number of saturations."""

    def emit(self, m: Any, limit: int, shift: int, message_limit: int) -> tuple[Any, int, int]:
        """Limit states in place; return their messages and the saturations of both.

        The messages are ms(m, 1, shift), limited as well, in a new array.
        """

    def suppress(self, values: Any, threshold: int) -> None:
        """Set values of magnitude below a threshold to zero, in place."""

    def fan(self, connections: Mapping[str, Connection], limit: int) -> Fan:
        """Build the synapses of an outlet for messages of at most `limit` in magnitude."""

    def sender(self, fan_out: np.ndarray) -> Sender:
        """Build an event counter; `fan_out` is the number of synapses of each neuron."""

    def activation(self, hidden: Pointwise) -> Activation:
        """Build the function of a pointwise population."""

    def series(self, series: Series) -> SeriesStep:
        """Build the step of a series, on integers of NumPy."""

    def series_sender(self, series: Series) -> Sender:
        """Build the event counter of a series' messages to itself."""

    def room(self, *shape: int) -> Any:
        """Return an array to be filled."""

    def side_by_side(self, signals: list[Any]) -> Any:
        """Concatenate arrays along their last axis."""


def choose_engine(network: IntegerNetwork, name: str = "auto", sample_steps: int = 0) -> Engine:
    """Return the engine called `name`, or for ``auto`` the fastest one.

    Parameters
    ----------
    network : IntegerNetwork
    name : {"auto", "numpy", "torch", "numba"}
    sample_steps : int
        Number of samples times steps to run.

    Raises
    ------
    InputError
        When the engine cannot represent the network's values exactly.
    MissingDependencyError
        When a library of the engine is absent.
    """
    check_choice("engine", name, ENGINES)
    if name == "auto":
        name = _fastest(network, sample_steps)
    if name == "numpy":
        if objections := float64_objections(network):
            raise InputError(f"engine numpy cannot run this network: {'; '.join(objections)}.")
        return NumpyEngine()
    for library, extra in _NEEDS[name]:
        if find_spec(library) is None:
            raise MissingDependencyError(
                f"engine {name} needs {library}: pip install 'lmu-deploy[{extra}]'."
            )
    if objections := int32_objections(network):
        raise InputError(f"engine {name} cannot run this network: {'; '.join(objections)}.")
    if name == "torch":
        from targets.integer.torch_engine import TorchEngine

        return TorchEngine()
    from targets.integer.numba_engine import CompiledEngine

    return CompiledEngine()


def _fastest(network: IntegerNetwork, sample_steps: int) -> str:
    """Return the name of the fastest installed engine, including the time of its import."""
    if find_spec("torch") is None or int32_objections(network):
        return "numpy"
    work = sum(edge.connection.slices.size for edge in edges(network)) * sample_steps
    terms = sum(p.size * p.applications for p in network.on_chip if isinstance(p, Series))
    to_compile = work + _PRODUCTS_OF_A_TERM * terms * sample_steps
    loaded = "targets.integer.numba_kernels" in sys.modules
    compiled = bool(find_spec("numba")) and (loaded or to_compile >= _WORTH_COMPILING)
    if not compiled and "torch" not in sys.modules and work < _WORTH_IMPORTING_TORCH:
        return "numpy"
    return "numba" if compiled else "torch"
