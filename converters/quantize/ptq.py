r"""Post-training quantization: a float network and its ranges become an integer network.

Formats first (formats.py); then every matrix is written in target integers per message integer,
:math:`W_{ij}\, s_{message} / s_{target}`, and cut into slices (connector.py). A memory is made by
its realization's own module, hidden units and readout here.
"""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np

from converters.quantize.calibration import Calibration, Signal
from converters.quantize.connections import Connector, Source, integers
from converters.quantize.delay_line import delay_line
from converters.quantize.formats import (
    drive_format,
    guard_bits,
    hidden_format,
    input_format,
    output_format,
    piecewise,
    unit_format,
)
from converters.quantize.integrators import integrators
from converters.quantize.settings import Settings
from converters.quantize.sign_taylor import series_memory
from lmu_deploy.core.integer.layers import IntegerHidden, IntegerMemory, SeriesMemory
from lmu_deploy.core.integer.network import HostLayer, IntegerLayer, IntegerNetwork, IntegerReadout
from lmu_deploy.core.integer.parts import Connection
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, LSTMLayer


class Quantizer:
    """Makes the parts of an integer network.

    Parameters
    ----------
    settings : Settings
    calibration : Calibration
    """

    def __init__(self, settings: Settings, calibration: Calibration) -> None:
        self.settings, self.calibration = settings, calibration
        self.connector = Connector(settings)

    def network(self, network: LMUNetwork) -> IntegerNetwork:
        """Quantize the whole network."""
        bits, option = self.settings.input_width
        x = Source(self.calibration.x, input_format(self.calibration.x, bits), option)
        source = x
        layers: list[IntegerLayer | HostLayer] = []
        for number, (layer, following) in enumerate(pairwise((*network.layers, None))):
            assert layer is not None
            made: IntegerLayer | HostLayer
            if isinstance(layer, LSTMLayer):
                made, source = self._on_host(number, layer, isinstance(following, LMULayer), source)
            else:
                made, source = self._layer(number, layer, source)
            layers.append(made)
        on_host = isinstance(network.layers[-1], LSTMLayer)
        readout = network.readout if on_host else self._readout(network, source)
        self.connector.refuse_what_does_not_fit()
        provenance = {
            **network.provenance,
            "quantized": json.dumps(self.settings.as_texts()),
            "accumulators": json.dumps(
                {place: str(need) for place, need in self.connector.needs.items()}
            ),
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
        assert signal_m is not None
        h = None
        if layer.hidden is not None and signal_h is not None:
            kernel = layer.hidden.input_kernel
            inflow = 0.0 if kernel is None else x.inflow(kernel.T)
            message_h = hidden_format(layer.hidden, inflow, signal_m, signal_h, settings)
            h = Source(signal_h, message_h, "--hidden-bits")
        memory, m = self._memory(place, layer, x, signal_m, h)
        if layer.hidden is None or h is None:
            return IntegerLayer(memory, None), m
        return IntegerLayer(memory, self._hidden(f"{place}/hidden", layer.hidden, x, m, h)), h

    def _on_host(
        self, number: int, layer: LSTMLayer, sends: bool, x: Source
    ) -> tuple[HostLayer, Source]:
        """Leave an LSTM as it is, with a format for what it sends to a layer on the chip."""
        signal = self.calibration.h[number]
        assert signal is not None
        if not sends:
            return HostLayer(layer, None), x
        h = Source(signal, unit_format(signal, self.settings), "--hidden-bits")
        return HostLayer(layer, h.format), h

    def _memory(
        self, place: str, layer: LMULayer, x: Source, m: Signal, h: Source | None
    ) -> tuple[IntegerMemory | SeriesMemory, Source]:
        if self.settings.realization == "fir":
            return delay_line(place, layer, x, self.connector)
        if self.settings.realization == "sign-taylor":
            return series_memory(place, layer, x, m, h, self.connector)
        return integrators(place, layer, x, m, h, self.connector)

    def _hidden(self, place: str, hidden: Hidden, x: Source, m: Source, h: Source) -> IntegerHidden:
        bits, bias = self.settings.state_bits, hidden.bias
        widest = 0.0 if bias is None else float(np.abs(bias).max(initial=0.0))
        guard = guard_bits(place, h.format, bits, widest)
        drive = drive_format(h.format, bits, guard)

        def optional(name: str, kernel: np.ndarray | None, source: Source) -> Connection | None:
            if kernel is None:
                return None
            return self.connector.kernel(f"{place}/{name}", kernel.T, source, drive)

        return IntegerHidden(
            drive,
            h.format,
            self.connector.kernel(f"{place}/memory", hidden.memory_kernel.T, m, drive),
            optional("input", hidden.input_kernel, x),
            optional("recurrent", hidden.recurrent_kernel, h),
            None if bias is None else integers(bias, drive),
            piecewise(hidden.activation, h.format, guard),
        )

    def _readout(self, network: LMUNetwork, source: Source) -> IntegerReadout:
        readout = network.readout
        output = output_format(
            readout, source.inflow(readout.kernel.T), self.calibration.y, self.settings
        )
        return IntegerReadout(
            self.connector.kernel("readout", readout.kernel.T, source, output),
            None if readout.bias is None else integers(readout.bias, output),
            output,
        )
