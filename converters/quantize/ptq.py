r"""Post-training quantization: from a float network and its calibration to an integer network.

:class:`Quantizer` chooses formats first (:mod:`.formats`). Then every matrix is written in target
integers per message integer, :math:`W_{ij}\, s_{message} / s_{target}`, and split into slices
(:mod:`.connections`). A memory is quantized by the module of its realization (:mod:`.integrators`,
:mod:`.delay_line`, :mod:`.sign_taylor`), hidden units and readout here.

:func:`choose_realization` implements ``--realization auto``: it quantizes the network in every
realization, drops those that do not fit the profile, and takes the cheapest one that is predicted
to be accurate enough.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from converters.quantize.calibration import Calibration, Signal
from converters.quantize.connections import Connector, Source, round_to_format
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
from converters.quantize.memory_analysis import predicted_error
from converters.quantize.settings import Settings
from converters.quantize.sign_taylor import series_memory
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.graph import applications, edges
from lmu_deploy.core.integer.layered import (
    HostLayer,
    IntegerHidden,
    IntegerLayer,
    IntegerMemory,
    IntegerReadout,
    LayeredNetwork,
    SeriesMemory,
)
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.parts import Connection
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, LSTMLayer
from lmu_deploy.hardware.preflight import check


class Quantizer:
    """Quantizes networks with one set of options and one calibration.

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
        return self.layered(network).graph()

    def layered(self, network: LMUNetwork) -> LayeredNetwork:
        """Quantize the whole network, layer by layer."""
        bits, option = self.settings.input_width
        x = Source(self.calibration.x, input_format(self.calibration.x, bits), option)
        source = x
        layers: list[IntegerLayer | HostLayer] = []
        for number, (layer, following) in enumerate(pairwise((*network.layers, None))):
            assert layer is not None
            lowered: IntegerLayer | HostLayer
            if isinstance(layer, LSTMLayer):
                lowered, source = self._on_host(
                    number, layer, isinstance(following, LMULayer), source
                )
            else:
                lowered, source = self._layer(number, layer, source)
            layers.append(lowered)
        on_host = isinstance(network.layers[-1], LSTMLayer)
        readout = network.readout if on_host else self._readout(network, source)
        self.connector.check_accumulators()
        provenance = {
            **network.provenance,
            "quantized": json.dumps(self.settings.as_texts()),
            "accumulators": json.dumps(
                {place: str(need) for place, need in self.connector.needs.items()}
            ),
        }
        return LayeredNetwork(
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
        """Keep an LSTM on the host; if `sends`, choose a format for its messages to the chip."""
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
            None if bias is None else round_to_format(bias, drive),
            piecewise(hidden.activation, h.format, guard),
        )

    def _readout(self, network: LMUNetwork, source: Source) -> IntegerReadout:
        readout = network.readout
        output = output_format(
            readout, source.inflow(readout.kernel.T), self.calibration.y, self.settings
        )
        return IntegerReadout(
            self.connector.kernel("readout", readout.kernel.T, source, output),
            None if readout.bias is None else round_to_format(readout.bias, output),
            output,
        )


GOOD_ENOUGH = 0.02
"""Predicted relative error of the memory up to which a realization is accurate enough."""

_ABOUT = 1.1
"""Costs up to this many times the lowest count as equal; the error then decides."""

_FORMS = ("dense-incremental", "schur", "hessenberg")


@dataclass(frozen=True)
class Candidate:
    """A realization that fits the profile.

    Attributes
    ----------
    name : str
    network : IntegerNetwork
    error : float
        Predicted relative rms error of the memory with the largest error.
    cost : int
        Synaptic operations per step; see :func:`synaptic_operations`.
    """

    name: str
    network: IntegerNetwork
    error: float
    cost: int

    @property
    def figures(self) -> str:
        """Cost and error in words."""
        return f"{self.cost:,} synaptic operations per step, memory error {self.error:.2%}"


def choose_realization(
    network: LMUNetwork, calibration: Calibration, settings: Settings
) -> IntegerNetwork:
    """Quantize a network in the best realization and record the reason in its provenance.

    Parameters
    ----------
    network : LMUNetwork
    calibration : Calibration
    settings : Settings
        Up to as many slices as it has are tried.

    Raises
    ------
    InputError
        When no realization fits the profile; the reason is given for each.
    """
    fitting: list[Candidate] = []
    refused: dict[str, str] = {}
    for name, tried in _variants(settings):
        try:
            layered = Quantizer(tried, calibration).layered(network)
            candidate = layered.graph()
        except InputError as reason:
            refused[name] = str(reason)
            continue
        if violations := check(candidate, settings.profile):
            refused[name] = str(violations[0])
        else:
            error = _largest_error(network, layered, calibration)
            fitting.append(Candidate(name, candidate, error, synaptic_operations(candidate)))
    if not fitting:
        reasons = " ".join(f"{name}: {reason}" for name, reason in refused.items())
        raise InputError(f"quantize: no realization fits. {reasons}")
    return _with_reason(fitting, refused)


def synaptic_operations(network: IntegerNetwork) -> int:
    """Count the synaptic operations of a step in which every neuron sends all its messages."""
    total = 0
    for edge in edges(network):
        total += applications(network, edge) * int(np.count_nonzero(edge.connection.slices))
    return total


def _variants(settings: Settings) -> list[tuple[str, Settings]]:
    """Return the settings of every realization that is tried, each with its name."""
    found = [
        (f"{form}, {slices} slice{'s' if slices > 1 else ''}", form, slices)
        for form in _FORMS
        for slices in range(1, settings.slices + 1)
    ]
    found += [("fir", "fir", settings.slices), ("sign-taylor", "sign-taylor", settings.slices)]
    return [(name, replace(settings, realization=f, slices=s)) for name, f, s in found]


def _largest_error(
    network: LMUNetwork, candidate: LayeredNetwork, calibration: Calibration
) -> float:
    """Predict the relative rms error of each memory; return the largest."""
    worst, message, basis = 0.0, candidate.input, None
    steps = calibration.x.sequences.shape[1]
    for number, (layer, integer) in enumerate(zip(network.layers, candidate.layers, strict=True)):
        if isinstance(integer, HostLayer):
            message, basis = integer.message or candidate.input, None
            continue
        assert isinstance(layer, LMULayer)
        m = calibration.m[number]
        assert m is not None
        power = float((m.rows.astype(np.float64) ** 2).sum(axis=1).mean())
        memory = integer.memory
        worst = max(worst, predicted_error(layer, memory, message, basis, power, steps))
        message = integer.output
        basis = integer.output_basis
    return worst


def _with_reason(fitting: list[Candidate], refused: dict[str, str]) -> IntegerNetwork:
    """Select the most accurate candidate that costs about as little as the cheapest good one."""
    good = [c for c in fitting if c.error <= GOOD_ENOUGH]
    if good:
        budget = _ABOUT * min(c.cost for c in good)
        best = min((c for c in good if c.cost <= budget), key=lambda c: c.error)
        why = f"the cheapest of {len(good)} predicted within {GOOD_ENOUGH:.0%}"
    else:
        best = min(fitting, key=lambda c: c.error)
        why = f"the most accurate of {len(fitting)}, none predicted within {GOOD_ENOUGH:.0%}"
    tried = {c.name: c.figures for c in fitting} | refused
    provenance = {
        **best.network.provenance,
        "realization": f"{best.name}: {best.figures}; {why}",
        "realizations tried": json.dumps(tried),
    }
    return replace(best.network, provenance=provenance)
