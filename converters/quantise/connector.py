"""What every part of a quantisation needs: who sends, and connections whose sums fit."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from converters.quantise.accumulators import Need, fit
from converters.quantise.calibrate import Signal
from converters.quantise.rounding import Rounding
from converters.quantise.settings import Settings
from lmu_deploy.errors import InputError
from lmu_deploy.integer_network import Connection, Format, largest


@dataclass(frozen=True)
class Source:
    """Messages that leave a population.

    Attributes
    ----------
    signal : Signal
        What they stand for.
    format : Format
    option : str
        The command's option that sets their width.
    basis : ndarray, shape (n, neurons), or None
        From what they stand for to the signal that a float network's matrices expect.
    """

    signal: Signal
    format: Format
    option: str
    basis: np.ndarray | None = None

    def inflow(self, matrix: np.ndarray) -> float:
        """Greatest product of one entry of a matrix, (n_out, n), and the range of the messages."""
        weights = matrix if self.basis is None else matrix @ self.basis
        return float(np.abs(weights).max(initial=0.0)) * self.format.limit * self.format.scale

    @property
    def rows(self) -> np.ndarray:
        """Integer messages seen on the calibration; shape (rows, n), float32."""
        integers = np.rint(self.signal.rows / self.format.scale)
        return np.clip(integers, -self.format.limit, self.format.limit).astype(np.float32)


@dataclass
class Connector:
    """Makes connections and remembers how, and what each accumulator needs."""

    settings: Settings
    needs: dict[str, Need] = field(default_factory=dict)
    roundings: dict[str, Rounding] = field(default_factory=dict)
    _remedies: dict[str, int] = field(default_factory=dict)

    def memory(self, place: str, matrix: np.ndarray, source: Source, target: Format) -> Connection:
        """Cut a matrix that enters a memory into slices; see :meth:`kernel`."""
        settings = self.settings
        form = settings.slices, settings.weight_bits, settings.memory_scales
        return self._connect(place, matrix, source, target, *form)

    def kernel(self, place: str, matrix: np.ndarray, source: Source, target: Format) -> Connection:
        """Cut a matrix of hidden units or the readout into slices.

        Parameters
        ----------
        place : str
        matrix : ndarray, shape (n_out, n)
            In real units, on the signal that the float network has there.
        source : Source
        target : Format
        """
        settings = self.settings
        form = settings.kernel_slices, settings.kernel_width, settings.kernel_scales
        return self._connect(place, matrix, source, target, *form)

    def record(self, place: str, need: Need, source: Source) -> None:
        """Remember what an accumulator needs, and what mends it if that is too much."""
        self.needs[f"{place}/slice{need.slice}"] = need
        excess = math.ceil(need.bits - self.settings.accumulator_bits)
        if excess > 0:
            fewer = max(2, source.format.bits - excess)
            self._remedies[source.option] = min(self._remedies.get(source.option, 99), fewer)

    def refuse_what_does_not_fit(self) -> None:
        """Name the accumulator that is furthest too wide, and what mends it and all others."""
        if not self._remedies:
            return
        place, need = max(self.needs.items(), key=lambda item: item[1].bits)
        remedy = " ".join(f"{option} {bits}" for option, bits in self._remedies.items())
        raise InputError(
            f"quantise: accumulator {place} needs {need.shown} bits, profile "
            f"{self.settings.profile.name} has {self.settings.accumulator_bits}; use {remedy}."
        )

    def _connect(
        self,
        place: str,
        matrix: np.ndarray,
        source: Source,
        target: Format,
        slices: int,
        weight_bits: int,
        scales: str,
    ) -> Connection:
        """Cut ``matrix * message scale / target scale`` into slices whose sums fit."""
        rounding = Rounding(
            source.format.scale,
            target.scale,
            slices,
            weight_bits,
            self.settings.accumulator_bits,
            scales,
            source.basis,
        )
        connection, needs, coarser = fit(
            lambda coarser: replace(rounding, coarser=coarser).connection(matrix),
            len(matrix),
            source.format.limit,
            source.rows,
        )
        self.roundings[place] = replace(rounding, coarser=coarser)
        for need in needs:
            self.record(place, need, source)
        return connection


def integers(values: np.ndarray, target: Format) -> np.ndarray:
    """Round real values to a format, limited as it is (and as biases are, to 24 bits)."""
    limit = min(target.limit, largest(24))
    return np.clip(np.rint(values / target.scale), -limit, limit).astype(np.int32)
