r"""Linear forms: a signal of the float network as a sum over the messages of populations.

Everything between two populations is linear, so that a signal v is

.. math:: v_n = \sum_k M_k\, (s_{k,\, r n + o_1}, \ldots, s_{k,\, r n + o_p}) + b

where :math:`s_k` is the value of population k, r a stride and o the offsets of the frames that
are read. Dense layers, scales and offsets, sums, concatenations, reshapes and convolutions map
forms to forms, and only what is not linear makes a population.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from converters.quantize.connections import Source

_MOST_VALUES = 2**26
"""Values of a matrix between two populations."""


@dataclass(frozen=True)
class Term:
    """One population's share of a form.

    Attributes
    ----------
    source : Source
    matrix : ndarray, shape (n, offsets * features), or None
        None means the identity, for a single offset.
    offsets : tuple of int
    stride : int
    after : int
        Frames of zeros that follow the sequence of the source.
    """

    source: Source
    matrix: np.ndarray | None = None
    offsets: tuple[int, ...] = (0,)
    stride: int = 1
    after: int = 0

    @property
    def plain(self) -> bool:
        """Whether frame n reads frame n alone."""
        return self.offsets == (0,) and self.stride == 1 and not self.after

    @property
    def dense(self) -> np.ndarray:
        """The matrix, written out where it is the identity."""
        return np.eye(self.source.features) if self.matrix is None else self.matrix

    @property
    def synapses(self) -> int:
        """Number of nonzero weights, before rounding."""
        if self.matrix is None:
            return self.source.features
        return int(np.count_nonzero(self.matrix))

    def through(self, matrix: np.ndarray) -> Term:
        """Return the term behind a matrix of shape (m, n)."""
        if self.matrix is None:
            return replace(self, matrix=matrix)
        return replace(self, matrix=matrix @ self.matrix)

    def taps(self) -> dict[int, np.ndarray]:
        """Return the matrix of every offset."""
        parts = np.split(self.dense, len(self.offsets), axis=1)
        return dict(zip(self.offsets, parts, strict=True))

    def reading(self) -> Source:
        """Return the source as the term reads it: the frames of all offsets side by side."""
        if self.offsets == (0,) and self.stride == 1:
            return self.source
        return self.source.tapped(self.offsets, self.stride)


def from_taps(term: Term, taps: dict[int, np.ndarray], after: int) -> Term:
    """Return a term with another matrix for every offset."""
    offsets = tuple(sorted(taps))
    matrix = np.concatenate([taps[offset] for offset in offsets], axis=1)
    return replace(term, matrix=matrix, offsets=offsets, after=after)


@dataclass(frozen=True)
class Form:
    """A signal as a sum of terms and a constant.

    Attributes
    ----------
    size : int
        Number of values of a frame.
    terms : tuple of Term
        One for each source.
    bias : ndarray, shape (size,), or None
    """

    size: int
    terms: tuple[Term, ...]
    bias: np.ndarray | None = None

    @classmethod
    def of(cls, source: Source) -> Form:
        """Return the form that is the value of a population."""
        return cls(source.features, (Term(source),))

    @property
    def single(self) -> Source | None:
        """The population that the form is, where it is one and nothing else."""
        if len(self.terms) == 1 and self.bias is None:
            (term,) = self.terms
            if term.matrix is None and term.plain:
                return term.source
        return None

    @property
    def plain(self) -> bool:
        """Whether every term reads the frame of the same number alone."""
        return all(term.plain for term in self.terms)

    @property
    def synapses(self) -> int:
        """Number of nonzero weights, before rounding."""
        return sum(term.synapses for term in self.terms)

    @property
    def inflow(self) -> float:
        """Largest product of a weight and a message."""
        return max((term.reading().inflow(term.dense) for term in self.terms), default=0.0)

    def through(self, matrix: np.ndarray, bias: np.ndarray | None = None) -> Form:
        """Return the form behind ``matrix @ v + bias``; the matrix has the shape (m, n)."""
        terms = tuple(term.through(matrix) for term in self.terms)
        own = None if self.bias is None else matrix @ self.bias
        return Form(len(matrix), terms, _sum(own, bias))

    def rows(self, chosen: slice) -> Form:
        """Return some of the values."""
        size = len(range(*chosen.indices(self.size)))
        terms = tuple(replace(t, matrix=t.dense[chosen]) for t in self.terms)
        return Form(size, terms, None if self.bias is None else self.bias[chosen])

    def convolved(
        self, taps: dict[int, np.ndarray], bias: np.ndarray | None, stride: int, after: int
    ) -> Form:
        r"""Return the form :math:`w_n = b + \sum_j T_j v_{s n + j}`.

        Parameters
        ----------
        taps : dict of int to ndarray, shape (m, n)
            T, by offset.
        bias : ndarray, shape (m,), or None
        stride, after : int
            s, and the frames of zeros that follow v.
        """
        terms = []
        for term in self.terms:
            found: dict[int, np.ndarray] = {}
            for shift, outer in taps.items():
                for offset, inner in term.taps().items():
                    at = term.stride * shift + offset
                    product = outer @ inner
                    found[at] = found[at] + product if at in found else product
            through = from_taps(term, found, term.after + after)
            terms.append(replace(through, stride=term.stride * stride))
        own = None if self.bias is None else sum(tap @ self.bias for tap in taps.values())
        size = len(next(iter(taps.values())))
        return Form(size, tuple(terms), _sum(own, bias))

    def foldable(self, padded: bool) -> bool:
        """Return whether a convolution over the form is exact as a form.

        Frames of zeros before or behind the form must be zeros of its sources too.
        """
        return not padded or (self.plain and self.bias is None)


def added(forms: Sequence[Form]) -> Form:
    """Return the sum of forms; terms of one source become one."""
    terms: dict[tuple[object, ...], Term] = {}
    bias: np.ndarray | None = None
    for form in forms:
        bias = _sum(bias, form.bias)
        for term in form.terms:
            key = term.source.place, term.stride, term.after
            if key not in terms:
                terms[key] = term
                continue
            taps = terms[key].taps()
            for offset, matrix in term.taps().items():
                taps[offset] = taps[offset] + matrix if offset in taps else matrix
            terms[key] = from_taps(term, taps, term.after)
    return Form(forms[0].size, tuple(terms.values()), bias)


def concatenated(forms: Sequence[Form]) -> Form:
    """Return forms one behind the other."""
    if len(forms) == 1:
        return forms[0]
    size, start, padded = sum(form.size for form in forms), 0, []
    for form in forms:
        rows = np.zeros((size, form.size))
        rows[start : start + form.size] = np.eye(form.size)
        padded.append(form.through(rows))
        start += form.size
    return added(padded)


def too_large(rows: int, columns: int) -> bool:
    """Return whether a matrix between populations would not fit into memory."""
    return rows * columns > _MOST_VALUES


def synapses_behind(matrix: np.ndarray, term: Term) -> int:
    """Return how many weights a matrix behind a term has."""
    if term.matrix is None:
        return int(np.count_nonzero(matrix))
    if too_large(len(matrix), term.matrix.shape[1]):
        return len(matrix) * term.matrix.shape[1]
    return int(np.count_nonzero(np.abs(matrix) @ np.abs(term.matrix)))


def _sum(one: np.ndarray | None, other: np.ndarray | None) -> np.ndarray | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other
