"""The conformance cases on every target that is installed, for each representation it accepts."""

from functools import cache

import pytest

from lmu_deploy.errors import MissingDependencyError
from targets.base import get_target, target_names
from targets.conformance import CASES, cases_for, exceptions, maker

target = cache(get_target)


def parameters():
    """Each target, representation and case, and the declared exceptions with their reasons."""
    for name in target_names():
        # Runs are kept and shared by the cases of a target, which so belong in one process.
        together = pytest.mark.xdist_group(f"conformance-{name}")
        try:
            instance = target(name)
        except MissingDependencyError as error:
            absent = pytest.mark.skip(reason=str(error))
            yield pytest.param(name, None, None, id=name, marks=[absent])
            continue
        for representation in instance.accepts:
            prefix = f"{name}-{representation.__name__}"
            for case in cases_for(instance, representation):
                yield pytest.param(
                    name, representation, case, id=f"{prefix}-{case}", marks=[together]
                )
            for case, reason in exceptions(instance).items():
                declared = pytest.mark.skip(reason=f"{name} declares: {reason}")
                yield pytest.param(
                    name, representation, case, id=f"{prefix}-{case}", marks=[declared]
                )


@pytest.mark.parametrize(("name", "representation", "case"), parameters())
def test_conformance(name, representation, case):
    try:
        CASES[case](target(name), maker(representation))
    except MissingDependencyError as error:
        pytest.skip(str(error))
