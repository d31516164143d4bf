r"""SpikingUnits: the hidden units and the readout of a network's last layer on spiking neurons.

A unit's drive :math:`z_k`, scaled to about +-1 by :math:`\zeta_k`, lives in synapses of the same
time constant as the memory's, which get the memory's own spikes s and input u. With
:math:`V = Z^{-1} K^T S W` and :math:`C = Z^{-1} K^T B'` (K the memory kernel, Z the scales on a
diagonal, S and W those of `core.spiking.network`) it is :math:`Z^{-1} K^T S x` at every
moment, with no lag of its own. Every step of the simulation computes

.. math::
   J_{kj} &= g_{kj}\, e_{kj}\, (z_k + i_k) + b_{kj}   && \text{(current of neuron j of unit k)} \\
   s'_{kj} &= \text{spikes of the neuron model}(J_{kj}) \\
   z      &\leftarrow a\, z + (1 - a)\,(V s / dt + C u) \\
   y      &\leftarrow a_r\, y + (1 - a_r)\, D s' / dt,\qquad a_r = e^{-dt/\tau_r}

where :math:`i = Z^{-1}(W_x^T x_t + b)`, what input and bias add to the drives, is a current that is
held as long as the input. D is meant to give :math:`D s' / dt \approx W_y^T f(Z(z + i))`, whatever
f is; the host adds the readout's bias to y at the end of a hold.
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
"""What a population can be asked to compute."""


@dataclass(frozen=True, eq=False, repr=False)
class SpikingUnits(Part):
    """The last layer's units and the readout on neurons.

    Attributes
    ----------
    populations : Populations, one for each unit
    drive : ndarray, shape (units, memory's neurons)
        V as the chip holds it, in seconds: what a spike rate in hertz of the layer's memory adds to
        the scaled drives. The memory's neurons are ordered state by state, channel by channel.
    input : ndarray, shape (units, channels)
        C.
    scales : ndarray, shape (units,)
        The drive that z = 1 stands for.
    decoders : ndarray, shape (n_out, units * neurons)
        D as the chip holds it, in seconds: what a rate adds to the answer. Ordered unit by unit.
    tau_ms : float
        Time constant of the readout's synapses, milliseconds.
    """

    populations: Populations
    drive: np.ndarray
    input: np.ndarray
    scales: np.ndarray
    decoders: np.ndarray
    tau_ms: float

    def __post_init__(self) -> None:
        if not isinstance(self.populations, Populations):
            raise InputError("spiking units need Populations; mend the file.")
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
            raise InputError("units scales must be above zero throughout; mend the file.")

    @property
    def units(self) -> int:
        """Number of hidden units."""
        return self.populations.states

    @property
    def neurons(self) -> int:
        """Number of neurons of all populations."""
        return self.populations.states * self.populations.neurons

    @property
    def synapses_of_memory(self) -> np.ndarray:
        """Synapses by which each neuron of the memory reaches units, shape (memory's neurons,)."""
        reached = (self.drive != 0.0).sum(axis=0) * self.populations.neurons
        return np.asarray(reached, dtype=np.int64)

    @property
    def synapses(self) -> np.ndarray:
        """Synapses that leave each neuron of the units, shape (neurons,)."""
        return np.asarray((self.decoders != 0.0).sum(axis=0), dtype=np.int64)

    def injected(self, layer: LMULayer, x: np.ndarray) -> np.ndarray:
        """Give i, what input and bias add to the scaled drives; x is (samples, n_in)."""
        hidden = layer.hidden
        assert hidden is not None
        total = np.zeros((len(x), self.units))
        if hidden.input_kernel is not None:
            # Sample by sample, as in targets/host.py: a batch is summed in another order.
            total += (x[:, None, :] @ hidden.input_kernel.astype(np.float64))[:, 0]
        if hidden.bias is not None:
            total += hidden.bias
        return total / self.scales


def why_on_host(network: LMUNetwork) -> str | None:
    """Say why the last layer's units and the readout cannot be on neurons; None if they can."""
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
    """Raise InputError when units do not belong to a host and to the memory of its last layer.

    Parameters
    ----------
    units : SpikingUnits
    host : LMUNetwork
    memory : SpikingMemory
        Of the last layer.
    """
    if not isinstance(units, SpikingUnits):
        raise InputError(
            f"a spiking network's units must be SpikingUnits, not {type(units).__name__}; mend "
            "the file."
        )
    if (reason := why_on_host(host)) is not None:
        raise InputError(f"the units cannot be on neurons, for {reason}; leave them to the host.")
    last, readout = host.layers[-1], host.readout
    assert isinstance(last, LMULayer) and last.hidden is not None and isinstance(readout, Readout)
    for name, found, wanted in (
        ("units", units.units, last.hidden.units),
        ("memory neurons that they read", units.drive.shape[1], memory.neurons),
        ("channels that they read", units.input.shape[1], memory.channels),
        ("outputs", units.decoders.shape[0], host.n_out),
    ):
        if found != wanted:
            raise InputError(
                f"the units on neurons have {found} {name}, and the network has {wanted}; the two "
                "must be equal."
            )
