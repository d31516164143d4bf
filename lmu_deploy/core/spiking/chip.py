r"""Parts of the virtual analog chip: neuron models, populations, device, calibration.

The equations of a network are in :mod:`lmu_deploy.core.spiking.network`.

DYNAP chips build neurons and synapses from differential-pair integrators (DPI). A DPI is a
first-order low-pass filter of currents made of a few subthreshold transistors (Bartolozzi,
Indiveri 2007, "Synaptic dynamics in analog VLSI", Neural Computation 19, 2581-2603). With the input
current :math:`I_{in}`, gain current :math:`I_{th}`, leak :math:`I_\tau` and
:math:`\tau = C U_T / (\kappa I_\tau)`, the output I follows

.. math:: \tau \left(1 + \frac{I_{th}}{I}\right) \dot I + I = \frac{I_{th}}{I_\tau}(I_{in} - I_\tau)

which is a linear filter where I is much larger than :math:`I_{th}`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import LATER
from lmu_deploy.core.options import CALIBRATIONS, NEURON_KINDS
from lmu_deploy.core.representation import Part
from lmu_deploy.core.validation import (
    check_array,
    check_choice,
    check_integer,
    check_number,
    check_text,
    set_fields,
)


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

    where the positive feedback :math:`I_a` of the sodium-like branch is modeled by the sigmoid used
    in the simulations of the group that designed the circuit. A neuron spikes when I exceeds
    `spike`; it is then reset and clamped for its refractory time. The input is rectified, and I
    does not fall below the dark current. The capacitance follows from the leak, so that tau equals
    `membrane_tau_ms` of the model. Without feedback, a model current of 1 drives I to `onset`.

    The default values are those of that group (parameters "dpi_neuron_param" of its Brian2 library
    teili, 2018).

    Attributes
    ----------
    leak, gain : float
        Leak and gain currents, I_tau and I_th.
    feedback, onset, width : float
        Parameters I_gain, I_on and I_width of the positive feedback.
    spike, reset, dark : float
        Spike threshold, reset value and lower limit of I.
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
                f"and onset ({self.onset:g}) to spike ({self.spike:g}); change them."
            )
        if self.feedback <= self.leak:
            raise InputError(
                f"DPI feedback of {self.feedback:g} pA does not overcome the leak of "
                f"{self.leak:g} pA, so that no neuron could spike; give a larger value."
            )


@dataclass(frozen=True)
class DPISynapse:
    r"""A pair of DPI synapses for each state; x is the excitatory minus the inhibitory current.

    The DPI equation with weighted pulses as input. The factor :math:`I / (I + I_{th})` is taken as
    constant over a step of the simulation, so that with D the drive of a linear synapse

    .. math:: I \leftarrow a I + (1 - a)\, \frac{I}{I + I_{th}}\, D

    where positive weights act on the excitatory and negative weights on the inhibitory synapse.

    Attributes
    ----------
    gain, dark : float
        I_th and the lower limit of the current, in units of a scaled state: 0.01 means that the
        output at the end of the range of a state is a hundred times I_th.
    """

    gain: float = 0.01
    dark: float = 0.001

    def __post_init__(self) -> None:
        for name in ("gain", "dark"):
            set_fields(
                self, **{name: check_number(f"synapse {name}", getattr(self, name), 1e-9, 1e3)}
            )


NOISY_KINDS = ("lif", "dpi")
"""Neuron models for which membrane noise and threshold noise are defined."""
_REFRACTORY = ("lif", "dpi")
CALIBRATION_MARGIN = 1.5
"""Largest state of a dynamic calibration, relative to the range of the state."""


@dataclass(frozen=True)
class NeuronModel:
    r"""Model of a spiking neuron, in units in which threshold and rheobase current are 1.

    ``lif``: :math:`\tau_m \dot v = J - v`; a spike when v > 1, then v = 0 and no change for the
    refractory time (Gerstner, Kistler 2002, "Spiking Neuron Models", section 4.1).

    ``dpi``: the silicon neuron of :class:`DPICircuit`, integrated by Euler's method.

    ``if``: :math:`\tau_m \dot v = \max(J, 0)`; a spike when v > 1, then v is lowered by 1 (ibid.,
    without the leak; the excess over the threshold is carried over, so that the rate is J / tau_m
    for any step).

    ``poisson``: a spike with probability :math:`\max(J, 0)\, dt / \tau_m` in each step (a rectified
    linear rate and Poisson spikes, for which Voelker, Kajic, Eliasmith 2019 give an error of
    O(d / sqrt(m)) for m neurons).

    Attributes
    ----------
    kind : {"lif", "dpi", "if", "poisson"}
    membrane_tau_ms, refractory_ms : float
        Milliseconds; only LIF and DPI neurons have a refractory time.
    circuit : DPICircuit, optional
        For DPI neurons only; the default currents if absent.
    """

    kind: str
    membrane_tau_ms: float
    refractory_ms: float
    circuit: DPICircuit | None = None

    def __post_init__(self) -> None:
        set_fields(
            self,
            kind=check_choice("neuron model", self.kind, NEURON_KINDS),
            membrane_tau_ms=check_number("membrane_tau_ms", self.membrane_tau_ms, 1e-3, 1e5),
            refractory_ms=check_number("refractory_ms", self.refractory_ms, 0.0, 1e4),
        )
        if self.kind == "dpi" and self.circuit is None:
            set_fields(self, circuit=DPICircuit())
        if self.circuit is not None and (
            self.kind != "dpi" or not isinstance(self.circuit, DPICircuit)
        ):
            raise InputError(f"a neuron model {self.kind} has no such circuit; omit it.")
        if self.kind not in _REFRACTORY and self.refractory_ms:
            raise InputError(
                f"refractory_ms is {self.refractory_ms:g}, and a neuron model {self.kind} has no "
                "refractory time; give 0."
            )


_FAULTY_CURRENT = 1000.0
"""Current of a stuck neuron, and minus that of a dead one, in rheobase currents."""


@dataclass(frozen=True, eq=False, repr=False)
class Populations(Part):
    """One population of neurons per state: programmed parameters and device mismatch.

    Attributes
    ----------
    encoders : ndarray, shape (states, neurons)
        Preferred direction, +1 or -1.
    gains, biases : ndarray, shape (states, neurons)
        Programmed values, in rheobase currents per unit of state and in rheobase currents.
    gain_factors, bias_factors : ndarray, shape (states, neurons)
        Factors of device mismatch on gains and biases; ones for an ideal chip.
    tau_factors : ndarray, shape (states, neurons), optional
        Factors on the time constants of the membranes; None if these do not vary.
    noise_factors : ndarray, shape (states, neurons), optional
        Factors on the membrane noise; None if it is the same for all.
    faults : ndarray, shape (states, neurons), optional
        0 for a neuron that works, -1 for one that never spikes (dead), 1 for one that always does
        (stuck), as fast as its refractory time allows; None if all work.
    """

    encoders: np.ndarray
    gains: np.ndarray
    biases: np.ndarray
    gain_factors: np.ndarray
    bias_factors: np.ndarray
    tau_factors: np.ndarray | None = field(default=None, metadata=LATER)
    noise_factors: np.ndarray | None = field(default=None, metadata=LATER)
    faults: np.ndarray | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        encoders = check_array("encoders", self.encoders, (None, None))
        if not np.all(np.abs(encoders) == 1.0):
            raise InputError("encoders must be +1 or -1 throughout.")
        set_fields(self, encoders=encoders)
        for name in ("gains", "biases", "gain_factors", "bias_factors"):
            set_fields(self, **{name: check_array(name, getattr(self, name), encoders.shape)})
        for name in ("tau_factors", "noise_factors", "faults"):
            if (given := getattr(self, name)) is not None:
                set_fields(self, **{name: check_array(name, given, encoders.shape)})
        for name in ("gain_factors", "bias_factors", "tau_factors", "noise_factors"):
            if (factors := getattr(self, name)) is not None and not np.all(factors > 0.0):
                raise InputError(f"{name} must be positive throughout.")
        if self.faults is not None and not np.all(np.isin(self.faults, (-1.0, 0.0, 1.0))):
            raise InputError("faults must be -1, 0 or 1 throughout.")

    def noisier(self, factor: float) -> Populations:
        """Return the populations with so many times the membrane noise."""
        own = self.noise_factors
        factors = np.ones(self.encoders.shape) if own is None else own
        return self if factor == 1.0 else replace(self, noise_factors=factor * factors)

    @property
    def states(self) -> int:
        """Number of states, which is the number of populations."""
        return int(self.encoders.shape[0])

    @property
    def neurons(self) -> int:
        """Number of neurons per population."""
        return int(self.encoders.shape[1])

    @property
    def slopes(self) -> np.ndarray:
        """Slopes of current over state on this chip, shape (states, neurons)."""
        slopes = self.gains * self.gain_factors * self.encoders
        return np.asarray(slopes if self.faults is None else np.where(self.faults, 0.0, slopes))

    @property
    def offsets(self) -> np.ndarray:
        """Currents at state zero on this chip, shape (states, neurons)."""
        offsets = self.biases * self.bias_factors
        if self.faults is None:
            return np.asarray(offsets)
        return np.asarray(np.where(self.faults, _FAULTY_CURRENT * self.faults, offsets))


@dataclass(frozen=True)
class Device:
    """A virtual analog chip: mismatch, noise and weight resolution.

    Attributes
    ----------
    profile : str
        Name of the hardware profile.
    seed : int
        Identifies the chip: seed of the mismatch factors in :class:`Populations`.
    mismatch : float
        Coefficient of variation of gains and biases across neurons (lognormal).
    membrane_noise : float
        Standard deviation of a subthreshold LIF membrane under current noise, in thresholds; for a
        DPI neuron, that of the membrane current in its linear range.
    weight_bits : int
        Width of a weight of W including the sign, with a scale per row; 0 for real weights.
    threshold_noise : float
        Threshold noise: relative standard deviation from step to step.
    tau_mismatch : float
        Coefficient of variation of membrane time constants across neurons (lognormal).
    board : str
        Name of the device, or of the file of its recordings, that calibration measured in place of
        a virtual chip; empty for a virtual chip, whose mismatch is in :class:`Populations`.
    """

    profile: str
    seed: int
    mismatch: float
    membrane_noise: float
    weight_bits: int
    threshold_noise: float = field(default=0.0, metadata=LATER)
    tau_mismatch: float = field(default=0.0, metadata=LATER)
    board: str = field(default="", metadata=LATER)

    def __post_init__(self) -> None:
        set_fields(
            self,
            board=check_text("device board", self.board, 200) if self.board else "",
            profile=check_text("profile", self.profile, 200),
            seed=check_integer("device seed", self.seed, 0, 2**32 - 1),
            mismatch=check_number("mismatch", self.mismatch, 0.0, 2.0),
            membrane_noise=check_number("membrane_noise", self.membrane_noise, 0.0, 10.0),
            weight_bits=check_integer("weight_bits", self.weight_bits, 0, 24),
            threshold_noise=check_number("threshold_noise", self.threshold_noise, 0.0, 1.0),
            tau_mismatch=check_number("tau_mismatch", self.tau_mismatch, 0.0, 2.0),
        )
        if self.weight_bits == 1:
            raise InputError(
                "weight_bits is 1, which leaves no bit beside the sign; give 0 or 2 to 24."
            )

    def ideal(self) -> Device:
        """Return the chip without mismatch and noise, with the same weight resolution."""
        return replace(
            self, mismatch=0.0, tau_mismatch=0.0, membrane_noise=0.0, threshold_noise=0.0
        )


@dataclass(frozen=True)
class Calibration:
    """Method and quality of the fit of W.

    Attributes
    ----------
    method : {"none", "static", "dynamic"}
        none: decoders from the rate curves of an ideal chip. static: decoders from the rate curves
        of this chip. dynamic: W fitted to the spikes of this chip on forced state trajectories.
    seed : int
        Seed of the initial membranes, the noise and the perturbation of the states.
    samples : int
        Number of input sequences used.
    ridge : float
        Ridge regularization, relative to the mean square of a feature; for dynamic calibration
        selected on held-out time.
    fit_error : float
        Root mean square error relative to the root mean square of the fitted signal: W against A' x
        on held-out time (dynamic), decoded against true states over the rate curves (others).
    dead : tuple of str
        Populations without a spike during the calibration, such as
        ``layer0/memory/population6``.
    """

    method: str
    seed: int
    samples: int
    ridge: float
    fit_error: float
    dead: tuple[str, ...] = field(default=(), metadata=LATER)

    def __post_init__(self) -> None:
        set_fields(
            self,
            method=check_choice("calibration", self.method, CALIBRATIONS),
            seed=check_integer("calibration seed", self.seed, 0, 2**32 - 1),
            samples=check_integer("calibration samples", self.samples, 0, 2**31 - 1),
            ridge=check_number("calibration ridge", self.ridge, 0.0, 1e6),
            fit_error=check_number("calibration fit_error", self.fit_error, 0.0, 1e12),
            dead=tuple(check_text("dead population", place, 200) for place in self.dead),
        )


def check_multiple(name: str, value: float, dt_ms: float, least: int = 1) -> float:
    """Return `value` if it is a whole number, at least `least`, of steps of `dt_ms`.

    Raises
    ------
    InputError
        When it is not; the message states the nearest valid value.
    """
    number = check_number(name, value, 0.0, 1e9)
    steps = number / dt_ms
    if abs(steps - round(steps)) > 1e-9 * max(steps, 1.0) or round(steps) < least:
        nearest = max(round(steps), least) * dt_ms
        raise InputError(
            f"{name} is {number:g} ms, not a whole multiple of the simulation step of {dt_ms:g} "
            f"ms; give {nearest:g} ms."
        )
    return number


def check_rates(rates: Any, model: NeuronModel) -> tuple[float, float]:
    """Return the range of maximum rates if neurons of the model can reach them.

    Parameters
    ----------
    rates : sequence of two floats
        Lower and upper limit, hertz.
    model : NeuronModel

    Raises
    ------
    InputError
        When they are not two ascending numbers, or the refractory time does not allow them.
    """
    if not isinstance(rates, tuple | list) or len(rates) != 2:
        raise InputError(
            f"maximum rates are {rates!r}; give two numbers, the lowest and the highest."
        )
    fastest = 0.9e3 / max(model.refractory_ms, 1.0)
    lowest = check_number("lowest maximum rate", rates[0], 1e-3, fastest)
    return lowest, check_number("highest maximum rate", rates[1], lowest, fastest)
