"""Conformance suite of targets; tests/targets/conformance shows how to run it.

A case is a function ``case(target, make_network)`` that raises :class:`ConformanceError` when the
target violates the interface of :mod:`targets.base`. `make_network` converts a small float network
and calibration inputs into the target's representation; :func:`maker` returns it for the
representations of this package, for each of their :func:`kinds`. With pytest:

    TARGET = MyTarget()
    MAKE = maker(IntegerNetwork)

    @pytest.mark.parametrize("name", cases_for(TARGET, IntegerNetwork))
    def test_conformance(name):
        CASES[name](TARGET, MAKE)

A target declares cases that it cannot pass in ``conformance_exceptions``, a mapping from the name
of the case to the reason. It declares the largest relative deviation from the float reference in
``conformance_tolerance``; see :func:`targets.conformance.fixtures.tolerance` for the default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.network import LMUNetwork
from lmu_deploy.core.spiking.loihi import LoihiNetwork
from targets.base import Target
from targets.conformance import cases
from targets.conformance.fixtures import ConformanceError, MakeNetwork, kinds, maker

Case = Callable[[Target, MakeNetwork], None]

CASES: Mapping[str, Case] = {
    case.__name__.removeprefix("case_"): case
    for case in (
        cases.case_answers_are_real_numbers_of_the_right_shape,
        cases.case_answers_agree_with_the_reference,
        cases.case_silence_is_answered_with_silence,
        cases.case_one_step_is_the_first_of_many,
        cases.case_integers_equal_the_simulator,
        cases.case_the_run_says_what_it_was,
        cases.case_states_are_recorded_at_every_step,
        cases.case_states_agree_with_the_reference,
        cases.case_nothing_is_recorded_unasked,
        cases.case_events_add_up,
        cases.case_the_same_seed_gives_the_same_run,
        cases.case_samples_do_not_meet,
        cases.case_inputs_are_left_alone,
        cases.case_progress_reaches_its_end,
        cases.case_wrong_inputs_are_refused,
        cases.case_other_representations_are_refused,
        cases.case_unsupported_networks_are_refused_with_every_reason,
    )
}
"""All cases by name."""

_ONLY_FOR: Mapping[str, tuple[type, ...]] = {
    "integers_equal_the_simulator": (IntegerNetwork, LoihiNetwork),
    "samples_do_not_meet": (Network, LMUNetwork, IntegerNetwork, LoihiNetwork),
}
"""Cases that apply to some representations only; noise, for example, is drawn for a whole batch."""


def cases_for(target: Target, representation: type) -> list[str]:
    """Return the names of the cases that `target` has to pass for a representation."""
    return [
        name
        for name in CASES
        if name not in exceptions(target)
        and issubclass(representation, _ONLY_FOR.get(name, (object,)))
    ]


def exceptions(target: Any) -> Mapping[str, str]:
    """Return the cases that `target` declares it cannot pass, with reasons.

    Raises
    ------
    ConformanceError
        When it declares an unknown case, or no reason.
    """
    declared: Mapping[str, str] = getattr(target, "conformance_exceptions", {})
    for name, reason in declared.items():
        if name not in CASES or not reason.strip():
            raise ConformanceError(
                f"{target.name} declares {name!r} without a reason, or there is no such case."
            )
    return declared


__all__ = ["CASES", "ConformanceError", "MakeNetwork", "cases_for", "exceptions", "kinds", "maker"]
