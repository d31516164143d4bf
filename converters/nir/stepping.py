r"""How a simulator of a NIR graph goes through time, which decides the weights of a memory in it.

NIR's leaky integrator is :math:`\tau \dot v = -v + I` (Pedersen et al. 2024, "Neuromorphic
intermediate representation", Nature Communications 15, 8122). A simulator with steps of dt keeps a
share a of v in each step and takes 1 - a of I, whichever rule it has:

.. math:: v \leftarrow a\, v + (1 - a)\, I, \qquad
          a = 1 - dt / \tau \;\text{(euler)} \quad\text{or}\quad
          a = e^{-dt/\tau} \;\text{(exponential)}
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmu_deploy.checks import check_choice, check_number
from lmu_deploy.errors import InputError

INTEGRATORS = ("euler", "exponential")
STEPS_PER_TAU = 8.0
"""A power of two: dividing by 1 - a is then exact, and so is the way back."""


@dataclass(frozen=True)
class Stepping:
    """The simulator's rule.

    Attributes
    ----------
    integrator : {"euler", "exponential"}
    dt, tau : float
        Step, and time constant of the memory's leaky integrators; seconds.
    """

    integrator: str
    dt: float
    tau: float

    def __post_init__(self) -> None:
        check_choice("integrator", self.integrator, INTEGRATORS)
        check_number("dt", self.dt, 1e-9, 1e3)
        check_number("tau", self.tau, 1e-9, 1e6)
        if self.tau < self.dt:
            raise InputError(
                f"tau is {self.tau:g} s, shorter than the step of {self.dt:g} s; give a longer tau."
            )

    @property
    def decay(self) -> float:
        """Share a of its state that a leaky integrator keeps over a step."""
        share = self.dt / self.tau
        return 1.0 - share if self.integrator == "euler" else float(np.exp(-share))


def time_constant(integrator: str, dt: float, decay: float, tau: float) -> float:
    """Time constant with which the rule keeps exactly `decay` in a step.

    Parameters
    ----------
    integrator : {"euler", "exponential"}
    dt : float
        Seconds.
    decay : float
        What is to be kept.
    tau : float
        Seconds; the answer for exponential steps, for which ``decay = exp(-dt / tau)``.
    """
    return tau if integrator == "exponential" else dt / (1.0 - decay)
