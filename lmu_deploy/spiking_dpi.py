r"""Differential-pair integrators: the circuit that DYNAP chips make neurons and synapses of.

A DPI is a first-order filter of currents in a few transistors below threshold (Bartolozzi,
Indiveri 2007, "Synaptic dynamics in analog VLSI", Neural Computation 19, 2581-2603). With an input
current :math:`I_{in}`, its gain current :math:`I_{th}`, its leak :math:`I_\tau` and
:math:`\tau = C U_T / (\kappa I_\tau)`, the output I follows

.. math:: \tau \left(1 + \frac{I_{th}}{I}\right) \dot I + I = \frac{I_{th}}{I_\tau}(I_{in} - I_\tau)

which is a linear filter where I is much larger than :math:`I_{th}`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from lmu_deploy.checks import check_number, set_fields
from lmu_deploy.errors import InputError


@dataclass(frozen=True)
class DPICircuit:
    r"""Currents of a DPI neuron, in picoamperes.

    Chicca, Stefanini, Bartolozzi, Indiveri 2014 ("Neuromorphic electronic circuits for building
    autonomous cognitive systems", Proceedings of the IEEE 102, 1367-1388, section III; after Livi,
    Indiveri 2009) give for the membrane current, without adaptation,

    .. math::
       \tau \left(1 + \frac{I_{th}}{I}\right) \dot I + I
       = \frac{I_{th}}{I_\tau}(I_{in} - I_\tau) + \frac{I_a}{I_\tau}(I + I_{th})

    and, divided by :math:`\tau (1 + I_{th} / I)`, as it is simulated here,

    .. math::
       \tau \dot I = I \left(\frac{I_{th}}{I_\tau} \frac{I_{in}}{I + I_{th}} - 1
       + \frac{I_a}{I_\tau}\right), \qquad
       I_a = \frac{I_{gain}}{1 + e^{-(I - I_{on}) / I_{width}}}

    where the positive feedback :math:`I_a` of the sodium-like branch has the sigmoid with which the
    group that designed the circuit simulates it. A neuron spikes when I exceeds `spike`, is then
    reset and held for its refractory time; the input is rectified, and I does not sink below the
    dark current. The leak chooses the capacitance, so that tau is the model's
    `membrane_tau_ms`. A model's current of one makes I settle at `onset` without the feedback.

    The values are those of that group's simulations (the Brian2 parameters "dpi_neuron_param" of
    its library teili, 2018).

    Attributes
    ----------
    leak, gain : float
        I_tau and I_th.
    feedback, onset, width : float
        I_gain, I_on and I_width of the positive feedback.
    spike, reset, dark : float
    """

    leak: float = 8.0
    gain: float = 0.9
    feedback: float = 50.0
    onset: float = 500.0
    width: float = 10.0
    spike: float = 1000.0
    reset: float = 0.6
    dark: float = 0.5

    def __post_init__(self) -> None:
        for name in (each.name for each in fields(self)):
            set_fields(self, **{name: check_number(f"DPI {name}", getattr(self, name), 1e-6, 1e9)})
        if not self.dark <= self.reset < self.onset < self.spike:
            raise InputError(
                f"DPI currents must rise from dark ({self.dark:g} pA) over reset ({self.reset:g}) "
                f"and onset ({self.onset:g}) to spike ({self.spike:g}); mend them."
            )
        if self.feedback <= self.leak:
            raise InputError(
                f"DPI feedback of {self.feedback:g} pA does not overcome the leak of "
                f"{self.leak:g} pA, so no spike would ever be completed; give more."
            )


@dataclass(frozen=True)
class DPISynapse:
    r"""A pair of DPI synapses for each state: one excites, one inhibits, x is their difference.

    The same equation with the weights' pulses as input. Over a step of the simulation the factor
    :math:`I / (I + I_{th})` is held, so that with D the drive that a linear synapse would get,

    .. math:: I \leftarrow a I + (1 - a)\, \frac{I}{I + I_{th}}\, D

    the positive part of each spike's effect going to the one, the negative to the other.

    Attributes
    ----------
    gain, dark : float
        I_th, and the least current; in units of a scaled state, so a hundredth stands for a
        synapse whose output at the end of the state's range is a hundred times I_th.
    """

    gain: float = 0.01
    dark: float = 0.001

    def __post_init__(self) -> None:
        for name in ("gain", "dark"):
            set_fields(
                self, **{name: check_number(f"synapse {name}", getattr(self, name), 1e-9, 1e3)}
            )
