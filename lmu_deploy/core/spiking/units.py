r"""SpikingUnits: hidden units and readout of the last layer on spiking neurons.

The drive :math:`z_k` of a unit, scaled to about +-1 by :math:`\zeta_k`, is represented by synapses
with the time constant of the memory's, which receive the spikes s and the input u of the memory.
With :math:`V = Z^{-1} K^T S W` and :math:`C = Z^{-1} K^T B'` (K the memory kernel, Z the diagonal
matrix of the scales, S and W those of :mod:`lmu_deploy.core.spiking.network`) it equals
:math:`Z^{-1} K^T S x` at all times, without additional lag. Every step of the simulation computes

.. math::
   J_{kj} &= g_{kj}\, e_{kj}\, (z_k + i_k) + b_{kj}   && \text{(current of neuron j of unit k)} \\
   s'_{kj} &= \text{spikes of the neuron model}(J_{kj}) \\
   z      &\leftarrow a\, z + (1 - a)\,(V s / dt + C u) \\
   y      &\leftarrow a_r\, y + (1 - a_r)\, D s' / dt,\qquad a_r = e^{-dt/\tau_r}

where :math:`i = Z^{-1}(W_x^T x_t + b)`, the contribution of input and bias to the drives, is a
constant current during the presentation of an input. D is fitted so that
:math:`D s' / dt \approx W_y^T f(Z(z + i))`, for any f; the host adds the bias of the readout to
y at the end of a presentation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.network import LMULayer, LMUNetwork, Readout
from lmu_deploy.core.representation import Part
from lmu_deploy.core.spiking.chip import Populations
from lmu_deploy.core.validation import check_array, check_number, set_fields

ACTIVATIONS = ("relu", "tanh")
"""Activations that populations can approximate."""


@dataclass(frozen=True, eq=False, repr=False)
class SpikingUnits(Part):
    """Hidden units of the last layer and the readout on neurons.

    Attributes
    ----------
    populations : Populations, one for each unit
    drive : ndarray, shape (units, memory's neurons)
        V as implemented by the chip, in seconds: contribution of a spike rate in hertz of the
        memory to the scaled drives. The neurons of the memory are ordered state by state, channel
        by channel.
    input : ndarray, shape (units, channels)
        Weights C of the input of the memory.
    scales : ndarray, shape (units,)
        Value of the drive at z = 1.
    decoders : ndarray, shape (n_out, units * neurons)
        D as implemented by the chip, in seconds: contribution of a spike rate in hertz to the
        outputs. Neurons are ordered unit by unit.
    tau_ms : float
        Time constant of the synapses of the readout, milliseconds.
    """

    populations: Populations
    drive: np.ndarray
    input: np.ndarray
    scales: np.ndarray
    decoders: np.ndarray
    tau_ms: float

    def __post_init__(self) -> None:
        if not isinstance(self.populations, Populations):
            raise InputError(
                f"spiking units need Populations, not {type(self.populations).__name__}."
            )
        units = self.populations.states
        set_fields(
            self,
            drive=check_array("units drive", self.drive, (units, None)),
            input=check_array("units input", self.input, (units, None)),
            scales=check_array("units scales", self.scales, (units,)),
            decoders=check_array("units decoders", self.decoders, (None, self.neurons)),
            tau_ms=check_number("units tau_ms", self.tau_ms, 1e-3, 1e5),
        )
        if not np.all(self.scales > 0.0):
            raise InputError("units scales must be positive throughout.")

    @property
    def units(self) -> int:
        """Number of hidden units."""
        return self.populations.states

    @property
    def neurons(self) -> int:
        """Number of neurons of all populations."""
        return self.populations.states * self.populations.neurons

    @property
    def fan_in(self) -> np.ndarray:
        """Number of synapses onto each neuron of a unit, shape (units,)."""
        return np.asarray((self.drive != 0.0).sum(axis=1), dtype=np.int64)

    @property
    def synapses_of_memory(self) -> np.ndarray:
        """Number of synapses from each neuron of the memory to units, shape (memory neurons,)."""
        reached = (self.drive != 0.0).sum(axis=0) * self.populations.neurons
        return np.asarray(reached, dtype=np.int64)

    @property
    def synapses(self) -> np.ndarray:
        """Number of outgoing synapses of each neuron of the units, shape (neurons,)."""
        return np.asarray((self.decoders != 0.0).sum(axis=0), dtype=np.int64)

    def injected(self, layer: LMULayer, x: np.ndarray) -> np.ndarray:
        """Return i, the contribution of input x (samples, n_in) and bias to the scaled drives."""
        hidden = layer.hidden
        assert hidden is not None
        total = np.zeros((len(x), self.units))
        if hidden.input_kernel is not None:
            # Sample by sample, as in targets/host.py, because batches are summed in another order.
            total += (x[:, None, :] @ hidden.input_kernel.astype(np.float64))[:, 0]
        if hidden.bias is not None:
            total += hidden.bias
        return total / self.scales


def why_on_host(network: LMUNetwork) -> str | None:
    """Return why the units of the last layer cannot be on neurons; None if they can."""
    last = network.layers[-1]
    if not isinstance(last, LMULayer):
        return "the last layer is an LSTM"
    if last.hidden is None:
        return "the last layer has no hidden units"
    if last.hidden.recurrent_kernel is not None:
        return "its hidden units are recurrent"
    if last.hidden_encoders is not None:
        return "its hidden units feed back into the memory"
    if last.hidden.activation not in ACTIVATIONS:
        return f"its activation is {last.hidden.activation}, not {' or '.join(ACTIVATIONS)}"
    return None


def check_units(units: Any, host: LMUNetwork, memory: Any) -> None:
    """Raise InputError unless units match a host and the memory of its last layer.

    Parameters
    ----------
    units : SpikingUnits
    host : LMUNetwork
    memory : SpikingMemory
        Memory of the last layer.
    """
    if not isinstance(units, SpikingUnits):
        raise InputError(
            f"the units of a spiking network must be SpikingUnits, not {type(units).__name__}."
        )
    if (reason := why_on_host(host)) is not None:
        raise InputError(f"the units cannot be on neurons because {reason}; run them on the host.")
    last, readout = host.layers[-1], host.readout
    assert isinstance(last, LMULayer) and last.hidden is not None and isinstance(readout, Readout)
    for name, found, wanted in (
        ("units", units.units, last.hidden.units),
        ("memory neurons as inputs", units.drive.shape[1], memory.neurons),
        ("channels as inputs", units.input.shape[1], memory.channels),
        ("outputs", units.decoders.shape[0], host.n_out),
    ):
        if found != wanted:
            raise InputError(
                f"the units on neurons have {found} {name}, and the network has {wanted}; the two "
                "must be equal."
            )
