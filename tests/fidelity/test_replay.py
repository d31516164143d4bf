"""Replay: the specification predicts every recorded integer, and names the one that is wrong."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from integer_graphs import graph_runs

from lmu_deploy.core.integer.populations import Population
from lmu_deploy.fidelity.replay.integers import Replay, recorded_parts
from targets.integer import IntegerTarget


def on_chip(run) -> bool:
    """Return whether a drawn network has a population besides its input."""
    return any(isinstance(p, Population) for p in run[0].populations[1:])


@settings(deadline=None, max_examples=10)
@given(graph_runs(units=True).filter(on_chip), st.data())
def test_the_specification_predicts_every_recorded_integer(run, data):
    network, inputs = run
    states = IntegerTarget(engine="numpy").run(network, inputs, record=True).states
    parts = recorded_parts(network, states)
    replay = Replay(network, inputs, parts)
    assert replay.first is None and replay.different == 0 and replay.values
    chosen = data.draw(st.sets(st.sampled_from(sorted(parts))))
    partial = Replay(network, inputs, {place: parts[place] for place in chosen})
    assert partial.different == 0
    for place, values in parts.items():
        assert np.array_equal(partial[place], values)


@settings(deadline=None, max_examples=10)
@given(graph_runs(units=True).filter(on_chip), st.data())
def test_a_flipped_bit_is_found_at_its_sample_step_and_neuron(run, data):
    network, inputs = run
    states = IntegerTarget(engine="numpy").run(network, inputs, record=True).states
    parts = recorded_parts(network, states)
    places = [p for p in parts if isinstance(network[p], Population)]
    place = data.draw(st.sampled_from(places))
    values = parts[place].copy()
    at = tuple(data.draw(st.integers(0, n - 1)) for n in values.shape)
    bit = data.draw(st.integers(0, network[place].stored.bits - 2))
    values[at] ^= 1 << bit
    first = Replay(network, inputs, {**parts, place: values}).first
    assert (first.place, (first.sample, first.step, first.neuron)) == (place, at)
    assert first.recorded == values[at] and first.predicted == parts[place][at]


@settings(deadline=None, max_examples=10)
@given(graph_runs(), st.data())
def test_a_neuron_alone_does_what_it_does_in_its_population(run, data):
    network, inputs = run
    states = IntegerTarget(engine="numpy").run(network, inputs, record=True).states
    replay = Replay(network, inputs, recorded_parts(network, states))
    places = [place for place in replay.predicted if network[place].independent]
    assume(places)
    p = network[data.draw(st.sampled_from(places))]
    i = data.draw(st.integers(0, p.size - 1))
    drive = 2 * replay.drive(p, slice(0, replay.taken(p)))
    sums = drive.reshape(*drive.shape[:2], -1, p.size)[..., i]
    assert np.array_equal(
        replay.updated(p, sums, neuron=i)[..., 0], replay.updated(p, drive)[..., i]
    )
