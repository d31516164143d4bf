"""Memories of integrators: the matrix less the identity, as it stands or in better coordinates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from converters.quantise.calibrate import Signal
from converters.quantise.connector import Connector, Source, integers
from converters.quantise.coordinates import coordinates, increment
from converters.quantise.formats import FAINTEST, memory_formats
from converters.quantise.held import as_held, held_by
from converters.quantise.refit import refitted_basis
from lmu_deploy.integer_network import IntegerMemory
from lmu_deploy.network import LMULayer


def integrators(
    place: str, layer: LMULayer, x: Source, m: Signal, h: Source | None, connector: Connector
) -> tuple[IntegerMemory, Source]:
    """Quantise a memory as integrators.

    Parameters
    ----------
    place : str
        Such as ``layer0``.
    layer : LMULayer
    x : Source
        What reaches the layer.
    m : Signal
        The float memory on the calibration.
    h : Source or None
        The layer's hidden units.
    connector : Connector

    Returns
    -------
    memory : IntegerMemory
    source : Source
        The messages that leave it.
    """
    settings, true_m = connector.settings, m
    recurrent, basis, inverse = increment(layer), None, None
    if settings.realisation != "dense-incremental":
        rotated = coordinates(layer, settings.realisation)
        rotated = rotated.scaled(_ranges(m.rows @ rotated.inverse.T))
        recurrent, basis, inverse = rotated.recurrent, rotated.basis, rotated.inverse
        m = _in_coordinates(m, inverse)

    def entering(encoders: np.ndarray) -> np.ndarray:
        """Matrix of what goes into the channels through encoders of shape (n, channels)."""
        matrix = np.kron(encoders.T, layer.memory.b_bar.astype(np.float64)[:, None])
        return matrix if inverse is None else inverse @ matrix

    into, from_hidden, real_bias = entering(layer.input_encoders), None, None
    inflow = x.inflow(into)
    if layer.hidden_encoders is not None and h is not None:
        from_hidden = entering(layer.hidden_encoders)
        inflow = max(inflow, h.inflow(from_hidden))
    if layer.memory_bias is not None:
        real_bias = entering(layer.memory_bias[None, :])[:, 0]

    def made(m: Signal) -> IntegerMemory:
        """Round the memory, with messages for the range of m."""
        state, message, shift = memory_formats(place, m, settings, real_bias, inflow)
        own = Source(m, message, "--message-bits")
        hidden = None
        if from_hidden is not None and h is not None:
            hidden = connector.memory(f"{place}/memory/hidden", from_hidden, h, state)
        return IntegerMemory(
            state,
            message,
            shift,
            connector.memory(f"{place}/memory/recurrent", recurrent, own, state),
            connector.memory(f"{place}/memory/input", into, x, state),
            hidden,
            None if real_bias is None else integers(real_bias, state),
            settings.realisation,
            basis,
        )

    memory = made(m)
    held = held_by(memory, x, m, h) if settings.refits else None
    if held is not None:
        heard = as_held(m, held)
        if heard.largest > m.largest:
            memory = made(heard)
        truth = true_m.sequences[: len(held)].astype(np.float64)
        memory = replace(memory, basis=refitted_basis(memory, held, truth))
        m = heard
    return memory, Source(m, memory.message, "--message-bits", memory.basis)


def _ranges(rows: np.ndarray) -> np.ndarray:
    """Greatest magnitude of each state, or a little of the greatest for one that hardly moved."""
    ranges = np.abs(rows).max(axis=0, initial=0.0).astype(np.float64)
    return np.maximum(ranges, FAINTEST * ranges.max(initial=0.0) or 1.0)


def _in_coordinates(m: Signal, inverse: np.ndarray) -> Signal:
    """Take a memory's signal to other coordinates.

    Its greatest magnitude is that of the rows, enlarged as much as the rows of the original missed.
    """
    rows = m.rows @ inverse.T
    seen = float(np.abs(m.rows).max(initial=0.0))
    missed = m.largest / seen if seen > 0.0 else 1.0
    widest = float(np.abs(rows).max(initial=0.0)) * missed
    return Signal(widest, rows.astype(np.float32), (m.sequences @ inverse.T).astype(np.float32))
