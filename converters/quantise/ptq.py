r"""Post-training quantisation: a float network and its ranges become an integer network.

Formats first (formats.py); then every matrix is written in target integers per message integer,
:math:`W_{ij}\, s_{message} / s_{target}`, and cut into slices:

- recurrent: :math:`\bar A - I` for each channel, plus :math:`\bar B e_m^T` (the identity is kept by
  the neuron itself, which integrates);
- input, hidden: :math:`\bar B e_x^T`, :math:`\bar B e_h^T`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

import numpy as np

from converters.quantise.accumulators import Need, fit
from converters.quantise.activation import drive_format, piecewise
from converters.quantise.calibrate import Calibration, Signal
from converters.quantise.formats import hidden_format, memory_formats, output_format
from converters.quantise.input_grid import input_format
from converters.quantise.settings import Settings
from converters.quantise.slices import connect
from lmu_deploy.errors import InputError
from lmu_deploy.integer_network import (
    Connection,
    Format,
    IntegerHidden,
    IntegerLayer,
    IntegerMemory,
    IntegerNetwork,
    IntegerReadout,
    largest,
)
from lmu_deploy.network import Hidden, LMULayer, LMUNetwork


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
    """

    signal: Signal
    format: Format
    option: str

    @property
    def rows(self) -> np.ndarray:
        """Integer messages seen on the calibration; shape (rows, n), float32."""
        integers = np.rint(self.signal.rows / self.format.scale)
        return np.clip(integers, -self.format.limit, self.format.limit).astype(np.float32)


@dataclass
class Quantiser:
    """Makes the parts of an integer network and remembers what each accumulator needs."""

    settings: Settings
    calibration: Calibration
    needs: dict[str, Need] = field(default_factory=dict)
    _remedies: dict[str, int] = field(default_factory=dict)

    def network(self, network: LMUNetwork) -> IntegerNetwork:
        """Quantise the whole network."""
        bits, option = self.settings.input_width
        x = Source(self.calibration.x, input_format(self.calibration.x, bits), option)
        source, layers = x, []
        for number, layer in enumerate(network.layers):
            assert isinstance(layer, LMULayer)
            integer, source = self._layer(number, layer, source)
            layers.append(integer)
        readout = self._readout(network, source)
        self._refuse_what_does_not_fit()
        provenance = {
            **network.provenance,
            "quantised": json.dumps(self.settings.as_texts()),
            "accumulators": json.dumps({place: str(need) for place, need in self.needs.items()}),
        }
        return IntegerNetwork(
            x.format,
            tuple(layers),
            readout,
            network.return_sequences,
            network.task,
            self.settings.profile.name,
            provenance,
            network,
        )

    def _layer(self, number: int, layer: LMULayer, x: Source) -> tuple[IntegerLayer, Source]:
        place, settings = f"layer{number}", self.settings
        signal_m, signal_h = self.calibration.m[number], self.calibration.h[number]
        state, message, shift = memory_formats(place, signal_m, settings)
        m = Source(signal_m, message, "--message-bits")
        h = None
        if layer.hidden is not None and signal_h is not None:
            message_h = hidden_format(layer.hidden, x.signal, signal_m, signal_h, settings)
            h = Source(signal_h, message_h, "--hidden-bits")
        b_bar = layer.memory.b_bar.astype(np.float64)
        hidden_to_memory, bias = None, None
        if layer.hidden_encoders is not None and h is not None:
            matrix = np.kron(layer.hidden_encoders.T, b_bar[:, None])
            hidden_to_memory = self._connect(f"{place}/memory/hidden", matrix, h, state, True)
        if layer.memory_bias is not None:
            bias = _integers(np.kron(layer.memory_bias, b_bar), state)
        matrix = np.kron(layer.input_encoders.T, b_bar[:, None])
        memory = IntegerMemory(
            state,
            message,
            shift,
            self._connect(f"{place}/memory/recurrent", _increment(layer), m, state, True),
            self._connect(f"{place}/memory/input", matrix, x, state, True),
            hidden_to_memory,
            bias,
            settings.realisation,
        )
        if layer.hidden is None or h is None:
            return IntegerLayer(memory, None), m
        return IntegerLayer(memory, self._hidden(f"{place}/hidden", layer.hidden, x, m, h)), h

    def _hidden(self, place: str, hidden: Hidden, x: Source, m: Source, h: Source) -> IntegerHidden:
        drive = drive_format(h.format, self.settings.state_bits)

        def optional(name: str, kernel: np.ndarray | None, source: Source) -> Connection | None:
            if kernel is None:
                return None
            return self._connect(f"{place}/{name}", kernel.T, source, drive)

        return IntegerHidden(
            drive,
            h.format,
            self._connect(f"{place}/memory", hidden.memory_kernel.T, m, drive),
            optional("input", hidden.input_kernel, x),
            optional("recurrent", hidden.recurrent_kernel, h),
            None if hidden.bias is None else _integers(hidden.bias, drive),
            piecewise(hidden.activation, h.format),
        )

    def _readout(self, network: LMUNetwork, source: Source) -> IntegerReadout:
        readout = network.readout
        output = output_format(readout, source.signal, self.calibration.y, self.settings)
        return IntegerReadout(
            self._connect("readout", readout.kernel.T, source, output),
            None if readout.bias is None else _integers(readout.bias, output),
            output,
        )

    def _connect(
        self, place: str, matrix: np.ndarray, source: Source, target: Format, memory: bool = False
    ) -> Connection:
        """Cut ``matrix * message scale / target scale`` into slices whose sums fit."""
        settings = self.settings
        units = matrix.astype(np.float64) * (source.format.scale / target.scale)
        connection, needs = fit(
            lambda coarser: connect(
                units,
                slices=settings.slices if memory else settings.kernel_slices,
                weight_bits=settings.weight_bits,
                accumulator_bits=settings.accumulator_bits,
                scales=settings.scales,
                coarser=coarser,
            ),
            len(units),
            source.format.limit,
            source.rows,
        )
        for need in needs:
            self.needs[f"{place}/slice{need.slice}"] = need
            excess = math.ceil(need.bits - settings.accumulator_bits)
            if excess > 0:
                fewer = max(2, source.format.bits - excess)
                self._remedies[source.option] = min(self._remedies.get(source.option, 99), fewer)
        return connection

    def _refuse_what_does_not_fit(self) -> None:
        """Name the accumulator that is furthest too wide, and what mends it and all others."""
        if not self._remedies:
            return
        place, need = max(self.needs.items(), key=lambda item: item[1].bits)
        remedy = " ".join(f"{option} {bits}" for option, bits in self._remedies.items())
        raise InputError(
            f"quantise: accumulator {place} needs {need.bits:.1f} bits, profile "
            f"{self.settings.profile.name} has {self.settings.accumulator_bits}; use {remedy}."
        )


def _increment(layer: LMULayer) -> np.ndarray:
    """Recurrent matrix less the identity, memory encoders folded in; (states, states)."""
    memory = layer.memory
    a_bar = memory.a_bar.astype(np.float64) - np.eye(memory.order)
    matrix = np.kron(np.eye(memory.channels), a_bar)
    if layer.memory_encoders is not None:
        matrix += np.kron(layer.memory_encoders.T, memory.b_bar.astype(np.float64)[:, None])
    return matrix


def _integers(values: np.ndarray, target: Format) -> np.ndarray:
    """Round real values to a format, limited as it is (and as biases are, to 24 bits)."""
    limit = min(target.limit, largest(24))
    return np.clip(np.rint(values / target.scale), -limit, limit).astype(np.int32)
