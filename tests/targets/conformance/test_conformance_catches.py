"""A target with a fault fails the case that is there for it: the conformance suite can fail."""

import dataclasses

import numpy as np
import pytest

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.network import LMUNetwork
from targets.base import Run, get_target
from targets.conformance import CASES, ConformanceError, cases_for, exceptions, maker


class Faulty:
    """The integer target, or the reference, with one fault."""

    def __init__(self, name, fault):
        self.inner = get_target(name)
        self.name = name
        self.accepts = self.inner.accepts
        self.fault = fault
        self.runs = 0

    def unsupported(self, network):
        return self.inner.unsupported(network)

    def run(self, network, inputs, *, record=False, seed=0, progress=None) -> Run:
        self.runs += 1
        return self.fault(self, network, inputs, record=record, seed=seed, progress=progress)


def changed(**changes):
    """A fault that changes fields of the run; a callable gets the old value and the target."""

    def fault(self, network, inputs, **options):
        run = self.inner.run(network, inputs, **options)
        values = {
            key: value(getattr(run, key), self) if callable(value) else value
            for key, value in changes.items()
        }
        return dataclasses.replace(run, **values)

    return fault


def changed_states(**changes):
    def change(states, _):
        if states is None:
            return None
        return dataclasses.replace(states, **{k: f(getattr(states, k)) for k, f in changes.items()})

    return changed(states=change)


def changed_events(change):
    return changed(events=lambda events, _: {name: change(c) for name, c in events.items()})


def without_option(option, value):
    """A fault that does not pass an option on."""

    def fault(self, network, inputs, **options):
        return self.inner.run(network, inputs, **{**options, option: value})

    return fault


def spoils_inputs(self, network, inputs, **options):
    run = self.inner.run(network, inputs, **options)
    if inputs.flags.writeable:
        inputs *= 2.0
    return run


def lets_samples_meet(self, network, inputs, **options):
    shifted = inputs + 0.1 * (len(inputs) - 1) if np.isfinite(inputs).all() else inputs
    return self.inner.run(network, shifted, **options)


def replaces_nan(self, network, inputs, **options):
    return self.inner.run(network, np.nan_to_num(inputs), **options)


def answers_no_samples(self, network, inputs, **options):
    if len(inputs):
        return self.inner.run(network, inputs, **options)
    run = self.inner.run(network, np.zeros((1, *inputs.shape[1:])), **options)
    return dataclasses.replace(run, outputs=run.outputs[:0])


def drops_the_first_step(self, network, inputs, **options):
    late = np.concatenate([inputs[:, :1] * 0, inputs[:, :-1]], axis=1)
    return self.inner.run(network, late, **options)


def crashes_on_other_networks(self, network, inputs, **options):
    if not isinstance(network, self.accepts):
        raise KeyError(network)
    return self.inner.run(network, inputs, **options)


def progress_that(calls):
    def fault(self, network, inputs, **options):
        progress = options.pop("progress")
        run = self.inner.run(network, inputs, **options)
        for call in calls if progress else ():
            progress(*call)
        return run

    return fault


def one_more(values, *_):
    values = values.copy()
    values.flat[0] += 1
    return values


