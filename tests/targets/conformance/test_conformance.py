"""The conformance cases on every target that is installed, for each representation it accepts."""

from functools import cache

import pytest

from lmu_deploy.core.errors import InputError, MissingDependencyError
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.spiking.network import SpikingNetwork
from targets.base import get_target, target_names
from targets.conformance import CASES, cases_for, exceptions, kinds, maker
from targets.conformance.fixtures import made

target = cache(get_target)


def parameters():
    """Each target, network and case, and the declared exceptions with their reasons."""
    for name in target_names():
        # The cases of a target share its runs, so they belong in one process.
        together = pytest.mark.xdist_group(f"conformance-{name}")
        try:
            instance = target(name)
        except MissingDependencyError as error:
            absent = pytest.mark.skip(reason=str(error))
            yield pytest.param(name, None, None, None, id=name, marks=[absent])
            continue
        networks = [(cls, kind) for cls in instance.accepts for kind in kinds(cls)]
        for representation, kind in networks:
            prefix = f"{name}-{representation.__name__}-{kind}"
            for case in cases_for(instance, representation):
                yield pytest.param(
                    name, representation, kind, case, id=f"{prefix}-{case}", marks=[together]
                )
            for case, reason in exceptions(instance).items():
                declared = pytest.mark.skip(reason=f"{name} declares: {reason}")
                yield pytest.param(
                    name, representation, kind, case, id=f"{prefix}-{case}", marks=[declared]
                )


@pytest.mark.parametrize(("name", "representation", "kind", "case"), list(parameters()))
def test_conformance(name, representation, kind, case):
    try:
        CASES[case](target(name), maker(representation, kind))
    except MissingDependencyError as error:
        pytest.skip(str(error))


def test_spiking_networks_are_of_the_requested_kind():
    for kind, neuron, linear in (("usual", "lif", True), ("dpi", "dpi", False)):
        network = made(maker(SpikingNetwork, kind), "memory")
        assert network.neuron.kind == neuron
        assert (network.synapse is None) == linear
    with pytest.raises(InputError, match=r"kind .*dpi.*usual"):
        maker(IntegerNetwork, "dpi")
