r"""IntegerNetwork: a network in integer arithmetic, in which every state is fully specified.

The operations are specified in docs/reference/integer-semantics.md. In short, with x, M, H the
messages of input, memory and hidden units and D the drive of a connection
(:mod:`lmu_deploy.core.integer.parts`), one step is

.. math::
   m_t &= \mathrm{sat}_{24}(m_{t-1} + D^{rec}(M_{t-1}) + D^{in}(x_t) + D^{hid}(H_{t-1}) + b) \\
   M_t &= \mathrm{sat}(\mathrm{ms}(m_t, 1, s_M)) \\
   z_t &= \mathrm{sat}_{24}(D^{mem}(M_t) + D^{in}(x_t) + D^{rec}(H_{t-1}) + b),
   \qquad H_t = f(z_t) \\
   y_t &= \mathrm{sat}_{24}(D^{out}(H_t) + b)

where the first two lines describe a memory of integrators
(:mod:`lmu_deploy.core.integer.layers` has the other realization). LSTM layers, and a readout that
follows one, run on the host in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.layers import (
    IntegerHidden,
    IntegerMemory,
    PiecewiseLinear,
    SeriesMemory,
)
from lmu_deploy.core.integer.parts import (
    Connection,
    Format,
    check_bias,
    check_connection,
    check_type,
)
from lmu_deploy.core.network import FLOAT_CLASSES, LMUNetwork, LSTMLayer, Readout
from lmu_deploy.core.representation import Part, Representation, Summary, counted
from lmu_deploy.core.validation import (
    check_array,
    check_flag,
    check_provenance,
    check_text,
    set_fields,
)


@dataclass(frozen=True, eq=False, repr=False)
class HostLayer(Part):
    """An LSTM layer that the host computes in float64.

    Its input is real: the input of the network, the dequantized messages of the previous layer, or
    the output of a previous host layer.

    Attributes
    ----------
    lstm : LSTMLayer
    message : Format or None
        Format of the messages to the next layer, ``sat(rint(real / scale))``, ties to even; None
        where the next layer is on the host too.
    """

    lstm: LSTMLayer
    message: Format | None

    def __post_init__(self) -> None:
        check_type("host layer", self.lstm, LSTMLayer)
        if self.message is not None:
            check_type("host layer", self.message, Format)

    @property
    def n_in(self) -> int:
        """Number of input features."""
        return self.lstm.n_in

    @property
    def n_out(self) -> int:
        """Number of units, which is the number of output features."""
        return self.lstm.n_out

    @property
    def n_features(self) -> int:
        """Number of output features in the float network; the same as `n_out`."""
        return self.lstm.n_out


@dataclass(frozen=True, eq=False, repr=False)
class IntegerLayer(Part):
    """A memory and, optionally, hidden units; its output is H, or M without hidden units."""

    memory: IntegerMemory | SeriesMemory
    hidden: IntegerHidden | None

    def __post_init__(self) -> None:
        if not isinstance(self.memory, SeriesMemory):
            check_type("layer", self.memory, IntegerMemory)
        if self.hidden is None:
            if self.memory.hidden is not None:
                raise InputError("memory hidden needs hidden units, and this layer has none.")
            return
        check_type("layer", self.hidden, IntegerHidden)
        check_connection("hidden memory", self.hidden.memory, None, self.memory.size)
        if self.hidden.input is not None:
            check_connection("hidden input", self.hidden.input, None, self.n_in)
        if self.memory.hidden is not None:
            check_connection("memory hidden", self.memory.hidden, None, self.hidden.units)

    @property
    def n_in(self) -> int:
        """Number of input messages."""
        return self.memory.input.n_in

    @property
    def n_out(self) -> int:
        """Number of output messages."""
        return self.memory.size if self.hidden is None else self.hidden.units

    @property
    def output(self) -> Format:
        """Format of the output messages."""
        return self.memory.message if self.hidden is None else self.hidden.message

    @property
    def output_basis(self) -> np.ndarray | None:
        """Matrix from the dequantized messages to the output of the float layer; None: identity."""
        return self.memory.basis if self.hidden is None else None

    @property
    def n_features(self) -> int:
        """Number of output features of the float layer that the messages represent."""
        basis = self.output_basis
        return self.n_out if basis is None else len(basis)


@dataclass(frozen=True, eq=False, repr=False)
class IntegerReadout(Part):
    """Linear readout, ``y = sat(D(messages of the last layer) + b)``."""

    connection: Connection
    bias: np.ndarray | None
    output: Format

    def __post_init__(self) -> None:
        check_type("readout", self.output, Format)
        check_connection("readout", self.connection, None, None)
        set_fields(self, bias=check_bias("readout bias", self.bias, self.connection.n_out))


@dataclass(frozen=True, eq=False, repr=False)
class IntegerNetwork(Representation):
    """A network with LMU layers in integers and LSTM layers, if any, in float64 on the host.

    Attributes
    ----------
    input : Format
        Format of the input messages, ``x = sat(rint(real / scale))``, ties to even. Unused where
        the first layer is on the host, whose input is real.
    layers : tuple of IntegerLayer or HostLayer
        At least one of them an IntegerLayer.
    readout : IntegerReadout, or Readout after a HostLayer
    return_sequences : bool
    task : str or None
    profile : str
        Name of the hardware profile for which it was quantized.
    provenance : mapping of str to str
    source : LMUNetwork or None
        The float network from which it was quantized, so that a file can be evaluated alone.

    Raises
    ------
    InputError
        At construction, when a shape, type or value is invalid.
    """

    input: Format
    layers: tuple[IntegerLayer | HostLayer, ...]
    readout: IntegerReadout | Readout
    return_sequences: bool = False
    task: str | None = None
    profile: str = "loihi2"
    provenance: Mapping[str, str] = field(default_factory=dict)
    source: LMUNetwork | None = None

    def __post_init__(self) -> None:
        layers = tuple(self.layers)
        check_type("network", self.input, Format)
        _check_layers(layers)
        _check_readout(self.readout, layers[-1])
        if self.task is not None:
            check_text("task", self.task, 200)
        check_text("profile", self.profile, 200)
        check_flag("return_sequences", self.return_sequences)
        if self.source is not None:
            check_type("network source", self.source, LMUNetwork)
        set_fields(self, layers=layers, provenance=check_provenance(self.provenance))

    @property
    def n_in(self) -> int:
        """Number of input features."""
        return self.layers[0].n_in

    @property
    def n_out(self) -> int:
        """Number of outputs."""
        if isinstance(self.readout, Readout):
            return int(self.readout.kernel.shape[1])
        return self.readout.connection.n_out

    @property
    def on_chip(self) -> tuple[tuple[int, IntegerLayer], ...]:
        """Numbers and layers of those in integers."""
        return tuple((n, la) for n, la in enumerate(self.layers) if isinstance(la, IntegerLayer))

    @property
    def on_host(self) -> tuple[tuple[int, HostLayer], ...]:
        """Numbers and layers of those on the host."""
        return tuple((n, la) for n, la in enumerate(self.layers) if isinstance(la, HostLayer))

    def summary(self) -> Summary:
        """Return the populations of the network with their widths and weights, as a table."""
        rows = [("input", "", f"{self.n_in:,}", f"{self.input.bits}", "0")]
        weights = 0
        for number, layer in enumerate(self.layers):
            name = f"layer{number}"
            if isinstance(layer, HostLayer):
                rows.append((name, "LSTM on the host, float", f"{layer.n_out:,}", "", ""))
                continue
            memory, hidden = layer.memory, layer.hidden
            found = _weights(memory.input, memory.recurrent, memory.hidden)
            weights += found
            rows.append(
                (
                    f"{name}/memory",
                    memory.realization,
                    f"{memory.size:,}",
                    f"{memory.message.bits}",
                    f"{found:,}",
                )
            )
            if hidden is not None:
                found = _weights(hidden.memory, hidden.input, hidden.recurrent)
                weights += found
                bits = f"{hidden.message.bits}"
                rows.append((f"{name}/hidden", "units", f"{hidden.units:,}", bits, f"{found:,}"))
        if isinstance(self.readout, Readout):
            rows.append(("readout", "on the host, float", f"{self.n_out:,}", "", ""))
        else:
            found = _weights(self.readout.connection)
            weights += found
            bits = f"{self.readout.output.bits}"
            rows.append(("readout", "dense", f"{self.n_out:,}", bits, f"{found:,}"))
        facts = [
            counted(self.n_in, "input"),
            counted(self.n_out, "output"),
            counted(weights, "weight"),
            f"profile {self.profile}",
            *([] if self.task is None else [f"task {self.task}"]),
        ]
        return Summary(facts, ("population", "kind", "size", "message bits", "weights"), rows)

    @property
    def y_scale(self) -> float:
        """Real value of one unit of the readout; 1 where the host computes it in float64."""
        return 1.0 if isinstance(self.readout, Readout) else self.readout.output.scale

    @property
    def chip_readout(self) -> IntegerReadout:
        """The readout in integers; raise InputError where the host computes it."""
        if isinstance(self.readout, Readout):
            raise InputError("the readout of this network is on the host and has no integers.")
        return self.readout


def _weights(*connections: Connection | None) -> int:
    """Return the number of weights of all slices, zeros included."""
    return sum(connection.slices.size for connection in connections if connection is not None)


def _check_layers(layers: tuple[IntegerLayer | HostLayer, ...]) -> None:
    """Raise InputError unless the shapes of consecutive layers match."""
    if not any(isinstance(layer, IntegerLayer) for layer in layers):
        raise InputError("an integer network needs at least one layer in integers.")
    for layer in layers:
        if not isinstance(layer, HostLayer):
            check_type("network", layer, IntegerLayer)
    for number, (before, after) in enumerate(pairwise(layers)):
        on_chip = isinstance(before, IntegerLayer) and isinstance(after, IntegerLayer)
        sent = before.n_out if on_chip else before.n_features
        if sent != after.n_in:
            raise InputError(
                f"layer {number} sends {sent} messages and layer {number + 1} "
                f"has {after.n_in} inputs; the two must be equal."
            )
    for number, (layer, following) in enumerate(zip(layers, (*layers[1:], None), strict=True)):
        if isinstance(layer, HostLayer):
            sends = isinstance(following, IntegerLayer)
            if sends != (layer.message is not None):
                raise InputError(
                    f"layer {number} is on the host and needs a message format exactly if the next "
                    "layer is on the chip; create the file again."
                )


def _check_readout(readout: object, last: IntegerLayer | HostLayer) -> None:
    """Raise InputError unless the readout matches the last layer in shape and in where it runs."""
    if isinstance(last, HostLayer):
        check_type("readout of the host", readout, Readout)
        assert isinstance(readout, Readout)
        check_array("readout kernel", readout.kernel, (last.n_out, None))
        return
    check_type("network", readout, IntegerReadout)
    assert isinstance(readout, IntegerReadout)
    check_connection("readout", readout.connection, None, last.n_out)


INTEGER_CLASSES: tuple[type, ...] = (
    IntegerNetwork,
    IntegerLayer,
    HostLayer,
    IntegerMemory,
    SeriesMemory,
    IntegerHidden,
    IntegerReadout,
    PiecewiseLinear,
    Connection,
    Format,
    *FLOAT_CLASSES,
)
"""Classes that may occur in a file of this representation, for `core.files.load`."""
