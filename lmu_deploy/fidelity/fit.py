"""Whether what was run fits the chip it was made for, and what does not."""

from __future__ import annotations

from lmu_deploy.errors import InputError
from lmu_deploy.fidelity.schema_costs import Fit
from lmu_deploy.hardware.preflight import check
from lmu_deploy.hardware.profile import AnalogProfile, DigitalProfile, load_profile
from lmu_deploy.integer_network import IntegerNetwork
from lmu_deploy.loihi_network import LoihiNetwork
from lmu_deploy.spiking_network import SpikingNetwork


def fit_of(network: object) -> Fit | None:
    """Hold a network to its own profile; None of one that has none, or one unknown here.

    Parameters
    ----------
    network : IntegerNetwork, LoihiNetwork or SpikingNetwork
        Of one on a digital chip every rule of :mod:`lmu_deploy.hardware.preflight` is applied; of
        one on an analog chip the number of neurons, its other limits being kept when it is made.
    """
    if isinstance(network, SpikingNetwork):
        name = network.device.profile
    elif isinstance(network, IntegerNetwork | LoihiNetwork):
        name = network.profile
    else:
        return None
    try:
        chip = load_profile(name)
    except InputError:
        return None
    if isinstance(network, SpikingNetwork):
        if not isinstance(chip, AnalogProfile):
            return None
        found = _neurons(network, chip)
    else:
        if not isinstance(chip, DigitalProfile):
            return None
        found = [str(violation) for violation in check(network, chip)]
    return Fit(profile=chip.name, title=chip.title, violations=found)


def _neurons(network: SpikingNetwork, chip: AnalogProfile) -> list[str]:
    needed = network.neurons
    if needed <= (room := int(chip.neurons)):
        return []
    return [
        f"neurons of {chip.title}: {needed}, and at most {room} are possible; "
        "use fewer neurons per state."
    ]
