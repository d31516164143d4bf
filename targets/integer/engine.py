"""What the machine asks of an array library, and which one runs a network.

An engine holds integers in arrays of its own and does the few operations of the specification on
them. There are three: NumPy in float64, which every network can use; PyTorch in products of int8
and sums of int32, several times faster, where bounds.py proves that int32 is enough; and the same
products with everything between them compiled by Numba, faster again. All give the same integers.

Proofs that an engine's numbers hold every value of a network exactly, from weights and widths.

A sum of a slice is at most its row's weights in magnitude times the largest message. An engine in
float64 needs each of them, times its multiplier, below 2^52 (a half is added before the floor). One
in int32 also adds up in int32 all that reaches a population, its bias and its state, and takes
differences of messages where changes are sent. A series is computed in int64 (series.py), which
holds the sum of 4,096 messages of 32 bits times 15 bits.
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
from lmu_deploy.core.integer.graph import Edge, edges, populations
from lmu_deploy.core.integer.layers import IntegerHidden, SeriesMemory
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.parts import Connection, Format, largest
from lmu_deploy.core.validation import check_choice
from targets.integer.numpy_engine import Advance, NumpyEngine
from targets.integer.operands import Drive

FLOAT64_LIMIT = 2**52
INT32_LIMIT = 2**31 - 1
_ROUNDING_OF_DIGITS = 64
"""What is added to a message before it is cut into digits of base 128."""


def worst_sums(edge: Edge, limit: int) -> np.ndarray:
    """Largest magnitude of each sum before it saturates; shape (slices, n_out), int64."""
    weights = np.abs(edge.connection.slices.astype(np.int64)).sum(axis=2)
    return np.asarray(weights * limit)


def float64_objections(network: IntegerNetwork) -> list[str]:
    """Say which sums float64 could not hold exactly; empty when it holds all."""
    found = []
    for edge, sums in _sums(network):
        worst = int((sums * edge.connection.multiplier).max(initial=0))
        if worst >= FLOAT64_LIMIT:
            found.append(f"sums of {edge.place} need {worst.bit_length()} bits, float64 holds 53")
    return found


def int32_objections(network: IntegerNetwork) -> list[str]:
    """Say which values int32 could not hold; empty when it holds all."""
    found = []
    limits = {name: p.message.limit for name, p in populations(network).items()}
    inflow: dict[str, int] = defaultdict(int)
    for edge, sums in _sums(network):
        connection = edge.connection
        limited = np.minimum(sums, largest(connection.accumulator_bits))
        half = (np.int64(1) << connection.shift.astype(np.int64)) >> 1
        products = limited * connection.multiplier + half
        worst = int(max(sums.max(initial=0), products.max(initial=0)))
        if worst > INT32_LIMIT:
            found.append(f"sums of {edge.place} need {worst.bit_length() + 1} bits, int32 has 32")
        if limits[edge.source] > INT32_LIMIT - _ROUNDING_OF_DIGITS:
            found.append(f"messages on {edge.place} of 32 bits cannot be cut into digits in int32")
        change = 2 * limits[edge.source]
        if connection.threshold and change > INT32_LIMIT:
            found.append(
                f"changes on {edge.place} need {change.bit_length() + 1} bits, int32 has 32"
            )
        inflow[edge.target] += int((products >> connection.shift).sum(axis=0).max(initial=0)) + 1
    own = {"readout": largest(24)}
    for number, layer in network.on_chip:
        rounding = (1 << layer.memory.message_shift) >> 1
        own[f"layer{number}/memory"] = layer.memory.state.limit + largest(24) + rounding
        own[f"layer{number}/series"] = largest(24)
        if layer.hidden is not None:
            own[f"layer{number}/hidden"] = largest(24)
    for target, worst in inflow.items():
        if worst + own[target] > INT32_LIMIT:
            bits = (worst + own[target]).bit_length() + 1
            found.append(f"values of {target} need {bits} bits, int32 has 32")
    return found


def _sums(network: IntegerNetwork) -> list[tuple[Edge, np.ndarray]]:
    limits = {name: p.message.limit for name, p in populations(network).items()}
    return [
        (edge, worst_sums(edge, limits[edge.source]))
        for edge in edges(network)
        if not edge.source.endswith("/series")
    ]


ENGINES = ("auto", "numpy", "torch", "numba")

_NEEDS = {"torch": [("torch", "train")], "numba": [("torch", "fast"), ("numba", "fast")]}
"""Libraries of each engine, and the extras that bring them."""

_WORTH_IMPORTING_TORCH = 5e10
"""Products of weights and messages in a run above which torch saves more than its import takes."""

_WORTH_COMPILING = 3e11
"""Above which Numba saves more than its import and the loading of compiled code take."""

_PRODUCTS_OF_A_TERM = 1000
"""Products that take as long as NumPy takes for an entry of a term of a series."""


class Sender(Protocol):
    """What counts the events of an outlet."""

    def tally(self, sent: Any) -> tuple[np.ndarray, int]:
        """Count nonzero entries of each sample, and the synapses that all of them meet."""


class Fan(Protocol):
    """The synapses of an outlet."""

    def deliver(self, messages: Any) -> Mapping[str, Drive]:
        """Give each connection's drive, by place; the next call may write over them."""