FAULTS = {
    "integers": (
        "answers_are_real_numbers_of_the_right_shape",
        changed(outputs=lambda v, _: (v * 1000).astype(int)),
    ),
    "wrong shape": (
        "answers_are_real_numbers_of_the_right_shape",
        changed(outputs=lambda v, _: v[..., None]),
    ),
    "infinite": (
        "answers_are_real_numbers_of_the_right_shape",
        changed(outputs=lambda v, _: v / 0.0 if v.size else v),
    ),
    "ten per cent off": (
        "answers_agree_with_the_reference",
        changed(outputs=lambda v, _: 1.1 * v),
    ),
    "a step late": ("answers_agree_with_the_reference", drops_the_first_step),
    "an offset": ("silence_is_answered_with_silence", changed(outputs=lambda v, _: v + 1e-3)),
    "sends zeros": ("silence_is_answered_with_silence", changed_events(lambda c: c + 1)),
    "state drifts": ("silence_is_answered_with_silence", changed_states(m=one_more)),
    "knows the length": (
        "one_step_is_the_first_of_many",
        changed(outputs=lambda v, _: v / (1.0 + v.shape[1])),
    ),
    "one unit off": ("integers_equal_the_simulator", changed_states(m=one_more)),
    "one event off": ("integers_equal_the_simulator", changed_events(one_more)),
    "one synop off": ("integers_equal_the_simulator", changed(synops=lambda v, _: v + 1)),
    "float states": ("integers_equal_the_simulator", changed_states(h=lambda v: v.astype(float))),
    "another name": ("the_run_says_what_it_was", changed(target="other")),
    "another seed": ("the_run_says_what_it_was", changed(seed=8)),
    "no JSON": ("the_run_says_what_it_was", changed(settings={"a": np.float32(1.0)})),
    "flat states": ("states_are_recorded_at_every_step", changed_states(m=lambda v: v[:, -1])),
    "one scale": ("states_are_recorded_at_every_step", changed_states(h_scale=lambda v: v[:1])),
    "other y": ("states_are_recorded_at_every_step", changed_states(y=lambda v: 2 * v)),
    "no states": ("states_are_recorded_at_every_step", without_option("record", False)),
    "wrong scale": ("states_agree_with_the_reference", changed_states(m_scale=lambda v: 1.5 * v)),
    "swapped states": ("states_agree_with_the_reference", changed_states(m=lambda v: v[..., ::-1])),
    "always records": ("nothing_is_recorded_unasked", without_option("record", True)),
    "events of chip steps": ("events_add_up", changed_events(lambda c: np.repeat(c, 2, axis=1))),
    "float events": ("events_add_up", changed_events(lambda c: c.astype(float))),
    "negative events": ("events_add_up", changed_events(lambda c: -c)),
    "more than neurons": ("events_add_up", changed_events(lambda c: c * 1000)),
    "no synops": ("events_add_up", changed(synops=0)),
    "raster of another sample": (
        "events_add_up",
        changed(rasters=lambda v, _: {name: 1 - raster for name, raster in v.items()}),
    ),
    "unnamed population": ("events_add_up", changed(neurons={})),
    "differs from run to run": (
        "the_same_seed_gives_the_same_run",
        changed(outputs=lambda v, target: v + 1e-9 * target.runs),
    ),
    "samples meet": ("samples_do_not_meet", lets_samples_meet),
    "spoils its inputs": ("inputs_are_left_alone", spoils_inputs),
    "no progress": ("progress_reaches_its_end", progress_that([])),
    "stops short": ("progress_reaches_its_end", progress_that([(1, 4), (3, 4)])),
    "goes back": ("progress_reaches_its_end", progress_that([(2, 4), (1, 4), (4, 4)])),
    "another total": ("progress_reaches_its_end", progress_that([(1, 2), (4, 4)])),
    "replaces NaN": ("wrong_inputs_are_refused", replaces_nan),
    "answers no samples": ("wrong_inputs_are_refused", answers_no_samples),
    "crashes": ("other_representations_are_refused", crashes_on_other_networks),
    "never asks": (
        "unsupported_networks_are_refused_with_every_reason",
        lambda self, network, inputs, **options: self.inner.run(network, inputs, **options),
    ),
}


@pytest.mark.parametrize(("case", "fault"), FAULTS.values(), ids=FAULTS)
def test_a_fault_fails_its_case(case, fault):
    with pytest.raises(ConformanceError), np.errstate(all="ignore"):
        CASES[case](Faulty("integer", fault), maker(IntegerNetwork))


def test_every_case_has_a_fault():
    assert {case for case, _ in FAULTS.values()} == set(CASES)


def test_cases_for_floats_leave_out_the_integer_simulator_and_declared_exceptions():
    target = get_target("reference")
    assert "integers_equal_the_simulator" not in cases_for(target, LMUNetwork)
    assert "samples_do_not_meet" in cases_for(target, LMUNetwork)
    target.conformance_exceptions = {"samples_do_not_meet": "they share a wire"}
    assert "samples_do_not_meet" not in cases_for(target, LMUNetwork)
    assert exceptions(target) == {"samples_do_not_meet": "they share a wire"}


@pytest.mark.parametrize("declared", [{"no_such_case": "why"}, {"events_add_up": "  "}])
def test_an_exception_needs_a_case_and_a_reason(declared):
    target = get_target("reference")
    target.conformance_exceptions = declared
    with pytest.raises(ConformanceError, match=next(iter(declared))):
        exceptions(target)


def test_another_representation_needs_its_own_maker():
    with pytest.raises(InputError, match="no maker of dict"):
        maker(dict)
