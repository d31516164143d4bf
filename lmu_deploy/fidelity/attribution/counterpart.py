"""Float counterpart of an integer network: unrounded weights and biases in units of the integers.

An entry of a matrix is a real number in target units per message unit, before rounding. Scales and
coordinates are those of the integer network, so that only the weights differ. The equations are
those of docs/reference/integer-semantics.md, section "Realizations".
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from converters.quantize.memory_analysis import increment
from converters.quantize.sign_taylor import step_matrices
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.layered import IntegerLayer, IntegerMemory, SeriesMemory
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.legendre import state_space
from lmu_deploy.core.network import LMULayer, LMUNetwork
from lmu_deploy.fidelity.attribution.layers import Layers, layers_of


@dataclass(frozen=True)
class SeriesCounterpart:
    """Float counterpart of the exponential series of one memory.

    Attributes
    ----------
    gains : ndarray, shape (terms, order)
        Gains of the rows of each G_k, in integer units.
    state, drive : ndarray, shape (order, order) and (order,)
        Difference between a step of the float memory and one of the exact series, applied to the
        previous state and to the input of a channel: the discretization error, in real units.
    """

    gains: np.ndarray
    state: np.ndarray
    drive: np.ndarray


@dataclass
class FloatCounterpart:
    """The float network in the units of an integer network.

    Attributes
    ----------
    source : LMUNetwork
    matrices : dict of place to ndarray, shape (n_out, n_in)
        Target units per message unit.
    biases : dict of place to ndarray, shape (n_out,)
        Target units.
    tails : dict of place to ndarray, shape (n_out, Legendre states)
        For connections that leave a delay line: target units per real unit of the memory, with
        which the response to inputs beyond the last tap can be added.
    series : dict of layer number to SeriesCounterpart
    """

    source: LMUNetwork
    matrices: dict[str, np.ndarray] = field(default_factory=dict)
    biases: dict[str, np.ndarray] = field(default_factory=dict)
    tails: dict[str, np.ndarray] = field(default_factory=dict)
    series: dict[int, SeriesCounterpart] = field(default_factory=dict)


@dataclass(frozen=True)
class _Sender:
    """Messages of a population: their scale, and the basis that maps them to the float signal."""

    scale: float
    basis: np.ndarray | None = None
    forgets: bool = False


def float_counterpart(network: IntegerNetwork | Layers) -> FloatCounterpart:
    """Compute the unrounded weights of each connection and bias of `network`.

    Raises
    ------
    InputError
        When the network does not contain its float network, or one of other shapes.
    """
    network = layers_of(network)
    source = network.source
    assert source is not None
    if len(source.layers) != len(network.layers):
        raise InputError(
            f"attribution: the integer network has {len(network.layers)} layers and the float one "
            f"that it contains {len(source.layers)}; convert it again with lmu-deploy quantize."
        )
    found, sender = FloatCounterpart(source), _Sender(network.input.scale)
    for number, (layer, truth) in enumerate(zip(network.layers, source.layers, strict=True)):
        assert isinstance(layer, IntegerLayer)
        if not isinstance(truth, LMULayer):
            raise InputError(
                f"attribution: layer {number} of the float network is not an LMU layer."
            )
        maker = _Layer(f"layer{number}", truth, found)
        hidden = layer.hidden
        own = _Sender(0.0 if hidden is None else hidden.message.scale)
        if isinstance(layer.memory, SeriesMemory):
            found.series[number] = maker.series(layer.memory, sender, own)
        elif layer.memory.realization == "fir":
            maker.delay_line(layer.memory, sender)
        else:
            maker.integrators(layer.memory, sender, own)
        fir = layer.memory.realization == "fir"
        memory = _Sender(layer.memory.message.scale, layer.memory.basis, fir)
        if hidden is None or truth.hidden is None:
            sender = memory
            continue
        unit, place = hidden.drive.scale, f"layer{number}/hidden"
        maker.join(f"{place}/memory", truth.hidden.memory_kernel, memory, unit)
        maker.join(f"{place}/input", truth.hidden.input_kernel, sender, unit)
        maker.join(f"{place}/recurrent", truth.hidden.recurrent_kernel, own, unit)
        if truth.hidden.bias is not None:
            found.biases[f"{place}/bias"] = truth.hidden.bias.astype(np.float64) / unit
        sender = own
    unit = network.chip_readout.output.scale
    _Layer("", None, found).join("readout", source.readout.kernel, sender, unit)
    if source.readout.bias is not None:
        found.biases["readout/bias"] = source.readout.bias.astype(np.float64) / unit
    return found


class _Layer:
    """Writer of the matrices of one layer into a FloatCounterpart."""

    def __init__(self, place: str, layer: LMULayer | None, found: FloatCounterpart) -> None:
        self._place, self._found, self._truth = place, found, layer

    @property
    def _layer(self) -> LMULayer:
        assert self._truth is not None
        return self._truth

    def join(self, place: str, kernel: np.ndarray | None, sender: _Sender, unit: float) -> None:
        """Write a float kernel, (n_in, n_out), as a connection from `sender` to units of `unit`."""
        if kernel is not None:
            self._write(place, kernel.T.astype(np.float64), sender, unit)

    def integrators(self, memory: IntegerMemory, x: _Sender, h: _Sender) -> None:
        """Write A - I in the coordinates of the memory, and the input through the encoders."""
        b_bar = self._layer.memory.b_bar.astype(np.float64)
        recurrent, inverse = increment(self._layer), None
        if memory.basis is not None:
            inverse = np.linalg.inv(memory.basis)
            recurrent = inverse @ recurrent @ memory.basis
        scale = memory.state.scale
        self._found.matrices[f"{self._place}/memory/recurrent"] = recurrent * (
            memory.message.scale / scale
        )
        self._entering(f"{self._place}/memory", b_bar, inverse, scale, x, h)

    def delay_line(self, memory: IntegerMemory, x: _Sender) -> None:
        """Write a delay line: shifts are exact, only encoders before the taps are rounded."""
        recurrent, into = memory.recurrent, memory.input
        place = f"{self._place}/memory"
        self._found.matrices[f"{place}/recurrent"] = recurrent.dequantized
        encoders = self._layer.input_encoders.astype(np.float64)
        lines = len(encoders) if x.basis is None else x.basis.shape[1]
        if lines <= self._layer.memory.channels:
            self._found.matrices[f"{place}/input"] = into.dequantized
            return
        matrix = np.zeros((memory.size, len(encoders)))
        matrix[: encoders.shape[1]] = encoders.T
        self._write(f"{place}/input", matrix, x, memory.state.scale)

    def series(self, memory: SeriesMemory, x: _Sender, h: _Sender) -> SeriesCounterpart:
        """Compute the gains of the exponential series, and its difference from the float memory."""
        truth = self._layer.memory
        a, b = state_space(memory.order)
        step = 1.0 / (truth.theta * memory.substeps)
        place, scale = f"{self._place}/series", memory.state.scale
        self._entering(place, step * b, None, scale, x, h)
        if self._layer.memory_encoders is not None:
            matrix = np.kron(self._layer.memory_encoders.T, (step * b)[:, None])
            self._write(f"{place}/feedback", matrix, _Sender(memory.message.scale), scale)
        messages = [memory.message.scale, *(scale * np.exp2(memory.term_shift))]
        rows = 2.0 * np.arange(memory.order) + 1.0
        gains = [rows * step / k * (unit / scale) for k, unit in enumerate(messages, start=1)]
        terms = range(1, len(memory.multiplier) + 1)
        whole, entering = step_matrices([step / k * a for k in terms], memory.substeps)
        a_bar, b_bar = truth.a_bar.astype(np.float64), truth.b_bar.astype(np.float64)
        return SeriesCounterpart(np.array(gains), a_bar - whole, b_bar - entering @ (step * b))

    def _entering(
        self,
        place: str,
        response: np.ndarray,
        inverse: np.ndarray | None,
        unit: float,
        x: _Sender,
        h: _Sender,
    ) -> None:
        """Write inputs, hidden units and bias through `response`, (order,), to every channel."""

        def matrix(encoders: np.ndarray) -> np.ndarray:
            full = np.kron(encoders.T.astype(np.float64), response[:, None])
            return full if inverse is None else inverse @ full

        layer = self._layer
        self._write(f"{place}/input", matrix(layer.input_encoders), x, unit)
        if layer.hidden_encoders is not None:
            self._write(f"{place}/hidden", matrix(layer.hidden_encoders), h, unit)
        if layer.memory_bias is not None:
            bias = matrix(layer.memory_bias[None, :])[:, 0]
            self._found.biases[f"{place}/bias"] = bias / unit

    def _write(self, place: str, matrix: np.ndarray, sender: _Sender, unit: float) -> None:
        full = matrix if sender.basis is None else matrix @ sender.basis
        self._found.matrices[place] = full * (sender.scale / unit)
        if sender.forgets:
            self._found.tails[place] = matrix / unit
