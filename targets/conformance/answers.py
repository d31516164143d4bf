"""Cases on what a target answers."""

from __future__ import annotations

import numpy as np

from lmu_deploy.integer_network import IntegerNetwork
from lmu_deploy.loihi_network import LoihiNetwork
from targets.base import Target, get_target
from targets.conformance.bench import (
    SEED,
    MakeNetwork,
    deviation,
    is_spiking,
    made,
    recorded,
    reference,
    require,
    tolerance,
)
from targets.conformance.networks import example

EXAMPLES = ("recurrent", "stacked", "memory")
TWINS = {IntegerNetwork: "integer", LoihiNetwork: "spiking"}
"""The target that computes what each exact representation is defined to be."""


def case_answers_are_real_numbers_of_the_right_shape(
    target: Target, make_network: MakeNetwork
) -> None:
    """Check that there is a finite answer for each sample, or each step of a sequence network."""
    for name in EXAMPLES:
        outputs = recorded(target, make_network, name).outputs
        expected = reference(name).outputs.shape
        require(outputs.shape == expected, f"{name}: shape {outputs.shape}, expected {expected}")
        require(outputs.dtype.kind == "f", f"{name}: outputs have type {outputs.dtype}")
        require(np.isfinite(outputs).all(), f"{name}: outputs are not all finite")


def case_answers_agree_with_the_reference(target: Target, make_network: MakeNetwork) -> None:
    """Check that answers lie within the target's tolerance of the float reference."""
    for name in EXAMPLES:
        outputs = recorded(target, make_network, name).outputs
        off = deviation(outputs, reference(name).outputs)
        most = tolerance(target, made(make_network, name))
        require(off <= most, f"{name}: off by {off:.3g} of the answers' size; {most:g} is allowed")


def case_silence_is_answered_with_silence(target: Target, make_network: MakeNetwork) -> None:
    """Check that zero inputs to a network without biases move no state and send no event.

    A network on spiking neurons, which fire at rest, may answer within its tolerance.
    """
    network = made(make_network, "recurrent")
    inputs = np.zeros_like(example("recurrent").inputs)
    run = target.run(network, inputs, record=True, seed=SEED)
    if is_spiking(network):
        size = np.sqrt(np.mean(np.square(reference("recurrent").outputs)))
        off = float(np.sqrt(np.mean(np.square(run.outputs))) / size)
        most = tolerance(target, network)
        require(off <= most, f"zero input is answered with {off:.3g} of usual answers")
        return
    require(not run.outputs.any(), "zero input is not answered with zero")
    require(run.states is not None, "no states, though recording was asked for")
    if run.states is not None:
        for kind in ("m", "h", "y"):
            require(not getattr(run.states, kind).any(), f"zero input moves {kind}")
    for population, counts in run.events.items():
        require(not counts.any(), f"{population} sends events at zero input")


def case_one_step_is_the_first_of_many(target: Target, make_network: MakeNetwork) -> None:
    """Check that a single step gives what the first step of a longer sequence gave."""
    network = made(make_network, "stacked")
    one = target.run(network, example("stacked").inputs[:, :1], seed=SEED)
    many = recorded(target, make_network, "stacked").outputs[:, :1]
    require(one.outputs.shape == many.shape, f"shape {one.outputs.shape}, expected {many.shape}")
    if is_spiking(network):
        size = np.sqrt(np.mean(np.square(reference("stacked").outputs)))
        off = float(np.sqrt(np.mean(np.square(one.outputs - many))) / size)
        most = tolerance(target, network)
        require(off <= most, f"one step is off by {off:.3g} of usual answers")
        return
    require(np.allclose(one.outputs, many, rtol=1e-6, atol=1e-6), "one step gives another answer")


def case_integers_equal_the_twin(target: Target, make_network: MakeNetwork) -> None:
    """Check that every state, event and saturation is the one right one, bit for bit."""
    twin = get_target(TWINS[type(made(make_network, EXAMPLES[0]))])
    for name in EXAMPLES:
        ours = recorded(target, make_network, name)
        theirs = recorded(twin, make_network, name)
        require(np.array_equal(ours.outputs, theirs.outputs), f"{name}: outputs differ")
        for kind in ("m", "h", "y"):
            value, right = getattr(ours.states, kind), getattr(theirs.states, kind)
            same_type = value.dtype.kind == right.dtype.kind
            require(same_type, f"{name}: {kind} has type {value.dtype}, not {right.dtype}")
            require(np.array_equal(value, right), f"{name}: {kind} differs from the twin's")
        require(set(ours.events) == set(theirs.events), f"{name}: populations differ")
        for population, counts in ours.events.items():
            same = np.array_equal(counts, theirs.events[population])
            require(same, f"{name}: events of {population} differ")
        require(ours.synops == theirs.synops, f"{name}: {ours.synops} synops, not {theirs.synops}")
        require(_sent(ours.saturations) == _sent(theirs.saturations), f"{name}: saturations differ")


def _sent(saturations: object) -> dict[str, int]:
    """Places where something saturated; one that never did may be listed or not."""
    return {place: count for place, count in dict(saturations).items() if count}  # type: ignore[call-overload]