class Activation(Protocol):
    """H = f(z)."""

    def __call__(self, z: Any) -> tuple[Any, int]:
        """Give H, (batch, units), and how many of its entries the message's width limited."""


class SeriesStep(Sender, Protocol):
    """A series memory, which also counts its own events."""

    def advance(self, m: np.ndarray, message: np.ndarray, drive: np.ndarray) -> Advance:
        """Advance by one sample step; NumPy arrays, (batch, states)."""


class Engine(Protocol):
    """Arrays of integers and the operations on them."""

    name: str

    @property
    def threads(self) -> int:
        """How many parts of a test set are to run at the same time."""

    def pool(self, threads: int) -> AbstractContextManager[Executor]:
        """Give threads for them."""

    def zeros(self, batch: int, width: int) -> Any:
        """Make an array of zeros."""

    def array(self, values: np.ndarray) -> Any:
        """Take integers over from NumPy."""

    def numpy(self, values: Any) -> np.ndarray:
        """Give integers as NumPy."""

    def copy(self, values: Any) -> Any:
        """Copy an array."""

    def encode(self, x: np.ndarray, message: Format) -> tuple[Any, int]:
        """Give input messages for real inputs, and how many were limited."""

    def saturate(self, values: Any, limit: int) -> int:
        """Limit values to +-limit in place; give how many that changed."""

    def emit(self, m: Any, limit: int, shift: int, message_limit: int) -> tuple[Any, int, int]:
        """Limit states in place, give their messages, and how many of each that changed.

        The messages are ms(m, 1, shift), limited too, in a new array.
        """

    def silence(self, values: Any, threshold: int) -> None:
        """Set values of magnitude below a threshold to zero, in place."""

    def fan(self, connections: Mapping[str, Connection], limit: int) -> Fan:
        """Make synapses ready for messages of at most `limit` in magnitude."""

    def sender(self, fan_out: np.ndarray) -> Sender:
        """Make ready to count events; `fan_out` is the synapses that one of each neuron meets."""

    def activation(self, hidden: IntegerHidden) -> Activation:
        """Make an activation ready."""

    def series(self, memory: SeriesMemory) -> SeriesStep:
        """Make a series memory ready."""


def choose_engine(network: IntegerNetwork, name: str = "auto", sample_steps: int = 0) -> Engine:
    """Give the engine called `name`, or for ``auto`` the one that is done first.

    Parameters
    ----------
    network : IntegerNetwork
    name : {"auto", "numpy", "torch", "numba"}
    sample_steps : int
        How many steps of how many samples will be run.

    Raises
    ------
    InputError
        When the engine cannot hold the network's values exactly.
    MissingDependencyError
        When a library of the engine is absent.
    """
    check_choice("engine", name, ENGINES)
    if name == "auto":
        name = _soonest_done(network, sample_steps)
    if name == "numpy":
        if objections := float64_objections(network):
            raise InputError(f"engine numpy cannot run this network: {'; '.join(objections)}.")
        return NumpyEngine()
    for library, extra in _NEEDS[name]:
        if find_spec(library) is None:
            raise MissingDependencyError(
                f"engine {name} needs {library}: pip install 'lmu-deploy[{extra}]'."
            )
    from targets.integer.torch_engine import products_are_exact

    if objections := int32_objections(network):
        raise InputError(f"engine {name} cannot run this network: {'; '.join(objections)}.")
    if not products_are_exact():
        raise InputError(f"engine {name}: this processor rounds int8 products; use engine numpy.")
    if name == "torch":
        from targets.integer.torch_engine import TorchEngine

        return TorchEngine()
    from targets.integer.numba_engine import CompiledEngine

    return CompiledEngine()


def _soonest_done(network: IntegerNetwork, sample_steps: int) -> str:
    """Name the engine that saves more time than its import takes, of those that can be had."""
    if find_spec("torch") is None or int32_objections(network):
        return "numpy"
    work = sum(edge.connection.slices.size for edge in edges(network)) * sample_steps
    memories = [layer.memory for _, layer in network.on_chip]
    terms = sum(m.size * m.applications for m in memories if isinstance(m, SeriesMemory))
    to_compile = work + _PRODUCTS_OF_A_TERM * terms * sample_steps
    loaded = "targets.integer.numba_kernels" in sys.modules
    compiled = bool(find_spec("numba")) and (loaded or to_compile >= _WORTH_COMPILING)
    if not compiled and "torch" not in sys.modules and work < _WORTH_IMPORTING_TORCH:
        return "numpy"
    from targets.integer.torch_engine import products_are_exact

    if not products_are_exact():
        return "numpy"
    return "numba" if compiled else "torch"
