r"""Populations that are linear memories: integrators, and the Taylor series of a Legendre memory.

Integrators implement the identity in :math:`\bar A = I + (\bar A - I)` as their state and the rest
as connections, in the coordinates given by `basis`. A series applies the sign matrix of the
continuous-time memory, which is exact in any width, several times per step.
docs/reference/integer-semantics.md specifies both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.functions import Counts, rounded_shift, saturated
from lmu_deploy.core.integer.parts import (
    LARGEST_MULTIPLIER,
    LARGEST_SHIFT,
    Connection,
    Edge,
    Format,
    Place,
    check_bias,
    check_range,
    check_type,
    largest,
)
from lmu_deploy.core.integer.populations import Population
from lmu_deploy.core.options import INTEGRATORS, SERIES
from lmu_deploy.core.validation import check_array, check_choice, check_integer, set_fields


@dataclass(frozen=True, eq=False, repr=False)
class Integrators(Population):
    """Leak-free integrators that exchange graded messages: a linear memory.

    ``m = sat(m + D + b)`` and ``M = sat(ms(m, 1, message_shift))``.

    Attributes
    ----------
    place, size, message, bias
    state : Format
    message_shift : int
        0 to 31.
    realization : {"dense-incremental", "schur", "hessenberg", "fir"}
        Form from which the matrix was derived; it does not affect the operations.
    basis : ndarray, shape (Legendre states, size), or None
        ``basis @ (m * scale)`` is the memory of the float network; None means the identity.
    """

    place: Place
    size: int
    state: Format
    message: Format
    message_shift: int
    bias: np.ndarray | None = None
    realization: str = "dense-incremental"
    basis: np.ndarray | None = None
    stateless: ClassVar[bool] = False
    counted: ClassVar[tuple[str, ...]] = ("state", "message")

    def __post_init__(self) -> None:
        self.check()
        check_type(f"{self.place}", self.state, Format)
        if self.basis is not None:
            basis = check_array(f"{self.place} basis", self.basis, (None, self.size))
            set_fields(self, basis=basis)
        set_fields(
            self,
            message_shift=check_integer("message_shift", self.message_shift, 0, LARGEST_SHIFT),
            realization=check_choice("realization", self.realization, INTEGRATORS),
        )

    @property
    def stored(self) -> Format:
        """Format of the state."""
        return self.state

    def start(self, batch: int) -> np.ndarray:
        """Return states of zero."""
        return np.zeros((batch, self.size), np.int64)

    def update(self, state: Any, drive: np.ndarray) -> tuple[Any, np.ndarray, Counts]:
        """Integrate, and shift the state to a message."""
        counts: Counts = {}
        m = saturated(state + self.driven(drive), self.state.limit, "state", counts)
        message = rounded_shift(m, self.message_shift)
        return m, saturated(message, self.message.limit, "message", counts), counts

    def recorded(self, state: Any, messages: Any) -> Any:
        """Return the states."""
        return state

    @property
    def resumable(self) -> bool:
        """True: the states are all."""
        return True

    def resumed(self, recorded: np.ndarray) -> np.ndarray:
        """Return the states."""
        return recorded

    def only(self, neuron: int) -> Population:
        """Return one integrator, without the basis of all."""
        return super(Integrators, replace(self, basis=None)).only(neuron)

    def sent(self, recorded: np.ndarray) -> np.ndarray:
        """Return the shifted states."""
        return saturated(rounded_shift(recorded, self.message_shift), self.message.limit, "", {})

    @property
    def scale(self) -> float:
        """Real value of one unit of the state."""
        return self.state.scale


@dataclass(frozen=True, eq=False, repr=False)
class Series(Population):
    """A Legendre memory as a Taylor series of its continuous-time form, in substeps.

    docs/reference/integer-semantics.md has the equations. The messages between the terms are
    events of ``<node>/series``, those to other populations of ``<node>/memory``.

    Attributes
    ----------
    place, message, bias
    inner : Place
        Of the terms, at which edges enter.
    channels, order : int
    substeps : int
        1 to 1024.
    state : Format
        Format of m, of the terms w_k and of c.
    message_shift : int
        M is ``sat(ms(m, 1, message_shift))``.
    term_shift : ndarray, shape (terms - 1,), int32, 0 to 31
        V_k is ``sat(ms(w_k, 1, term_shift[k - 1]))``.
    multiplier : ndarray, shape (terms, order), int32, 1 to 32767
    shift : ndarray, shape (terms, order), int32, 0 to 31
        ``G_k(v) = ms(sat(S v), multiplier[k - 1], shift[k - 1])``, the same for each channel.
    accumulator_bits : int
        Width at which the sums S v saturate, 8 to 32.
    """

    place: Place
    inner: Place
    channels: int
    order: int
    substeps: int
    state: Format
    message: Format
    message_shift: int
    term_shift: np.ndarray
    multiplier: np.ndarray
    shift: np.ndarray
    bias: np.ndarray | None = None
    accumulator_bits: int = 24
    stateless: ClassVar[bool] = False
    independent: ClassVar[bool] = False

    def __post_init__(self) -> None:
        set_fields(
            self,
            channels=check_integer("memory channels", self.channels, 1, 65_536),
            order=check_integer("memory order", self.order, 1, 4096),
            substeps=check_integer("memory substeps", self.substeps, 1, 1024),
            message_shift=check_integer("message_shift", self.message_shift, 0, LARGEST_SHIFT),
            accumulator_bits=check_integer("accumulator_bits", self.accumulator_bits, 8, 32),
        )
        check_type("population", self.place, Place)
        check_type("series", self.inner, Place)
        check_type("memory", self.state, Format)
        check_type("memory", self.message, Format)
        set_fields(self, bias=check_bias("memory bias", self.bias, self.size))
        multiplier = check_array("memory multiplier", self.multiplier, (None, self.order), "i")
        shift = check_array("memory shift", self.shift, multiplier.shape, "i")
        terms = len(multiplier)
        if not 1 <= terms <= 16:
            raise InputError(f"a memory has a series of {terms} terms; give 1 to 16.")
        term_shift = check_array("memory term_shift", self.term_shift, (terms - 1,), "i")
        check_range("memory multiplier", multiplier, 1, LARGEST_MULTIPLIER)
        check_range("memory shift", shift, 0, LARGEST_SHIFT)
        check_range("memory term_shift", term_shift, 0, LARGEST_SHIFT)
        set_fields(
            self,
            multiplier=multiplier.astype(np.int32),
            shift=shift.astype(np.int32),
            term_shift=term_shift.astype(np.int32),
        )

    @property
    def size(self) -> int:  # type: ignore[override]
        """Number of states."""
        return self.channels * self.order

    @property
    def entrance(self) -> Place:
        """The terms."""
        return self.inner

    @property
    def terms(self) -> int:
        """Number of terms of the series."""
        return len(self.multiplier)

    @property
    def applications(self) -> int:
        """Number of applications of the sign matrix per step."""
        return self.substeps * self.terms

    @property
    def realization(self) -> str:
        """Name of this realization."""
        return SERIES

    @property
    def basis(self) -> None:
        """None: the states are those of the float network."""
        return None

    @property
    def inner_edges(self) -> tuple[Edge, ...]:
        """The sign matrix with the gains of the first term."""
        signs = np.kron(np.eye(self.channels, dtype=np.int8), sign_matrix(self.order))
        connection = Connection(
            signs[None],
            np.tile(self.multiplier[0], self.channels)[None],
            np.tile(self.shift[0], self.channels)[None],
            weight_bits=2,
            accumulator_bits=self.accumulator_bits,
        )
        return (Edge(self.inner, self.inner, "recurrent", connection),)

    @property
    def saturation_places(self) -> tuple[str, ...]:
        """Those of the state, its message, and what the terms compute."""
        own = (f"{self.place}/{name}" for name in ("state", "message"))
        return (*own, *(f"{self.inner}/{name}" for name in ("drive", "term", "message")))

    @property
    def scale(self) -> float:
        """Real value of one unit of the state."""
        return self.state.scale

    @property
    def stored(self) -> Format:
        """Format of the state."""
        return self.state

    def start(self, batch: int) -> Any:
        """Return states and messages of zero, and no events."""
        zeros = np.zeros((batch, self.size), np.int64)
        return zeros, zeros, zeros

    def recorded(self, state: Any, messages: Any) -> Any:
        """Return the states."""
        return state[0]

    @property
    def resumable(self) -> bool:
        """True: the message follows from the states."""
        return True

    def resumed(self, recorded: np.ndarray) -> Any:
        """Return the states, their messages, and no events."""
        return recorded, self.sent(recorded), np.zeros_like(recorded)

    def sent(self, recorded: np.ndarray) -> np.ndarray:
        """Return the shifted states."""
        return saturated(rounded_shift(recorded, self.message_shift), self.message.limit, "", {})

    def update(self, state: Any, drive: np.ndarray) -> tuple[Any, np.ndarray, Counts]:
        """Apply all terms of all substeps.

        The state is m, M, and how many messages each neuron sent to the series itself. Counts have
        whole places as keys.
        """
        m, vector, _ = state
        limits, term = self.state.limit, f"{self.inner}/term"
        counts: Counts = {}
        c = saturated(self.driven(drive), limits, f"{self.inner}/drive", counts)
        sent = np.zeros(m.shape, np.int64)
        for _ in range(self.substeps):
            sent += vector != 0
            w = saturated(c + self._apply(0, vector, counts), limits, term, counts)
            m = saturated(m + w, limits, f"{self.place}/state", counts)
            for k in range(1, self.terms):
                vector = rounded_shift(w, int(self.term_shift[k - 1]))
                place = f"{self.inner}/message"
                vector = saturated(vector, self.message.limit, place, counts)
                sent += vector != 0
                w = saturated(self._apply(k, vector, counts), limits, term, counts)
                m = saturated(m + w, limits, f"{self.place}/state", counts)
            vector = rounded_shift(m, self.message_shift)
            vector = saturated(vector, self.message.limit, f"{self.place}/message", counts)
        return (m, vector, sent), vector, counts

    def _apply(self, k: int, vector: np.ndarray, counts: Counts) -> np.ndarray:
        r"""Apply the matrix of signs and the gains G_k to every channel, by prefix sums.

        With :math:`S_{ij} = -1` above the diagonal and :math:`(-1)^{i-j+1}` on and below it,
        :math:`(S v)_i = -(\sum_{j>i} v_j + (-1)^i \sum_{j \le i} (-1)^j v_j)`: two running sums of
        O(order) instead of a product with a matrix of order squared.
        """
        signs = np.where(np.arange(self.order) % 2 == 0, 1, -1)
        v = vector.reshape(len(vector), self.channels, self.order)
        after = v.sum(axis=2, keepdims=True) - v.cumsum(axis=2)
        before = signs * (signs * v).cumsum(axis=2)
        place = f"{self.inner}/recurrent/slice0"
        sums = saturated(-(after + before), largest(self.accumulator_bits), place, counts)
        shift = self.shift[k].astype(np.int64)
        half = (np.int64(1) << shift) >> 1
        driven = (sums * self.multiplier[k].astype(np.int64) + half) >> shift
        return np.asarray(driven.reshape(vector.shape))


def sign_matrix(order: int) -> np.ndarray:
    """Return the signs S in ``theta A = diag(2i+1) @ S``; shape (order, order), int8."""
    i = np.arange(order)
    lower = np.where((i[:, None] - i[None, :]) % 2 == 0, -1, 1)
    return np.where(i[:, None] < i[None, :], -1, lower).astype(np.int8)
