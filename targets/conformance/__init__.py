"""Cases that every target must pass; tests/targets/conformance shows how to run them.

A case is a function ``case(target, make_network)`` that raises :class:`ConformanceError` when the
target breaks a promise of :mod:`targets.base`. `make_network` turns a small float network and
calibration inputs into what the target runs; :func:`maker` gives it for our own representations,
of each of their :func:`kinds`. With pytest:

    TARGET = MyTarget()
    MAKE = maker(IntegerNetwork)

    @pytest.mark.parametrize("name", cases_for(TARGET, IntegerNetwork))
    def test_conformance(name):
        CASES[name](TARGET, MAKE)

A target declares a case that it cannot pass in ``conformance_exceptions``, a mapping of the case's
name to the reason, and how far its answers may lie from the float reference, relative to them, in
``conformance_tolerance``; see :func:`targets.conformance.bench.tolerance` for what holds otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.network import LMUNetwork
from lmu_deploy.core.spiking.loihi import LoihiNetwork
from targets.base import Target
from targets.conformance import cases
from targets.conformance.bench import ConformanceError, MakeNetwork, kinds, maker

Case = Callable[[Target, MakeNetwork], None]

CASES: Mapping[str, Case] = {
    case.__name__.removeprefix("case_"): case
    for case in (
        cases.case_answers_are_real_numbers_of_the_right_shape,
        cases.case_answers_agree_with_the_reference,
        cases.case_silence_is_answered_with_silence,
        cases.case_one_step_is_the_first_of_many,
        cases.case_integers_equal_the_twin,
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
"""Every case by its name."""

_ONLY_FOR: Mapping[str, tuple[type, ...]] = {
    "integers_equal_the_twin": (IntegerNetwork, LoihiNetwork),
    "samples_do_not_meet": (LMUNetwork, IntegerNetwork, LoihiNetwork),
}
"""Cases that mean something for some representations alone: noise is drawn for a whole batch."""


def cases_for(target: Target, representation: type) -> list[str]:
    """Name the cases that `target` has to pass when it runs networks of a representation."""
    return [
        name
        for name in CASES
        if name not in exceptions(target)
        and issubclass(representation, _ONLY_FOR.get(name, (object,)))
    ]


def exceptions(target: Any) -> Mapping[str, str]:
    """Give the cases that `target` declares it cannot pass, with the reasons.

    Raises
    ------
    ConformanceError
        When it declares a case that does not exist, or gives no reason.
    """
    declared: Mapping[str, str] = getattr(target, "conformance_exceptions", {})
    for name, reason in declared.items():
        if name not in CASES or not reason.strip():
            raise ConformanceError(
                f"{target.name} declares {name!r} without a reason, or no such case."
            )
    return declared


__all__ = ["CASES", "ConformanceError", "MakeNetwork", "cases_for", "exceptions", "kinds", "maker"]
